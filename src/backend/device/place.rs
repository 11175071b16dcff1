#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::elementwise::grid_f32;
use super::{Device, Launcher, Purpose, Usage, input, kernels as k};
use crate::error::Result;
use crate::ops::place::PlaceKernels;
use crate::tensor::{Buffer, Dtype, Shape, Tensor};

impl<L: Launcher> PlaceKernels for Device<L> {
    fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        match tensor.buffer() {
            Buffer::Device(_) => Ok(tensor.clone()),
            Buffer::F32(v) => {
                let halves = Tensor::bf16(v.iter().map(|&v| bf16::from_f32(v)).collect(), tensor.shape());
                self.uploaded_for(Purpose::Weights, &halves)
            }
            _ => self.uploaded_for(Purpose::Weights, tensor),
        }
    }

    fn place_integers(&self, tensor: &Tensor) -> Result<Tensor> {
        self.integers(tensor.as_u32()?)?.reshape("place_integers", tensor.shape()).map_err(Into::into)
    }

    fn place_exact(&self, tensor: &Tensor) -> Result<Tensor> {
        match tensor.buffer() {
            Buffer::Device(buffer) if buffer.dtype() == Dtype::Bf16 => {
                let (exact, out) = self.empty_for::<f32>(Purpose::Optimizer, tensor.shape())?;
                let n = tensor.shape().len();
                // SAFETY: both tensors hold n elements: the one is given, the other made above.
                unsafe { k::convert_bf16_f32(self.launcher(), grid_f32(n), out, input(tensor)?, n as i64)? };
                Ok(exact)
            }
            Buffer::Device(_) => Ok(tensor.clone()),
            _ => self.uploaded_for(Purpose::Optimizer, &tensor.to_host_f32()?),
        }
    }

    fn zeros_exact(&self, shape: &Shape) -> Result<Tensor> {
        Ok(self.zeros_for::<f32>(Purpose::Optimizer, shape)?.0)
    }

    fn rounds(&self) -> bool {
        true
    }

    fn usage(&self) -> Option<Usage> {
        Some(self.launcher().usage())
    }
}

impl<L: Launcher> Device<L> {
    /// Memory for a weight of which only the shape is known.
    pub fn reserve(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(self.empty_for::<bf16>(Purpose::Weights, shape)?.0)
    }
}
