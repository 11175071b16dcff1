//! Ops that still lack a launcher.

use super::{Device, Launcher};
use crate::error::Result;
use crate::ops::attention::{AttentionKernels, AttentionSaved, Segments};
use crate::tensor::Tensor;

impl<L: Launcher> AttentionKernels for Device<L> {
    fn attention_fwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Segments, _: f32) -> Result<(Tensor, Tensor)> {
        unimplemented!()
    }
    fn attention_bwd(&self, _: &Tensor, _: &AttentionSaved) -> Result<[Tensor; 3]> {
        unimplemented!()
    }
}
