//! The training loop.

use crate::error::{Explain, Explanation};

/// A training run that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {}

impl Explain for TrainError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
