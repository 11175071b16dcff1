use super::Cpu;
use super::flash;
use crate::error::Result;
use crate::ops::attention::{AttentionKernels, AttentionSaved, Extents};
use crate::tensor::{Tensor, pool};

fn starts(segments: &Tensor) -> Result<[&[u32]; 2]> {
    let starts = segments.as_u32()?;
    Ok(starts.split_at(starts.len() / 2).into())
}

impl AttentionKernels for Cpu {
    fn attention_fwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, segments: &Tensor, scale: f32) -> Result<(Tensor, Tensor)> {
        let d = Extents::of(q, k, v, segments)?;
        let mut o = pool::dirty(q.shape().len());
        let mut lse = pool::dirty(d.batch * d.heads * d.q_len);
        flash::forward(d, scale, q.as_f32()?, k.as_f32()?, v.as_f32()?, starts(segments)?, &mut o, &mut lse);
        Ok((Tensor::f32(o, q.shape()), Tensor::f32(lse, [d.batch, d.heads, d.q_len])))
    }

    fn attention_bwd(&self, dout: &Tensor, saved: &AttentionSaved) -> Result<[Tensor; 3]> {
        let [q, k, v] = &saved.qkv;
        let d = Extents::of_backward(dout, saved)?;
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
            starts(&saved.segments)?,
            &mut dq,
            &mut dk,
            &mut dv,
        );
        Ok([Tensor::f32(dq, q.shape()), Tensor::f32(dk, k.shape()), Tensor::f32(dv, v.shape())])
    }
}
