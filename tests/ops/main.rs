//! Every op on the CPU: its formula, its gradient by finite differences, and its refusals.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod parity;

mod attention;
mod bias;
mod cross_entropy;
mod elementwise;
mod embedding;
mod linear;
mod optim;
mod rms_norm;
mod rope;
mod step;
mod swiglu;
mod tape;
