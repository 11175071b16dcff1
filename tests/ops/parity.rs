//! Compares every backend in reach with the CPU on the same inputs.

use half::bf16;
use ltrain::backend::{Cpu, Kernels};
use ltrain::error::Result;
use ltrain::tensor::Tensor;

use crate::check::floats;
use crate::common::backends::backends;

/// Largest relative error of one rounding to bf16, whose numbers between 1 and 2 are 2^-7 apart.
pub const BF16: f64 = 1.0 / 256.0;

/// The values that bf16 can hold next to those of `x`: what a device gets to see.
pub fn rounded(x: &Tensor) -> Tensor {
    match x.as_f32() {
        Ok(v) => Tensor::f32(v.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(), x.shape()),
        Err(_) => x.clone(),
    }
}

/// Runs `op` on the CPU and on every other backend. `op` gets the backend and its copies of `inputs`, whose floats are rounded
/// to bf16; integers stay on the host. Every output may be off by its tolerance times the CPU's largest value; NaN is never
/// close. Every emulation, in whatever order it runs threads, gives the same bits.
pub fn parity<const N: usize, const M: usize>(
    what: &str,
    inputs: [Tensor; N],
    tolerances: [f64; M],
    op: impl Fn(&dyn Kernels, &[Tensor; N]) -> Result<[Tensor; M]>,
) {
    let inputs = inputs.each_ref().map(rounded);
    let want = op(&Cpu, &inputs).unwrap_or_else(|e| panic!("{what} on the CPU: {e}"));
    let elements = inputs.iter().chain(&want).map(|t| t.shape().len()).sum();
    let mut first: Option<[Tensor; M]> = None;
    for (name, backend) in backends(elements) {
        let fail = |e: &ltrain::Error| -> ! { panic!("{what} on {name}: {}", ltrain::error::Shown(e)) };
        let placed = inputs.each_ref().map(|x| match x.as_f32() {
            Ok(_) => backend.place(x).unwrap_or_else(|e| fail(&e)),
            Err(_) => x.clone(),
        });
        let got = op(&*backend, &placed).unwrap_or_else(|e| fail(&e));
        let got = got.each_ref().map(|t| t.to_host_f32().unwrap_or_else(|e| fail(&e)));
        for (n, ((got, want), tolerance)) in got.iter().zip(&want).zip(tolerances).enumerate() {
            assert_eq!(got.shape(), want.shape(), "{what} on {name}: shape of output {n}");
            close(&format!("{what} on {name}: output {n}"), floats(got), floats(want), tolerance);
        }
        match &first {
            // A GPU's exp2 is another one, but it is always the same.
            _ if name == "cuda" => {
                let again = op(&*backend, &placed).unwrap_or_else(|e| fail(&e));
                let again = again.each_ref().map(|t| t.to_host_f32().unwrap_or_else(|e| fail(&e)));
                assert!(again == got, "{what}: {name} gives other bits the second time");
            }
            Some(first) => assert!(*first == got, "{what}: {name} gives other bits than the first emulation"),
            None => first = Some(got),
        }
    }
}

/// Where all of an output cancels, what is left is the f32 rounding of terms of order one.
const CANCELLED: f64 = 1e-4;

fn close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let top = want.iter().fold(0f64, |m, &w| m.max(f64::from(w).abs())).max(CANCELLED);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(g) - f64::from(w)).abs() / top;
        assert!(off <= tolerance, "{what}[{i}]: {g} vs {w}, off {off:.2e} of {top:.2e}, allowed {tolerance:.1e}");
    }
}
