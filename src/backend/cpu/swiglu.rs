use super::{CHUNK, Cpu, vector};
use crate::error::Result;
use crate::ops::swiglu::SwigluKernels;
use crate::tensor::{Tensor, pool};
use rayon::prelude::*;

impl SwigluKernels for Cpu {
    fn swiglu_fwd(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        up.expect("swiglu: up", gate.shape())?;
        let (g, u) = (gate.as_f32()?, up.as_f32()?);
        let mut y = pool::dirty(g.len());
        y.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(u.par_chunks(CHUNK))
            .for_each(|((y, g), u)| vector::swiglu_fwd(g, u, y));
        Ok(Tensor::f32(y, gate.shape()))
    }

    fn swiglu_bwd(&self, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
        dy.expect("swiglu_bwd: dy", gate.shape())?;
        up.expect("swiglu_bwd: up", gate.shape())?;
        let (d, g, u) = (dy.as_f32()?, gate.as_f32()?, up.as_f32()?);
        let (mut dg, mut du) = (pool::dirty(g.len()), pool::dirty(g.len()));
        dg.par_chunks_mut(CHUNK)
            .zip(du.par_chunks_mut(CHUNK))
            .zip(d.par_chunks(CHUNK))
            .zip(g.par_chunks(CHUNK).zip(u.par_chunks(CHUNK)))
            .for_each(|(((dg, du), d), (g, u))| vector::swiglu_bwd(d, g, u, dg, du));
        Ok((Tensor::f32(dg, gate.shape()), Tensor::f32(du, gate.shape())))
    }
}
