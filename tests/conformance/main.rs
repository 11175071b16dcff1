//! Every word of `kernels/ptx.cuh` does what the PTX ISA says, on the emulation and on a GPU: both agree, or the one does not
//! stand for the other. What is expected is computed here from the definitions, and from no code of the emulation.
#![allow(unsafe_code)] // launches kernels that no op has a launcher for

#[path = "../common/mod.rs"]
mod common;

mod close;
mod coverage;
mod hopper;
mod memory;
mod numbers;
mod target;
mod tma;
mod warp;
