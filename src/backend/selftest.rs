//! Compares every op of a device with the CPU on small, awkward shapes: a kernel that computes something else is found before it
//! trains anything.

use half::bf16;

use super::gpu::DeviceError;
use super::{Cpu, Kernels};
use crate::error::Result;
use crate::ops::attention::{AttentionSaved, Segments};
use crate::ops::cross_entropy::{IGNORE, Targets};
use crate::ops::linear::{Group, Lora, Projection};
use crate::ops::optim::{AdamWStep, AdamWTensor};
use crate::ops::rope::RopeFreqs;
use crate::tensor::{Shape, Tensor};

/// Largest relative error of one rounding to bf16.
pub const ROUNDING: f64 = 1.0 / 256.0;
/// What f32 sums of a few hundred terms in another order, and hardware's `exp2` and `sin`, may be off by.
pub const F32: f64 = 1e-4;

/// Batch and tokens: rows that are no multiple of any tile.
const B: usize = 2;
const T: usize = 67;
/// Heads of queries, of keys and values, and the width of each.
const H: usize = 6;
const HK: usize = 2;
const D: usize = 64;
/// Width of a token, outputs of a projection, rank of an adapter, vocabulary.
const C: usize = 136;
const F: usize = 72;
const R: usize = 13;
const V: usize = 101;
/// A row that several warps share.
const WIDE: usize = 2056;
/// Tokens of one id, more than one thread adds.
const MANY: usize = 300;
/// The width of a product that large tiles are for, whose other width is this narrow.
const MANY_TILES: usize = 6200;
const NARROW: usize = 24;
/// Rows whose logits do not fit in memory at once.
const TURNS: usize = 2100;

/// One result of one op.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Check {
    /// The op, its result and, where several are tried, its size.
    pub op: String,
    /// Largest difference from the CPU's, over the CPU's largest value; infinite where one of them is not finite.
    pub error: f64,
    /// What the device's roundings explain.
    pub allowed: f64,
}

impl Check {
    /// Whether the device is right.
    pub fn passed(&self) -> bool {
        self.error <= self.allowed
    }

    /// An error unless it is.
    ///
    /// # Errors
    /// [`DeviceError::Wrong`].
    pub fn verdict(&self) -> Result<()> {
        let Self { op, error, allowed } = self.clone();
        if self.passed() { Ok(()) } else { Err(DeviceError::Wrong { op, error, allowed }.into()) }
    }
}

/// Runs every op on the device and on the CPU.
///
/// # Errors
/// Those of the device.
pub fn self_test(device: &dyn Kernels) -> Result<Vec<Check>> {
    let mut test = Test { device, checks: Vec::new() };
    test.elementwise()?;
    test.bias()?;
    test.swiglu()?;
    test.rope()?;
    [C, WIDE].into_iter().try_for_each(|width| test.rms_norm(width))?;
    // Ids that occur a few times each, and one that occurs often enough for its tokens to be shared out.
    test.embedding(integers([B, T], |i| (i * i % V) as u32))?;
    test.embedding(integers([1, MANY], |_| 3))?;
    // Tiles of both sizes, for each of the three products.
    [[T, C, F], [T, NARROW, MANY_TILES], [T, MANY_TILES, NARROW], [NARROW, C, MANY_TILES]]
        .into_iter()
        .try_for_each(|extents| test.linear(extents))?;
    test.projections()?;
    for head_dim in [32, 64, 96, 128] {
        test.attention(head_dim)?;
        test.attention_to_a_cache(head_dim)?;
    }
    // Rows that take one turn and several.
    [[B, T], [1, TURNS]].into_iter().try_for_each(|shape| test.cross_entropy(shape))?;
    test.adamw()?;
    Ok(test.checks)
}

/// Values of order one that bf16 holds, without symmetry.
fn ramp(shape: impl Into<Shape>, phase: f64) -> Tensor {
    let shape = shape.into();
    let value = |i: usize| (0.37 * i as f64 + phase + (0.011 * i as f64).cos()).sin() as f32 * 1.3;
    Tensor::f32((0..shape.len()).map(|i| bf16::from_f32(value(i)).to_f32()).collect(), shape)
}

