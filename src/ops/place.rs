//! Where tensors live: a backend keeps weights and optimiser state in its own memory and storage type.

use crate::error::Result;
use crate::tensor::Tensor;

/// Backends' part. What comes in is on the host.
pub trait PlaceKernels {
    /// A weight or activation in the backend's memory and working precision.
    fn place(&self, host: &Tensor) -> Result<Tensor>;
    /// Values that must keep their precision, such as master weights: in the backend's memory, as f32.
    fn place_exact(&self, host: &Tensor) -> Result<Tensor>;
    /// Whether [`place`](Self::place) rounds, so that what trains needs an exact copy beside it.
    fn rounds(&self) -> bool;
}
