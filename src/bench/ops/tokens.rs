//! Both ends of the model, and the optimiser.

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::dims::{Dims, RANK};
use crate::bench::inputs::Inputs;
use crate::bench::op::{Call, Cost, Op};
use crate::error::Result;
use crate::ops::cross_entropy::{IGNORE, Targets};
use crate::ops::optim::{AdamWStep, AdamWTensor};
use crate::tensor::Tensor;
use crate::units::format_count;

fn vocabulary(d: &Dims) -> String {
    format!("T={} C={} V={}", d.tokens, d.hidden, d.vocab)
}

/// Of `every` targets one counts. Without the weight's gradient two products, with it three.
fn cross_entropy(name: &str, every: usize, trained: bool) -> Op {
    let products = if trained { 3.0 } else { 2.0 };
    let cost = move |d: &Dims| Cost::Flops(products * 2.0 * (d.hidden * d.vocab) as f64 * d.tokens.div_ceil(every) as f64);
    // Logits' gradients and the result are rounded.
    let allowed = [vec![2.0 * ROUNDING, 3.0 * ROUNDING], vec![3.0 * ROUNDING; usize::from(trained)]].concat();
    Op::new(name, vocabulary, cost, allowed, move |i, d| {
        let h = i.normal([1, d.tokens, d.hidden], 1.0)?;
        // Logits of order one.
        let w = i.normal([d.vocab, d.hidden], (-((d.hidden as f32).log2() / 2.0).round()).exp2())?;
        let ids = i.ids(d.tokens, d.vocab);
        let kept = ids.as_u32()?.iter().enumerate().map(|(n, &id)| if n % every == 0 { id } else { IGNORE }).collect();
        let targets = Targets { ids: Tensor::u32(kept, [1, d.tokens]), weights: None };
        let scale = 1.0 / d.tokens.div_ceil(every) as f32;
        Ok(Box::new(move |k| {
            let out = k.cross_entropy(&h, &w, &targets, scale, [true, trained])?;
            Ok(std::iter::once(out.nll).chain(out.dh).chain(out.dw).collect())
        }))
    })
}

fn embedding() -> [Op; 2] {
    let forward = |d: &Dims| Cost::Bytes((2 * d.tokens * d.hidden * d.element) as f64);
    // The gradient is f32 and dense.
    let backward = |d: &Dims| Cost::Bytes((d.tokens * d.hidden * d.element + 4 * d.vocab * d.hidden) as f64);
    [
        Op::new("embedding fwd", vocabulary, forward, [0.0], |i, d| {
            let (ids, w) = (i.ids(d.tokens, d.vocab), i.normal([d.vocab, d.hidden], 1.0)?);
            Ok(Box::new(move |k| Ok(vec![k.embedding_fwd(&ids, &w)?])))
        }),
        Op::new("embedding bwd", vocabulary, backward, [F32], |i, d| {
            let (ids, vocab) = (i.ids(d.tokens, d.vocab), d.vocab);
            let dy = i.normal([1, d.tokens, d.hidden], 1.0)?;
            Ok(Box::new(move |k| Ok(vec![k.embedding_bwd(&dy, &ids, vocab)?])))
        }),
    ]
}

/// Shapes of the factors of every projection.
fn adapters(d: &Dims) -> Vec<[usize; 2]> {
    let (q, kv, c, f) = (d.q_width(), d.kv_width(), d.hidden, d.ffn);
    let projections = [[q, c], [kv, c], [kv, c], [c, q], [f, c], [f, c], [c, f]];
    let layer = projections.into_iter().flat_map(|[out, inp]| [[RANK, inp], [out, RANK]]);
    std::iter::repeat_n(layer, d.layers).flatten().collect()
}

/// Shapes of all weights.
fn weights(d: &Dims) -> Vec<[usize; 2]> {
    let (q, kv, c, f) = (d.q_width(), d.kv_width(), d.hidden, d.ffn);
    let layer = [[q, c], [kv, c], [kv, c], [c, q], [f, c], [f, c], [c, f], [1, c], [1, c]];
    let ends = std::iter::repeat_n([d.vocab, c], if d.tied { 1 } else { 2 });
    ends.chain(std::iter::repeat_n(layer, d.layers).flatten()).chain([[1, c]]).collect()
}

/// One parameter with what an optimiser keeps of it.
struct Trained {
    value: Tensor,
    master: Option<Tensor>,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
}

impl Trained {
    fn new(i: &Inputs, shape: [usize; 2]) -> Result<Self> {
        let (value, master) = i.trained(shape)?;
        let small = |v: f32| v / 256.0;
        let (grad, m) = (i.exact(shape, small)?, i.exact(shape, small)?);
        Ok(Self { value, master, grad, m, v: i.exact(shape, |v| small(v).powi(2))? })
    }

    fn step(&mut self) -> AdamWTensor<'_> {
        let Self { value, master, grad, m, v } = self;
        AdamWTensor { value, master: master.as_mut(), grad, m, v, lr: 1e-3, weight_decay: 0.1 }
    }

    fn moved(&self) -> [Tensor; 3] {
        [self.master.as_ref().unwrap_or(&self.value), &self.m, &self.v].map(Tensor::clone)
    }
}

fn optimizer(i: &Inputs, shapes: Vec<[usize; 2]>) -> Result<Call> {
    let step =
        AdamWStep { beta1: 0.9, beta2: 0.95, eps: 1e-8, bias_correction1: 0.19, bias_correction2: 0.0975, max_grad_norm: 1.0 };
    let mut all = shapes.into_iter().map(|shape| Trained::new(i, shape)).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |k| {
        let mut tensors: Vec<_> = all.iter_mut().map(Trained::step).collect();
        let norm = k.adamw(&mut tensors, &step)?;
        let first = all.first().map(Trained::moved);
        Ok(std::iter::once(Tensor::scalar(norm as f32)).chain(first.into_iter().flatten()).collect())
    }))
}

/// Gradients are read twice, because the clip needs their norm; master, both moments and the rounded weight are written.
fn adamw(name: &str, shapes: fn(&Dims) -> Vec<[usize; 2]>) -> Op {
    let count = move |d: &Dims| shapes(d).into_iter().map(|[a, b]| a * b).sum::<usize>();
    let cost = move |d: &Dims| Cost::Bytes((count(d) * if d.element == 2 { 34 } else { 32 }) as f64);
    let shape = move |d: &Dims| format!("{} in {} tensors", format_count(count(d) as u64), shapes(d).len());
    Op::new(name, shape, cost, [F32; 4], move |i, d| optimizer(i, shapes(d))).of_the_model()
}

pub fn ops() -> Vec<Op> {
    let mut ops = vec![
        cross_entropy("cross_entropy frozen", 1, false),
        cross_entropy("cross_entropy frozen tenth", 10, false),
        cross_entropy("cross_entropy trained", 1, true),
    ];
    ops.extend(embedding());
    ops.extend([adamw("adamw lora", adapters), adamw("adamw full", weights)]);
    ops
}
