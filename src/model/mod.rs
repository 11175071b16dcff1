//! The model: its configuration, its rotation, its forward pass, its adapters.

pub mod cache;
pub mod config;
pub mod llama;
pub mod lora;
pub mod params;
pub mod rope;

pub use cache::KvCache;
pub use config::{Arch, ModelConfig};
pub use llama::{Llama, Recompute};
pub use lora::{LoraConfig, LoraTarget};
pub use params::{Param, Params};
pub use rope::{RopeConfig, RopeError, RopeKind, RopeScaling};