fn integers(shape: [usize; 2], value: impl Fn(usize) -> u32) -> Tensor {
    Tensor::u32((0..shape[0] * shape[1]).map(value).collect(), shape)
}

struct Test<'a> {
    device: &'a dyn Kernels,
    checks: Vec<Check>,
}

impl Test<'_> {
    /// Runs `op` on both with their own copies of `inputs`; `results` names what it returns and says how far off each may be.
    fn compare<const N: usize, const M: usize>(
        &mut self,
        results: [(&'static str, f64); M],
        inputs: [Tensor; N],
        op: impl Fn(&dyn Kernels, &[Tensor; N]) -> Result<[Tensor; M]>,
    ) -> Result<()> {
        let want = op(&Cpu, &inputs)?;
        let mut placed = inputs;
        for tensor in &mut placed {
            *tensor = self.device.place(tensor)?;
        }
        let got = op(self.device, &placed)?;
        for ((op, allowed), (got, want)) in results.into_iter().zip(got.iter().zip(&want)) {
            self.checks.push(Check { op: op.into(), error: difference(got, want)?, allowed });
        }
        Ok(())
    }

    /// Names the size in the checks from `first` on.
    fn of(&mut self, first: usize, size: &str) {
        self.checks[first..].iter_mut().for_each(|check| check.op = format!("{}, {size}", check.op));
    }

    fn elementwise(&mut self) -> Result<()> {
        let inputs = [ramp([B, T, C], 0.1), ramp([B, T, C], 1.9)];
        self.compare([("add", ROUNDING), ("scale", ROUNDING), ("add_assign", ROUNDING)], inputs, |k, [x, y]| {
            let mut sum = x.clone();
            k.add_assign(&mut sum, y)?;
            Ok([k.add(x, y)?, k.scale(x, 0.3)?, sum])
        })?;
        let gradients = [ramp([V, C], 0.1), ramp([V, C], 1.9)];
        let results =
            ["add of gradients", "scale of gradients", "add_assign of gradients", "exact copy of a weight"].map(|op| (op, F32));
        self.compare(results, [ramp([V, C], 0.1)], |k, [w]| {
            let [x, y] = [k.place_exact(&gradients[0])?, k.place_exact(&gradients[1])?];
            let mut sum = x.clone();
            k.add_assign(&mut sum, &y)?;
            Ok([k.add(&x, &y)?, k.scale(&x, 0.3)?, sum, k.place_exact(w)?])
        })
    }

    fn bias(&mut self) -> Result<()> {
        let inputs = [ramp([B, T, C], 0.1), ramp([C], 0.7)];
        self.compare([("bias", ROUNDING), ("bias gradient", F32)], inputs, |k, [x, b]| Ok([k.bias_fwd(x, b)?, k.bias_bwd(x)?]))
    }

    fn swiglu(&mut self) -> Result<()> {
        let inputs = [ramp([B, T, C], 0.1), ramp([B, T, C], 1.9), ramp([B, T, C], 2.6)];
        let results = ["swiglu", "swiglu gate gradient", "swiglu up gradient"].map(|op| (op, ROUNDING + F32));
        self.compare(results, inputs, |k, [gate, up, dy]| {
            let (dgate, dup) = k.swiglu_bwd(dy, gate, up)?;
            Ok([k.swiglu_fwd(gate, up)?, dgate, dup])
        })
    }

    fn rms_norm(&mut self, width: usize) -> Result<()> {
        let first = self.checks.len();
        let rows = |phase| ramp([B, T, width], phase);
        let inputs = [rows(0.1), rows(1.9), ramp([width], 0.7), rows(2.6)];
        let results = [
            ("rms_norm", ROUNDING + F32),
            ("rms_norm sum", ROUNDING),
            // The sum is rounded before it is normalised.
            ("rms_norm of the sum", 2.0 * ROUNDING + F32),
            ("rms_norm gradient", ROUNDING + F32),
            ("rms_norm weight gradient", F32),
            ("rms_norm gradient alone", ROUNDING + F32),
        ];
        self.compare(results, inputs, |k, [x, r, w, dy]| {
            let (y, rstd) = k.rms_norm_fwd(x, w, 1e-5)?;
            let (h, hy, _) = k.add_rms_norm_fwd(x, r, w, 1e-5)?;
            let (dx, dw) = k.rms_norm_bwd(dy, x, w, &rstd, Some(r), true)?;
            let (alone, _) = k.rms_norm_bwd(dy, x, w, &rstd, None, false)?;
            Ok([y, h, hy, dx, dw.expect("self-test: the weight's gradient was asked for"), alone])
        })?;
        self.of(first, &format!("width {width}"));
        Ok(())
    }

    fn rope(&mut self) -> Result<()> {
        let inv_freq = (0..D / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / D as f32)).collect();
        let freqs = RopeFreqs { inv_freq, attention_factor: 1.2 };
        // Positions of millions, where an angle in f32 would be off by radians.
        let positions = integers([B, T], |i| (i as u32).wrapping_mul(2_654_435_761) >> 9);
        let inputs = [ramp([B, T, H, D], 0.1), ramp([B, T, HK, D], 1.9)];
        let results =
            ["rope of queries", "rope of keys", "rope query gradient", "rope key gradient"].map(|op| (op, ROUNDING + F32));
        self.compare(results, inputs, |k, [q, key]| {
            let table = k.rope_table(&positions, &[1.0, 3.0], &freqs)?;
            let (mut fwd, mut bwd) = ([q.clone(), key.clone()], [q.clone(), key.clone()]);
            k.rope_fwd(&mut fwd, &table)?;
            k.rope_bwd(&mut bwd, &table)?;
            let ([q, k], [dq, dk]) = (fwd, bwd);
            Ok([q, k, dq, dk])
        })
    }

    fn embedding(&mut self, ids: Tensor) -> Result<()> {
        let first = self.checks.len();
        let [batch, seq_len] = ids.dims("self-test: ids")?;
        let inputs = [ramp([V, C], 0.1), ramp([batch, seq_len, C], 1.9)];
        self.compare([("embedding", 0.0), ("embedding gradient", F32)], inputs, |k, [w, dy]| {
            Ok([k.embedding_fwd(&ids, w)?, k.embedding_bwd(dy, &ids, V)?])
        })?;
        self.of(first, &format!("{seq_len} tokens"));
        Ok(())
    }

    fn linear(&mut self, [seq_len, inner, outer]: [usize; 3]) -> Result<()> {
        let first = self.checks.len();
        let inputs = [ramp([B, seq_len, inner], 0.1), ramp([outer, inner], 0.7), ramp([B, seq_len, outer], 1.9)];
        let results = [("linear", ROUNDING + F32), ("linear gradient", ROUNDING + F32), ("linear weight gradient", F32)];
        self.compare(results, inputs, |k, [x, w, dy]| Ok([k.linear_fwd(x, w)?, k.linear_bwd_x(dy, w)?, k.linear_bwd_w(dy, x)?]))?;
        self.of(first, &format!("{inner} to {outer}"));
        Ok(())
    }

    /// Two projections of one input, the first with factors.
    fn projections(&mut self) -> Result<()> {
        let first = [ramp([F, C], 0.7), ramp([R, C], 1.1), ramp([F, R], 2.2), ramp([B, T, F], 1.9)];
        let second = [ramp([D, C], 0.4), ramp([B, T, D], 2.6)];
        let ([w, a, b, dy], [w2, dy2]) = (first, second);
        // Beside the result, the product with the first factor is rounded.
        let twice = 2.0 * ROUNDING + F32;
        let results = [
            ("projection with factors", twice),
            ("projection beside it", twice),
            ("gradient of two projections", twice),
            ("projection weight gradient", F32),
            ("factor A gradient", twice),
            ("factor B gradient", twice),
            ("second weight gradient", F32),
        ];
        self.compare(results, [ramp([B, T, C], 0.1), w, a, b, dy, w2, dy2], |k, [x, w, a, b, dy, w2, dy2]| {
            let lora = Some(Lora { a: a.clone(), b: b.clone(), scale: 0.5 });
            let projections = [Projection { w: w.clone(), lora }, Projection { w: w2.clone(), lora: None }];
            let group = Group { x: x.clone(), projections };
            let (y, u) = group.forward(k)?;
            let grads = group.backward(k, &u, &[Some(dy.clone()), Some(dy2.clone())], &group.map(|_| true))?;
            let results: Vec<_> = y.into_iter().chain(grads.into_vec().into_iter().flatten()).collect();
            Ok(results.try_into().expect("self-test: every gradient was asked for"))
        })
    }

    fn attention(&mut self, head_dim: usize) -> Result<()> {
        let before = self.checks.len();
        // Documents of a third of a row, and for the other half of the heads groups of a quarter.
        let starts = [T / 3, T / 4].map(|n| (0..B * T).map(|i| ((i % T) / n * n) as u32).collect());
        let segments = Segments { starts }.table();
        let heads = |heads, phase| ramp([B, T, heads, head_dim], phase);
        let inputs = [heads(H, 0.1), heads(HK, 0.7), heads(HK, 1.9), heads(H, 2.6)];
        // Probabilities, or their gradients, and the result are rounded; gradients start from a rounded result.
        let (fwd, bwd) = (2.0 * ROUNDING + F32, 4.0 * ROUNDING + F32);
        let results = [
            ("attention", fwd),
            ("attention lse", F32),
            ("attention query gradient", bwd),
            ("attention key gradient", bwd),
            ("attention value gradient", bwd),
        ];
        self.compare(results, inputs, |k, [q, key, v, dout]| {
            let (segments, scale) = (k.place_integers(&segments)?, 1.0 / (head_dim as f32).sqrt());
            let (o, lse) = k.attention_fwd(q, key, v, &segments, scale)?;
            let qkv = [q.clone(), key.clone(), v.clone()];
            let saved = AttentionSaved { qkv, o: o.clone(), lse: lse.clone(), segments, scale };
            let [dq, dk, dv] = k.attention_bwd(dout, &saved)?;
            Ok([o, lse, dq, dk, dv])
        })?;
        self.of(before, &format!("head_dim {head_dim}"));
        Ok(())
    }

    /// The last few tokens' queries to all keys.
    fn attention_to_a_cache(&mut self, head_dim: usize) -> Result<()> {
        const QUERIES: usize = 3;
        let before = self.checks.len();
        let segments = Segments { starts: [T / 3, T / 4].map(|n| vec![n as u32; B * QUERIES]) }.table();
        let heads = |tokens, heads, phase| ramp([B, tokens, heads, head_dim], phase);
        let inputs = [heads(QUERIES, H, 0.1), heads(T, HK, 0.7), heads(T, HK, 1.9)];
        let results = [("attention to a cache", 2.0 * ROUNDING + F32), ("attention to a cache lse", F32)];
        self.compare(results, inputs, |k, [q, key, v]| {
            let scale = 1.0 / (head_dim as f32).sqrt();
            Ok(k.attention_fwd(q, key, v, &k.place_integers(&segments)?, scale)?.into())
        })?;
        self.of(before, &format!("head_dim {head_dim}"));
        Ok(())
    }

    fn cross_entropy(&mut self, [batch, seq_len]: [usize; 2]) -> Result<()> {
        let (first, shape) = (self.checks.len(), [batch, seq_len]);
        let ids = integers(shape, |i| if i % 50 == 3 { IGNORE } else { (i * 7 % V) as u32 });
        let weights = Some(Tensor::f32((0..batch * seq_len).map(|i| 0.5 + (i % 3) as f32).collect(), shape));
        let targets = Targets { ids, weights };
        let results = [
            ("cross_entropy", F32),
            ("cross_entropy loss", F32),
            // The gradient of the logits is rounded, and products with it partly cancel.
            ("cross_entropy gradient", 3.0 * ROUNDING),
            ("cross_entropy weight gradient", 2.0 * ROUNDING),
            ("cross_entropy without gradients", F32),
        ];
        self.compare(results, [ramp([batch, seq_len, NARROW], 0.1), ramp([V, NARROW], 0.7)], |k, [h, w]| {
            let out = k.cross_entropy(h, w, &targets, 0.01, [true, true])?;
            let [dh, dw] = [out.dh, out.dw].map(|g| g.expect("self-test: both gradients were asked for"));
            let alone = k.cross_entropy(h, w, &targets, 0.01, [false, false])?;
            Ok([out.nll, out.loss, dh, dw, alone.nll])
        })?;
        self.of(first, &format!("{seq_len} tokens"));
        Ok(())
    }

    fn adamw(&mut self) -> Result<()> {
        let step = AdamWStep {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            bias_correction1: 0.19,
            bias_correction2: 0.0975,
            max_grad_norm: 1.0,
        };
        let square = |x: &Tensor| Ok::<_, crate::Error>(Tensor::f32(x.as_f32()?.iter().map(|x| x * x).collect(), x.shape()));
        let exact = [ramp([V, C], 0.1), ramp([V, C], 0.7), ramp([V, C], 1.9), square(&ramp([V, C], 2.6))?];
        let results = [("adamw", F32), ("adamw first moment", F32), ("adamw second moment", F32), ("adamw norm", F32)];
        self.compare(results, [exact[0].clone()], |k, [value]| {
            let [mut master, grad, mut m, mut v] = exact.clone();
            for tensor in [&mut master, &mut m, &mut v] {
                *tensor = k.place_exact(tensor)?;
            }
            let (grad, mut value) = (k.place_exact(&grad)?, value.clone());
            let tensor = AdamWTensor {
                value: &mut value,
                master: k.rounds().then_some(&mut master),
                grad: &grad,
                m: &mut m,
                v: &mut v,
                lr: 1e-2,
                weight_decay: 0.1,
            };
            let norm = k.adamw(&mut [tensor], &step)?;
            Ok([if k.rounds() { master } else { value }, m, v, Tensor::scalar(norm as f32)])
        })
    }
}

