//! Kernels of the optimiser: one fused AdamW pass per tensor (Loshchilov & Hutter 2019, algorithm 2).
//!
//! `g ← g·grad_scale`, `m ← β1·m + (1−β1)·g`, `v ← β2·v + (1−β2)·g²`,
//! `p ← p − lr·weight_decay·p − lr·(m/(1−β1ᵗ)) / (sqrt(v/(1−β2ᵗ)) + eps)`

use crate::error::Result;
use crate::tensor::Tensor;

/// Scalars of one AdamW step for one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step and tensor.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// `1 − β1ᵗ`.
    pub bias_correction1: f32,
    /// `1 − β2ᵗ`.
    pub bias_correction2: f32,
    /// Factor on the gradient: clipping, folded into the pass.
    pub grad_scale: f32,
}

/// Backends' part.
pub trait OptimKernels {
    /// Updates parameter and moments in place.
    fn adamw(&self, param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, step: AdamWStep) -> Result<()>;
    /// `Σ x²` in double precision and fixed order, for the global gradient norm.
    fn sum_of_squares(&self, x: &Tensor) -> Result<f64>;
}
