//! Matrix products with weights stored the Hugging Face way, each perhaps with a low-rank addition (LoRA, Hu et al. 2021, eq. 3).
//! Projections of one input (queries, keys and values; gate and up) are one op: `x` is read once, and `dx` is one sum.
//!
//! forward   `u_i = s_i·x·A_iᵀ`, `y_i = x·W_iᵀ + u_i·B_iᵀ`, `s = lora_alpha / rank`
//! backward  `v_i = s_i·dy_i·B_i`, `dx = Σ dy_i·W_i + v_i·A_i`, `dW_i = dy_iᵀ·x`, `dA_i = v_iᵀ·x`, `dB_i = dy_iᵀ·u_i`;
//!           a frozen weight costs no `dW`, and an output without gradient nothing

use std::array;

use crate::backend::Kernels;
use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::{Shape, Tensor};

/// `scale` times a sum of products of matrices, which is rounded once.
#[derive(Debug, Clone)]
pub struct Sum<'a> {
    /// The left factor, whose rows are those of the result, and a weight `(out, in)`. At least one pair.
    pub terms: Vec<(&'a Tensor, &'a Tensor)>,
    /// What the sum is multiplied by.
    pub scale: f32,
}

impl<'a> Sum<'a> {
    /// One product.
    pub fn of(left: &'a Tensor, w: &'a Tensor) -> Self {
        Self { terms: vec![(left, w)], scale: 1.0 }
    }
}

/// Shapes of every `Σ x·Wᵀ`, `(…, out)`, once all factors fit each other.
pub fn fwd_shapes(sums: &[Sum]) -> Result<Vec<Shape>> {
    shapes(sums, ["linear: x (…,in)", "linear: w (out,in)"], |[n, k]| [k, n])
}

/// Shapes of every `Σ dy·W`, `(…, in)`, once all factors fit each other.
pub fn bwd_x_shapes(sums: &[Sum]) -> Result<Vec<Shape>> {
    shapes(sums, ["linear_bwd_x: dy (…,out)", "linear_bwd_x: w (out,in)"], |[n, k]| [n, k])
}

/// `reduced_first` orders a weight's two extents, and orders them back.
fn shapes(sums: &[Sum], [left, right]: [&'static str; 2], reduced_first: fn([usize; 2]) -> [usize; 2]) -> Result<Vec<Shape>> {
    let Some((rows_of, _)) = sums.iter().flat_map(|sum| &sum.terms).next() else { return Ok(Vec::new()) };
    rows_of.rows_cols(left)?;
    let shape = |sum: &Sum| {
        let (_, w) = sum.terms.first().expect("linear: a sum has terms");
        let [_, width] = reduced_first(w.dims(right)?);
        for (x, w) in &sum.terms {
            let [reduced, _] = reduced_first(w.dims(right)?);
            x.expect(left, with_last(rows_of.shape(), reduced))?;
            w.expect(right, reduced_first([reduced, width]))?;
        }
        Ok(with_last(rows_of.shape(), width))
    };
    sums.iter().map(shape).collect()
}

/// `(…, in)` → `(…, out)`.
fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims.into()
}

/// Rows, outputs and inputs of `dyᵀ·x`, once both factors fit each other.
pub fn bwd_w_extents(dy: &Tensor, x: &Tensor) -> Result<[usize; 3]> {
    let [rows, n] = dy.rows_cols("linear_bwd_w: dy (…,out)")?;
    let [_, k] = x.rows_cols("linear_bwd_w: x (…,in)")?;
    x.expect("linear_bwd_w: x (…,in)", with_last(dy.shape(), k))?;
    Ok([rows, n, k])
}

/// Backends' part. `x` `(…, in)`, `dy` `(…, out)`, `w` `(out, in)`.
pub trait LinearKernels {
    /// `scale·Σ x·Wᵀ` for every sum; all have the same rows.
    fn linear_fwd_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>>;
    /// `scale·Σ dy·W` for every sum; all have the same rows.
    fn linear_bwd_x_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>>;
    /// `dyᵀ·x`: `(out, in)`.
    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor>;

    /// `x·Wᵀ`: `(…, out)`.
    fn linear_fwd(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        self.linear_fwd_group(&[Sum::of(x, w)]).map(only)
    }
    /// `dy·W`: `(…, in)`.
    fn linear_bwd_x(&self, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
        self.linear_bwd_x_group(&[Sum::of(dy, w)]).map(only)
    }
}

fn only(results: Vec<Tensor>) -> Tensor {
    let [result] = all(results);
    result
}

fn all<T: std::fmt::Debug, const N: usize>(results: Vec<T>) -> [T; N] {
    results.try_into().expect("linear: one result per sum")
}

/// A weight `(out, in)`, or what belongs to one.
#[derive(Debug, Clone)]
pub struct Projection<T> {
    /// Of the weight.
    pub w: T,
    /// Of the factors of its low-rank addition.
    pub lora: Option<Lora<T>>,
}

/// The factors of a low-rank addition, or what belongs to them.
#[derive(Debug, Clone)]
pub struct Lora<T> {
    /// Of the down projection, `(rank, in)`.
    pub a: T,
    /// Of the up projection, `(out, rank)`.
    pub b: T,
    /// `lora_alpha / rank`.
    pub scale: f32,
}

