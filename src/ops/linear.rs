//! Matrix product with a weight stored the Hugging Face way.
//!
//! forward   `y = x·Wᵀ`
//! backward  `dx = dy·W`, `dW = dyᵀ·x`; a frozen weight costs no `dW`

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part. `x` `(…, in)`, `w` `(out, in)`.
pub trait LinearKernels {
    /// `x·Wᵀ`: `(…, out)`.
    fn linear_fwd(&self, x: &Tensor, w: &Tensor) -> Result<Tensor>;
    /// `dy·W`: `(…, in)`.
    fn linear_bwd_x(&self, dy: &Tensor, w: &Tensor) -> Result<Tensor>;
    /// `dyᵀ·x`: `(out, in)`.
    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor>;
}

/// `y = x·Wᵀ`: `x` `(…, in)`, `w` `(out, in)` → `(…, out)`.
pub fn linear(t: &mut Tape, x: &Var, w: &Var) -> Result<Var> {
    let (xv, wv) = (x.value().clone(), w.value().clone());
    let y = t.kernels().linear_fwd(&xv, &wv)?;
    let [y] = t.record([x, w], [y], move |k, [wants_x, wants_w], [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        let dx = wants_x.then(|| k.linear_bwd_x(&dy, &wv)).transpose()?;
        let dw = wants_w.then(|| k.linear_bwd_w(&dy, &xv)).transpose()?;
        Ok([dx, dw])
    });
    Ok(y)
}
