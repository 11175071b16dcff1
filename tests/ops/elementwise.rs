use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use ltrain::backend::Cpu;
use ltrain::ops::elementwise::{ElementwiseKernels, add};

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

#[test]
fn wrong_shapes_are_refused() {
    assert_refused("add", Cpu.add(&ramp([2, 3], 0.0), &ramp([3, 2], 0.0)));
    assert_refused("add_assign", Cpu.add_assign(&mut ramp([2, 3], 0.0), &ramp([6], 0.0)));
    assert_refused("scale", Cpu.scale(&ltrain::tensor::Tensor::u32(vec![1], [1]), 2.0));
}
