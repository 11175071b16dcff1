use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
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
