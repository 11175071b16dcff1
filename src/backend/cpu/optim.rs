use super::simd::wide;
use super::{CHUNK, Cpu, vector};
use crate::error::Result;
use crate::ops::optim::{AdamWStep, AdamWTensor, OptimKernels};
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

fn sum_of_squares(x: &Tensor) -> Result<f64> {
    let partial: Vec<f64> = x.as_f32()?.par_chunks(CHUNK).map(squares).collect();
    Ok(partial.iter().sum())
}

impl OptimKernels for Cpu {
    fn adamw(&self, tensors: &mut [AdamWTensor], step: &AdamWStep) -> Result<f64> {
        let mut squares = 0.0;
        for tensor in &*tensors {
            for (what, t) in [("adamw: grad", tensor.grad), ("adamw: m", &*tensor.m), ("adamw: v", &*tensor.v)] {
                t.expect(what, tensor.value.shape())?;
            }
            squares += sum_of_squares(tensor.grad)?;
        }
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let grad_scale = step.grad_scale(norm);
        for tensor in tensors {
            let scalars = vector::AdamWScalars { step, lr: tensor.lr, weight_decay: tensor.weight_decay, grad_scale };
            let (p, g) = (tensor.value.as_f32_mut()?, tensor.grad.as_f32()?);
            let (m, v) = (tensor.m.as_f32_mut()?, tensor.v.as_f32_mut()?);
            p.par_chunks_mut(CHUNK)
                .zip(g.par_chunks(CHUNK))
                .zip(m.par_chunks_mut(CHUNK))
                .zip(v.par_chunks_mut(CHUNK))
                .for_each(|(((p, g), m), v)| vector::adamw(&scalars, g, [p, m, v]));
        }
        Ok(norm)
    }
}
