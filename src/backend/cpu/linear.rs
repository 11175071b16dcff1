use super::Cpu;
use super::gemm::{Mat, gemm};
use crate::error::Result;
use crate::ops::linear::LinearKernels;
use crate::tensor::{Shape, Tensor, pool};

/// `(…, in)` → `(…, out)`.
pub(super) fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims.into()
}

impl LinearKernels for Cpu {
    fn linear_fwd(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [n, k] = w.dims("linear: w (out,in)")?;
        let [rows, _] = x.rows_cols("linear: x (…,in)")?;
        x.expect("linear: x (…,in)", with_last(x.shape(), k))?;
        let mut y = pool::dirty(rows * n);
        gemm(1.0, Mat::new(x.as_f32()?, rows, k), Mat::new(w.as_f32()?, n, k).t(), 0.0, &mut y);
        Ok(Tensor::f32(y, with_last(x.shape(), n)))
    }

    fn linear_bwd_x(&self, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [n, k] = w.dims("linear_bwd_x: w (out,in)")?;
        let [rows, _] = dy.rows_cols("linear_bwd_x: dy (…,out)")?;
        dy.expect("linear_bwd_x: dy (…,out)", with_last(dy.shape(), n))?;
        let mut dx = pool::dirty(rows * k);
        gemm(1.0, Mat::new(dy.as_f32()?, rows, n), Mat::new(w.as_f32()?, n, k), 0.0, &mut dx);
        Ok(Tensor::f32(dx, with_last(dy.shape(), k)))
    }

    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let [rows, n] = dy.rows_cols("linear_bwd_w: dy (…,out)")?;
        let [_, k] = x.rows_cols("linear_bwd_w: x (…,in)")?;
        x.expect("linear_bwd_w: x (…,in)", with_last(dy.shape(), k))?;
        let mut dw = pool::dirty(n * k);
        gemm(1.0, Mat::new(dy.as_f32()?, rows, n).t(), Mat::new(x.as_f32()?, rows, k), 0.0, &mut dw);
        Ok(Tensor::f32(dw, [n, k]))
    }
}
