//! The gate of Llama's MLP.
//!
//! forward   `y = silu(gate)·up`, `silu(g) = g·σ(g)`
//! backward  `dup = dy·silu(gate)`, `dgate = dy·up·σ(gate)·(1 + gate·(1 − σ(gate)))`

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part; all tensors have one shape.
pub trait SwigluKernels {
    /// `silu(gate)·up`.
    fn swiglu_fwd(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor>;
    /// `(dgate, dup)`.
    fn swiglu_bwd(&self, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)>;
}

/// `silu(gate)·up`, same shape.
pub fn swiglu(t: &mut Tape, gate: &Var, up: &Var) -> Result<Var> {
    let (gv, uv) = (gate.value().clone(), up.value().clone());
    let y = t.kernels().swiglu_fwd(&gv, &uv)?;
    let [y] = t.record([gate, up], [y], move |k, _, [dy]| {
        let dy = dy.expect("tape: a node runs only when its output has a gradient");
        let (dgate, dup) = k.swiglu_bwd(&dy, &gv, &uv)?;
        Ok([Some(dgate), Some(dup)])
    });
    Ok(y)
}
