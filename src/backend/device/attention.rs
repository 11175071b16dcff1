#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::kernels::attention_bwd as rows;
use super::{Device, In, Launcher, Out, Purpose, blocks, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::attention::{AttentionKernels, AttentionSaved, Extents};
use crate::tensor::{Tensor, TensorError};

/// Queries up to which a call against more keys than queries is split by keys, not by queries alone.
const FEW_QUERIES: usize = 16;
/// Blocks that such a call is split into, enough to fill the largest device twice, and the fewest keys of one.
const SPLIT_BLOCKS: usize = 264;
const LEAST_SPAN: usize = 256;

/// What kernels are compiled for: head_dim is padded with zeros to one of these.
#[derive(Clone, Copy)]
enum Width {
    D32,
    D64,
    D96,
    D128,
}

impl Width {
    fn of(head_dim: usize) -> Result<Self> {
        vectors("head_dim", head_dim)?;
        match head_dim {
            0..=32 => Ok(Self::D32),
            33..=64 => Ok(Self::D64),
            65..=96 => Ok(Self::D96),
            97..=128 => Ok(Self::D128),
            got => Err(TensorError::Extent { what: "head_dim", needed: "at most 128", got }.into()),
        }
    }

    /// What belongs to this width, from what belongs to each in rising order.
    fn pick<T: Copy>(self, each: [T; 4]) -> T {
        each[self as usize]
    }
}

/// A forward pass: its tensors in device memory, and its extents.
struct Forward {
    o: Out<bf16>,
    lse: Out<f32>,
    q: In<bf16>,
    k: In<bf16>,
    v: In<bf16>,
    starts: In<u32>,
    extents: Extents,
    width: Width,
    scale: f32,
}

impl<L: Launcher> AttentionKernels for Device<L> {
    fn attention_fwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Tensor, scale: f32) -> Result<(Tensor, Tensor)> {
        let extents = Extents::of(q, k, v, segments)?;
        let width = Width::of(extents.head_dim)?;
        let (o, o_out) = self.empty::<bf16>(q.shape())?;
        let (lse, lse_out) = self.empty::<f32>([extents.batch, extents.heads, extents.q_len])?;
        if !o.shape().is_empty() {
            let (q, k, v, starts) = (input(q)?, input(k)?, input(v)?, input(segments)?);
            let forward = Forward { o: o_out, lse: lse_out, q, k, v, starts, extents, width, scale };
            // SAFETY: q, k, v and starts have the extents, which were checked; o and lse were made for them.
            unsafe {
                if extents.q_len <= FEW_QUERIES && extents.kv_len > extents.q_len {
                    self.split_by_keys(&forward)?;
                } else {
                    self.split_by_queries(&forward)?;
                }
            }
        }
        Ok((o, lse))
    }

    fn attention_bwd(&self, dout: &Tensor, saved: &AttentionSaved) -> Result<[Tensor; 3]> {
        let e = Extents::of_backward(dout, saved)?;
        let width = Width::of(e.head_dim)?;
        let [q, key, v] = &saved.qkv;
        key.expect("attention_bwd: k (B,T,Hk,D)", [e.batch, e.q_len, e.kv_heads, e.head_dim])?;
        if q.shape().is_empty() {
            let zeros = |x: &Tensor| self.zeros_for::<bf16>(Purpose::Activations, x.shape()).map(|(tensor, _)| tensor);
            return Ok([zeros(q)?, zeros(key)?, zeros(v)?]);
        }
        let (dq, dq_out) = self.empty::<bf16>(q.shape())?;
        let (dk, dk_out) = self.empty::<bf16>(key.shape())?;
        let (dv, dv_out) = self.empty::<bf16>(v.shape())?;
        let (delta, delta_out) = self.empty::<f32>([e.batch, e.heads, e.q_len])?;
        let (dout, q, key, v, o) = (input(dout)?, input(q)?, input(key)?, input(v)?, input(&saved.o)?);
        let (lse, delta, starts) = (input(&saved.lse)?, input(&delta)?, input(&saved.segments)?);

        let grid = |rows_each: usize, heads: usize| [blocks(e.q_len.div_ceil(rows_each)), blocks(heads), blocks(e.batch)];
        let rows_of_q = width.pick([rows::QUERY_ROWS32, rows::QUERY_ROWS64, rows::QUERY_ROWS96, rows::QUERY_ROWS128]);
        let rows_of_kv = width.pick([rows::KEY_ROWS32, rows::KEY_ROWS64, rows::KEY_ROWS96, rows::KEY_ROWS128]);
        let (by_queries, by_keys) = (grid(rows_of_q, e.heads), grid(rows_of_kv, e.kv_heads));
        let for_q = width.pick([k::attention_bwd_q_d32, k::attention_bwd_q_d64, k::attention_bwd_q_d96, k::attention_bwd_q_d128]);
        let for_kv =
            width.pick([k::attention_bwd_kv_d32, k::attention_bwd_kv_d64, k::attention_bwd_kv_d96, k::attention_bwd_kv_d128]);
        let [heads, kv_heads, tokens, head_dim] = [e.heads, e.kv_heads, e.q_len, e.head_dim].map(int);
        let (l, scale) = (self.launcher(), saved.scale);
        // SAFETY: all inputs have the extents, which were checked; delta and the gradients were made for them.
        unsafe {
            k::attention_bwd_delta(l, grid(rows::DELTA_ROWS, e.heads), delta_out, dout, o, heads, tokens, head_dim)?;
            for_q(l, by_queries, dq_out, dout, q, key, v, lse, delta, starts, heads, kv_heads, tokens, head_dim, scale)?;
            for_kv(l, by_keys, dk_out, dv_out, dout, q, key, v, lse, delta, starts, heads, kv_heads, tokens, head_dim, scale)?;
        }
        Ok([dq, dk, dv])
    }
}

