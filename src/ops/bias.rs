//! Bias of a projection (Qwen2's q, k and v).
//!
//! forward   `y = x + b`
//! backward  `dx = dy`, `db = Σ_rows dy`

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part.
pub trait BiasKernels {
    /// `x + b` over the last dim.
    fn bias_fwd(&self, x: &Tensor, b: &Tensor) -> Result<Tensor>;
    /// Column sums of `dy`: `(C)`.
    fn bias_bwd(&self, dy: &Tensor) -> Result<Tensor>;
}

/// `y = x + b`: `x` `(…, C)`, `b` `(C)`.
pub fn bias(t: &mut Tape, x: &Var, b: &Var) -> Result<Var> {
    let y = t.kernels().bias_fwd(x.value(), b.value())?;
    let [y] = t.record([x, b], [y], move |k, [_, wants_b], [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        let db = wants_b.then(|| k.bias_bwd(&dy)).transpose()?;
        Ok([Some(dy), db])
    });
    Ok(y)
}
