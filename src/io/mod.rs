//! Formats and folders.

pub mod mmap;

use crate::error::{Explain, Explanation};

/// A model, tokenizer or adapter folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {}

impl Explain for ModelError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
