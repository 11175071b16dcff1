use super::simd::wide;
use super::vector::dot;
use super::{Cpu, fill_rows, rows_per_task, sum_rows};
use crate::error::Result;
use crate::ops::rms_norm::RmsNormKernels;
use crate::tensor::{Tensor, pool};
use rayon::prelude::*;

fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

fn normalise(x: &[f32], w: &[f32], eps: f32, shape: &Tensor) -> (Tensor, Tensor) {
    let c = w.len();
    let rows = x.len().checked_div(c).unwrap_or(0);
    let step = rows_per_task(c);
    let mut y = pool::dirty(x.len());
    let mut rstd = pool::dirty(rows);
    y.par_chunks_mut((step * c).max(1)).zip(rstd.par_chunks_mut(step)).zip(x.par_chunks((step * c).max(1))).for_each(
        |((y, rstd), x)| {
            wide(
                #[inline(always)]
                || {
                    for ((y, r), x) in y.chunks_exact_mut(c).zip(rstd).zip(x.chunks_exact(c)) {
                        *r = inverse_rms(x, eps);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                            *y = w * x * *r;
                        }
                    }
                },
            )
        },
    );
    (Tensor::f32(y, shape.shape()), Tensor::f32(rstd, [rows]))
}

impl RmsNormKernels for Cpu {
    fn rms_norm_fwd(&self, x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        let [_, c] = x.rows_cols("rms_norm: x (…,C)")?;
        w.expect("rms_norm: w (C)", [c])?;
        Ok(normalise(x.as_f32()?, w.as_f32()?, eps, x))
    }

    fn add_rms_norm_fwd(&self, x: &Tensor, residual: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor, Tensor)> {
        let [rows, c] = x.rows_cols("add_rms_norm: x (…,C)")?;
        residual.expect("add_rms_norm: residual (…,C)", x.shape())?;
        w.expect("add_rms_norm: w (C)", [c])?;
        let (xs, rs) = (x.as_f32()?, residual.as_f32()?);
        let h = fill_rows(
            rows,
            c,
            #[inline(always)]
            |first, out| {
                for ((h, x), r) in out.iter_mut().zip(&xs[first * c..]).zip(&rs[first * c..]) {
                    *h = x + r;
                }
            },
        );
        let (y, rstd) = normalise(&h, w.as_f32()?, eps, x);
        Ok((Tensor::f32(h, x.shape()), y, rstd))
    }

    fn rms_norm_bwd(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w: &Tensor,
        rstd: &Tensor,
        dh: Option<&Tensor>,
        wants_dw: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let [rows, c] = x.rows_cols("rms_norm_bwd: x (…,C)")?;
        dy.expect("rms_norm_bwd: dy (…,C)", x.shape())?;
        w.expect("rms_norm_bwd: w (C)", [c])?;
        rstd.expect("rms_norm_bwd: rstd (rows)", [rows])?;
        if let Some(dh) = dh {
            dh.expect("rms_norm_bwd: dh (…,C)", x.shape())?;
        }
        let (dys, xs, ws, rs) = (dy.as_f32()?, x.as_f32()?, w.as_f32()?, rstd.as_f32()?);
        let extra = dh.map(Tensor::as_f32).transpose()?;
        let dx = fill_rows(
            rows,
            c,
            #[inline(always)]
            |first, out| {
                for (n, dx) in (first..).zip(out.chunks_exact_mut(c)) {
                    let (dy, x, r) = (&dys[n * c..][..c], &xs[n * c..][..c], rs[n]);
                    for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(ws) {
                        *dx = dy * w;
                    }
                    let m = r * r * dot(dx, x) / c as f32;
                    for (dx, x) in dx.iter_mut().zip(x) {
                        *dx = r * (*dx - x * m);
                    }
                    if let Some(dh) = extra {
                        for (dx, dh) in dx.iter_mut().zip(&dh[n * c..][..c]) {
                            *dx += dh;
                        }
                    }
                }
            },
        );
        let dw = wants_dw.then(|| {
            let sums = sum_rows(
                rows,
                c,
                #[inline(always)]
                |n, sums| {
                    let (dy, x, r) = (&dys[n * c..][..c], &xs[n * c..][..c], rs[n]);
                    for ((sum, dy), x) in sums.iter_mut().zip(dy).zip(x) {
                        *sum += f64::from(dy * x * r);
                    }
                },
            );
            Tensor::f32(sums, [c])
        });
        Ok((Tensor::f32(dx, x.shape()), dw))
    }
}
