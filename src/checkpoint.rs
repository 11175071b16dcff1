//! Checkpoints: atomic directories that a killed run continues from.

use crate::error::{Explain, Explanation};

/// A checkpoint that cannot be written, read or continued.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {}

impl Explain for CheckpointError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