/// Projections of one input: tensors, variables, whether their gradients are wanted, or these gradients.
#[derive(Debug, Clone)]
pub struct Group<T, const N: usize> {
    /// Of the input, `(…, in)`.
    pub x: T,
    /// Of the projections.
    pub projections: [Projection<T>; N],
}

impl<T, const N: usize> Group<T, N> {
    /// What belongs to each of the tensors.
    pub fn map<'a, U>(&'a self, of: impl Fn(&'a T) -> U) -> Group<U, N> {
        let lora = |l: &'a Lora<T>| Lora { a: of(&l.a), b: of(&l.b), scale: l.scale };
        let projection = |p: &'a Projection<T>| Projection { w: of(&p.w), lora: p.lora.as_ref().map(lora) };
        Group { x: of(&self.x), projections: self.projections.each_ref().map(projection) }
    }

    /// The input, then weight and factors of each projection.
    pub fn into_vec(self) -> Vec<T> {
        let of = |p: Projection<T>| [Some(p.w)].into_iter().chain(p.lora.map_or([None, None], |l| [Some(l.a), Some(l.b)]));
        [self.x].into_iter().chain(self.projections.into_iter().flat_map(of).flatten()).collect()
    }
}

/// Computes the sums that are there in one call.
fn present<const N: usize>(
    sums: [Option<Sum>; N],
    compute: impl FnOnce(&[Sum]) -> Result<Vec<Tensor>>,
) -> Result<[Option<Tensor>; N]> {
    let there = sums.each_ref().map(Option::is_some);
    let mut results = compute(&sums.into_iter().flatten().collect::<Vec<_>>())?.into_iter();
    Ok(there.map(|there| if there { results.next() } else { None }))
}

impl<const N: usize> Group<Tensor, N> {
    /// Every `y`, and the `u` of every projection with factors, which backward needs.
    pub fn forward(&self, k: &dyn Kernels) -> Result<([Tensor; N], [Option<Tensor>; N])> {
        let loras = self.projections.each_ref().map(|p| p.lora.as_ref());
        let down = loras.map(|l| l.map(|l| Sum { terms: vec![(&self.x, &l.a)], scale: l.scale }));
        let u = present(down, |sums| k.linear_fwd_group(sums))?;
        let y: [Sum; N] = array::from_fn(|i| {
            let up = u[i].as_ref().zip(loras[i].map(|l| &l.b));
            Sum { terms: [(&self.x, &self.projections[i].w)].into_iter().chain(up).collect(), scale: 1.0 }
        });
        let y = all(k.linear_fwd_group(&y)?);
        Ok((y, u))
    }

    /// The gradients that are wanted, from those of the outputs, of which at least one is there.
    pub fn backward(
        &self,
        k: &dyn Kernels,
        u: &[Option<Tensor>; N],
        dy: &[Option<Tensor>; N],
        wants: &Group<bool, N>,
    ) -> Result<Group<Option<Tensor>, N>> {
        let up = |i: usize| {
            let (dy, l) = (dy[i].as_ref()?, self.projections[i].lora.as_ref()?);
            Some(Sum { terms: vec![(dy, &l.b)], scale: l.scale })
        };
        let v: [_; N] = present(array::from_fn(up), |sums| k.linear_bwd_x_group(sums))?;
        let terms = self.projections.iter().zip(dy).zip(&v).flat_map(|((p, dy), v)| {
            let low_rank = v.as_ref().zip(p.lora.as_ref().map(|l| &l.a));
            dy.as_ref().map(|dy| (dy, &p.w)).into_iter().chain(low_rank)
        });
        let dx = || k.linear_bwd_x_group(&[Sum { terms: terms.collect(), scale: 1.0 }]).map(only);
        let x = wants.x.then(dx).transpose()?;
        let grad = |wanted: bool, left: &Option<Tensor>, right: &Tensor| {
            left.as_ref().filter(|_| wanted).map(|left| k.linear_bwd_w(left, right)).transpose()
        };
        let factors = |i: usize, l: &Lora<bool>, u: &Tensor| -> Result<_> {
            Ok(Lora { a: grad(l.a, &v[i], &self.x)?, b: grad(l.b, &dy[i], u)?, scale: l.scale })
        };
        let projection = |i: usize| {
            let Projection { w, lora } = &wants.projections[i];
            let lora = lora.as_ref().zip(u[i].as_ref()).map(|(l, u)| factors(i, l, u)).transpose()?;
            Ok(Projection { w: grad(*w, &dy[i], &self.x)?, lora })
        };
        let projections = all((0..N).map(projection).collect::<Result<Vec<_>>>()?);
        Ok(Group { x, projections })
    }
}

/// Projections of `x` `(…, in)`: `x·W_iᵀ + s_i·(x·A_iᵀ)·B_iᵀ`, each `(…, out_i)`.
pub fn linear<const N: usize>(t: &mut Tape, x: &Var, projections: [Projection<Var>; N]) -> Result<[Var; N]> {
    let vars = Group { x: x.clone(), projections };
    let (group, wants) = (vars.map(|v| v.value().clone()), vars.map(Var::wants_grad));
    let (y, u) = group.forward(t.kernels())?;
    let inputs = vars.map(|v| v).into_vec();
    Ok(t.record_group(&inputs, y, move |k, dy| Ok(group.backward(k, &u, &dy, &wants)?.into_vec())))
}
