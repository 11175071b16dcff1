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

/// `a·cos θ` and `a·sin θ` of every token, shared by all layers and heads. Each `(batch, seq_len, head_dim / 2)`.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

/// Backends' part.
pub trait RopeKernels {
    /// The table for `positions` `(batch, seq_len)` u32 and one `rope_scale` per batch row.
    fn rope_table(&self, positions: &Tensor, rope_scale: &[f32], freqs: &RopeFreqs) -> Result<RopeTable>;
    /// Rotates `x` `(batch, seq_len, heads, head_dim)`.
    fn rope_fwd(&self, x: &Tensor, table: &RopeTable) -> Result<Tensor>;
    /// The transposed rotation.
    fn rope_bwd(&self, dy: &Tensor, table: &RopeTable) -> Result<Tensor>;
}

/// Rotates queries or keys: `x` `(batch, seq_len, heads, head_dim)`, same shape out.
pub fn rope(t: &mut Tape, x: &Var, table: &Arc<RopeTable>) -> Result<Var> {
    let y = t.kernels().rope_fwd(x.value(), table)?;
    let table = Arc::clone(table);
    let [y] = t.record([x], [y], move |k, _, [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        Ok([Some(k.rope_bwd(&dy, &table)?)])
    });
    Ok(y)
}
