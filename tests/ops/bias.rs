use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::bias::{BiasKernels, bias};

#[test]
fn adds_to_every_row() {
    let (x, b) = (ramp([3, 5, 7], 0.1), ramp([7], 1.0));
    let want: Vec<f64> = (0..105).map(|i| f64::from(floats(&x)[i]) + f64::from(floats(&b)[i % 7])).collect();
    assert_close("bias", floats(&Cpu.bias_fwd(&x, &b).unwrap()), &want, 1e-7);
}

#[test]
fn gradients_match_differences() {
    gradcheck("bias", [ramp([2, 3, 5], 0.1), ramp([5], 1.0)], 1, |t, [x, b]| bias(t, &x, &b));
}

/// Widths of one vector, of parts of a team and of more than one block; rows that fill a part and do not.
const SHAPES: [[usize; 2]; 7] = [[1, 8], [3, 24], [67, 64], [5, 136], [130, 96], [2, 2056], [9, 4096]];

#[test]
fn every_backend_agrees() {
    for [rows, c] in SHAPES {
        parity("bias", [ramp([1, rows, c], 0.1), ramp([c], 1.0)], [BF16], |k, [x, b]| Ok([k.bias_fwd(x, b)?]));
        let f32_sum = f64::from(f32::EPSILON) * (rows as f64).sqrt() * 8.0;
        parity("bias_bwd", [ramp([1, rows, c], 0.1)], [f32_sum], |k, [dy]| Ok([k.bias_bwd(dy)?]));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    assert_refused("width", Cpu.bias_fwd(&ramp([2, 3], 0.0), &ramp([2], 0.0)));
    assert_refused("rank", Cpu.bias_fwd(&ramp([2, 3], 0.0), &ramp([1, 3], 0.0)));
    assert_refused("scalar", Cpu.bias_fwd(&ramp([], 0.0), &ramp([1], 0.0)));
    assert_refused("scalar gradient", Cpu.bias_bwd(&ramp([], 0.0)));
}
