//! The CPU backend: plain Rust in f32, the definition of correct and the fast path where no GPU is.

/// Runs every op on the host's cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

mod rope;
