use std::sync::Arc;

use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::elementwise::add;
use ltrain::ops::rope::{RopeFreqs, RopeKernels, RopeTable, rope};
use ltrain::tensor::Tensor;

fn table(batch: usize, t: usize, half: usize) -> RopeTable {
    let freqs = RopeFreqs { inv_freq: (0..half).map(|i| 0.5f32.powi(i as i32)).collect(), attention_factor: 1.2 };
    let positions = Tensor::u32((0..batch * t).map(|n| (n * n % 23) as u32).collect(), [batch, t]);
    Cpu.rope_table(&positions, &vec![2.0; batch], &freqs).unwrap()
}

#[test]
fn forward_rotates_pairs_half_a_head_apart() {
    let (b, t, h, d) = (2, 20, 3, 6);
    let (x, table) = (ramp([b, t, h, d], 0.1), table(b, t, d / 2));
    let want: Vec<f64> = (0..x.shape().len())
        .map(|i| {
            let (token, j) = (i / (h * d), i % d);
            let (pair, position) = (j % (d / 2), (token * token % 23) as f64 / 2.0);
            let (s, c) = (position * 0.5f64.powi(pair as i32)).sin_cos();
            let at = |j: usize| f64::from(floats(&x)[i / d * d + j]);
            1.2 * if j < d / 2 { at(j) * c - at(j + d / 2) * s } else { at(j) * c + at(j - d / 2) * s }
        })
        .collect();
    // Two products of rounded factors: 4·eps
    let mut y = [x.clone()];
    Cpu.rope_fwd(&mut y, &table).unwrap();
    assert_close("rope", floats(&y[0]), &want, 5e-7);
}

#[test]
fn gradients_match_differences() {
    let table = Arc::new(table(2, 5, 2));
    let inputs = || [ramp([2, 5, 3, 4], 0.1), ramp([2, 5, 3, 4], 1.3)];
    gradcheck("rope", inputs(), 2, |t, qk| {
        let [q, k] = rope(t, qk, &table)?;
        add(t, &q, &k)
    });
    // Only one of the two has a gradient.
    gradcheck("rope of queries", [ramp([2, 5, 3, 4], 0.1)], 2, |t, [q]| {
        let k = t.constant(ramp([2, 5, 1, 4], 0.4));
        Ok(rope(t, [q, k], &table)?[0].clone())
    });
    gradcheck("rope of keys", [ramp([2, 5, 1, 4], 0.1)], 2, |t, [k]| {
        let q = t.constant(ramp([2, 5, 3, 4], 0.4));
        Ok(rope(t, [q, k], &table)?[1].clone())
    });
}

#[test]
fn a_tensor_with_another_handle_is_not_touched() {
    let (x, table) = (ramp([2, 5, 3, 4], 0.1), table(2, 5, 2));
    let before = floats(&x).to_vec();
    let mut y = [x.clone()];
    Cpu.rope_fwd(&mut y, &table).unwrap();
    assert_eq!(floats(&x), before);
    assert_ne!(floats(&y[0]), before);
}

/// Batch, tokens, heads, kv heads, head_dim.
const SHAPES: [[usize; 5]; 7] = [
    [1, 1, 3, 1, 8],
    [2, 3, 5, 2, 24],
    [1, 17, 4, 3, 64],
    [2, 41, 7, 3, 128],
    [3, 5, 9, 6, 136],
    [1, 150, 3, 1, 16],
    [1, 2, 3, 2, 1024],
];

#[test]
fn every_backend_agrees_at_any_position() {
    for [b, t, h, hk, d] in SHAPES {
        for most in [100, 10_000_000] {
            let inv_freq = (0..d / 2).map(|i| 5e5f32.powf(-2.0 * i as f32 / d as f32)).collect();
            let freqs = RopeFreqs { inv_freq, attention_factor: 1.2 };
            let positions = Tensor::u32((0..b * t).map(|n| (n as u32 + 1) * 2_654_435 % most).collect(), [b, t]);
            let scales: Vec<f32> = (0..b).map(|row| 1.0 + 0.7 * row as f32).collect();
            let inputs = [ramp([b, t, h, d], 0.1), ramp([b, t, hk, d], 1.3)];
            // Angles are good to 1e-7 and rotate values of order one.
            parity("rope", inputs, [BF16 + 5e-7; 5], |k, [x, y]| {
                let table = k.rope_table(&positions, &scales, &freqs)?;
                let (mut forward, mut backward) = ([x.clone(), y.clone()], [x.clone(), y.clone()]);
                k.rope_fwd(&mut forward, &table)?;
                k.rope_bwd(&mut backward, &table)?;
                let mut alone = [y.clone()];
                k.rope_fwd(&mut alone, &table)?;
                let ([q, k], [dq, dk], [alone]) = (forward, backward, alone);
                Ok([q, k, dq, dk, alone])
            });
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let good = table(2, 5, 2);
    let fwd = |x: Tensor, table: &RopeTable| Cpu.rope_fwd(&mut [x], table);
    assert!(fwd(ramp([2, 5, 3, 4], 0.0), &good).is_ok());
    assert_refused("rank of x", fwd(ramp([2, 5, 12], 0.0), &good));
    assert_refused("tokens of x", Cpu.rope_bwd(&mut [ramp([2, 4, 3, 4], 0.0)], &good));
    assert_refused("head_dim of x", fwd(ramp([2, 5, 3, 6], 0.0), &good));
    assert_refused("odd head_dim", fwd(ramp([2, 5, 3, 5], 0.0), &good));
    let RopeTable::Angles { cos, .. } = good else { panic!("the CPU reads angles") };
    let crooked = RopeTable::Angles { cos, sin: ramp([2, 5, 3], 0.0) };
    assert_refused("sin", fwd(ramp([2, 5, 3, 4], 0.0), &crooked));
    let freqs = RopeFreqs { inv_freq: vec![1.0], attention_factor: 1.0 };
    assert_refused("scales", Cpu.rope_table(&Tensor::u32(vec![0; 6], [2, 3]), &[1.0], &freqs));
    assert_refused("positions", Cpu.rope_table(&Tensor::u32(vec![0; 6], [6]), &[1.0], &freqs));
}
