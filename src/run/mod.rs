//! What the commands do: each is a short story told with the rest of the library.

mod base;
mod bench;
mod commands;
mod error;
mod eval;
mod folder;
mod job;
mod measure;
mod memory;
mod place;
mod questions;
mod record;
mod session;
mod text;
mod ui;

pub use bench::bench;
pub use commands::{generate, merge, plan, print};
pub use error::RunError;
pub use eval::eval;
pub use job::train;
pub use place::{Started, start_for, start_for_run};

/// Runs `work` on one of `threads` CPU threads that share every op's work: all cores unless told otherwise. A caller that is
/// not one of them would be woken up after every op.
pub fn on_threads<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> T {
    // 0 means all cores. The pool is made once: a process runs one command.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build_global();
    rayon::scope(|_| work())
}

/// How a training command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything asked for is done.
    Finished,
    /// Stopped by a signal with a good checkpoint; the same command continues.
    Stopped,
}
