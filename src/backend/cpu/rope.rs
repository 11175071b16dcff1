//! Rotary embedding on the host.

use rayon::prelude::*;

use super::Cpu;
use super::simd::wide;
use crate::error::Result;
use crate::ops::rope::{RopeFreqs, RopeKernels, RopeTable};
use crate::tensor::{Shape, Tensor, TensorError};

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
        Ok(RopeTable::Angles { cos, sin })
    }

    fn rope_fwd(&self, qk: &mut [Tensor], table: &RopeTable) -> Result<()> {
        qk.iter_mut().try_for_each(|x| rotate(x, table, 1.0))
    }

    fn rope_bwd(&self, dqk: &mut [Tensor], table: &RopeTable) -> Result<()> {
        dqk.iter_mut().try_for_each(|x| rotate(x, table, -1.0))
    }
}

/// `y1 = x1·c − x2·s`, `y2 = x2·c + x1·s` with `s = sign · sin`; the transpose of a rotation is the one by `−θ`.
fn rotate(x: &mut Tensor, table: &RopeTable, sign: f32) -> Result<()> {
    let RopeTable::Angles { cos, sin } = table else {
        return Err(TensorError::Place { expected: "on the host" }.into());
    };
    let [b, t, h, d] = x.dims("rope: x (B,T,H,D)")?;
    let half = d / 2;
    cos.expect("rope: cos (B,T,D/2)", [b, t, half])?;
    sin.expect("rope: sin (B,T,D/2)", [b, t, half])?;
    x.expect("rope: x (B,T,H,D), D even", [b, t, h, 2 * half])?;
    if x.shape().is_empty() {
        return Ok(());
    }
    x.as_f32_mut()?
        .par_chunks_exact_mut(h * d)
        .zip(cos.as_f32()?.par_chunks_exact(half))
        .zip(sin.as_f32()?.par_chunks_exact(half))
        .with_min_len(TOKENS_PER_TASK)
        .for_each(|((x, cos), sin)| match half {
            4 => heads::<4>(x, cos, sin, sign),
            16 => heads::<16>(x, cos, sin, sign),
            32 => heads::<32>(x, cos, sin, sign),
            64 => heads::<64>(x, cos, sin, sign),
            _ => {
                for x in x.chunks_exact_mut(d) {
                    let (x1, x2) = x.split_at_mut(half);
                    rotate_head(x1, x2, cos, sin, sign);
                }
            }
        });
    Ok(())
}

/// One token's heads, of `2 HALF` floats each: lengths the compiler knows become vector code without remainder.
fn heads<const HALF: usize>(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    wide(
        #[inline(always)]
        || {
            let (cos, sin) = (&cos.as_chunks::<HALF>().0[0], &sin.as_chunks::<HALF>().0[0]);
            for x in x.as_chunks_mut::<HALF>().0.chunks_exact_mut(2) {
                let [x1, x2] = x else { unreachable!("chunks of two") };
                rotate_head(x1, x2, cos, sin, sign);
            }
        },
    );
}

/// The two halves of one head. All slices are equally long.
#[inline(always)]
fn rotate_head(x1: &mut [f32], x2: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
    for ((x1, x2), (c, s)) in x1.iter_mut().zip(x2).zip(cos.iter().zip(sin)) {
        let s = sign * s;
        (*x1, *x2) = (*x1 * c - *x2 * s, *x2 * c + *x1 * s);
    }
}
