use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use ltrain::backend::Cpu;
use ltrain::ops::swiglu::{SwigluKernels, swiglu};

#[test]
fn forward_matches_the_formula() {
    let (gate, up) = (ramp([3, 5, 37], 0.1), ramp([3, 5, 37], 1.2));
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let want: Vec<f64> = floats(&gate).iter().zip(floats(&up)).map(|(&g, &u)| silu(g.into()) * f64::from(u)).collect();
    // exp is good to 2e-7, then a division and two products.
    assert_close("swiglu", floats(&Cpu.swiglu_fwd(&gate, &up).unwrap()), &want, 1e-6);
}

#[test]
fn gradients_match_differences() {
    gradcheck("swiglu", [ramp([2, 3, 7], 0.1), ramp([2, 3, 7], 1.2)], 4, |t, [gate, up]| swiglu(t, &gate, &up));
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, y) = (ramp([2, 3, 4], 0.0), ramp([3, 2, 4], 0.0));
    assert_refused("up", Cpu.swiglu_fwd(&x, &y));
    assert_refused("dy", Cpu.swiglu_bwd(&y, &x, &x));
    assert_refused("up in backward", Cpu.swiglu_bwd(&x, &x, &y));
}
