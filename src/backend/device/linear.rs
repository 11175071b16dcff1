#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::matmul::{padded, widths};
use super::{Device, Launcher, input, vectors};
use crate::error::Result;
use crate::ops::linear::LinearKernels;
use crate::tensor::{Shape, Tensor};

/// `(…, in)` → `(…, out)`.
pub(super) fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    dims.into()
}

impl<L: Launcher> LinearKernels for Device<L> {
    fn linear_fwd(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [n, k] = widths(w, "linear: w (out,in)")?;
        let [rows, _] = x.rows_cols("linear: x (…,in)")?;
        x.expect("linear: x (…,in)", with_last(x.shape(), k))?;
        let (y, out) = self.empty::<bf16>([rows, padded(n)])?;
        // SAFETY: x holds rows·k elements and w n·k, k a multiple of 8; y was made for rows of padded n.
        unsafe { self.nt(out, [input(x)?, input(w)?], None, [rows, n, k], 1.0)? };
        self.dense_rows(&y, with_last(x.shape(), n))
    }

    fn linear_bwd_x(&self, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [n, k] = widths(w, "linear_bwd_x: w (out,in)")?;
        let [rows, _] = dy.rows_cols("linear_bwd_x: dy (…,out)")?;
        dy.expect("linear_bwd_x: dy (…,out)", with_last(dy.shape(), n))?;
        let dys = self.padded_rows(dy, "linear_bwd_x: dy (…,out)")?;
        let (dx, out) = self.empty::<bf16>(with_last(dy.shape(), k))?;
        // SAFETY: dys holds rows of padded n, w n·k elements, dx rows·k; k is a multiple of 8.
        unsafe { self.nn(out, [input(&dys)?, input(w)?], None, [rows, n, k], 1.0)? };
        Ok(dx)
    }

    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let [rows, n] = dy.rows_cols("linear_bwd_w: dy (…,out)")?;
        let [_, k] = x.rows_cols("linear_bwd_w: x (…,in)")?;
        x.expect("linear_bwd_w: x (…,in)", with_last(dy.shape(), k))?;
        vectors("the input width of a linear layer", k)?;
        let dys = self.padded_rows(dy, "linear_bwd_w: dy (…,out)")?;
        // SAFETY: dys holds rows of padded n, x rows·k elements, k a multiple of 8.
        unsafe { self.tn([input(&dys)?, input(x)?], [rows, n, k]) }
    }
}
