//! The model: its configuration, its rotation, its forward pass, its adapters.

pub mod config;
pub mod rope;

pub use config::{Arch, ModelConfig};
pub use rope::{RopeConfig, RopeError, RopeKind, RopeScaling};
