//! Ops that still lack a launcher.

use super::{Device, Launcher};
use crate::error::Result;
use crate::ops::attention::{AttentionKernels, AttentionSaved, Segments};
use crate::ops::bias::BiasKernels;
use crate::ops::elementwise::ElementwiseKernels;
use crate::ops::embedding::EmbeddingKernels;
use crate::ops::optim::{AdamWStep, AdamWTensor, OptimKernels};
use crate::ops::rope::{RopeFreqs, RopeKernels, RopeTable};
use crate::ops::swiglu::SwigluKernels;
use crate::tensor::Tensor;

impl<L: Launcher> AttentionKernels for Device<L> {
    fn attention_fwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Segments, _: f32) -> Result<(Tensor, Tensor)> {
        unimplemented!()
    }
    fn attention_bwd(&self, _: &Tensor, _: &AttentionSaved) -> Result<[Tensor; 3]> {
        unimplemented!()
    }
}

impl<L: Launcher> BiasKernels for Device<L> {
    fn bias_fwd(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unimplemented!()
    }
    fn bias_bwd(&self, _: &Tensor) -> Result<Tensor> {
        unimplemented!()
    }
}

impl<L: Launcher> ElementwiseKernels for Device<L> {
    fn add(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unimplemented!()
    }
    fn add_assign(&self, _: &mut Tensor, _: &Tensor) -> Result<()> {
        unimplemented!()
    }
    fn scale(&self, _: &Tensor, _: f32) -> Result<Tensor> {
        unimplemented!()
    }
}

impl<L: Launcher> EmbeddingKernels for Device<L> {
    fn embedding_fwd(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unimplemented!()
    }
    fn embedding_bwd(&self, _: &Tensor, _: &Tensor, _: usize) -> Result<Tensor> {
        unimplemented!()
    }
}

impl<L: Launcher> OptimKernels for Device<L> {
    fn adamw(&self, _: &mut [AdamWTensor], _: &AdamWStep) -> Result<f64> {
        unimplemented!()
    }
}

impl<L: Launcher> RopeKernels for Device<L> {
    fn rope_table(&self, _: &Tensor, _: &[f32], _: &RopeFreqs) -> Result<RopeTable> {
        unimplemented!()
    }
    fn rope_fwd(&self, _: &mut [Tensor], _: &RopeTable) -> Result<()> {
        unimplemented!()
    }
    fn rope_bwd(&self, _: &mut [Tensor], _: &RopeTable) -> Result<()> {
        unimplemented!()
    }
}

impl<L: Launcher> SwigluKernels for Device<L> {
    fn swiglu_fwd(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unimplemented!()
    }
    fn swiglu_bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Tensor, Tensor)> {
        unimplemented!()
    }
}
