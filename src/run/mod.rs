//! What the commands do: each is a short story told with the rest of the library.

mod analyze;
mod base;
mod bench;
mod best;
mod blend;
mod commands;
mod error;
mod eval;
mod export;
mod folder;
mod inspect;
mod job;
mod longrecipe;
mod measure;
mod memory;
mod merge;
mod place;
mod questions;
mod record;
mod session;
mod text;
mod ui;
mod words;

pub use analyze::analyze;
pub use bench::bench;
pub use commands::{generate, plan, print};
pub use error::RunError;
pub use eval::eval;
pub use export::export;
pub use inspect::inspect;
pub use job::train;
pub use longrecipe::Stages as LongRecipeStages;
pub use merge::{merge, merge_best};
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
