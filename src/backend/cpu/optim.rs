use super::{CHUNK, Cpu};
use crate::error::Result;
use crate::ops::optim::{AdamWStep, OptimKernels};
use crate::tensor::Tensor;
use rayon::prelude::*;

impl OptimKernels for Cpu {
    fn adamw(&self, param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, step: AdamWStep) -> Result<()> {
        for (what, t) in [("adamw: grad", grad), ("adamw: m", &*m), ("adamw: v", &*v)] {
            t.expect(what, param.shape())?;
        }
        let AdamWStep { lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale } = step;
        let (p, g, m, v) = (param.as_f32_mut()?, grad.as_f32()?, m.as_f32_mut()?, v.as_f32_mut()?);
        let chunks = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
        let (keep, step_size, root) = (1.0 - lr * weight_decay, lr / bias_correction1, 1.0 / bias_correction2);
        chunks.for_each(|(((p, g), m), v)| {
            let n = p.len();
            let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
            for i in 0..n {
                let gi = g[i] * grad_scale;
                m[i] = beta1 * m[i] + (1.0 - beta1) * gi;
                v[i] = beta2 * v[i] + (1.0 - beta2) * gi * gi;
                p[i] = keep * p[i] - step_size * m[i] / ((v[i] * root).sqrt() + eps);
            }
        });
        Ok(())
    }

    fn sum_of_squares(&self, x: &Tensor) -> Result<f64> {
        let partial: Vec<f64> =
            x.as_f32()?.par_chunks(CHUNK).map(|c| c.iter().map(|&v| f64::from(v) * f64::from(v)).sum()).collect();
        Ok(partial.iter().sum())
    }
}
