#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::linear::with_last;
use super::matmul::{Factors, padded, widths};
use super::{Device, Launcher, input};
use crate::error::Result;
use crate::ops::lora_linear::{LoraGrads, LoraLinearKernels, LoraWeights};
use crate::tensor::Tensor;

/// The extents `[out, in, rank]` of weights that fit each other.
fn extents(weights: &LoraWeights) -> Result<[usize; 3]> {
    let [n, k] = widths(&weights.w, "lora_linear: w (out,in)")?;
    let [r, _] = weights.a.dims("lora_linear: a (rank,in)")?;
    weights.a.expect("lora_linear: a (rank,in)", [r, k])?;
    weights.b.expect("lora_linear: b (out,rank)", [n, r])?;
    Ok([n, k, r])
}

impl<L: Launcher> LoraLinearKernels for Device<L> {
    fn lora_linear_fwd(&self, x: &Tensor, weights: &LoraWeights) -> Result<(Tensor, Tensor)> {
        let [n, k, r] = extents(weights)?;
        let [rows, _] = x.rows_cols("lora_linear: x (…,in)")?;
        x.expect("lora_linear: x (…,in)", with_last(x.shape(), k))?;
        let (xs, ws, a) = (input(x)?, input(&weights.w)?, input(&weights.a)?);
        let b = self.padded_rows(&weights.b, "lora_linear: b (out,rank)")?;
        let (u, u_out) = self.empty::<bf16>([rows, padded(r)])?;
        let (y, y_out) = self.empty::<bf16>([rows, padded(n)])?;
        let factors = Factors { left: u_out.as_input(), right: input(&b)?, rank: r };
        // SAFETY: x, w and a have rows of k elements, a multiple of 8; b, u and y have rows of padded r, r and n.
        unsafe {
            self.nt(u_out, [xs, a], None, [rows, r, k], weights.scale)?;
            self.nt(y_out, [xs, ws], Some(factors), [rows, n, k], 1.0)?;
        }
        Ok((self.dense_rows(&y, with_last(x.shape(), n))?, self.dense_rows(&u, with_last(x.shape(), r))?))
    }

    fn lora_linear_bwd(&self, dy: &Tensor, x: &Tensor, u: &Tensor, weights: &LoraWeights, wants_dx: bool) -> Result<LoraGrads> {
        let [n, k, r] = extents(weights)?;
        let [rows, _] = dy.rows_cols("lora_linear_bwd: dy (…,out)")?;
        dy.expect("lora_linear_bwd: dy (…,out)", with_last(x.shape(), n))?;
        x.expect("lora_linear_bwd: x (…,in)", with_last(dy.shape(), k))?;
        u.expect("lora_linear_bwd: u (…,rank)", with_last(dy.shape(), r))?;
        let dys = self.padded_rows(dy, "lora_linear_bwd: dy (…,out)")?;
        let us = self.padded_rows(u, "lora_linear_bwd: u (…,rank)")?;
        let b = self.padded_rows(&weights.b, "lora_linear_bwd: b (out,rank)")?;
        let (xs, ws, a) = (input(x)?, input(&weights.w)?, input(&weights.a)?);
        let (dys, us, b) = (input(&dys)?, input(&us)?, input(&b)?);
        let (_v, v) = self.empty::<bf16>([rows, padded(r)])?;
        // SAFETY: dys, us, b and v have rows of padded n, r, r and r; x and a have rows of k, a multiple of 8.
        let (da, db) = unsafe {
            self.nn(v, [dys, b], None, [rows, n, r], weights.scale)?;
            (self.tn([v.as_input(), xs], [rows, r, k])?, self.tn([dys, us], [rows, n, r])?)
        };
        let dx = match wants_dx {
            true => {
                let (dx, out) = self.empty::<bf16>(x.shape())?;
                let factors = Factors { left: v.as_input(), right: a, rank: r };
                // SAFETY: as above, and w and dx have rows of k.
                unsafe { self.nn(out, [dys, ws], Some(factors), [rows, n, k], 1.0)? };
                Some(dx)
            }
            false => None,
        };
        Ok(LoraGrads { dx, da: Some(da), db: Some(db) })
    }
}