/// Largest difference over the largest wanted value; infinite where one of the results is not finite.
///
/// # Errors
/// Another shape, or a device that cannot be read.
pub fn difference(got: &Tensor, want: &Tensor) -> Result<f64> {
    got.expect("self-test: result", want.shape())?;
    let (got, want) = (got.to_host_f32()?, want.to_host_f32()?);
    let (got, want) = (got.as_f32()?, want.as_f32()?);
    let top = want.iter().fold(0f64, |top, &w| top.max(f64::from(w).abs())).max(f64::MIN_POSITIVE);
    let off = |(&g, &w): (&f32, &f32)| (f64::from(g) - f64::from(w)).abs() / top;
    Ok(got.iter().zip(want).map(off).fold(0.0, |worst, off| if off.is_nan() { f64::INFINITY } else { worst.max(off) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_agrees_with_itself() {
        let checks = self_test(&Cpu).unwrap();
        assert!(checks.len() > 30 && checks.iter().all(|c| c.error == 0.0), "{checks:?}");
    }

    #[test]
    fn a_difference_is_found_wherever_it_is_and_nan_is_one() {
        let want = ramp([3, 5], 0.1);
        for i in 0..15 {
            for wrong in [f32::NAN, f32::INFINITY, 3.0] {
                let mut got = want.clone();
                got.as_f32_mut().unwrap()[i] = wrong;
                let check = Check { op: "x".into(), error: difference(&got, &want).unwrap(), allowed: 0.5 };
                assert!(!check.passed() && check.verdict().is_err(), "{i}: {wrong}");
            }
        }
        assert!(difference(&ramp([5, 3], 0.1), &want).is_err());
    }
}
