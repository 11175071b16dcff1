use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use crate::parity::{BF16, parity};
use ltrain::backend::Cpu;
use ltrain::ops::elementwise::{ElementwiseKernels, add};
use ltrain::tensor::Tensor;

#[test]
fn sums_and_products_match_the_formula() {
    let (x, y) = (ramp([3, 7, 1001], 0.1), ramp([3, 7, 1001], 2.0));
    let want: Vec<f64> = floats(&x).iter().zip(floats(&y)).map(|(&x, &y)| f64::from(x) + f64::from(y)).collect();
    assert_close("add", floats(&Cpu.add(&x, &y).unwrap()), &want, 1e-7);
    let mut sum = x.clone();
    Cpu.add_assign(&mut sum, &y).unwrap();
    assert_close("add_assign", floats(&sum), &want, 1e-7);
    let scaled: Vec<f64> = floats(&x).iter().map(|&x| 0.3f32 as f64 * f64::from(x)).collect();
    assert_close("scale", floats(&Cpu.scale(&x, 0.3).unwrap()), &scaled, 1e-7);
}

#[test]
fn gradients_match_differences() {
    gradcheck("add", [ramp([2, 3, 5], 0.1), ramp([2, 3, 5], 1.0)], 1, |t, [x, y]| add(t, &x, &y));
}

/// One element, a part of a group, whole groups with a tail, and more than one block with a tail.
const SHAPES: [[usize; 2]; 6] = [[1, 1], [1, 7], [3, 5], [2, 12], [17, 241], [3, 4099]];

#[test]
fn every_backend_agrees_in_working_precision() {
    for shape in SHAPES {
        parity("elementwise", [ramp(shape, 0.1), ramp(shape, 2.0)], [BF16; 3], |k, [x, y]| {
            let mut sum = x.clone();
            k.add_assign(&mut sum, y)?;
            Ok([k.add(x, y)?, sum, k.scale(x, -0.3)?])
        });
    }
}

#[test]
fn every_backend_agrees_in_f32() {
    for shape in SHAPES {
        // One rounding each.
        parity("elementwise in f32", [ramp(shape, 0.1), ramp(shape, 2.0)], [6e-8; 3], |k, [x, y]| {
            let exact = |t: &Tensor| k.place_exact(&t.to_host_f32()?);
            let (x, y) = (exact(x)?, exact(y)?);
            let mut sum = x.clone();
            k.add_assign(&mut sum, &y)?;
            Ok([k.add(&x, &y)?, sum, k.scale(&x, -0.3)?])
        });
    }
}

#[test]
fn a_sum_leaves_other_handles_alone() {
    parity("add_assign to itself", [ramp([3, 700], 0.1)], [BF16, 0.0], |k, [x]| {
        let mut sum = x.clone();
        k.add_assign(&mut sum, x)?;
        Ok([sum, x.clone()])
    });
}

#[test]
fn wrong_shapes_are_refused() {
    assert_refused("add", Cpu.add(&ramp([2, 3], 0.0), &ramp([3, 2], 0.0)));
    assert_refused("add_assign", Cpu.add_assign(&mut ramp([2, 3], 0.0), &ramp([6], 0.0)));
    assert_refused("scale", Cpu.scale(&Tensor::u32(vec![1], [1]), 2.0));
}
