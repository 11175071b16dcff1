//! Matrix products of a layer, alone and with a low-rank addition. Projections of one input are one call.

use std::array;

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::dims::RANK;
use crate::bench::op::{Call, Cost, Op};
use crate::bench::{Dims, Inputs};
use crate::ops::linear::{Group, Lora, Projection, Sum};
use crate::tensor::Tensor;

/// A layer's weights; those that read the same input belong together.
#[derive(Debug, Clone, Copy)]
enum Weights {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Weights {
    const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::O => "o",
            Self::GateUp => "gate_up",
            Self::Down => "down",
        }
    }

    fn input(self, d: &Dims) -> usize {
        match self {
            Self::Qkv | Self::GateUp => d.hidden,
            Self::O => d.q_width(),
            Self::Down => d.ffn,
        }
    }

    fn outputs(self, d: &Dims) -> Vec<usize> {
        match self {
            Self::Qkv => vec![d.q_width(), d.kv_width(), d.kv_width()],
            Self::O | Self::Down => vec![d.hidden],
            Self::GateUp => vec![d.ffn; 2],
        }
    }

    fn shape(self) -> impl Fn(&Dims) -> String {
        move |d| {
            let outputs: Vec<_> = self.outputs(d).iter().map(usize::to_string).collect();
            format!("T={} {}->{}", d.tokens, self.input(d), outputs.join("+"))
        }
    }

    /// Products of the three extents.
    fn flops(self, d: &Dims) -> f64 {
        2.0 * self.outputs(d).iter().sum::<usize>() as f64 * (self.input(d) * d.tokens) as f64
    }

    /// Products with one of each weight's factors.
    fn low_rank_flops(self, d: &Dims) -> f64 {
        let extents: usize = self.outputs(d).iter().map(|out| out + self.input(d)).sum();
        2.0 * extents as f64 * (RANK * d.tokens) as f64
    }
}

/// Powers of two near `1/sqrt(n)`, so that a product of `n` such values with normal ones is of order one.
fn unit(n: usize) -> f32 {
    (-((n as f32).log2() / 2.0).round()).exp2()
}

type Make = fn(Weights, &Inputs, &Dims) -> crate::Result<Call>;

fn linear(w: Weights) -> [Op; 3] {
    let op = |pass: &str, allowed: f64, results: usize, make: Make| {
        let cost = move |d: &Dims| Cost::Flops(w.flops(d));
        Op::new(format!("linear {pass} {}", w.name()), w.shape(), cost, vec![allowed; results], move |i, d| make(w, i, d))
    };
    let results = match w {
        Weights::Qkv => 3,
        Weights::GateUp => 2,
        Weights::O | Weights::Down => 1,
    };
    [
        op("fwd", ROUNDING + F32, results, |w, i, d| {
            let inp = w.input(d);
            let x = i.normal([d.tokens, inp], 1.0)?;
            let weights = normals(i, w.outputs(d).into_iter().map(|out| [out, inp]), unit(inp))?;
            Ok(Box::new(move |k| k.linear_fwd_group(&weights.iter().map(|w| Sum::of(&x, w)).collect::<Vec<_>>())))
        }),
        op("dx", ROUNDING + F32, 1, |w, i, d| {
            let (inp, outputs) = (w.input(d), w.outputs(d));
            let dys = normals(i, outputs.iter().map(|&out| [d.tokens, out]), 1.0)?;
            let weights = normals(i, outputs.iter().map(|&out| [out, inp]), unit(outputs.iter().sum()))?;
            Ok(Box::new(move |k| k.linear_bwd_x_group(&[Sum { terms: dys.iter().zip(&weights).collect(), scale: 1.0 }])))
        }),
        op("dw", F32, results, |w, i, d| {
            let x = i.normal([d.tokens, w.input(d)], 1.0)?;
            let dys = normals(i, w.outputs(d).into_iter().map(|out| [d.tokens, out]), 1.0)?;
            Ok(Box::new(move |k| dys.iter().map(|dy| k.linear_bwd_w(dy, &x)).collect()))
        }),
    ]
}

fn normals(i: &Inputs, shapes: impl Iterator<Item = [usize; 2]>, scale: f32) -> crate::Result<Vec<Tensor>> {
    shapes.map(|shape| i.normal(shape, scale)).collect()
}

/// Frozen weights and their factors, as they are during training.
fn group<const N: usize>(w: Weights, i: &Inputs, d: &Dims) -> crate::Result<Group<Tensor, N>> {
    let (inp, outputs) = (w.input(d), w.outputs(d));
    let projection = |out: &usize| {
        let lora = Lora { a: i.normal([RANK, inp], unit(inp))?, b: i.normal([*out, RANK], unit(RANK))?, scale: 2.0 };
        Ok(Projection { w: i.normal([*out, inp], unit(inp))?, lora: Some(lora) })
    };
    let projections = outputs.iter().map(projection).collect::<crate::Result<Vec<_>>>()?;
    let projections = projections.try_into().expect("bench: one projection per output");
    Ok(Group { x: i.normal([d.tokens, inp], 1.0)?, projections })
}

fn lora<const N: usize>(w: Weights) -> [Op; 2] {
    // Beside the result, the product with the first factor is rounded.
    let twice = 2.0 * ROUNDING + F32;
    let forward = Op::new(
        format!("lora fwd {}", w.name()),
        w.shape(),
        move |d| Cost::Flops(w.flops(d) + w.low_rank_flops(d)),
        vec![twice; N],
        move |i, d| {
            let group = group::<N>(w, i, d)?;
            Ok(Box::new(move |k| group.forward(k).map(|(y, _)| y.into())))
        },
    );
    let backward = Op::new(
        format!("lora bwd {}", w.name()),
        w.shape(),
        // Both products with the factors, and both of their gradients.
        move |d| Cost::Flops(w.flops(d) + 2.0 * w.low_rank_flops(d)),
        vec![twice; 1 + 2 * N],
        move |i, d| {
            let group = group::<N>(w, i, d)?;
            let u: [_; N] = made(|_| i.normal([d.tokens, RANK], 1.0))?;
            let dy: [_; N] = made(|n| i.normal([d.tokens, w.outputs(d)[n]], 1.0))?;
            let mut wants = group.map(|_| true);
            wants.projections.iter_mut().for_each(|p| p.w = false);
            Ok(Box::new(move |k| Ok(group.backward(k, &u, &dy, &wants)?.into_vec().into_iter().flatten().collect())))
        },
    );
    [forward, backward]
}

/// One of each projection's tensors.
fn made<const N: usize>(make: impl Fn(usize) -> crate::Result<Tensor>) -> crate::Result<[Option<Tensor>; N]> {
    let made = (0..N).map(|n| make(n).map(Some)).collect::<crate::Result<Vec<_>>>()?;
    Ok(array::from_fn(|n| made[n].clone()))
}

pub fn ops() -> Vec<Op> {
    let plain = Weights::ALL.into_iter().flat_map(linear);
    let with_factors = Weights::ALL.into_iter().flat_map(|w| match w {
        Weights::Qkv => lora::<3>(w),
        Weights::GateUp => lora::<2>(w),
        Weights::O | Weights::Down => lora::<1>(w),
    });
    plain.chain(with_factors).collect()
}
