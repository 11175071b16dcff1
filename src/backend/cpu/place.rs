use super::Cpu;
use crate::error::Result;
use crate::ops::place::PlaceKernels;
use crate::tensor::Tensor;

impl PlaceKernels for Cpu {
    fn place(&self, host: &Tensor) -> Result<Tensor> {
        host.to_host_f32()
    }

    fn place_exact(&self, host: &Tensor) -> Result<Tensor> {
        host.to_host_f32()
    }

    fn rounds(&self) -> bool {
        false
    }
}
