//! Vector arithmetic on slices, single-threaded; callers split the rows over threads.

use super::simd::{Isa, Task, dispatch, wide};
use crate::ops::optim::AdamWStep;

/// The widest vector of any [`Isa`].
const MAX_LANES: usize = 16;

/// `outs = f(ins, outs)` vector by vector; the ragged end goes through zero-padded copies.
#[inline(always)]
fn map<I: Isa, const N: usize, const M: usize>(
    isa: I,
    ins: [&[f32]; N],
    outs: [&mut [f32]; M],
    f: impl Fn([I::F; N], [I::F; M]) -> [I::F; M],
) {
    let len = outs[0].len();
    assert!(ins.iter().all(|s| s.len() == len) && outs.iter().all(|s| s.len() == len), "elementwise: lengths differ");
    let whole = len - len % I::LANES;
    let (mut x, mut y) = ([isa.splat(0.0); N], [isa.splat(0.0); M]);
    for at in (0..whole).step_by(I::LANES) {
        for n in 0..N {
            x[n] = isa.load(&ins[n][at..]);
        }
        for m in 0..M {
            y[m] = isa.load(&outs[m][at..]);
        }
        let y = f(x, y);
        for m in 0..M {
            isa.store(y[m], &mut outs[m][at..]);
        }
    }
    if whole == len {
        return;
    }
    let mut end = [0.0; MAX_LANES];
    for n in 0..N {
        end[..len - whole].copy_from_slice(&ins[n][whole..]);
        x[n] = isa.load(&end);
    }
    for m in 0..M {
        end[..len - whole].copy_from_slice(&outs[m][whole..]);
        y[m] = isa.load(&end);
    }
    let y = f(x, y);
    for m in 0..M {
        isa.store(y[m], &mut end);
        outs[m][whole..].copy_from_slice(&end[..len - whole]);
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid<I: Isa>(isa: I, x: I::F) -> I::F {
    let one = isa.splat(1.0);
    isa.div(one, isa.add(one, isa.exp(isa.sub(isa.splat(0.0), x))))
}

/// The largest of `x`, `-inf` of none. A NaN may be passed over.
pub fn max(x: &[f32]) -> f32 {
    struct Max<'a>(&'a [f32]);
    impl Task for Max<'_> {
        type Out = f32;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f32 {
            let mut most = isa.splat(f32::NEG_INFINITY);
            let vectors = self.0.chunks_exact(I::LANES);
            let end = vectors.remainder();
            for x in vectors {
                most = isa.max(isa.load(x), most);
            }
            let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
            isa.store(most, &mut lanes);
            lanes.iter().chain(end).copied().fold(f32::NEG_INFINITY, f32::max)
        }
    }
    dispatch(Max(x))
}

/// `x[i] = e^(x[i] - shift)`; returns the sum of the new values, in partial sums of a fixed pattern. See [`Isa::exp`] for
/// range and error.
pub fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    struct ExpSum<'a>(&'a mut [f32], f32);
    impl Task for ExpSum<'_> {
        type Out = f32;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f32 {
            let shift = isa.splat(self.1);
            let mut sum = isa.splat(0.0);
            let mut vectors = self.0.chunks_exact_mut(I::LANES);
            for x in &mut vectors {
                let e = isa.exp(isa.sub(isa.load(x), shift));
                sum = isa.add(sum, e);
                isa.store(e, x);
            }
            let end = vectors.into_remainder();
            let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
            lanes[..end.len()].copy_from_slice(end);
            let e = isa.exp(isa.sub(isa.load(&lanes), shift));
            isa.store(e, &mut lanes);
            end.copy_from_slice(&lanes[..end.len()]);
            lanes = [0.0; MAX_LANES];
            isa.store(isa.add(sum, e), &mut lanes);
            lanes.iter().sum()
        }
    }
    dispatch(ExpSum(x, shift))
}

/// Scalars of an AdamW step for one tensor.
pub struct AdamWScalars<'a> {
    /// What all tensors share.
    pub step: &'a AdamWStep,
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on the gradient.
    pub grad_scale: f32,
}

