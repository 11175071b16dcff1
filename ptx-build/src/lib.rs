//! Finds nvcc and compiles ltrain's CUDA kernels from a build script.
//!
//! ```no_run
//! let nvcc = ptx_build::find(&|name| std::env::var_os(name))?;
//! let compiled = ptx_build::Kernels::in_dir("kernels")?.compile(&nvcc, "out")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs)]

mod compile;
mod nvcc;
#[cfg(test)]
mod scratch;

pub use compile::{Compiled, Error, Kernels, TARGETS, Target};
pub use nvcc::{NotFound, Nvcc, Tried, find};
