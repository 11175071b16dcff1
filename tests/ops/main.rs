//! Every op: its formula, its gradient by finite differences, its refusals, and that every backend in reach agrees.

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
