use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity, rounded};
use ltrain::backend::{Cpu, Kernels};
use ltrain::error::Result;
use ltrain::ops::linear::{Group, LinearKernels, Lora, Projection, Sum, linear};
use ltrain::tape::{Tape, Var};
use ltrain::tensor::Tensor;

#[test]
fn forward_matches_the_formula() {
    let (x, w) = (ramp([3, 5, 37], 0.1), ramp([11, 37], 1.4));
    let (xs, ws) = (floats(&x), floats(&w));
    let at = |n: usize, o: usize| (0..37).map(|j| f64::from(xs[n * 37 + j]) * f64::from(ws[o * 37 + j])).sum();
    let want: Vec<f64> = (0..15 * 11).map(|i| at(i / 11, i % 11)).collect();
    let y = Cpu.linear_fwd(&x, &w).unwrap();
    assert_eq!(y.shape().dims(), [3, 5, 11]);
    // eps·sqrt(37)·8
    assert_close("linear", floats(&y), &want, 6e-6);
}

#[test]
fn a_low_rank_addition_is_the_linear_map_of_the_merged_weight() {
    let (x, w, scale) = (ramp([2, 3, 7], 0.1), ramp([5, 7], 1.4), 0.75);
    let (a, b) = (ramp([3, 7], 0.4), ramp([5, 3], 2.2));
    let mut merged = w.clone();
    for (i, w) in merged.as_f32_mut().unwrap().iter_mut().enumerate() {
        let (o, j) = (i / 7, i % 7);
        *w += scale * (0..3).map(|r| floats(&b)[o * 3 + r] * floats(&a)[r * 7 + j]).sum::<f32>();
    }
    let want: Vec<f64> = floats(&Cpu.linear_fwd(&x, &merged).unwrap()).iter().map(|&v| f64::from(v)).collect();
    let group = Group { x, projections: [Projection { w, lora: Some(Lora { a, b, scale }) }] };
    let ([y], _) = group.forward(&Cpu).unwrap();
    // Two sums of at most 10 products each: 2·eps·sqrt(10)·8
    assert_close("linear with factors", floats(&y), &want, 6e-6);
}

/// The rows of all, one after the other: an op of its own, so that a group has one output to go back from.
fn side_by_side<const N: usize>(t: &mut Tape, parts: [Var; N]) -> Result<Var> {
    let widths = parts.each_ref().map(|p| p.value().rows_cols("part").unwrap()[1]);
    let rows = parts[0].value().rows_cols("part")?[0];
    let row = |n: usize| parts.iter().zip(widths).flat_map(move |(p, w)| floats(p.value())[n * w..][..w].to_vec());
    let joined = Tensor::f32((0..rows).flat_map(row).collect(), [rows, widths.iter().sum()]);
    let [y] = t.record(parts.each_ref(), [joined], move |_, _, [dy]| {
        let dy = dy.unwrap();
        let mut rest: Vec<&[f32]> = floats(&dy).chunks_exact(widths.iter().sum()).collect();
        Ok(widths.map(|width| {
            let (part, after): (Vec<&[f32]>, Vec<&[f32]>) = rest.iter().map(|row| row.split_at(width)).unzip();
            rest = after;
            Some(Tensor::f32(part.concat(), [rows, width]))
        }))
    });
    Ok(y)
}

#[test]
fn gradients_match_differences() {
    gradcheck("linear", [ramp([2, 3, 7], 0.1), ramp([5, 7], 1.4)], 7, |t, [x, w]| {
        let [y] = linear(t, &x, [Projection { w, lora: None }])?;
        Ok(y)
    });
}

#[test]
fn gradients_of_a_group_match_differences() {
    let inputs = [
        ramp([2, 3, 7], 0.1),
        ramp([5, 7], 1.4),
        ramp([3, 7], 0.4),
        ramp([5, 3], 2.2),
        ramp([3, 7], 0.9),
        ramp([4, 7], 2.9),
        ramp([2, 7], 3.3),
        ramp([4, 2], 0.6),
    ];
    gradcheck("a group", inputs, 10, |t, [x, wq, aq, bq, wk, wv, av, bv]| {
        let lora = |a, b, scale| Some(Lora { a, b, scale });
        let q = Projection { w: wq, lora: lora(aq, bq, 0.75) };
        let v = Projection { w: wv, lora: lora(av, bv, 1.5) };
        let group = linear(t, &x, [q, Projection { w: wk, lora: None }, v])?;
        side_by_side(t, group)
    });
}

