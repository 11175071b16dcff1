#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::partial::Columns;
use super::{Device, Launcher, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::bias::BiasKernels;
use crate::tensor::Tensor;

impl<L: Launcher> BiasKernels for Device<L> {
    fn bias_fwd(&self, x: &Tensor, b: &Tensor) -> Result<Tensor> {
        let [rows, cols] = x.rows_cols("bias: x (…,C)")?;
        b.expect("bias: b (C)", [cols])?;
        vectors("the width of a bias", cols)?;
        let (y, out) = self.empty::<bf16>(x.shape())?;
        let (x, b) = (input(x)?, input(b)?);
        if rows * cols > 0 {
            let c = Columns::mapped(rows, cols, k::bias::THREADS);
            // SAFETY: x and y hold rows·cols elements, b holds cols: checked or made above.
            unsafe { k::bias_fwd(self.launcher(), c.grid(), out, x, b, int(rows), int(cols), int(c.team))? };
        }
        Ok(y)
    }

    fn bias_bwd(&self, dy: &Tensor) -> Result<Tensor> {
        let [rows, cols] = dy.rows_cols("bias_bwd: dy (…,C)")?;
        vectors("the width of a bias", cols)?;
        let c = Columns::summed(rows, cols, k::bias::THREADS);
        let (partial, out) = self.empty::<f32>([c.parts, cols])?;
        // SAFETY: dy holds rows·cols elements, partial parts·cols; parts is the grid's width.
        unsafe { k::bias_bwd(self.launcher(), c.grid(), out, input(dy)?, int(rows), int(cols), int(c.team))? };
        self.sum_rows(&partial)
    }
}