/// One AdamW step on `[p, m, v]` with gradient `g`; formulas in [`crate::ops::optim`]. Lengths are equal.
pub fn adamw(scalars: &AdamWScalars, g: &[f32], pmv: [&mut [f32]; 3]) {
    struct Step<'a>(&'a AdamWScalars<'a>, &'a [f32], [&'a mut [f32]; 3]);
    impl Task for Step<'_> {
        type Out = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let AdamWScalars { step: s, lr, weight_decay, grad_scale } = self.0;
            let [grad_scale, beta1, beta2, rest1, rest2] =
                [*grad_scale, s.beta1, s.beta2, 1.0 - s.beta1, 1.0 - s.beta2].map(|x| isa.splat(x));
            let [keep, rate, root, eps] =
                [1.0 - lr * weight_decay, lr / s.bias_correction1, 1.0 / s.bias_correction2, s.eps].map(|x| isa.splat(x));
            map(
                isa,
                [self.1],
                self.2,
                #[inline(always)]
                |[g], [p, m, v]| {
                    let g = isa.mul(g, grad_scale);
                    let m = isa.mul_add(beta1, m, isa.mul(rest1, g));
                    let v = isa.mul_add(beta2, v, isa.mul(rest2, isa.mul(g, g)));
                    let change = isa.div(m, isa.add(isa.sqrt(isa.mul(v, root)), eps));
                    [isa.neg_mul_add(rate, change, isa.mul(keep, p)), m, v]
                },
            );
        }
    }
    dispatch(Step(scalars, g, pmv));
}

/// `x *= a`.
pub fn scale(a: f32, x: &mut [f32]) {
    wide(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x *= a),
    );
}

/// `y += a * x`. Lengths are equal.
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    struct Axpy<'a>(f32, &'a [f32], &'a mut [f32]);
    impl Task for Axpy<'_> {
        type Out = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let a = isa.splat(self.0);
            map(
                isa,
                [self.1],
                [self.2],
                #[inline(always)]
                |[x], [y]| [isa.mul_add(a, x, y)],
            );
        }
    }
    dispatch(Axpy(a, x, y));
}

/// `sum_i x[i] * y[i]`, in partial sums of a fixed pattern. Lengths are equal.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    struct Dot<'a>(&'a [f32], &'a [f32]);
    impl Task for Dot<'_> {
        type Out = f32;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f32 {
            let Self(x, y) = self;
            let mut sums = [isa.splat(0.0); 4]; // four chains hide the latency of the multiply-add
            let blocks = x.len() / (4 * I::LANES) * (4 * I::LANES);
            for at in (0..blocks).step_by(4 * I::LANES) {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let at = at + n * I::LANES;
                    *sum = isa.mul_add(isa.load(&x[at..]), isa.load(&y[at..]), *sum);
                }
            }
            let mut lanes = [0.0; MAX_LANES];
            isa.store(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])), &mut lanes);
            let end: f32 = x[blocks..].iter().zip(&y[blocks..]).map(|(x, y)| x * y).sum();
            lanes.iter().sum::<f32>() + end
        }
    }
    assert_eq!(x.len(), y.len(), "dot: lengths differ");
    dispatch(Dot(x, y))
}

/// `out = silu(gate) * up` with `silu(g) = g * sigmoid(g)`. Lengths are equal.
pub fn swiglu_fwd(gate: &[f32], up: &[f32], out: &mut [f32]) {
    struct Fwd<'a>(&'a [f32], &'a [f32], &'a mut [f32]);
    impl Task for Fwd<'_> {
        type Out = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            map(
                isa,
                [self.0, self.1],
                [self.2],
                #[inline(always)]
                |[g, u], _| [isa.mul(isa.mul(g, sigmoid(isa, g)), u)],
            );
        }
    }
    dispatch(Fwd(gate, up, out));
}

/// Gradients of [`swiglu_fwd`]: `dup = dy * silu(gate)`, `dgate = dy * up * s * (1 + gate * (1 - s))` with
/// `s = sigmoid(gate)`. Overwrites `dgate` and `dup`. Lengths are equal.
pub fn swiglu_bwd(dy: &[f32], gate: &[f32], up: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    struct Bwd<'a>([&'a [f32]; 3], [&'a mut [f32]; 2]);
    impl Task for Bwd<'_> {
        type Out = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let one = isa.splat(1.0);
            map(
                isa,
                self.0,
                self.1,
                #[inline(always)]
                |[dy, g, u], _| {
                    let s = sigmoid(isa, g);
                    let dsilu = isa.mul(s, isa.mul_add(g, isa.sub(one, s), one));
                    [isa.mul(isa.mul(dy, u), dsilu), isa.mul(dy, isa.mul(g, s))]
                },
            );
        }
    }
    dispatch(Bwd([dy, gate, up], [dgate, dup]));
}

#[cfg(test)]
mod tests;
