//! Data, comparators and finite differences.

use ltrain::backend::Cpu;
use ltrain::error::{Error, Result};
use ltrain::tape::{ParamGrads, Tape, Var};
use ltrain::tensor::Tensor;

/// Values of order one without symmetry: no two rows, columns or halves are alike.
pub fn ramp<const N: usize>(shape: [usize; N], phase: f64) -> Tensor {
    let value = |i: usize| (0.37 * i as f64 + phase + (0.011 * i as f64).cos()).sin() as f32 * 1.3;
    Tensor::f32((0..shape.iter().product()).map(value).collect(), shape)
}

/// The floats of a tensor.
pub fn floats(t: &Tensor) -> &[f32] {
    t.as_f32().unwrap()
}

/// The bits of a tensor, to compare runs with.
pub fn bits(t: &Tensor) -> Vec<u32> {
    floats(t).iter().map(|v| v.to_bits()).collect()
}

/// Panics on the first element that is further from `want` than `tolerance` times the largest of them. NaN is never close.
pub fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let top = want.iter().fold(0f64, |m, w| m.max(w.abs())).max(f64::MIN_POSITIVE);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(g) - w).abs() / top;
        assert!(off <= tolerance, "{what}[{i}]: {g} vs {w}, off {off:.2e} of {top:.2e}, allowed {tolerance:.0e}");
    }
}

/// As [`assert_close`], against stored floats.
pub fn assert_close_f32(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let want: Vec<f64> = want.iter().map(|&w| f64::from(w)).collect();
    assert_close(what, got, &want, tolerance);
}

/// Runs `op` on the tape with every input a parameter, and returns output and gradients under `seed`.
pub fn run<const N: usize>(
    inputs: &[Tensor; N],
    seed: impl FnOnce(&Tensor) -> Tensor,
    op: impl Fn(&mut Tape, [Var; N]) -> Result<Var>,
) -> (Tensor, [Tensor; N]) {
    let mut tape = Tape::new(&Cpu);
    let vars = std::array::from_fn(|id| tape.param(id, &inputs[id]));
    let y = op(&mut tape, vars).unwrap();
    let mut grads = ParamGrads::new(N);
    tape.backward(&y, seed(y.value()), &mut grads).unwrap();
    let grad = |id: usize| grads.get(id).unwrap_or_else(|| panic!("no gradient for input {id}")).clone();
    (y.value().clone(), std::array::from_fn(grad))
}

/// `Σ probe·y` in f64, so that its own rounding plays no part.
fn probed(y: &Tensor, probe: &Tensor) -> f64 {
    floats(y).iter().zip(floats(probe)).map(|(&y, &p)| f64::from(y) * f64::from(p)).sum()
}

/// Half the width of the inner pair of the four-point stencil; a power of two, so that x ± h loses little.
const H: f32 = 1.0 / 32.0;

/// Compares the gradients of `Σ probe·op(inputs)` with differences of it. `depth` is the longest sum inside the op.
///
/// Allowed, with n outputs of size up to `top` and the probe below 1.3: the outputs' rounding, which n of them with random
/// signs carry into a quotient by H as `1.3·top·eps·sqrt(n·depth)·(8+8+1+1)/(12·H)`, doubled for the worst of many elements;
/// and the stencil's truncation, `H⁴/30` (3e-8) of the fifth derivative, which order-one inputs keep below 3000 times the
/// largest gradient: 1e-4 of it.
pub fn gradcheck<const N: usize>(name: &str, inputs: [Tensor; N], depth: usize, op: impl Fn(&mut Tape, [Var; N]) -> Result<Var>) {
    let probe = |y: &Tensor| Tensor::f32(floats(&ramp([y.shape().len()], 0.6)).to_vec(), y.shape());
    let (y, grads) = run(&inputs, probe, &op);
    let probe = probe(&y);
    let value = |inputs: &[Tensor; N]| {
        let mut tape = Tape::inference(&Cpu);
        let vars = inputs.each_ref().map(|x| tape.constant(x.clone()));
        probed(op(&mut tape, vars).unwrap().value(), &probe)
    };
    let top = floats(&y).iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    let n = (y.shape().len() * depth) as f64;
    let rounding = 2.0 * 1.3 * top * f64::from(f32::EPSILON) * n.sqrt() * 18.0 / (12.0 * f64::from(H));
    for (id, grad) in grads.iter().enumerate() {
        assert_eq!(grad.shape().len(), inputs[id].shape().len(), "{name}: size of gradient {id}");
        let largest = floats(grad).iter().fold(0f64, |m, &g| m.max(f64::from(g).abs()));
        assert!(largest > 0.0, "{name}: gradient {id} is zero everywhere");
        let allowed = rounding + 1e-4 * largest;
        assert!(allowed < 0.02 * largest, "{name}: input {id} is too coarse a test: {allowed:.1e} of {largest:.1e}");
        for i in 0..grad.shape().len() {
            let at = |steps: f32| {
                let mut moved = inputs.clone();
                moved[id].as_f32_mut().unwrap()[i] += steps * H;
                value(&moved)
            };
            let difference = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(H));
            let got = f64::from(floats(grad)[i]);
            let off = (got - difference).abs();
            assert!(off <= allowed, "{name}: d/dx{id}[{i}] is {got}, by differences {difference}, allowed {allowed:.1e}");
        }
    }
}

/// Panics unless the op found its inputs wrong and said so.
pub fn assert_refused<T>(what: &str, result: Result<T>) {
    match result {
        Err(Error::Tensor(_)) => {}
        Err(other) => panic!("{what}: refused with {other}"),
        Ok(_) => panic!("{what}: accepted"),
    }
}