/// Rows, input and output widths: below, at and above a tile, of whole vectors and of none, rows in several slabs, and for every
/// product one that is cut into large tiles.
const SHAPES: [[usize; 3]; 11] = [
    [1, 8, 8],
    [7, 24, 3],
    [6, 13, 16],
    [64, 64, 64],
    [67, 72, 264],
    [129, 264, 11],
    [200, 40, 136],
    [1411, 16, 24],
    [1170, 24, 1155],
    [1170, 1160, 16],
    [9, 1160, 1155],
];

fn f32_sum(terms: usize) -> f64 {
    f64::from(f32::EPSILON) * (terms as f64).sqrt() * 8.0
}

#[test]
fn every_backend_agrees() {
    for [rows, inner, outer] in SHAPES {
        let inputs = [ramp([1, rows, inner], 0.1), ramp([outer, inner], 1.4), ramp([1, rows, outer], 2.6)];
        let tolerances = [BF16 + f32_sum(inner), BF16 + f32_sum(outer), f32_sum(rows)];
        parity("linear", inputs, tolerances, |k, [x, w, dy]| {
            Ok([k.linear_fwd(x, w)?, k.linear_bwd_x(dy, w)?, k.linear_bwd_w(dy, x)?])
        });
    }
}

fn top(t: &Tensor) -> f64 {
    floats(t).iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()))
}

fn map(t: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    Tensor::f32(floats(t).iter().map(|&v| f(v)).collect(), t.shape())
}

/// By how much a product moves at most when one of its factors is rounded to bf16, which the CPU does not do. `product` maps the
/// factors to sums of products of theirs: no sum moves by more than BF16 times that of the magnitudes, nor, as the errors of its
/// terms are independent and below BF16 times the term, by more than four times BF16 times the root of that of the squares.
fn moved(product: fn(&Tensor, &Tensor) -> Result<Tensor>, [p, q]: [&Tensor; 2]) -> f64 {
    let sum_of = |f: fn(f32) -> f32| top(&product(&map(p, f), &map(q, f)).unwrap());
    BF16 * sum_of(f32::abs).min(4.0 * sum_of(|v| v * v).sqrt())
}

/// What a group gets, `N` projections of so many outputs and such a rank, 0 for none.
struct Case<const N: usize> {
    rows: usize,
    inner: usize,
    projections: [(usize, usize); N],
    /// Whether a gradient reached each output.
    reached: [bool; N],
}

const SCALE: f32 = 0.75;

/// A group and what its backward gets: the factors' saved `u`, rounded, and the outputs' gradients.
struct Given<const N: usize> {
    group: Group<Tensor, N>,
    u: [Option<Tensor>; N],
    dy: [Option<Tensor>; N],
}

impl<const N: usize> Case<N> {
    fn inputs(&self) -> Vec<Tensor> {
        let (rows, inner) = (self.rows, self.inner);
        let projection = |(i, (outer, rank)): (usize, (usize, usize))| {
            let shapes = [[outer, inner], [outer, rows], [rank, inner], [outer, rank], [rows, rank]];
            let used = if rank == 0 { 2 } else { 5 };
            let tensor = move |(n, [a, b]): (usize, [usize; 2])| match n {
                1 => ramp([1, b, a], 2.6 + i as f64),
                4 => ramp([1, a, b], 1.7 + i as f64),
                _ => ramp([a, b], 0.4 + 1.1 * n as f64 + 0.7 * i as f64),
            };
            shapes.into_iter().take(used).enumerate().map(tensor)
        };
        [ramp([1, rows, inner], 0.1)].into_iter().chain(self.projections.into_iter().enumerate().flat_map(projection)).collect()
    }

    fn given(&self, inputs: &[Tensor]) -> Given<N> {
        let mut inputs = inputs.iter().cloned();
        let mut next = || inputs.next().unwrap();
        let x = next();
        let (mut u, mut dy) = ([const { None }; N], [const { None }; N]);
        let projections = std::array::from_fn(|i| {
            let w = next();
            dy[i] = Some(next()).filter(|_| self.reached[i]);
            let factors = (self.projections[i].1 > 0).then(|| [next(), next(), next()]);
            let lora = factors.map(|[a, b, saved]| {
                u[i] = Some(saved);
                Lora { a, b, scale: SCALE }
            });
            Projection { w, lora }
        });
        Given { group: Group { x, projections }, u, dy }
    }

