//! Where tensors live: a backend keeps weights and optimiser state in its own memory and storage type.

use crate::backend::device::Usage;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// Backends' part. Tensors come from the host, or are in the backend's memory already.
pub trait PlaceKernels {
    /// A weight in the backend's memory and working precision.
    fn place(&self, tensor: &Tensor) -> Result<Tensor>;
    /// Integers in the backend's memory.
    fn place_integers(&self, tensor: &Tensor) -> Result<Tensor>;
    /// Values that must keep their precision, such as master weights and moments: in the backend's memory, as f32.
    fn place_exact(&self, tensor: &Tensor) -> Result<Tensor>;
    /// As [`place_exact`](Self::place_exact), zeros.
    fn zeros_exact(&self, shape: &Shape) -> Result<Tensor>;
    /// Whether [`place`](Self::place) rounds, so that what trains needs an exact copy beside it.
    fn rounds(&self) -> bool;
    /// What was counted of the backend's own memory; nothing where it is the process's.
    fn usage(&self) -> Option<Usage> {
        None
    }
}
