#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::{Device, In, Launcher, Purpose, blocks, inout, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::rope::{RopeFreqs, RopeKernels, RopeTable};
use crate::tensor::{Shape, Tensor, TensorError};

/// Blocks that fill a device; fewer tokens are spread over more blocks by heads.
const ENOUGH_BLOCKS: usize = 1024;

/// `1 / 2π` and what f64 loses of it.
const PER_TURN: f64 = 0.159_154_943_091_895_35;
const PER_TURN_REST: f64 = -9.839_338_337_591_243e-18;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

/// Turns per position, `inv_freq / (2π·rope_scale)`, as a fraction of 2⁶⁴: all 64 bits, as `rope.cu` derives them.
fn turns(inv_freq: f32, rope_scale: f32) -> u64 {
    let (inv_freq, scale) = (f64::from(inv_freq), f64::from(rope_scale));
    let quotient = inv_freq / scale;
    let quotient_rest = (-quotient).mul_add(scale, inv_freq) / scale;
    let product = quotient * PER_TURN;
    let rest = quotient.mul_add(PER_TURN, -product) + quotient * PER_TURN_REST + quotient_rest * PER_TURN;
    let fraction = (product - product.floor()) * TWO_64;
    (fraction.floor() as u64).wrapping_add_signed((fraction.fract() + rest * TWO_64).round() as i64)
}

enum Direction {
    Forward,
    Backward,
}

impl<L: Launcher> Device<L> {
    /// Rotates queries and perhaps keys, in one launch.
    fn rotate(&self, q: &mut Tensor, keys: Option<&mut Tensor>, table: &RopeTable, direction: &Direction) -> Result<()> {
        let RopeTable::Turns { positions, turns, factor } = table else {
            return Err(TensorError::Place { expected: "on a device" }.into());
        };
        let [b, t, heads, d] = q.dims("rope: q (B,T,H,D)")?;
        vectors("head_dim", d)?;
        positions.expect("rope: positions (B,T)", [b, t])?;
        turns.expect("rope: turns (B,D/2,2)", [b, d / 2, 2])?;
        let kv_heads = match &keys {
            Some(k) => {
                let [.., kv_heads, _] = k.dims::<4>("rope: k (B,T,Hk,D)")?;
                k.expect("rope: k (B,T,Hk,D)", [b, t, kv_heads, d])?;
                kv_heads
            }
            None => 0,
        };
        let (tokens, per_block) = (b * t, k::rope::THREADS / (d / 8).max(1));
        if per_block == 0 {
            return Err(TensorError::Extent { what: "head_dim", needed: "at most 1024", got: d }.into());
        }
        if tokens * d * (heads + kv_heads) > 0 {
            let across = tokens.div_ceil(per_block);
            let parts = (ENOUGH_BLOCKS / across).clamp(1, (heads + kv_heads).div_ceil(k::rope::BATCH));
            let grid = [blocks(across), blocks(parts), 1];
            let q_out = inout::<bf16>(q)?;
            // Without keys the kernel has no heads to touch behind this pointer.
            let k_out = keys.map_or(Ok(q_out), inout::<bf16>)?;
            let turns = In::<u64>::new(turns.as_device()?.address());
            let (heads, kv_heads, d, t, tokens) = (int(heads), int(kv_heads), int(d), int(t), int(tokens));
            let run = match direction {
                Direction::Forward => k::rope_fwd,
                Direction::Backward => k::rope_bwd,
            };
            // SAFETY: q and k hold tokens·heads·d halves with their own heads, positions one integer per token, turns d/2
            // pairs of integers per row: checked above. Nobody else has a handle on q and k.
            unsafe {
                run(self.launcher(), grid, q_out, k_out, input(positions)?, turns, heads, kv_heads, d, t, tokens, *factor)?
            };
        }
        Ok(())
    }

    /// Rotates any number of tensors, two in a launch.
    fn rotate_all(&self, tensors: &mut [Tensor], table: &RopeTable, direction: &Direction) -> Result<()> {
        tensors.chunks_mut(2).try_for_each(|pair| {
            let (q, keys) = pair.split_first_mut().expect("rope: chunks hold something");
            self.rotate(q, keys.first_mut(), table, direction)
        })
    }
}

impl<L: Launcher> RopeKernels for Device<L> {
    fn rope_table(&self, positions: &Tensor, rope_scale: &[f32], freqs: &RopeFreqs) -> Result<RopeTable> {
        let [b, t] = positions.dims("rope_table: positions (B,T)")?;
        if rope_scale.len() != b {
            let (expected, got) = (Shape::from([b]), Shape::from([rope_scale.len()]));
            return Err(TensorError::Shape { what: "rope_table: rope_scale (B)", expected, got }.into());
        }
        let pairs = rope_scale.iter().flat_map(|&scale| freqs.inv_freq.iter().map(move |&f| turns(f, scale)));
        let halves = pairs.flat_map(|turns| [turns as u32, (turns >> 32) as u32]).collect();
        Ok(RopeTable::Turns {
            positions: self.integers(positions.as_u32()?)?.reshape("rope_table: positions (B,T)", [b, t])?,
            turns: self.uploaded_for(Purpose::Activations, &Tensor::u32(halves, [b, freqs.inv_freq.len(), 2]))?,
            factor: freqs.attention_factor,
        })
    }

    fn rope_fwd(&self, qk: &mut [Tensor], table: &RopeTable) -> Result<()> {
        self.rotate_all(qk, table, &Direction::Forward)
    }

    fn rope_bwd(&self, dqk: &mut [Tensor], table: &RopeTable) -> Result<()> {
        self.rotate_all(dqk, table, &Direction::Backward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_have_all_their_bits() {
        // round(2^64 frac(f / (2 pi g))) in decimal arithmetic with 60 digits
        for (inv_freq, rope_scale, want) in [
            (1.0, 1.0, 2_935_890_503_282_001_226),
            (1.0, 0.125, 5_040_379_952_546_458_196),
            (0.5, 3.0, 489_315_083_880_333_538),
            (0.019_512_324, 1.7, 33_697_673_018_397_215),
            (1e-7, 32.0, 9_174_657_930),
        ] {
            assert_eq!(turns(inv_freq, rope_scale), want, "{inv_freq} / {rope_scale}");
        }
    }
}
