//! Kernels of the optimiser: AdamW over all tensors at once (Loshchilov & Hutter 2019, algorithm 2).
//!
//! `g ← g·min(1, max_grad_norm / (‖g‖ + 1e-6))`, `‖g‖` over all tensors, `m ← β1·m + (1−β1)·g`, `v ← β2·v + (1−β2)·g²`,
//! `p ← p − lr·weight_decay·p − lr·(m/(1−β1ᵗ)) / (sqrt(v/(1−β2ᵗ)) + eps)`

use crate::error::Result;
use crate::tensor::Tensor;

/// One tensor of a step.
#[derive(Debug)]
pub struct AdamWTensor<'a> {
    /// The parameter.
    pub value: &'a mut Tensor,
    /// Its exact copy, where the backend's parameters are rounded: the update is made there and rounded into `value`.
    pub master: Option<&'a mut Tensor>,
    /// The gradient.
    pub grad: &'a Tensor,
    /// First moment.
    pub m: &'a mut Tensor,
    /// Second moment.
    pub v: &'a mut Tensor,
    /// Learning rate of this step and tensor.
    pub lr: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// Scalars of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// `1 − β1ᵗ`.
    pub bias_correction1: f32,
    /// `1 − β2ᵗ`.
    pub bias_correction2: f32,
    /// Largest global gradient norm; infinite to switch clipping off.
    pub max_grad_norm: f64,
}

impl AdamWStep {
    /// Factor on gradients whose global norm is `norm`: PyTorch's `clip_grad_norm_` divides by norm + 1e-6 and never scales up.
    pub fn grad_scale(&self, norm: f64) -> f32 {
        (self.max_grad_norm / (norm + 1e-6)).min(1.0) as f32
    }
}

/// Backends' part.
pub trait OptimKernels {
    /// Moves every tensor and returns the global gradient norm before clipping. A norm that is not finite moves nothing.
    fn adamw(&self, tensors: &mut [AdamWTensor], step: &AdamWStep) -> Result<f64>;
}
