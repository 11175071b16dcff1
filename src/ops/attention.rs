//! Causal attention with grouped keys and values over a segment table.
//!
//! forward   `S = scale·q·kᵀ` over visible keys, `P = softmax(S)`, `o = P·v`, `lse = log Σ exp S`
//! backward  `dv = Pᵀ·do`, `dP = do·vᵀ`, `dS = P∘(dP − Σ do∘o)`, `dq = scale·dS·k`, `dk = scale·dSᵀ·q`
//!
//! The kernel never sees a pattern: full attention, packed documents and S² attention are all [`Segments`].

use crate::error::Result;
use crate::tape::{Tape, Var};
use crate::tensor::{Tensor, TensorError};

/// Which keys a query sees: for each half of the heads and each query, the first visible key of its row. A query sees
/// from there up to itself, so wrap-around cannot be expressed.
///
/// Values are non-decreasing along a row and never beyond the query itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// `(batch·seq_len)` first visible keys; `[0]` for the first half of the heads, `[1]` for the second.
    pub starts: [Vec<u32>; 2],
}

impl Segments {
    /// As the op takes it, once a backend has placed it: `(2, batch·seq_len)`.
    pub fn table(&self) -> Tensor {
        let [first, second] = &self.starts;
        Tensor::u32([first.as_slice(), second].concat(), [2, first.len()])
    }

    /// Tables of `parts` equal parts: of each row, or one for all.
    pub fn tables(&self, parts: usize) -> Vec<Tensor> {
        let [first, second] = &self.starts;
        let queries = first.len() / parts;
        let rows = first.chunks_exact(queries).zip(second.chunks_exact(queries));
        rows.map(|(first, second)| Tensor::u32([first, second].concat(), [2, queries])).collect()
    }
}

/// Backends' part. `q` `(batch, q_len, heads, head_dim)`, `k`, `v` `(batch, kv_len, kv_heads, head_dim)`; the queries are the
/// last `q_len` of the `kv_len` tokens. Query head `h` reads kv head `h / (heads / kv_heads)`. `segments` is the table of
/// [`Segments`], in the backend's memory.
pub trait AttentionKernels {
    /// `(o, lse)`: `o` like `q`, `lse` `(batch, heads, q_len)`.
    fn attention_fwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Tensor, scale: f32) -> Result<(Tensor, Tensor)>;
    /// Gradients of q, k, v. Here `q_len == kv_len`.
    fn attention_bwd(&self, dout: &Tensor, saved: &AttentionSaved) -> Result<[Tensor; 3]>;
}

/// What backward needs: linear in the sequence length.
#[derive(Debug)]
pub struct AttentionSaved {
    /// Rotated queries, keys, values.
    pub qkv: [Tensor; 3],
    /// The output.
    pub o: Tensor,
    /// `log Σ exp S` per head and query.
    pub lse: Tensor,
    /// The segment table.
    pub segments: Tensor,
    /// Softmax scale, `1/sqrt(head_dim)`.
    pub scale: f32,
}

/// Extents of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extents {
    /// Rows of the batch, B.
    pub batch: usize,
    /// Query tokens per row, Tq: the last of the `kv_len`.
    pub q_len: usize,
    /// Key tokens per row, Tk >= Tq.
    pub kv_len: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key heads, Hk, a divisor of H.
    pub kv_heads: usize,
    /// Values per head, D.
    pub head_dim: usize,
}

impl Extents {
    /// What shapes and segments agree on.
    pub fn of(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Tensor) -> std::result::Result<Self, TensorError> {
        let [batch, q_len, heads, head_dim] = q.dims("attention: q (B,Tq,H,D)")?;
        let [_, kv_len, kv_heads, _] = k.dims("attention: k (B,Tk,Hk,D)")?;
        k.expect("attention: k (B,Tk,Hk,D)", [batch, kv_len, kv_heads, head_dim])?;
        v.expect("attention: v (B,Tk,Hk,D)", k.shape())?;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let expected = [batch, kv_len, heads, head_dim].into();
            return Err(TensorError::Shape { what: "attention: k (B,Tk,Hk,D), Hk dividing H", expected, got: k.shape().clone() });
        }
        k.expect("attention: k (B,Tk,Hk,D), Tk at least Tq", [batch, kv_len.max(q_len), kv_heads, head_dim])?;
        segments.expect("attention: segments (2,B·Tq)", [2, batch * q_len])?;
        Ok(Self { batch, q_len, kv_len, heads, kv_heads, head_dim })
    }

    /// As [`of`](Self::of), with the gradient of the output and what else backward is given.
    pub fn of_backward(dout: &Tensor, saved: &AttentionSaved) -> std::result::Result<Self, TensorError> {
        let [q, k, v] = &saved.qkv;
        let extents = Self::of(q, k, v, &saved.segments)?;
        dout.expect("attention_bwd: do (B,T,H,D)", q.shape())?;
        saved.o.expect("attention_bwd: o (B,T,H,D)", q.shape())?;
        saved.lse.expect("attention_bwd: lse (B,H,T)", [extents.batch, extents.heads, extents.q_len])?;
        Ok(extents)
    }
}

/// `softmax(scale·q·kᵀ)·v` over the visible keys; shapes as in [`AttentionKernels`].
pub fn attention(t: &mut Tape, q: &Var, k: &Var, v: &Var, segments: &Tensor, scale: f32) -> Result<Var> {
    let qkv = [q, k, v].map(|x| x.value().clone());
    let (o, lse) = t.kernels().attention_fwd(&qkv[0], &qkv[1], &qkv[2], segments, scale)?;
    let saved = AttentionSaved { qkv, o: o.clone(), lse, segments: segments.clone(), scale };
    let [o] = t.record([q, k, v], [o], move |k, _, [dout]| {
        let dout = dout.expect("tape: a node runs only when its output has a gradient");
        Ok(k.attention_bwd(&dout, &saved)?.map(Some))
    });
    Ok(o)
}
