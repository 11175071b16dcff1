use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp};
use ltrain::backend::Cpu;
use ltrain::ops::linear::LinearKernels;
use ltrain::ops::lora_linear::{LoraLinearKernels, LoraWeights, lora_linear};
use ltrain::tensor::Tensor;

fn weights() -> LoraWeights {
    LoraWeights { w: ramp([5, 7], 1.4), a: ramp([3, 7], 0.4), b: ramp([5, 3], 2.2), scale: 0.75 }
}

#[test]
fn is_the_linear_map_of_the_merged_weight() {
    let (x, lora) = (ramp([2, 3, 7], 0.1), weights());
    let mut merged = lora.w.clone();
    for (i, w) in merged.as_f32_mut().unwrap().iter_mut().enumerate() {
        let (o, j) = (i / 7, i % 7);
        *w += lora.scale * (0..3).map(|r| floats(&lora.b)[o * 3 + r] * floats(&lora.a)[r * 7 + j]).sum::<f32>();
    }
    let want: Vec<f64> = floats(&Cpu.linear_fwd(&x, &merged).unwrap()).iter().map(|&v| f64::from(v)).collect();
    // Two sums of at most 10 products each: 2·eps·sqrt(10)·8
    assert_close("lora_linear", floats(&Cpu.lora_linear_fwd(&x, &lora).unwrap().0), &want, 6e-6);
}

#[test]
fn gradients_match_differences() {
    let lora = weights();
    gradcheck("lora_linear", [ramp([2, 3, 7], 0.1), lora.a.clone(), lora.b.clone()], 10, |t, [x, a, b]| {
        lora_linear(t, &x, &lora.w, &a, &b, lora.scale)
    });
}

#[test]
fn wrong_shapes_are_refused() {
    let (x, dy, u) = (ramp([2, 3, 7], 0.0), ramp([2, 3, 5], 0.0), ramp([2, 3, 3], 0.0));
    let forward = |x: &Tensor, lora: LoraWeights| Cpu.lora_linear_fwd(x, &lora);
    assert_refused("width of x", forward(&dy, weights()));
    assert_refused("width of a", forward(&x, LoraWeights { a: ramp([3, 6], 0.0), ..weights() }));
    assert_refused("rank of b", forward(&x, LoraWeights { b: ramp([5, 2], 0.0), ..weights() }));
    assert_refused("rows of b", forward(&x, LoraWeights { b: ramp([4, 3], 0.0), ..weights() }));
    assert_refused("dims of w", forward(&x, LoraWeights { w: ramp([35], 0.0), ..weights() }));
    let backward = |dy: &Tensor, x: &Tensor, u: &Tensor, lora: LoraWeights| Cpu.lora_linear_bwd(dy, x, u, &lora, true);
    assert!(backward(&dy, &x, &u, weights()).is_ok());
    assert_refused("dy", backward(&x, &x, &u, weights()));
    assert_refused("x", backward(&dy, &dy, &u, weights()));
    assert_refused("u", backward(&dy, &x, &dy, weights()));
    assert_refused("rows of u", backward(&dy, &x, &ramp([3, 2, 3], 0.0), weights()));
    assert_refused("a", backward(&dy, &x, &u, LoraWeights { a: ramp([3, 6], 0.0), ..weights() }));
    assert_refused("b", backward(&dy, &x, &u, LoraWeights { b: ramp([4, 3], 0.0), ..weights() }));
}
