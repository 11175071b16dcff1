#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::{Device, Launcher, Purpose, blocks, inout, input, kernels as k};
use crate::error::Result;
use crate::ops::elementwise::ElementwiseKernels;
use crate::tensor::{Dtype, Tensor, TensorError};

/// Blocks for n elements, of which an access has `wide`; one for none, so that no grid is empty.
fn grid(n: usize, wide: usize) -> [u32; 3] {
    [blocks(n.div_ceil(k::elementwise::THREADS * k::elementwise::GROUPS * wide).max(1)), 1, 1]
}

fn grid_bf16(n: usize) -> [u32; 3] {
    grid(n, k::elementwise::WIDE_BF16)
}

pub(super) fn grid_f32(n: usize) -> [u32; 3] {
    grid(n, k::elementwise::WIDE_F32)
}

/// Integers are not added.
fn no_float<T>() -> Result<T> {
    Err(TensorError::Dtype { expected: Dtype::Bf16, got: Dtype::U32 }.into())
}

/// Tensors in f32 are gradients of parameters.
impl<L: Launcher> ElementwiseKernels for Device<L> {
    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        y.expect("add: y", x.shape())?;
        let (l, n) = (self.launcher(), x.shape().len());
        match x.dtype() {
            Dtype::Bf16 => {
                let (sum, out) = self.empty::<bf16>(x.shape())?;
                // SAFETY: all three tensors hold n halves: checked or made above.
                unsafe { k::add_bf16(l, grid_bf16(n), out, input(x)?, input(y)?, n as i64)? };
                Ok(sum)
            }
            Dtype::F32 => {
                let (sum, out) = self.empty_for::<f32>(Purpose::Gradients, x.shape())?;
                // SAFETY: all three tensors hold n floats: checked or made above.
                unsafe { k::add_f32(l, grid_f32(n), out, input(x)?, input(y)?, n as i64)? };
                Ok(sum)
            }
            Dtype::U32 => no_float(),
        }
    }

    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) -> Result<()> {
        x.expect("add_assign: x", sum.shape())?;
        let (l, n) = (self.launcher(), x.shape().len());
        match sum.dtype() {
            // SAFETY: both tensors hold n halves, and nobody else has a handle on the sum.
            Dtype::Bf16 => unsafe { k::add_assign_bf16(l, grid_bf16(n), inout(sum)?, input(x)?, n as i64) },
            // SAFETY: both tensors hold n floats, and nobody else has a handle on the sum.
            Dtype::F32 => unsafe { k::add_assign_f32(l, grid_f32(n), inout(sum)?, input(x)?, n as i64) },
            Dtype::U32 => no_float(),
        }
    }

    fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        let (l, n) = (self.launcher(), x.shape().len());
        match x.dtype() {
            Dtype::Bf16 => {
                let (y, out) = self.empty::<bf16>(x.shape())?;
                // SAFETY: both tensors hold n halves: checked or made above.
                unsafe { k::scale_bf16(l, grid_bf16(n), out, input(x)?, n as i64, factor)? };
                Ok(y)
            }
            Dtype::F32 => {
                let (y, out) = self.empty_for::<f32>(Purpose::Gradients, x.shape())?;
                // SAFETY: both tensors hold n floats: checked or made above.
                unsafe { k::scale_f32(l, grid_f32(n), out, input(x)?, n as i64, factor)? };
                Ok(y)
            }
            Dtype::U32 => no_float(),
        }
    }
}
