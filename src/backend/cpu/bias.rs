use super::{Cpu, fill_rows, sum_rows};
use crate::error::Result;
use crate::ops::bias::BiasKernels;
use crate::tensor::Tensor;

impl BiasKernels for Cpu {
    fn bias_fwd(&self, x: &Tensor, b: &Tensor) -> Result<Tensor> {
        let [rows, c] = x.rows_cols("bias: x (…,C)")?;
        b.expect("bias: b (C)", [c])?;
        let (xs, bs) = (x.as_f32()?, b.as_f32()?);
        let y = fill_rows(
            rows,
            c,
            #[inline(always)]
            |first, out| {
                for (y, x) in out.chunks_exact_mut(c).zip(xs[first * c..].chunks_exact(c)) {
                    for ((y, x), b) in y.iter_mut().zip(x).zip(bs) {
                        *y = x + b;
                    }
                }
            },
        );
        Ok(Tensor::f32(y, x.shape()))
    }

    fn bias_bwd(&self, dy: &Tensor) -> Result<Tensor> {
        let [rows, c] = dy.rows_cols("bias_bwd: dy (…,C)")?;
        let dys = dy.as_f32()?;
        let db = sum_rows(
            rows,
            c,
            #[inline(always)]
            |n, sums| {
                for (s, d) in sums.iter_mut().zip(&dys[n * c..][..c]) {
                    *s += f64::from(*d);
                }
            },
        );
        Ok(Tensor::f32(db, [c]))
    }
}
