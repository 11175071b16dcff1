#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::{Device, Launcher, blocks, input, kernels as k};
use crate::error::Result;
use crate::ops::swiglu::SwigluKernels;
use crate::tensor::Tensor;

fn grid(n: usize) -> [u32; 3] {
    [blocks(n.div_ceil(k::swiglu::THREADS * k::swiglu::GROUPS * k::swiglu::WIDE_BF16)), 1, 1]
}

impl<L: Launcher> SwigluKernels for Device<L> {
    fn swiglu_fwd(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        up.expect("swiglu: up", gate.shape())?;
        let n = gate.shape().len();
        let (y, out) = self.empty::<bf16>(gate.shape())?;
        let (gate, up) = (input(gate)?, input(up)?);
        if n > 0 {
            // SAFETY: all three tensors hold n elements: checked or made above.
            unsafe { k::swiglu_fwd(self.launcher(), grid(n), out, gate, up, n as i64)? };
        }
        Ok(y)
    }

    fn swiglu_bwd(&self, dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
        dy.expect("swiglu_bwd: dy", gate.shape())?;
        up.expect("swiglu_bwd: up", gate.shape())?;
        let n = gate.shape().len();
        let (dgate, dgate_out) = self.empty::<bf16>(gate.shape())?;
        let (dup, dup_out) = self.empty::<bf16>(gate.shape())?;
        let (dy, gate, up) = (input(dy)?, input(gate)?, input(up)?);
        if n > 0 {
            // SAFETY: all five tensors hold n elements: checked or made above.
            unsafe { k::swiglu_bwd(self.launcher(), grid(n), dgate_out, dup_out, dy, gate, up, n as i64)? };
        }
        Ok((dgate, dup))
    }
}
