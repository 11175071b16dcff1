use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::swiglu::{SwigluKernels, swiglu};
use ltrain::tensor::Tensor;

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
fn every_backend_agrees() {
    for shape in [[1, 1], [1, 7], [3, 8], [5, 37], [2, 2049], [3, 4099]] {
        let inputs = [ramp(shape, 0.1), ramp(shape, 1.2), ramp(shape, 2.3)];
        // Sigmoids are good to 1e-6 on every backend.
        parity("swiglu", inputs, [BF16 + 1e-6; 3], |k, [gate, up, dy]| {
            let (dgate, dup) = k.swiglu_bwd(dy, gate, up)?;
            Ok([k.swiglu_fwd(gate, up)?, dgate, dup])
        });
    }
}

#[test]
fn gates_beyond_the_range_of_exp_have_their_limits() {
    for far in [88.0, 100.0, 1000.0, 1e30] {
        let gate = Tensor::f32(vec![far, -far, 0.0, far / 2.0, -far / 2.0], [5]);
        parity("swiglu far out", [gate, ramp([5], 1.2), ramp([5], 2.3)], [BF16 + 1e-6; 3], |k, [gate, up, dy]| {
            let (dgate, dup) = k.swiglu_bwd(dy, gate, up)?;
            Ok([k.swiglu_fwd(gate, up)?, dgate, dup])
        });
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, y) = (ramp([2, 3, 4], 0.0), ramp([3, 2, 4], 0.0));
    assert_refused("up", Cpu.swiglu_fwd(&x, &y));
    assert_refused("dy", Cpu.swiglu_bwd(&y, &x, &x));
    assert_refused("up in backward", Cpu.swiglu_bwd(&x, &x, &y));
}
