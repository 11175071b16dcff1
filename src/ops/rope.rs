//! Rotary position embedding at arbitrary per-token positions (RoFormer, eq. 34; half-split pairs as in Hugging Face).
//!
//! angle     `θ[n,i] = position[n] / rope_scale[row] · inv_freq[i]`, computed without losing precision at positions of millions
//! forward   `y1 = x1·c − x2·s`, `y2 = x2·c + x1·s`, pairs `(i, i + D/2)`, `c = a·cos θ`, `s = a·sin θ`
//! backward  the transpose: `dx1 = dy1·c + dy2·s`, `dx2 = dy2·c − dy1·s`

use std::sync::Arc;

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Inverse frequencies and the factor on cos and sin: what a RoPE variant amounts to.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeFreqs {
    /// One per pair, `(head_dim / 2)`. Stored in f32, as Transformers does.
    pub inv_freq: Vec<f32>,
    /// YaRN's attention factor `a`; 1 for most variants.
    pub attention_factor: f32,
}

/// The rotation of every token, shared by all layers and heads, in the form that its backend reads.
#[derive(Debug, Clone)]
pub enum RopeTable {
    /// `a·cos θ` and `a·sin θ`, each `(batch, seq_len, head_dim / 2)`.
    Angles {
        /// Cosines.
        cos: Tensor,
        /// Sines.
        sin: Tensor,
    },
    /// The angle is `2π·frac(position·turns)`, exact at any u32 position.
    Turns {
        /// `(batch, seq_len)` u32.
        positions: Tensor,
        /// `inv_freq / (2π·rope_scale)` as 64-bit fractions: `(batch, head_dim / 2, 2)` u32, low half first.
        turns: Tensor,
        /// The attention factor `a`.
        factor: f32,
    },
}

/// Backends' part. Tensors are `(batch, seq_len, heads, head_dim)`, queries and keys at once, and rotated in place where they
/// have no other handle.
pub trait RopeKernels {
    /// The table for `positions` `(batch, seq_len)` u32 and one `rope_scale` per batch row.
    fn rope_table(&self, positions: &Tensor, rope_scale: &[f32], freqs: &RopeFreqs) -> Result<RopeTable>;
    /// The rotation.
    fn rope_fwd(&self, qk: &mut [Tensor], table: &RopeTable) -> Result<()>;
    /// The transposed rotation.
    fn rope_bwd(&self, dqk: &mut [Tensor], table: &RopeTable) -> Result<()>;
}

/// Rotates queries and keys, `(batch, seq_len, heads, head_dim)` each.
pub fn rope(t: &mut Tape, mut qk: [Var; 2], table: &Arc<RopeTable>) -> Result<[Var; 2]> {
    // Nobody else needs the values before the rotation: taken off their variables, they can be overwritten.
    let mut rotated = qk.each_mut().map(Var::take);
    t.kernels().rope_fwd(&mut rotated, table)?;
    let table = Arc::clone(table);
    Ok(t.record(qk.each_ref(), rotated, move |k, _, grads| {
        let has = grads.each_ref().map(Option::is_some);
        let mut grads: Vec<Tensor> = grads.into_iter().flatten().collect();
        k.rope_bwd(&mut grads, &table)?;
        let mut grads = grads.into_iter();
        Ok(has.map(|has| if has { grads.next() } else { None }))
    }))
}
