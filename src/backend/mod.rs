//! Where ops run. [`Kernels`] is the sum of the ops' traits; forgetting one is a compile error.

pub mod cpu;
pub mod cuda;
pub mod device;
#[cfg(feature = "emu")]
pub mod emu;
pub mod gpu;
pub mod meta;
pub mod selftest;

pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::Device;
#[cfg(feature = "emu")]
pub use emu::{Emu, EmuMode, Swizzle};
pub use gpu::DeviceError;
pub use meta::Meta;

use crate::error::Result;
use crate::ops::attention::AttentionKernels;
use crate::ops::bias::BiasKernels;
use crate::ops::cross_entropy::CrossEntropyKernels;
use crate::ops::elementwise::ElementwiseKernels;
use crate::ops::embedding::EmbeddingKernels;
use crate::ops::linear::LinearKernels;
use crate::ops::optim::OptimKernels;
use crate::ops::place::PlaceKernels;
use crate::ops::rms_norm::RmsNormKernels;
use crate::ops::rope::RopeKernels;
use crate::ops::swiglu::SwigluKernels;

impl Kernels for Cpu {}
impl<L: device::Launcher> Kernels for Device<L> {}

/// Starts the backend of a place. `limit` is the most memory that a GPU may use, by default what is free less a margin.
///
/// # Errors
/// [`DeviceError`] when the GPU does not start or has less memory than the limit.
pub fn open(place: &gpu::Place, limit: Option<u64>) -> Result<Box<dyn Kernels>> {
    match place {
        gpu::Place::Cpu { .. } => Ok(Box::new(Cpu)),
        gpu::Place::Gpu(gpu) => {
            let cuda = Cuda::open(gpu, device::IMAGES, device::KERNELS, cuda::Launches::Queued)?;
            let limit = cuda.limit(limit)?;
            Ok(Box::new(Device::new(cuda, limit)))
        }
    }
}

/// Everything a backend must be able to do.
pub trait Kernels:
    AttentionKernels
    + BiasKernels
    + CrossEntropyKernels
    + ElementwiseKernels
    + EmbeddingKernels
    + LinearKernels
    + OptimKernels
    + PlaceKernels
    + RmsNormKernels
    + RopeKernels
    + SwigluKernels
    + Send
    + Sync
{
}
