//! Ops that stream through activations: what they cost is memory traffic.

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::Dims;
use crate::bench::op::{Cost, Op};
use crate::ops::rope::{RopeFreqs, RopeTable};
use crate::tensor::Tensor;

const EPS: f32 = 1e-5;

fn hidden(d: &Dims) -> String {
    format!("T={} C={}", d.tokens, d.hidden)
}

fn ffn(d: &Dims) -> String {
    format!("T={} F={}", d.tokens, d.ffn)
}

/// So many tensors of one width are read or written.
fn tensors(count: usize, width: fn(&Dims) -> usize) -> impl Fn(&Dims) -> Cost {
    move |d| Cost::Bytes((count * d.tokens * width(d) * d.element) as f64)
}

fn norms() -> Vec<Op> {
    let width = |d: &Dims| d.hidden;
    let backward = |name: &str, tensors_moved, residual: bool, trained: bool| {
        let allowed = if trained { vec![ROUNDING + F32, F32] } else { vec![ROUNDING + F32] };
        Op::new(name, hidden, tensors(tensors_moved, width), allowed, move |i, d| {
            let shape = [d.tokens, d.hidden];
            let (x, w, dy) = (i.normal(shape, 1.0)?, i.normal([d.hidden], 1.0)?, i.normal(shape, 1.0)?);
            let dh = if residual { Some(i.normal(shape, 1.0)?) } else { None };
            let (_, rstd) = i.kernels().rms_norm_fwd(&x, &w, EPS)?;
            Ok(Box::new(move |k| {
                let (dx, dw) = k.rms_norm_bwd(&dy, &x, &w, &rstd, dh.as_ref(), trained)?;
                Ok(std::iter::once(dx).chain(dw).collect())
            }))
        })
    };
    vec![
        Op::new("rms_norm fwd", hidden, tensors(2, width), [ROUNDING + F32, F32], |i, d| {
            let (x, w) = (i.normal([d.tokens, d.hidden], 1.0)?, i.normal([d.hidden], 1.0)?);
            Ok(Box::new(move |k| {
                let (y, rstd) = k.rms_norm_fwd(&x, &w, EPS)?;
                Ok(vec![y, rstd])
            }))
        }),
        backward("rms_norm bwd", 3, false, false),
        backward("rms_norm bwd trained", 3, false, true),
        // The sum is rounded before it is normalised.
        Op::new("add_rms_norm fwd", hidden, tensors(4, width), [ROUNDING, 2.0 * ROUNDING + F32], |i, d| {
            let [x, residual] = [0, 1].map(|_| i.normal([d.tokens, d.hidden], 1.0));
            let (x, residual, w) = (x?, residual?, i.normal([d.hidden], 1.0)?);
            Ok(Box::new(move |k| {
                let (h, y, _) = k.add_rms_norm_fwd(&x, &residual, &w, EPS)?;
                Ok(vec![h, y])
            }))
        }),
        backward("add_rms_norm bwd", 4, true, false),
    ]
}

fn swiglu() -> [Op; 2] {
    let width = |d: &Dims| d.ffn;
    [
        Op::new("swiglu fwd", ffn, tensors(3, width), [ROUNDING + F32], |i, d| {
            let [gate, up] = [0, 1].map(|_| i.normal([d.tokens, d.ffn], 1.0));
            let (gate, up) = (gate?, up?);
            Ok(Box::new(move |k| Ok(vec![k.swiglu_fwd(&gate, &up)?])))
        }),
        Op::new("swiglu bwd", ffn, tensors(5, width), [ROUNDING + F32; 2], |i, d| {
            let [gate, up, dy] = [0, 1, 2].map(|_| i.normal([d.tokens, d.ffn], 1.0));
            let (gate, up, dy) = (gate?, up?, dy?);
            Ok(Box::new(move |k| {
                let (dgate, dup) = k.swiglu_bwd(&dy, &gate, &up)?;
                Ok(vec![dgate, dup])
            }))
        }),
    ]
}

type Rotate = fn(&dyn crate::backend::Kernels, &mut [Tensor], &RopeTable) -> crate::Result<()>;

/// Queries and keys, in place: each read and written. Every call turns them further.
fn rope() -> [Op; 2] {
    let heads = |d: &Dims| format!("T={} H={}+{} D={}", d.tokens, d.heads, d.kv_heads, d.head_dim);
    let op = |name: &str, rotate: Rotate| {
        Op::new(name, heads, tensors(2, |d| d.q_width() + d.kv_width()), [ROUNDING + F32; 2], move |i, d| {
            let pairs = d.head_dim / 2;
            let inv_freq = (0..pairs).map(|n| 500_000f32.powf(-(n as f32) / pairs as f32)).collect();
            // Positions that skip, as PoSE's do, and go beyond a million.
            let positions = Tensor::u32((0..d.tokens as u32).map(|n| n * 8 + n % 3).collect(), [1, d.tokens]);
            let freqs = RopeFreqs { inv_freq, attention_factor: 1.0 };
            let table = i.kernels().rope_table(&positions, &[1.0], &freqs)?;
            let [q, k] = [d.heads, d.kv_heads].map(|heads| i.normal([1, d.tokens, heads, d.head_dim], 1.0));
            let mut qk = [q?, k?];
            Ok(Box::new(move |k| {
                rotate(k, &mut qk, &table)?;
                Ok(qk.to_vec())
            }))
        })
    };
    [op("rope fwd", |k, qk, table| k.rope_fwd(qk, table)), op("rope bwd", |k, qk, table| k.rope_bwd(qk, table))]
}

fn add() -> Op {
    Op::new("add", hidden, tensors(3, |d| d.hidden), [ROUNDING], |i, d| {
        let [x, y] = [0, 1].map(|_| i.normal([d.tokens, d.hidden], 1.0));
        let (x, y) = (x?, y?);
        Ok(Box::new(move |k| Ok(vec![k.add(&x, &y)?])))
    })
}

pub fn ops() -> Vec<Op> {
    let mut ops = norms();
    ops.extend(swiglu());
    ops.extend(rope());
    ops.push(add());
    ops
}
