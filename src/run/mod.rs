//! What the commands do: each is a short story told with the rest of the library.

mod base;
mod commands;
mod folder;
mod job;
mod measure;
mod record;
mod session;
mod text;
mod ui;

pub use commands::{eval, generate, merge, print};
pub use job::train;

/// How a training command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything asked for is done.
    Finished,
    /// Stopped by a signal with a good checkpoint; the same command continues.
    Stopped,
}
