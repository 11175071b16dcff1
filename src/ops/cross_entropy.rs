//! Output projection and cross entropy in one op: the logits exist one tile of rows at a time.
//!
//! forward   `z = h·Wᵀ`, `nll[n] = log Σ_v exp z[n,v] − z[n, target[n]]`, `loss = scale·Σ_n weight[n]·nll[n]`
//! backward  `dz = scale·weight·(softmax(z) − onehot(target))`, `dh = dz·W`, `dW = dzᵀ·h`
//!
//! Gradients are formed in the forward pass, while a tile's logits are at hand, so `scale` (one over the tokens of the
//! whole step) must be known there; rows whose target is [`IGNORE`] are never multiplied.

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// A target that does not count (Hugging Face's -100).
pub const IGNORE: u32 = u32::MAX;

/// Next-token targets, already shifted: `ids` `(batch, seq_len)` u32 with [`IGNORE`]; `weights` `(batch, seq_len)` f32, all
/// ones when absent.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Token to predict at each place.
    pub ids: Tensor,
    /// Loss weight of each place.
    pub weights: Option<Tensor>,
}

impl Targets {
    /// Sum of the weights of the places that count: what a mean loss is divided by.
    pub fn total_weight(&self) -> Result<f64> {
        let ids = self.ids.as_u32()?;
        let weights = self.weights.as_ref().map(Tensor::as_f32).transpose()?;
        let weight = |n: usize| weights.map_or(1.0, |w| f64::from(w[n]));
        Ok((0..ids.len()).filter(|&n| ids[n] != IGNORE).map(weight).sum())
    }
}

/// Result of [`CrossEntropyKernels::cross_entropy`].
#[derive(Debug)]
pub struct CrossEntropyOut {
    /// Unweighted negative log-likelihood per place, 0 where ignored; `(batch, seq_len)`.
    pub nll: Tensor,
    /// `scale·Σ weight·nll`, a scalar tensor.
    pub loss: Tensor,
    /// Gradient of `loss` with respect to `h`, when wanted.
    pub dh: Option<Tensor>,
    /// Gradient of `loss` with respect to `w`, when wanted.
    pub dw: Option<Tensor>,
}

/// Backends' part.
pub trait CrossEntropyKernels {
    /// Loss of `h` `(batch, seq_len, hidden)` under `w` `(vocab, hidden)`, with the gradients that `wants = [dh, dw]` names.
    fn cross_entropy(&self, h: &Tensor, w: &Tensor, targets: &Targets, scale: f32, wants: [bool; 2]) -> Result<CrossEntropyOut>;
}

/// `scale·Σ weight·nll` as a scalar, and the per-place `nll` for reporting.
pub fn cross_entropy(t: &mut Tape, h: &Var, w: &Var, targets: &Targets, scale: f32) -> Result<(Var, Tensor)> {
    let wants = [h, w].map(|v| t.is_recording() && v.wants_grad());
    let out = t.kernels().cross_entropy(h.value(), w.value(), targets, scale, wants)?;
    let (dh, dw) = (out.dh, out.dw);
    let [loss] = t.record([h, w], [out.loss], move |k, _, [dloss]| {
        let factor = dloss.expect("tape: a node runs only when its output has a gradient").as_f32()?[0];
        let scaled = |d: Option<Tensor>| match d {
            Some(d) if factor != 1.0 => k.scale(&d, factor).map(Some),
            d => Ok(d),
        };
        Ok([scaled(dh)?, scaled(dw)?])
    });
    Ok((loss, out.nll))
}
