use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::linear::{LinearKernels, linear};

#[test]
fn forward_matches_the_formula() {
    let (x, w) = (ramp([3, 5, 37], 0.1), ramp([11, 37], 1.4));
    let (xs, ws) = (floats(&x), floats(&w));
    let at = |n: usize, o: usize| (0..37).map(|j| f64::from(xs[n * 37 + j]) * f64::from(ws[o * 37 + j])).sum();
    let want: Vec<f64> = (0..15 * 11).map(|i| at(i / 11, i % 11)).collect();
    let y = Cpu.linear_fwd(&x, &w).unwrap();
    assert_eq!(y.shape().dims(), [3, 5, 11]);
    // eps·sqrt(37)·8
    assert_close("linear", floats(&y), &want, 6e-6);
}

#[test]
fn gradients_match_differences() {
    gradcheck("linear", [ramp([2, 3, 7], 0.1), ramp([5, 7], 1.4)], 7, |t, [x, w]| linear(t, &x, &w));
}

/// Rows, input and output widths: below, at and above a tile, of one vector and of none, rows in several slabs, and for every
/// product one that is cut into large tiles.
const SHAPES: [[usize; 3]; 10] = [
    [1, 8, 8],
    [7, 24, 3],
    [64, 64, 64],
    [67, 72, 264],
    [129, 264, 11],
    [200, 40, 136],
    [1411, 16, 24],
    [1170, 24, 1155],
    [1170, 1160, 16],
    [9, 1160, 1155],
];

#[test]
fn every_backend_agrees() {
    for [rows, inner, outer] in SHAPES {
        let inputs = [ramp([1, rows, inner], 0.1), ramp([outer, inner], 1.4), ramp([1, rows, outer], 2.6)];
        let f32_sum = |terms: usize| f64::from(f32::EPSILON) * (terms as f64).sqrt() * 8.0;
        let tolerances = [BF16 + f32_sum(inner), BF16 + f32_sum(outer), f32_sum(rows)];
        parity("linear", inputs, tolerances, |k, [x, w, dy]| {
            Ok([k.linear_fwd(x, w)?, k.linear_bwd_x(dy, w)?, k.linear_bwd_w(dy, x)?])
        });
    }
}

#[test]
fn an_input_width_that_kernels_cannot_read_is_refused_with_advice() {
    use ltrain::backend::{Device, Emu, EmuMode};
    use ltrain::error::{Error, Explain as _};
    use ltrain::ops::place::PlaceKernels as _;
    let device = Device::new(Emu::new(EmuMode::Eager), u64::MAX);
    let [x, w, dy] = [ramp([2, 3, 12], 0.1), ramp([8, 12], 1.4), ramp([2, 3, 8], 2.6)].map(|t| device.place(&t).unwrap());
    let errors: [Error; 3] = [
        device.linear_fwd(&x, &w).unwrap_err(),
        device.linear_bwd_x(&dy, &w).unwrap_err(),
        device.linear_bwd_w(&dy, &x).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.explain().code, "E503", "{error}");
        assert!(error.to_string().contains("12"), "{error}");
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, w, dy) = (ramp([2, 3, 7], 0.0), ramp([5, 7], 0.0), ramp([2, 3, 5], 0.0));
    assert_refused("width of x", Cpu.linear_fwd(&dy, &w));
    assert_refused("rank of w", Cpu.linear_fwd(&x, &ramp([35], 0.0)));
    assert_refused("scalar x", Cpu.linear_fwd(&ramp([], 0.0), &w));
    assert_refused("width of dy", Cpu.linear_bwd_x(&x, &w));
    assert_refused("scalar dy", Cpu.linear_bwd_x(&ramp([], 0.0), &w));
    assert_refused("rows of dy and x", Cpu.linear_bwd_w(&dy, &ramp([3, 2, 7], 0.0)));
    assert_refused("rank of dy and x", Cpu.linear_bwd_w(&dy, &ramp([6, 7], 0.0)));
}
