#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::matmul::{SumTo, padded, term};
use super::{Device, Launcher, input};
use crate::error::Result;
use crate::ops::linear::{LinearKernels, Sum, bwd_w_extents, bwd_x_shapes, fwd_shapes};
use crate::tensor::{Shape, Tensor};

impl<L: Launcher> LinearKernels for Device<L> {
    fn linear_fwd_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>> {
        // SAFETY: every x has the same rows, and they fit w's (out,in); `evaluated` pads them all and makes the results.
        self.evaluated(sums, fwd_shapes(sums)?, |rows, sums| unsafe { self.nt(rows, sums) })
    }

    fn linear_bwd_x_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>> {
        // SAFETY: as above, with dy for x and the extents of w the other way round.
        self.evaluated(sums, bwd_x_shapes(sums)?, |rows, sums| unsafe { self.nn(rows, sums) })
    }

    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let extents = bwd_w_extents(dy, x)?;
        let (dy, x) = (self.padded_rows(dy, "linear_bwd_w: dy (…,out)")?, self.padded_rows(x, "linear_bwd_w: x (…,in)")?);
        // SAFETY: both have padded rows, and as many.
        unsafe { self.tn([input(&dy)?, input(&x)?], extents) }
    }
}

impl<L: Launcher> Device<L> {
    /// One launch for all sums, whose results have these shapes.
    fn evaluated(
        &self,
        sums: &[Sum],
        shapes: Vec<Shape>,
        launch: impl FnOnce(usize, &[SumTo]) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        let (mut rows, mut operands, mut parts, mut results) = (0, Vec::new(), Vec::new(), Vec::new());
        for (sum, shape) in sums.iter().zip(&shapes) {
            let width = *shape.dims().last().expect("linear: results have a width");
            let mut terms = Vec::new();
            for (left, w) in &sum.terms {
                let [left_rows, extent] = left.rows_cols("linear: x")?;
                let (left, w) = (self.padded_rows(left, "linear: x")?, self.padded_rows(w, "linear: w")?);
                terms.push(term(input(&left)?, input(&w)?, extent));
                operands.extend([left, w]);
                rows = left_rows;
            }
            let (result, to) = self.empty::<bf16>([rows, padded(width)])?;
            parts.push(SumTo { to, width, scale: sum.scale, terms });
            results.push(result);
        }
        launch(rows, &parts)?;
        results.iter().zip(shapes).map(|(result, shape)| self.dense_rows(result, shape)).collect()
    }
}
