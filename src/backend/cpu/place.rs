use super::Cpu;
use crate::error::Result;
use crate::ops::place::PlaceKernels;
use crate::tensor::{Shape, Tensor};

impl PlaceKernels for Cpu {
    fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_host_f32()
    }

    fn place_integers(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.as_u32()?;
        Ok(tensor.clone())
    }

    fn place_exact(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_host_f32()
    }

    fn zeros_exact(&self, shape: &Shape) -> Result<Tensor> {
        Ok(Tensor::zeros(shape))
    }

    fn rounds(&self) -> bool {
        false
    }
}
