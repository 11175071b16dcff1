//! The device backend: checks shapes, computes grids and launches the kernels of `kernels/*.cu`.
//!
//! Everything here is shared by the three [`Launcher`]s, the CUDA driver, the host emulation and the device that only counts, so
//! that tests of the emulation test this code too. Weights and activations are bf16, statistics, parameter gradients and optimiser state f32.

mod attention;
mod bias;
mod buffer;
mod cross_entropy;
mod elementwise;
mod embedding;
mod fault;
mod launch;
mod linear;
mod matmul;
mod meter;
mod optim;
mod partial;
mod place;
mod rms_norm;
mod rope;
mod swiglu;

#[allow(missing_docs, reason = "generated")]
#[allow(unsafe_code, reason = "generated calls into kernels")]
#[allow(clippy::too_many_arguments, reason = "a kernel has the parameters it has")]
#[allow(dead_code, reason = "tests launch some kernels by themselves")]
mod kernels {
    use std::ffi::c_void;

    use half::bf16;

    #[cfg(feature = "emu")]
    use super::launch::TensorMap;
    use super::launch::{Image, In, Kernel, Launcher, Out};
    use crate::error::Result;

    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

use std::sync::Arc;

pub use buffer::{DeviceBuffer, Memory};
pub use fault::Fault;
pub use kernels::{IMAGES, KERNELS};
#[cfg(feature = "emu")]
pub use launch::TensorMap;
pub use launch::{Element, Image, In, Kernel, Launcher, Out};
pub use meter::{Bytes, Metered, Purpose, Usage};

use crate::error::Result;
use crate::tensor::{Shape, Tensor, TensorError};

/// The device backend over one launcher.
#[derive(Debug)]
pub struct Device<L> {
    launcher: Arc<Metered<L>>,
}

impl<L: Launcher> Device<L> {
    /// A backend whose tensors live in the launcher's memory, of which it uses `limit` bytes at most.
    pub fn new(launcher: L, limit: u64) -> Self {
        Self { launcher: Arc::new(Metered::new(launcher, limit)) }
    }

    /// What runs the kernels, with its memory counted.
    pub fn launcher(&self) -> &Metered<L> {
        &self.launcher
    }

    fn memory(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.launcher) as _
    }

    /// Device memory of any content, for a kernel that overwrites all of it.
    fn empty_for<E: Element>(&self, purpose: Purpose, shape: impl Into<Shape>) -> Result<(Tensor, Out<E>)> {
        let shape = shape.into();
        let buffer = DeviceBuffer::empty(&self.memory(), E::DTYPE, shape.len(), purpose)?;
        let out = Out::new(buffer.address());
        Ok((Tensor::device(buffer, shape), out))
    }

    /// Memory for activations.
    fn empty<E: Element>(&self, shape: impl Into<Shape>) -> Result<(Tensor, Out<E>)> {
        self.empty_for(Purpose::Activations, shape)
    }

    /// Zeros.
    fn zeros_for<E: Element>(&self, purpose: Purpose, shape: impl Into<Shape>) -> Result<(Tensor, Out<E>)> {
        let (mut tensor, out) = self.empty_for(purpose, shape)?;
        tensor.as_device_mut()?.zero()?;
        Ok((tensor, out))
    }

    /// A host tensor's bytes on the device.
    fn uploaded_for(&self, purpose: Purpose, host: &Tensor) -> Result<Tensor> {
        Ok(Tensor::device(DeviceBuffer::uploaded(&self.memory(), host.buffer(), purpose)?, host.shape()))
    }

    /// Host integers, such as ids and positions, on the device.
    fn integers(&self, host: &[u32]) -> Result<Tensor> {
        self.uploaded_for(Purpose::Activations, &Tensor::u32(host.to_vec(), [host.len()]))
    }
}

/// A tensor as a kernel's input.
fn input<E: Element>(tensor: &Tensor) -> Result<In<E>> {
    Ok(In::new(typed::<E>(tensor)?.address()))
}

/// A tensor that a kernel changes in place; copied first when it is shared.
fn inout<E: Element>(tensor: &mut Tensor) -> Result<Out<E>> {
    typed::<E>(tensor)?;
    Ok(Out::new(tensor.as_device_mut()?.address()))
}

fn typed<E: Element>(tensor: &Tensor) -> Result<&DeviceBuffer> {
    let buffer = tensor.as_device()?;
    match buffer.dtype() {
        got if got == E::DTYPE => Ok(buffer),
        got => Err(TensorError::Dtype { expected: E::DTYPE, got }.into()),
    }
}

/// Checks that rows of this length can be read sixteen bytes at a time.
fn vectors(what: &'static str, extent: usize) -> Result<()> {
    match extent % 8 {
        0 => Ok(()),
        _ => Err(TensorError::Extent { what, needed: "a multiple of 8", got: extent }.into()),
    }
}

/// An extent as a kernel's argument. Panics beyond 2³¹: rows and widths are far below, and products are formed in 64 bits.
fn int(extent: usize) -> i32 {
    i32::try_from(extent).expect("device: extents are below 2^31")
}

/// A number of blocks.
fn blocks(n: usize) -> u32 {
    u32::try_from(n).expect("device: grids are below 2^32")
}
