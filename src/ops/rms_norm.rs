//! Root-mean-square normalisation, alone or fused with the residual sum before it.
//!
//! forward   `h = x + residual`, `r = 1/sqrt(mean(h²) + eps)`, `y = w · h · r`
//! backward  `dh = r·(dy·w − h·r²·mean(dy·w·h)) + dh_out`, `dw = Σ_rows dy·h·r`, `dx = dresidual = dh`

use crate::backend::Kernels;
use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part of the op. Rows are all dims but the last: `(batch, seq_len, hidden)` and, for qk-norm,
/// `(batch, seq_len, heads, head_dim)`.
pub trait RmsNormKernels {
    /// Normalises the rows of `x`; also returns `1/rms` of every row, shape `(rows)`.
    fn rms_norm_fwd(&self, x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor)>;

    /// `h = x + residual` and its normalised rows: `(h, y, 1/rms)`.
    fn add_rms_norm_fwd(&self, x: &Tensor, residual: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor, Tensor)>;

    /// Gradients of the normalised tensor and, when `wants_dw`, of the weight. `dh` is what flows into the same rows
    /// from elsewhere and is added in the same pass.
    fn rms_norm_bwd(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w: &Tensor,
        rstd: &Tensor,
        dh: Option<&Tensor>,
        wants_dw: bool,
    ) -> Result<(Tensor, Option<Tensor>)>;
}

/// `y = w · x / rms(x)` over the last dim.
///
/// # Shapes  `x` `(…, C)`, `w` `(C)` → `(…, C)`.
pub fn rms_norm(t: &mut Tape, x: &Var, w: &Var, eps: f32) -> Result<Var> {
    let (xv, wv) = (x.value().clone(), w.value().clone());
    let (y, rstd) = t.kernels().rms_norm_fwd(&xv, &wv, eps)?;
    let [y] = t.record([x, w], [y], move |k, [_, dw], [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        let (dx, dw) = k.rms_norm_bwd(&dy, &xv, &wv, &rstd, None, dw)?;
        Ok([Some(dx), dw])
    });
    Ok(y)
}

/// The residual sum and its normalisation: returns `(x + residual, rms_norm(x + residual))`.
///
/// # Shapes  `x`, `residual` `(…, C)`, `w` `(C)` → two `(…, C)`.
pub fn add_rms_norm(t: &mut Tape, x: &Var, residual: &Var, w: &Var, eps: f32) -> Result<[Var; 2]> {
    let wv = w.value().clone();
    let (h, y, rstd) = t.kernels().add_rms_norm_fwd(x.value(), residual.value(), &wv, eps)?;
    let hv = h.clone();
    Ok(t.record([x, residual, w], [h, y], move |k: &dyn Kernels, [_, _, dw], [dh, dy]| {
        let (dx, dw) = match dy {
            Some(dy) => k.rms_norm_bwd(&dy, &hv, &wv, &rstd, dh.as_ref(), dw)?,
            None => (dh.expect("tape: a node runs only when an output has a gradient"), None),
        };
        Ok([Some(dx.clone()), Some(dx), dw])
    }))
}
