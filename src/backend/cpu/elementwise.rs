use super::{CHUNK, Cpu, fill_rows, vector};
use crate::error::Result;
use crate::ops::elementwise::ElementwiseKernels;
use crate::tensor::Tensor;
use rayon::prelude::*;

impl ElementwiseKernels for Cpu {
    fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        y.expect("add: y", x.shape())?;
        let (xs, ys) = (x.as_f32()?, y.as_f32()?);
        let sum = fill_rows(
            xs.len(),
            1,
            #[inline(always)]
            |first, out| {
                for ((out, x), y) in out.iter_mut().zip(&xs[first..]).zip(&ys[first..]) {
                    *out = x + y;
                }
            },
        );
        Ok(Tensor::f32(sum, x.shape()))
    }

    fn add_assign(&self, sum: &mut Tensor, x: &Tensor) -> Result<()> {
        x.expect("add_assign: x", sum.shape())?;
        let xs = x.as_f32()?;
        sum.as_f32_mut()?.par_chunks_mut(CHUNK).zip(xs.par_chunks(CHUNK)).for_each(|(sum, x)| vector::axpy(1.0, x, sum));
        Ok(())
    }

    fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        let xs = x.as_f32()?;
        let scaled = fill_rows(
            xs.len(),
            1,
            #[inline(always)]
            |first, out| {
                for (out, x) in out.iter_mut().zip(&xs[first..]) {
                    *out = factor * x;
                }
            },
        );
        Ok(Tensor::f32(scaled, x.shape()))
    }
}
