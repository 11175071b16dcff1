//! Matrix products of a layer, alone and with a low-rank addition.

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::Dims;
use crate::bench::dims::RANK;
use crate::bench::op::{Cost, Op};
use crate::ops::lora_linear::LoraWeights;

/// A layer's weights; those that read the same input are one product.
#[derive(Debug, Clone, Copy)]
enum Weight {
    Qkv,
    O,
    GateUp,
    Down,
}

impl Weight {
    const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::O => "o",
            Self::GateUp => "gate_up",
            Self::Down => "down",
        }
    }

    /// `[out, in]`.
    fn extents(self, d: &Dims) -> [usize; 2] {
        match self {
            Self::Qkv => [d.q_width() + 2 * d.kv_width(), d.hidden],
            Self::O => [d.hidden, d.q_width()],
            Self::GateUp => [2 * d.ffn, d.hidden],
            Self::Down => [d.hidden, d.ffn],
        }
    }

    fn shape(self) -> impl Fn(&Dims) -> String {
        move |d| {
            let [out, inp] = self.extents(d);
            format!("T={} {inp}->{out}", d.tokens)
        }
    }

    /// Products of the three extents.
    fn flops(self, d: &Dims) -> f64 {
        2.0 * self.extents(d).into_iter().map(|n| n as f64).product::<f64>() * d.tokens as f64
    }

    /// Products with one of the factors.
    fn low_rank_flops(self, d: &Dims) -> f64 {
        let [out, inp] = self.extents(d);
        2.0 * (out + inp) as f64 * (RANK * d.tokens) as f64
    }
}

/// Powers of two near `1/sqrt(n)`, so that a product of `n` such values with normal ones is of order one.
fn unit(n: usize) -> f32 {
    (-((n as f32).log2() / 2.0).round()).exp2()
}

fn linear(w: Weight) -> [Op; 3] {
    let cost = move |d: &Dims| Cost::Flops(w.flops(d));
    let op = |pass: &str, allowed: f64, inputs: fn(Weight) -> Inputs| {
        Op::new(format!("linear {pass} {}", w.name()), w.shape(), cost, [allowed], inputs(w))
    };
    [
        op("fwd", ROUNDING + F32, |w| {
            Box::new(move |i, d| {
                let [out, inp] = w.extents(d);
                let (x, w) = (i.normal([d.tokens, inp], 1.0)?, i.normal([out, inp], unit(inp))?);
                Ok(Box::new(move |k| Ok(vec![k.linear_fwd(&x, &w)?])))
            })
        }),
        op("dx", ROUNDING + F32, |w| {
            Box::new(move |i, d| {
                let [out, inp] = w.extents(d);
                let (dy, w) = (i.normal([d.tokens, out], 1.0)?, i.normal([out, inp], unit(out))?);
                Ok(Box::new(move |k| Ok(vec![k.linear_bwd_x(&dy, &w)?])))
            })
        }),
        op("dw", F32, |w| {
            Box::new(move |i, d| {
                let [out, inp] = w.extents(d);
                let (dy, x) = (i.normal([d.tokens, out], 1.0)?, i.normal([d.tokens, inp], 1.0)?);
                Ok(Box::new(move |k| Ok(vec![k.linear_bwd_w(&dy, &x)?])))
            })
        }),
    ]
}

type Inputs = Box<dyn Fn(&crate::bench::Inputs, &Dims) -> crate::Result<crate::bench::op::Call>>;

/// Frozen weight and both factors, as they are during training.
fn weights(w: Weight, i: &crate::bench::Inputs, d: &Dims) -> crate::Result<LoraWeights> {
    let [out, inp] = w.extents(d);
    Ok(LoraWeights {
        w: i.normal([out, inp], unit(inp))?,
        a: i.normal([RANK, inp], unit(inp))?,
        b: i.normal([out, RANK], unit(RANK))?,
        scale: 2.0,
    })
}

fn lora(w: Weight) -> [Op; 2] {
    // Beside the result, the product with the first factor is rounded.
    let twice = 2.0 * ROUNDING + F32;
    let forward = Op::new(
        format!("lora_linear fwd {}", w.name()),
        w.shape(),
        move |d| Cost::Flops(w.flops(d) + w.low_rank_flops(d)),
        [twice, ROUNDING + F32],
        move |i, d| {
            let (x, weights) = (i.normal([d.tokens, w.extents(d)[1]], 1.0)?, weights(w, i, d)?);
            Ok(Box::new(move |k| {
                let (y, u) = k.lora_linear_fwd(&x, &weights)?;
                Ok(vec![y, u])
            }))
        },
    );
    let backward = Op::new(
        format!("lora_linear bwd {}", w.name()),
        w.shape(),
        // Both products with the factors, and both of their gradients.
        move |d| Cost::Flops(w.flops(d) + 2.0 * w.low_rank_flops(d)),
        [twice; 3],
        move |i, d| {
            let [out, inp] = w.extents(d);
            let (x, weights) = (i.normal([d.tokens, inp], 1.0)?, weights(w, i, d)?);
            let (u, dy) = (i.normal([d.tokens, RANK], 1.0)?, i.normal([d.tokens, out], 1.0)?);
            Ok(Box::new(move |k| {
                let grads = k.lora_linear_bwd(&dy, &x, &u, &weights, true)?;
                Ok([grads.dx, grads.da, grads.db].into_iter().flatten().collect())
            }))
        },
    );
    [forward, backward]
}

pub fn ops() -> Vec<Op> {
    let plain = Weight::ALL.into_iter().flat_map(linear);
    plain.chain(Weight::ALL.into_iter().flat_map(lora)).collect()
}
