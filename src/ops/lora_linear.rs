//! Matrix product with a low-rank addition (LoRA, Hu et al. 2021, eq. 3).
//!
//! forward   `u = s·x·Aᵀ`, `y = x·Wᵀ + u·Bᵀ`, `s = lora_alpha / rank`
//! backward  `v = s·dy·B`, `dx = dy·W + v·A`, `dA = vᵀ·x`, `dB = dyᵀ·u`

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The frozen weight and its two factors: `w` `(out, in)`, `a` `(rank, in)`, `b` `(out, rank)`, and `s`.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    /// The base weight, `(out, in)`.
    pub w: Tensor,
    /// The down projection, `(rank, in)`.
    pub a: Tensor,
    /// The up projection, `(out, rank)`.
    pub b: Tensor,
    /// `lora_alpha / rank`.
    pub scale: f32,
}

/// Gradients of [`lora_linear`]'s inputs, each present when it was wanted.
#[derive(Debug)]
pub struct LoraGrads {
    /// Of the input, `(…, in)`.
    pub dx: Option<Tensor>,
    /// Of the down projection.
    pub da: Option<Tensor>,
    /// Of the up projection.
    pub db: Option<Tensor>,
}

/// Backends' part.
pub trait LoraLinearKernels {
    /// `(y, u)` with `u = s·x·Aᵀ`, `(…, rank)`, which backward needs.
    fn lora_linear_fwd(&self, x: &Tensor, weights: &LoraWeights) -> Result<(Tensor, Tensor)>;
    /// Gradients; the factors' come together, the input's when `wants_dx`.
    fn lora_linear_bwd(&self, dy: &Tensor, x: &Tensor, u: &Tensor, weights: &LoraWeights, wants_dx: bool) -> Result<LoraGrads>;
}

/// `y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ` with `w` frozen: `x` `(…, in)` → `(…, out)`.
pub fn lora_linear(t: &mut Tape, x: &Var, w: &Tensor, a: &Var, b: &Var, scale: f32) -> Result<Var> {
    let xv = x.value().clone();
    let weights = LoraWeights { w: w.clone(), a: a.value().clone(), b: b.value().clone(), scale };
    let (y, u) = t.kernels().lora_linear_fwd(&xv, &weights)?;
    let [y] = t.record([x, a, b], [y], move |k, [wants_x, ..], [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        let LoraGrads { dx, da, db } = k.lora_linear_bwd(&dy, &xv, &u, &weights, wants_x)?;
        Ok([dx, da, db])
    });
    Ok(y)
}
