use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity, rounded};
use ltrain::backend::Cpu;
use ltrain::ops::linear::LinearKernels;
use ltrain::ops::lora_linear::{LoraLinearKernels, LoraWeights, lora_linear};
use ltrain::tensor::Tensor;

fn weights() -> LoraWeights {
    LoraWeights { w: ramp([5, 7], 1.4), a: ramp([3, 7], 0.4), b: ramp([5, 3], 2.2), scale: 0.75 }
}

#[test]
fn is_the_linear_map_of_the_merged_weight() {
    let (x, lora) = (ramp([2, 3, 7], 0.1), weights());
    let mut merged = lora.w.clone();
    for (i, w) in merged.as_f32_mut().unwrap().iter_mut().enumerate() {
        let (o, j) = (i / 7, i % 7);
        *w += lora.scale * (0..3).map(|r| floats(&lora.b)[o * 3 + r] * floats(&lora.a)[r * 7 + j]).sum::<f32>();
    }
    let want: Vec<f64> = floats(&Cpu.linear_fwd(&x, &merged).unwrap()).iter().map(|&v| f64::from(v)).collect();
    // Two sums of at most 10 products each: 2·eps·sqrt(10)·8
    assert_close("lora_linear", floats(&Cpu.lora_linear_fwd(&x, &lora).unwrap().0), &want, 6e-6);
}

#[test]
fn gradients_match_differences() {
    let lora = weights();
    gradcheck("lora_linear", [ramp([2, 3, 7], 0.1), lora.a.clone(), lora.b.clone()], 10, |t, [x, a, b]| {
        lora_linear(t, &x, &lora.w, &a, &b, lora.scale)
    });
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
fn moved(product: fn(&Tensor, &Tensor) -> ltrain::Result<Tensor>, [p, q]: [&Tensor; 2]) -> f64 {
    let sum_of = |f: fn(f32) -> f32| top(&product(&map(p, f), &map(q, f)).unwrap());
    BF16 * sum_of(f32::abs).min(4.0 * sum_of(|v| v * v).sqrt())
}

/// Tolerances of y, u, dx, dA and dB, relative to their largest values: u and v are rounded before they are multiplied, then
/// what is not a gradient in f32 is rounded itself. Backward gets a rounded u.
fn tolerances([x, w, a, b, dy, u]: &[Tensor; 6], scale: f32) -> [f64; 5] {
    let lora = LoraWeights { w: w.clone(), a: a.clone(), b: b.clone(), scale };
    let (y, own_u) = Cpu.lora_linear_fwd(x, &lora).unwrap();
    let grads = Cpu.lora_linear_bwd(dy, x, u, &lora, true).unwrap();
    let [dx, da] = [grads.dx, grads.da].map(|g| top(&g.unwrap()));
    let v = map(&Cpu.linear_bwd_x(dy, b).unwrap(), |v| scale * v);
    let ([outer, inner], [rows, rank]) = (w.dims("w").unwrap(), u.rows_cols("u").unwrap());
    let f32_sum = |terms: usize| f64::from(f32::EPSILON) * (terms as f64).sqrt() * 8.0;
    [
        BF16 + moved(|u, b| Cpu.linear_fwd(u, b), [&own_u, b]) / top(&y) + f32_sum(inner + rank),
        BF16 + f32_sum(inner),
        BF16 + moved(|v, a| Cpu.linear_bwd_x(v, a), [&v, a]) / dx + f32_sum(outer + rank),
        moved(|v, x| Cpu.linear_bwd_w(v, x), [&v, x]) / da + f32_sum(rows),
        f32_sum(rows),
    ]
}

#[test]
fn every_backend_agrees() {
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
        let inputs = [
            ramp([1, rows, inner], 0.1),
            ramp([outer, inner], 1.4),
            ramp([r, inner], 0.4),
            ramp([outer, r], 2.2),
            ramp([1, rows, outer], 2.6),
            ramp([1, rows, r], 1.7),
        ];
        let scale = 0.75;
        let tolerances = tolerances(&inputs.each_ref().map(rounded), scale);
        parity("lora_linear", inputs, tolerances, |k, [x, w, a, b, dy, saved]| {
            let lora = LoraWeights { w: w.clone(), a: a.clone(), b: b.clone(), scale };
            let (y, u) = k.lora_linear_fwd(x, &lora)?;
            let frozen = k.lora_linear_bwd(dy, x, saved, &lora, false)?;
            assert!(frozen.dx.is_none());
            let grads = k.lora_linear_bwd(dy, x, saved, &lora, true)?;
            Ok([y, u, grads.dx.unwrap(), grads.da.unwrap(), frozen.db.unwrap()])
        });
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, dy, u) = (ramp([2, 3, 7], 0.0), ramp([2, 3, 5], 0.0), ramp([2, 3, 3], 0.0));
    let forward = |x: &Tensor, lora: LoraWeights| Cpu.lora_linear_fwd(x, &lora);
    assert_refused("width of x", forward(&dy, weights()));
    assert_refused("width of a", forward(&x, LoraWeights { a: ramp([3, 6], 0.0), ..weights() }));
    assert_refused("rank of b", forward(&x, LoraWeights { b: ramp([5, 2], 0.0), ..weights() }));
    assert_refused("rows of b", forward(&x, LoraWeights { b: ramp([4, 3], 0.0), ..weights() }));
    assert_refused("dims of w", forward(&x, LoraWeights { w: ramp([35], 0.0), ..weights() }));
    let backward = |dy: &Tensor, x: &Tensor, u: &Tensor, lora: LoraWeights| Cpu.lora_linear_bwd(dy, x, u, &lora, true);
    assert!(backward(&dy, &x, &u, weights()).is_ok());
    assert_refused("dy", backward(&x, &x, &u, weights()));
    assert_refused("x", backward(&dy, &dy, &u, weights()));
    assert_refused("u", backward(&dy, &x, &dy, weights()));
    assert_refused("rows of u", backward(&dy, &x, &ramp([3, 2, 3], 0.0), weights()));
    assert_refused("a", backward(&dy, &x, &u, LoraWeights { a: ramp([3, 6], 0.0), ..weights() }));
    assert_refused("b", backward(&dy, &x, &u, LoraWeights { b: ramp([4, 3], 0.0), ..weights() }));
}