    /// Tolerances of every y, every u, dx, and the gradients of every projection that has one, relative to their largest values: u
    /// and v are rounded before they are multiplied, then what is not a gradient in f32 is rounded itself.
    fn tolerances(&self, inputs: &[Tensor]) -> Vec<f64> {
        let given = self.given(&inputs.iter().map(rounded).collect::<Vec<_>>());
        let (ys, us) = given.group.forward(&Cpu).unwrap();
        let grads = given.grads(&Cpu).unwrap();
        let loras = given.group.projections.each_ref().map(|p| p.lora.as_ref());
        let up = |(u, l): (&Tensor, &Lora<Tensor>)| moved(|u, b| Cpu.linear_fwd(u, b), [u, &l.b]);
        let y = (0..N).map(|i| {
            let low_rank = us[i].as_ref().zip(loras[i]).map_or(0.0, up);
            BF16 + low_rank / top(&ys[i]) + f32_sum(self.inner + self.projections[i].1)
        });
        let u = loras.iter().flatten().map(|_| BF16 + f32_sum(self.inner));
        let v = |i: usize| Some(map(&Cpu.linear_bwd_x(given.dy[i].as_ref()?, &loras[i]?.b).unwrap(), |v| SCALE * v));
        let into_x = |i: usize| Some(moved(|v, a| Cpu.linear_bwd_x(v, a), [&v(i)?, &loras[i]?.a]));
        let reduced = (0..N).filter(|&i| self.reached[i]).map(|i| self.projections[i].0 + self.projections[i].1).sum();
        let dx = BF16 + (0..N).filter_map(into_x).sum::<f64>() / top(grads.x.as_ref().unwrap()) + f32_sum(reduced);
        let weights = (0..N).filter(|&i| self.reached[i]).flat_map(|i| match &grads.projections[i].lora {
            None => vec![f32_sum(self.rows)],
            Some(l) => {
                let da = moved(|v, x| Cpu.linear_bwd_w(v, x), [&v(i).unwrap(), &given.group.x]) / top(l.a.as_ref().unwrap());
                vec![da + f32_sum(self.rows), f32_sum(self.rows)]
            }
        });
        y.chain(u).chain([dx]).chain(weights).collect()
    }

    fn check<const IN: usize, const OUT: usize>(&self) {
        let inputs = self.inputs();
        let tolerances = self.tolerances(&inputs).try_into().unwrap();
        let inputs: [Tensor; IN] = inputs.try_into().unwrap();
        parity("a group", inputs, tolerances, |k, inputs| {
            let given = self.given(inputs);
            let (y, u) = given.group.forward(k)?;
            let grads = given.grads(k)?.into_vec().into_iter().flatten();
            let results: Vec<Tensor> = y.into_iter().chain(u.into_iter().flatten()).chain(grads).collect();
            let results: [Tensor; OUT] = results.try_into().unwrap();
            Ok(results)
        });
    }
}

impl<const N: usize> Given<N> {
    /// All gradients, but for those of weights with factors: they are frozen.
    fn grads(&self, k: &dyn Kernels) -> Result<Group<Option<Tensor>, N>> {
        let mut wants = self.group.map(|_| true);
        wants.projections.iter_mut().for_each(|p| p.w = p.lora.is_none());
        self.group.backward(k, &self.u, &self.dy, &wants)
    }
}

#[test]
fn every_backend_agrees_on_low_rank_additions() {
    // Rows, input and output widths, rank: ranks of whole vectors, of less and of more than a tile; rows in slabs; large tiles.
    for [rows, inner, outer, r] in [
        [1, 8, 8, 1],
        [7, 24, 40, 2],
        [67, 72, 264, 8],
        [129, 264, 72, 4],
        [130, 40, 13, 12],
        [64, 64, 64, 16],
        [77, 136, 24, 192],
        [1170, 24, 1155, 16],
        [1170, 1160, 16, 5],
    ] {
        Case { rows, inner, projections: [(outer, r)], reached: [true] }.check::<6, 5>();
    }
}

