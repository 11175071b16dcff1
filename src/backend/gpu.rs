//! Finding a GPU.

use crate::error::{Explain, Explanation};

/// A device that was asked for and is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {}

impl Explain for DeviceError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
