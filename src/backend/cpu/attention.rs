use super::Cpu;
use super::flash::{self, Dims};
use crate::error::Result;
use crate::ops::attention::{AttentionKernels, AttentionSaved, Segments};
use crate::tensor::{Tensor, TensorError, pool};

fn dims(q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments) -> std::result::Result<Dims, TensorError> {
    let [batch, q_len, heads, head_dim] = q.dims("attention: q (B,Tq,H,D)")?;
    let [_, kv_len, kv_heads, _] = k.dims("attention: k (B,Tk,Hk,D)")?;
    k.expect("attention: k (B,Tk,Hk,D)", [batch, kv_len, kv_heads, head_dim])?;
    v.expect("attention: v (B,Tk,Hk,D)", k.shape())?;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let expected = [batch, kv_len, heads, head_dim].into();
        return Err(TensorError::Shape { what: "attention: k (B,Tk,Hk,D), Hk dividing H", expected, got: k.shape().clone() });
    }
    k.expect("attention: k (B,Tk,Hk,D), Tk at least Tq", [batch, kv_len.max(q_len), kv_heads, head_dim])?;
    for starts in &segments.starts {
        if starts.len() != batch * q_len {
            let (expected, got) = ([batch, q_len].into(), [starts.len()].into());
            return Err(TensorError::Shape { what: "attention: segment starts (B·Tq)", expected, got });
        }
    }
    Ok(Dims { batch, q_len, kv_len, heads, kv_heads, head_dim })
}

fn starts(segments: &Segments) -> [&[u32]; 2] {
    segments.starts.each_ref().map(Vec::as_slice)
}

impl AttentionKernels for Cpu {
    fn attention_fwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Segments, scale: f32) -> Result<(Tensor, Tensor)> {
        let d = dims(q, k, v, segments)?;
        let mut o = pool::dirty(q.shape().len());
        let mut lse = pool::dirty(d.batch * d.heads * d.q_len);
        flash::forward(d, scale, q.as_f32()?, k.as_f32()?, v.as_f32()?, starts(segments), &mut o, &mut lse);
        Ok((Tensor::f32(o, q.shape()), Tensor::f32(lse, [d.batch, d.heads, d.q_len])))
    }

    fn attention_bwd(&self, dout: &Tensor, saved: &AttentionSaved) -> Result<[Tensor; 3]> {
        let [q, k, v] = &saved.qkv;
        let d = dims(q, k, v, &saved.segments)?;
        dout.expect("attention_bwd: do (B,T,H,D)", q.shape())?;
        saved.o.expect("attention_bwd: o (B,T,H,D)", q.shape())?;
        saved.lse.expect("attention_bwd: lse (B,H,T)", [d.batch, d.heads, d.q_len])?;
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|t| pool::dirty(t.shape().len()));
        flash::backward(
            d,
            saved.scale,
            q.as_f32()?,
            k.as_f32()?,
            v.as_f32()?,
            saved.o.as_f32()?,
            saved.lse.as_f32()?,
            dout.as_f32()?,
            starts(&saved.segments),
            &mut dq,
            &mut dk,
            &mut dv,
        );
        Ok([Tensor::f32(dq, q.shape()), Tensor::f32(dk, k.shape()), Tensor::f32(dv, v.shape())])
    }
}
