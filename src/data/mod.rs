//! From files to batches.

pub mod batch;
pub mod synthetic;

pub use batch::Batch;

use crate::error::{Explain, Explanation};

/// Text that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {}

impl Explain for DataError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
