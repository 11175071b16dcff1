#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::{Device, In, Launcher, Out, Purpose, blocks, inout, input, int, kernels as k};
use crate::error::Result;
use crate::ops::optim::{AdamWStep, AdamWTensor, OptimKernels};
use crate::tensor::Tensor;

/// Blocks of a launch at most: every block adds the squares of all chunks first, so more than fill a device cost time. As many
/// as the smallest of the large GPUs holds at once, 108 multiprocessors with four each.
const MOST_BLOCKS: usize = 432;

/// The tables of `adamw.cu`.
#[derive(Default)]
struct Tables {
    tensors: Vec<u64>,
    rates: Vec<f32>,
    chunks: Vec<u32>,
}

impl Tables {
    fn push(&mut self, tensor: &mut AdamWTensor) -> Result<()> {
        let (shape, index) = (tensor.value.shape().clone(), self.rates.len() as u32 / 2);
        let master = tensor.master.as_deref_mut().expect("adamw: a parameter that moves has an exact copy");
        for (what, t) in
            [("adamw: master", &*master), ("adamw: grad", tensor.grad), ("adamw: m", &*tensor.m), ("adamw: v", &*tensor.v)]
        {
            t.expect(what, &shape)?;
        }
        self.tensors.extend([
            inout::<bf16>(tensor.value)?.address(),
            inout::<f32>(master)?.address(),
            input::<f32>(tensor.grad)?.address(),
            inout::<f32>(tensor.m)?.address(),
            inout::<f32>(tensor.v)?.address(),
            shape.len() as u64,
        ]);
        self.rates.extend([tensor.lr, tensor.weight_decay]);
        let chunks = shape.len().div_ceil(k::adamw::CHUNK) as u32;
        self.chunks.extend((0..chunks).flat_map(|chunk| [index, chunk]));
        Ok(())
    }
}

impl<L: Launcher> OptimKernels for Device<L> {
    fn adamw(&self, tensors: &mut [AdamWTensor], step: &AdamWStep) -> Result<f64> {
        let mut tables = Tables::default();
        tensors.iter_mut().try_for_each(|tensor| tables.push(tensor))?;
        let count = tables.chunks.len() / 2;
        if count == 0 {
            return Ok(0.0);
        }
        let halves: Vec<u32> = tables.tensors.iter().flat_map(|&n| [n as u32, (n >> 32) as u32]).collect();
        let (addresses, chunks) = (self.integers(&halves)?, self.integers(&tables.chunks)?);
        let rates = self.uploaded_for(Purpose::Optimizer, &Tensor::f32(tables.rates, [tensors.len(), 2]))?;
        // One f64 per chunk, as two integers: no tensor holds f64.
        let (partial, _) = self.empty_for::<u32>(Purpose::Optimizer, [count, 2])?;
        let partial_out = Out::<f64>::new(partial.as_device()?.address());
        let (norm, norm_out) = self.empty_for::<f32>(Purpose::Optimizer, [1])?;
        let (l, grid, n) = (self.launcher(), [blocks(count.min(MOST_BLOCKS)), 1, 1], int(count));
        let (addresses, chunks) = (In::<u64>::new(addresses.as_device()?.address()), input(&chunks)?);
        let AdamWStep { beta1, beta2, eps, bias_correction1, bias_correction2, max_grad_norm } = *step;
        // SAFETY: the tables name device tensors of the lengths they say, which outlive the launches, and chunks inside them;
        // partial holds one f64 per chunk.
        unsafe {
            k::adamw_squares(l, grid, partial_out, addresses, chunks, n)?;
            k::adamw_step(
                l,
                grid,
                norm_out,
                partial_out.as_input(),
                addresses,
                input(&rates)?,
                chunks,
                n,
                beta1,
                beta2,
                eps,
                bias_correction1,
                bias_correction2,
                max_grad_norm as f32,
            )?;
        }
        Ok(f64::from(norm.to_host_f32()?.as_f32()?[0]))
    }
}
