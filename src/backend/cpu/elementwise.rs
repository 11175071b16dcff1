use super::{CHUNK, Cpu, fill_rows};
use crate::error::Result;
use crate::ops::elementwise::ElementwiseKernels;
use crate::tensor::Tensor;
use rayon::prelude::*;

impl ElementwiseKernels for Cpu {
    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        y.expect("add: y", x.shape())?;
        let (xs, ys) = (x.as_f32()?, y.as_f32()?);
        let sum = fill_rows(xs.len(), 1, |first, out| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = xs[first + i] + ys[first + i];
            }
        });
        Ok(Tensor::f32(sum, x.shape()))
    }

    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) -> Result<()> {
        x.expect("add_assign: x", sum.shape())?;
        let xs = x.as_f32()?;
        sum.as_f32_mut()?.par_chunks_mut(CHUNK).zip(xs.par_chunks(CHUNK)).for_each(|(sum, x)| {
            for (s, x) in sum.iter_mut().zip(x) {
                *s += x;
            }
        });
        Ok(())
    }

    fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        let xs = x.as_f32()?;
        let scaled = fill_rows(xs.len(), 1, |first, out| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = factor * xs[first + i];
            }
        });
        Ok(Tensor::f32(scaled, x.shape()))
    }
}
