//! Token embedding: gather forward, deterministic scatter-add backward.
//!
//! forward   `y[n] = w[ids[n]]`
//! backward  `dw[v] = Σ_{n: ids[n]=v} dy[n]`, summed in the order of `n`

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part. `ids` `(batch, seq_len)` u32, `w` `(vocab, hidden)`.
pub trait EmbeddingKernels {
    /// Rows of `w` by id: `(batch, seq_len, hidden)`.
    fn embedding_fwd(&self, ids: &Tensor, w: &Tensor) -> Result<Tensor>;
    /// Gradient of `w`, `(vocab, hidden)`.
    fn embedding_bwd(&self, dy: &Tensor, ids: &Tensor, vocab: usize) -> Result<Tensor>;
}

/// Looks tokens up: `ids` `(batch, seq_len)`, `w` `(vocab, hidden)` → `(batch, seq_len, hidden)`.
pub fn embedding(t: &mut Tape, ids: &Tensor, w: &Var) -> Result<Var> {
    let [vocab, _] = w.value().dims("embedding: w (V,C)")?;
    let y = t.kernels().embedding_fwd(ids, w.value())?;
    let ids = ids.clone();
    let [y] = t.record([w], [y], move |k, _, [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        Ok([Some(k.embedding_bwd(&dy, &ids, vocab)?)])
    });
    Ok(y)
}