#[test]
fn every_backend_agrees_on_groups() {
    // Few keys and values per query, factors on all or on some, one output that is as wide as large tiles ask for.
    for rows in [1, 67, 130] {
        Case { rows, inner: 64, projections: [(64, 4), (16, 8), (16, 8)], reached: [true; 3] }.check::<16, 13>();
        Case { rows, inner: 40, projections: [(64, 8), (16, 0), (24, 4)], reached: [true; 3] }.check::<13, 11>();
        Case { rows, inner: 24, projections: [(72, 0), (72, 0)], reached: [true; 2] }.check::<5, 5>();
    }
    Case { rows: 650, inner: 24, projections: [(1100, 4), (72, 8), (900, 0)], reached: [true; 3] }.check::<13, 11>();
    Case { rows: 1290, inner: 1032, projections: [(16, 4), (8, 8), (24, 0)], reached: [true; 3] }.check::<13, 11>();
}

#[test]
fn every_backend_agrees_where_no_gradient_reached_an_output() {
    let projections = [(64, 8), (16, 0), (24, 4)];
    Case { rows: 67, inner: 40, projections, reached: [false, true, true] }.check::<13, 9>();
    Case { rows: 67, inner: 40, projections, reached: [true, false, false] }.check::<13, 8>();
}

#[test]
fn an_output_without_gradient_costs_and_adds_nothing() {
    let case = Case { rows: 5, inner: 7, projections: [(4, 2), (3, 2), (6, 0)], reached: [false, true, false] };
    let given = case.given(&case.inputs());
    let grads = given.grads(&Cpu).unwrap();
    let [q, k, v] = &grads.projections;
    let none = |p: &Projection<Option<Tensor>>| p.lora.iter().all(|l| l.a.is_none() && l.b.is_none()) && p.w.is_none();
    assert!(none(q) && none(v) && !none(k));
    let [_, alone, _] = given.group.projections;
    let [_, u, _] = given.u;
    let [_, dy, _] = given.dy;
    let alone = Given { group: Group { x: given.group.x, projections: [alone] }, u: [u], dy: [dy] }.grads(&Cpu).unwrap();
    assert_eq!(grads.x, alone.x);
    assert_eq!(k.lora.as_ref().unwrap().a, alone.projections[0].lora.as_ref().unwrap().a);
}

#[test]
fn only_wanted_gradients_are_computed() {
    let case = Case { rows: 5, inner: 7, projections: [(4, 2), (3, 0)], reached: [true; 2] };
    let given = case.given(&case.inputs());
    let mut wants = given.group.map(|_| false);
    wants.projections[0].lora.as_mut().unwrap().b = true;
    let grads = given.group.backward(&Cpu, &given.u, &given.dy, &wants).unwrap();
    assert_eq!(grads.into_vec().iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, true, false]);
}

fn sum<'a>(first: (&'a Tensor, &'a Tensor), second: (&'a Tensor, &'a Tensor)) -> [Sum<'a>; 1] {
    [Sum { terms: vec![first, second], scale: 1.0 }]
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, w, dy) = (ramp([2, 3, 7], 0.0), ramp([5, 7], 0.0), ramp([2, 3, 5], 0.0));
    assert_refused("width of x", Cpu.linear_fwd(&dy, &w));
    assert_refused("rank of w", Cpu.linear_fwd(&x, &ramp([35], 0.0)));
    assert_refused("scalar x", Cpu.linear_fwd(&ramp([], 0.0), &w));
    assert_refused("width of dy", Cpu.linear_bwd_x(&x, &w));
    assert_refused("scalar dy", Cpu.linear_bwd_x(&ramp([], 0.0), &w));
    assert_refused("rows of dy and x", Cpu.linear_bwd_w(&dy, &ramp([3, 2, 7], 0.0)));
    assert_refused("rank of dy and x", Cpu.linear_bwd_w(&dy, &ramp([6, 7], 0.0)));
    let (other, wide) = (ramp([4, 7], 0.0), ramp([3, 2, 7], 0.0));
    assert_refused("outputs of a sum", Cpu.linear_fwd_group(&sum((&x, &w), (&x, &other))));
    assert_refused("rows of a sum", Cpu.linear_fwd_group(&sum((&x, &w), (&wide, &w))));
    assert_refused("inputs of a sum", Cpu.linear_bwd_x_group(&sum((&dy, &w), (&dy, &ramp([5, 6], 0.0)))));
    assert_refused("rows of two sums", Cpu.linear_fwd_group(&[Sum::of(&x, &w), Sum::of(&wide, &w)]));
}
