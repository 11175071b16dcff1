use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::elementwise::add;
use ltrain::ops::rms_norm::{RmsNormKernels, add_rms_norm, rms_norm};

const EPS: f32 = 1e-5;

#[test]
fn forward_matches_the_formula() {
    for c in [1, 7, 64, 300] {
        let (x, r, w) = (ramp([3, 5, c], 0.1), ramp([3, 5, c], 1.9), ramp([c], 0.7));
        let rows = |sum: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let norm = |n: usize| ((0..c).map(|j| sum(n * c + j).powi(2)).sum::<f64>() / c as f64 + f64::from(EPS)).sqrt();
            (0..15 * c).map(|i| f64::from(floats(&w)[i % c]) * sum(i) / norm(i / c)).collect()
        };
        let at = |t: &ltrain::tensor::Tensor, i: usize| f64::from(floats(t)[i]);
        let (y, _) = Cpu.rms_norm_fwd(&x, &w, EPS).unwrap();
        // eps·sqrt(c)·8 for c = 300
        assert_close("rms_norm", floats(&y), &rows(&|i| at(&x, i)), 1.7e-5);
        let (h, y, _) = Cpu.add_rms_norm_fwd(&x, &r, &w, EPS).unwrap();
        let sums: Vec<f64> = (0..15 * c).map(|i| at(&x, i) + at(&r, i)).collect();
        assert_close("h", floats(&h), &sums, 1e-7);
        assert_close("add_rms_norm", floats(&y), &rows(&|i| at(&x, i) + at(&r, i)), 1.7e-5);
    }
}

#[test]
fn gradients_match_differences() {
    gradcheck("rms_norm", [ramp([2, 3, 7], 0.1), ramp([7], 0.7)], 7, |t, [x, w]| rms_norm(t, &x, &w, 0.5));
}

#[test]
fn gradients_of_the_fused_op_match_differences_through_either_output_and_both() {
    let inputs = || [ramp([2, 3, 5], 0.1), ramp([2, 3, 5], 1.9), ramp([5], 0.7)];
    gradcheck("y", inputs(), 5, |t, [x, r, w]| Ok(add_rms_norm(t, &x, &r, &w, 0.5)?[1].clone()));
    gradcheck("h and y", inputs(), 5, |t, [x, r, w]| {
        let [h, y] = add_rms_norm(t, &x, &r, &w, 0.5)?;
        add(t, &h, &y)
    });
    let [x, r, w] = inputs();
    gradcheck("h alone", [x, r], 1, |t, [x, r]| {
        let w = t.constant(w.clone());
        Ok(add_rms_norm(t, &x, &r, &w, 0.5)?[0].clone())
    });
}

/// Widths of one vector, of parts of a team, of several warps, and the widest; rows that fill a block and do not.
const SHAPES: [[usize; 2]; 8] = [[1, 8], [3, 24], [67, 64], [5, 136], [130, 96], [2, 1032], [9, 4096], [3, 8192]];

#[test]
fn every_backend_agrees_forward() {
    for [rows, c] in SHAPES {
        let inputs = [ramp([1, rows, c], 0.1), ramp([1, rows, c], 1.9), ramp([c], 0.7)];
        let f32_sum = f64::from(f32::EPSILON) * (c as f64).sqrt() * 8.0;
        parity("rms_norm", inputs.clone(), [BF16 + f32_sum, f32_sum], |k, [x, _, w]| k.rms_norm_fwd(x, w, EPS).map(Into::into));
        // The sum is rounded before it is normalised, which the CPU does not do; so is the result.
        parity("add_rms_norm", inputs, [BF16, 2.0 * BF16 + f32_sum, BF16], |k, [x, r, w]| {
            k.add_rms_norm_fwd(x, r, w, EPS).map(Into::into)
        });
    }
}

#[test]
fn every_backend_agrees_backward() {
    for [rows, c] in SHAPES {
        let inputs = [ramp([1, rows, c], 0.1), ramp([1, rows, c], 1.9), ramp([c], 0.7), ramp([1, rows, c], 2.6)];
        let f32_sum = f64::from(f32::EPSILON) * (rows.max(c) as f64).sqrt() * 8.0;
        for with_dh in [false, true] {
            parity("rms_norm_bwd", inputs.clone(), [BF16 + f32_sum, 2.0 * f32_sum], |k, [x, dy, w, dh]| {
                let (_, rstd) = k.rms_norm_fwd(x, w, EPS)?;
                let (dx, dw) = k.rms_norm_bwd(dy, x, w, &rstd, with_dh.then_some(dh), true)?;
                Ok([dx, dw.expect("asked for")])
            });
        }
    }
}

#[test]
fn a_width_that_kernels_cannot_read_is_refused_with_advice() {
    use ltrain::backend::EmuMode;
    use ltrain::error::{Error, Explain as _};
    use ltrain::ops::place::PlaceKernels as _;
    let device = crate::common::backends::emulated(EmuMode::Eager);
    for width in [12, 8200] {
        let [x, w] = [ramp([2, 3, width], 0.1), ramp([width], 0.7)].map(|t| device.place(&t).unwrap());
        let error: Error = device.rms_norm_fwd(&x, &w, EPS).unwrap_err();
        assert_eq!(error.explain().code, "E503", "{error}");
        assert!(error.to_string().contains(&width.to_string()), "{error}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, w, r) = (ramp([2, 3, 4], 0.1), ramp([4], 0.0), ramp([6], 0.5));
    assert_refused("width of w", Cpu.rms_norm_fwd(&x, &ramp([3], 0.0), EPS));
    assert_refused("rank of w", Cpu.rms_norm_fwd(&x, &ramp([1, 4], 0.0), EPS));
    assert_refused("scalar x", Cpu.rms_norm_fwd(&ramp([], 0.0), &w, EPS));
    assert_refused("residual", Cpu.add_rms_norm_fwd(&x, &ramp([3, 2, 4], 0.0), &w, EPS));
    assert!(Cpu.rms_norm_bwd(&x, &x, &w, &r, Some(&x), true).is_ok());
    assert_refused("dy", Cpu.rms_norm_bwd(&ramp([6, 4], 0.0), &x, &w, &r, None, true));
    assert_refused("w", Cpu.rms_norm_bwd(&x, &x, &ramp([3], 0.0), &r, None, true));
    assert_refused("rstd", Cpu.rms_norm_bwd(&x, &x, &w, &ramp([5], 0.0), None, true));
    assert_refused("dh", Cpu.rms_norm_bwd(&x, &x, &w, &r, Some(&ramp([2, 3, 5], 0.0)), true));
}
