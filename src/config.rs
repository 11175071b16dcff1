//! Settings: raw in, validated out.

use crate::error::{Explain, Explanation};

/// A setting or a combination of settings that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {}

impl Explain for ConfigError {
    fn explain(&self) -> Explanation {
        match *self {}
    }
}
