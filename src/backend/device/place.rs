use half::bf16;

use super::{Device, Launcher, Purpose};
use crate::error::Result;
use crate::ops::place::PlaceKernels;
use crate::tensor::{Buffer, Tensor};

impl<L: Launcher> PlaceKernels for Device<L> {
    fn place(&self, host: &Tensor) -> Result<Tensor> {
        match host.buffer() {
            Buffer::F32(v) => {
                self.uploaded_for(Purpose::Weights, &Tensor::bf16(v.iter().map(|&v| bf16::from_f32(v)).collect(), host.shape()))
            }
            _ => self.uploaded_for(Purpose::Weights, host),
        }
    }

    fn place_exact(&self, host: &Tensor) -> Result<Tensor> {
        self.uploaded_for(Purpose::Optimizer, &host.to_host_f32()?)
    }

    fn rounds(&self) -> bool {
        true
    }
}
