use super::Cpu;
use super::gemm::{Mat, gemm};
use super::linear::with_last;
use crate::error::Result;
use crate::ops::lora_linear::{LoraGrads, LoraLinearKernels, LoraWeights};
use crate::tensor::{Tensor, pool};

impl LoraLinearKernels for Cpu {
    fn lora_linear_fwd(&self, x: &Tensor, weights: &LoraWeights) -> Result<(Tensor, Tensor)> {
        let [n, k] = weights.w.dims("lora_linear: w (out,in)")?;
        let [r, _] = weights.a.dims("lora_linear: a (rank,in)")?;
        weights.a.expect("lora_linear: a (rank,in)", [r, k])?;
        weights.b.expect("lora_linear: b (out,rank)", [n, r])?;
        let [rows, _] = x.rows_cols("lora_linear: x (…,in)")?;
        x.expect("lora_linear: x (…,in)", with_last(x.shape(), k))?;
        let xs = Mat::new(x.as_f32()?, rows, k);
        let mut u = pool::dirty(rows * r);
        gemm(weights.scale, xs, Mat::new(weights.a.as_f32()?, r, k).t(), 0.0, &mut u);
        let mut y = pool::dirty(rows * n);
        gemm(1.0, xs, Mat::new(weights.w.as_f32()?, n, k).t(), 0.0, &mut y);
        gemm(1.0, Mat::new(&u, rows, r), Mat::new(weights.b.as_f32()?, n, r).t(), 1.0, &mut y);
        Ok((Tensor::f32(y, with_last(x.shape(), n)), Tensor::f32(u, with_last(x.shape(), r))))
    }

    fn lora_linear_bwd(&self, dy: &Tensor, x: &Tensor, u: &Tensor, weights: &LoraWeights, wants_dx: bool) -> Result<LoraGrads> {
        let [n, k] = weights.w.dims("lora_linear_bwd: w (out,in)")?;
        let [r, _] = weights.a.dims("lora_linear_bwd: a (rank,in)")?;
        let [rows, _] = dy.rows_cols("lora_linear_bwd: dy (…,out)")?;
        weights.a.expect("lora_linear_bwd: a (rank,in)", [r, k])?;
        weights.b.expect("lora_linear_bwd: b (out,rank)", [n, r])?;
        x.expect("lora_linear_bwd: x (…,in)", with_last(dy.shape(), k))?;
        u.expect("lora_linear_bwd: u (…,rank)", with_last(dy.shape(), r))?;
        dy.expect("lora_linear_bwd: dy (…,out)", with_last(x.shape(), n))?;
        let dys = Mat::new(dy.as_f32()?, rows, n);
        let mut v = pool::dirty(rows * r);
        gemm(weights.scale, dys, Mat::new(weights.b.as_f32()?, n, r), 0.0, &mut v);
        let mut da = pool::dirty(r * k);
        gemm(1.0, Mat::new(&v, rows, r).t(), Mat::new(x.as_f32()?, rows, k), 0.0, &mut da);
        let mut db = pool::dirty(n * r);
        gemm(1.0, dys.t(), Mat::new(u.as_f32()?, rows, r), 0.0, &mut db);
        let dx = match wants_dx {
            true => {
                let mut dx = pool::dirty(rows * k);
                gemm(1.0, dys, Mat::new(weights.w.as_f32()?, n, k), 0.0, &mut dx);
                gemm(1.0, Mat::new(&v, rows, r), Mat::new(weights.a.as_f32()?, r, k), 1.0, &mut dx);
                Some(Tensor::f32(dx, x.shape()))
            }
            false => None,
        };
        Ok(LoraGrads { dx, da: Some(Tensor::f32(da, [r, k])), db: Some(Tensor::f32(db, [n, r])) })
    }
}
