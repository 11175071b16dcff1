use super::Cpu;
use super::gemm::{Mat, gemm};
use crate::error::Result;
use crate::ops::linear::{LinearKernels, Sum, bwd_w_extents, bwd_x_shapes, fwd_shapes};
use crate::tensor::{Shape, Tensor, pool};

/// `scale·Σ left·oriented(w)` for every sum: a product after the first is added to those before it.
fn evaluated(sums: &[Sum], shapes: Vec<Shape>, oriented: fn(Mat) -> Mat) -> Result<Vec<Tensor>> {
    let result = |(sum, shape): (&Sum, Shape)| {
        let mut result = pool::dirty(shape.len());
        for (i, (left, w)) in sum.terms.iter().enumerate() {
            let ([rows, cols], [n, k]) = (left.rows_cols("linear: x")?, w.dims("linear: w")?);
            let beta = if i == 0 { 0.0 } else { 1.0 };
            gemm(sum.scale, Mat::new(left.as_f32()?, rows, cols), oriented(Mat::new(w.as_f32()?, n, k)), beta, &mut result);
        }
        Ok(Tensor::f32(result, shape))
    };
    sums.iter().zip(shapes).map(result).collect()
}

impl LinearKernels for Cpu {
    fn linear_fwd_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>> {
        evaluated(sums, fwd_shapes(sums)?, |w| w.t())
    }

    fn linear_bwd_x_group(&self, sums: &[Sum]) -> Result<Vec<Tensor>> {
        evaluated(sums, bwd_x_shapes(sums)?, |w| w)
    }

    fn linear_bwd_w(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let [rows, n, k] = bwd_w_extents(dy, x)?;
        let mut dw = pool::dirty(n * k);
        gemm(1.0, Mat::new(dy.as_f32()?, rows, n).t(), Mat::new(x.as_f32()?, rows, k), 0.0, &mut dw);
        Ok(Tensor::f32(dw, [n, k]))
    }
}
