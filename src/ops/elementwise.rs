//! Element-wise arithmetic that no fused op covers.

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Backends' part.
pub trait ElementwiseKernels {
    /// `x + y`, same shape.
    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor>;
    /// `sum += x` in place: gradient accumulation.
    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) -> Result<()>;
    /// `x · factor`, a new tensor.
    fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor>;
}

/// `x + y`, same shape.
pub fn add(t: &mut Tape, x: &Var, y: &Var) -> Result<Var> {
    let sum = t.kernels().add(x.value(), y.value())?;
    let [sum] = t.record([x, y], [sum], |_, _, [d]| Ok([d.clone(), d]));
    Ok(sum)
}
