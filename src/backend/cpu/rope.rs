//! Rotary embedding on the host.

use rayon::prelude::*;

use super::Cpu;
use crate::error::Result;
use crate::ops::rope::{RopeFreqs, RopeKernels, RopeTable};
use crate::tensor::{Shape, Tensor, TensorError, pool};

/// Tokens per task: a rotation is a few microseconds, less than it costs to hand one over.
const TOKENS_PER_TASK: usize = 16;

impl RopeKernels for Cpu {
    /// Angles in f64: in f32 `position · inv_freq` is off by 0.5 rad at a position of eight million.
    fn rope_table(&self, positions: &Tensor, rope_scale: &[f32], freqs: &RopeFreqs) -> Result<RopeTable> {
        let [b, t] = positions.dims("rope_table: positions (B,T)")?;
        if rope_scale.len() != b {
            return Err(TensorError::Shape {
                what: "rope_table: rope_scale (B)",
                expected: Shape::from([b]),
                got: Shape::from([rope_scale.len()]),
            }
            .into());
        }
        let half = freqs.inv_freq.len();
        let mut cos = Tensor::zeros([b, t, half]);
        let mut sin = cos.clone();
        let factor = f64::from(freqs.attention_factor);
        if t * half > 0 {
            cos.as_f32_mut()?
                .par_chunks_exact_mut(half)
                .zip(sin.as_f32_mut()?.par_chunks_exact_mut(half))
                .zip(positions.as_u32()?)
                .enumerate()
                .with_min_len(TOKENS_PER_TASK)
                .for_each(|(n, ((cos, sin), &position))| {
                    let position = f64::from(position) / f64::from(rope_scale[n / t]);
                    for i in 0..half {
                        let (s, c) = (position * f64::from(freqs.inv_freq[i])).sin_cos();
                        cos[i] = (factor * c) as f32;
                        sin[i] = (factor * s) as f32;
                    }
                });
        }
        Ok(RopeTable { cos, sin })
    }

    fn rope_fwd(&self, x: &Tensor, table: &RopeTable) -> Result<Tensor> {
        rotate(x, table, 1.0)
    }

    fn rope_bwd(&self, dy: &Tensor, table: &RopeTable) -> Result<Tensor> {
        rotate(dy, table, -1.0)
    }
}

/// `y1 = x1·c − x2·s`, `y2 = x2·c + x1·s` with `s = sign · sin`; the transpose of a rotation is the one by `−θ`.
fn rotate(x: &Tensor, table: &RopeTable, sign: f32) -> Result<Tensor> {
    let [b, t, h, d] = x.dims("rope: x (B,T,H,D)")?;
    let half = d / 2;
    table.cos.expect("rope: cos (B,T,D/2)", [b, t, half])?;
    table.sin.expect("rope: sin (B,T,D/2)", [b, t, half])?;
    x.expect("rope: x (B,T,H,D), D even", [b, t, h, 2 * half])?;
    let mut y = Tensor::f32(pool::dirty(x.shape().len()), x.shape());
    if !x.shape().is_empty() {
        y.as_f32_mut()?
            .par_chunks_exact_mut(h * d)
            .zip(x.as_f32()?.par_chunks_exact(h * d))
            .zip(table.cos.as_f32()?.par_chunks_exact(half))
            .zip(table.sin.as_f32()?.par_chunks_exact(half))
            .with_min_len(TOKENS_PER_TASK)
            .for_each(|(((y, x), cos), sin)| {
                // Slices of one known length: without bounds checks inside, the loop below becomes vector code.
                let (cos, sin) = (&cos[..half], &sin[..half]);
                for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                    let ((y1, y2), (x1, x2)) = (y.split_at_mut(half), x.split_at(half));
                    let (y2, x2) = (&mut y2[..half], &x2[..half]);
                    for i in 0..half {
                        let (c, s) = (cos[i], sign * sin[i]);
                        y1[i] = x1[i] * c - x2[i] * s;
                        y2[i] = x2[i] * c + x1[i] * s;
                    }
                }
            });
    }
    Ok(y)
}