impl<L: Launcher> Device<L> {
    /// A block takes queries of one head.
    ///
    /// # Safety
    /// The tensors have the extents.
    unsafe fn split_by_queries(&self, f: &Forward) -> Result<()> {
        let e = f.extents;
        let grid = [blocks(e.q_len.div_ceil(k::attention::ROWS)), blocks(e.heads), blocks(e.batch)];
        let [heads, kv_heads, q_len, kv_len, head_dim] = [e.heads, e.kv_heads, e.q_len, e.kv_len, e.head_dim].map(int);
        let kernel = f.width.pick([k::attention_fwd_d32, k::attention_fwd_d64, k::attention_fwd_d96, k::attention_fwd_d128]);
        let l = self.launcher();
        // SAFETY: passed on to the caller.
        unsafe { kernel(l, grid, f.o, f.lse, f.q, f.k, f.v, f.starts, heads, kv_heads, q_len, kv_len, head_dim, f.scale) }
    }

    /// A block takes some queries of the heads that share a kv head, and a range of the keys.
    ///
    /// # Safety
    /// As [`split_by_queries`](Self::split_by_queries).
    unsafe fn split_by_keys(&self, f: &Forward) -> Result<()> {
        let e = f.extents;
        let tiles = e.kv_heads * (e.q_len * (e.heads / e.kv_heads)).div_ceil(k::attention_decode::FRAG);
        let most = SPLIT_BLOCKS.div_ceil(tiles * e.batch);
        let span = e.kv_len.div_ceil(most).max(LEAST_SPAN);
        let splits = e.kv_len.div_ceil(span);
        let rows = e.batch * e.heads * e.q_len;
        let (part_o, part_o_out) = self.empty::<f32>([splits, rows, e.head_dim])?;
        let (part_lse, part_lse_out) = self.empty::<f32>([splits, rows])?;
        let grid = [blocks(splits), blocks(tiles), blocks(e.batch)];
        let join = [blocks((rows * e.head_dim).div_ceil(k::attention_decode::THREADS)), 1, 1];
        let [heads, kv_heads, q_len, kv_len, head_dim] = [e.heads, e.kv_heads, e.q_len, e.kv_len, e.head_dim].map(int);
        let kernel =
            f.width.pick([k::attention_decode_d32, k::attention_decode_d64, k::attention_decode_d96, k::attention_decode_d128]);
        let (l, part_o, part_lse) = (self.launcher(), input(&part_o)?, input(&part_lse)?);
        let (o, lse, starts) = (part_o_out, part_lse_out, f.starts);
        // SAFETY: the parts were made for this grid; the rest is passed on to the caller.
        unsafe {
            kernel(l, grid, o, lse, f.q, f.k, f.v, starts, heads, kv_heads, q_len, kv_len, head_dim, int(span), f.scale)?;
            k::attention_decode_combine(l, join, f.o, f.lse, part_o, part_lse, int(rows), heads, q_len, head_dim, int(splits))
        }
    }
}
