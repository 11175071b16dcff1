use super::simd::wide;
use super::{CHUNK, Cpu, vector};
use crate::error::Result;
use crate::ops::optim::{AdamWStep, OptimKernels};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// `Σ x²` in interleaved sums: one alone would wait for each addition.
fn squares(x: &[f32]) -> f64 {
    wide(
        #[inline(always)]
        || {
            let mut sums = [0.0; 32];
            let (rows, rest) = x.as_chunks::<32>();
            for (sum, &v) in sums.iter_mut().zip(rest) {
                *sum += f64::from(v) * f64::from(v);
            }
            for row in rows {
                for (sum, &v) in sums.iter_mut().zip(row) {
                    *sum += f64::from(v) * f64::from(v);
                }
            }
            sums.iter().sum()
        },
    )
}

impl OptimKernels for Cpu {
    fn adamw(&self, param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, step: AdamWStep) -> Result<()> {
        for (what, t) in [("adamw: grad", grad), ("adamw: m", &*m), ("adamw: v", &*v)] {
            t.expect(what, param.shape())?;
        }
        let (p, g, m, v) = (param.as_f32_mut()?, grad.as_f32()?, m.as_f32_mut()?, v.as_f32_mut()?);
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .for_each(|(((p, g), m), v)| vector::adamw(&step, g, [p, m, v]));
        Ok(())
    }

    fn sum_of_squares(&self, x: &Tensor) -> Result<f64> {
        let partial: Vec<f64> = x.as_f32()?.par_chunks(CHUNK).map(squares).collect();
        Ok(partial.iter().sum())
    }
}
