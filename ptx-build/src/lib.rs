//! Builds ltrain's CUDA kernels from a build script: reads their signatures, writes typed launchers, compiles them with nvcc
//! where there is one, and with the host's C++ compiler for the emulation that tests use.
//!
//! ```no_run
//! let out = std::path::Path::new("out");
//! let kernels = ptx_build::Kernels::in_dir("kernels")?;
//! kernels.emulated(out)?;
//! let images = match ptx_build::find(&|name| std::env::var_os(name))? {
//!     Some(nvcc) => kernels.compile(&nvcc, &["attention_", "matmul_"], out)?,
//!     None => Vec::new(),
//! };
//! kernels.write_bindings(&images, out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(missing_docs)]

mod compile;
mod error;
mod host;
mod kernels;
mod nvcc;
mod parallel;
#[cfg(test)]
mod scratch;
mod signature;

pub use compile::{Compiled, Resources, TARGETS, Target};
pub use error::Error;
pub use kernels::{KernelFile, Kernels, Where};
pub use nvcc::{NotFound, Nvcc, Tried, find};
pub use signature::{Constants, GrammarError, Kernel, Param, Type};
