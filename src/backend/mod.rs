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

use self::device::Launcher;
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
impl<L: Launcher> Kernels for Device<L> {
    fn timed(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        self.launcher().timed(runs, work)
    }

    fn take_peak(&self) -> Option<u64> {
        Some(self.launcher().take_peak().iter().sum())
    }
}

/// Seconds of each call of `work` by the wall's clock: for backends whose calls are done when they return.
fn wall_time(runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    let once = |i| {
        let started = std::time::Instant::now();
        work(i).map(|()| started.elapsed().as_secs_f64())
    };
    (0..runs).map(once).collect()
}

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
    /// Calls `work` with `0..runs`, one call right behind the other, and returns how many seconds each took. A device that
    /// queues its work is measured by its own clock.
    fn timed(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        wall_time(runs, work)
    }

    /// Most bytes of the backend's own memory that were in use at once since the last call; nothing where it is the process's.
    fn take_peak(&self) -> Option<u64> {
        None
    }
}
