//! Formats and folders: the only place that knows what a tensor is called on disk.
//!
//! Read in this order: [`files`] (a folder or an embedded model), [`safetensors`], [`hf_config`], [`model_dir`],
//! [`tokenizer`], [`chat_template`], [`atomic`], [`export`], [`peft`].

pub mod atomic;
pub mod chat_template;
mod error;
pub mod export;
pub mod files;
pub mod hf_config;
pub mod mmap;
pub mod model_dir;
mod nearest;
pub mod peft;
pub mod safetensors;
pub mod tokenizer;

pub use chat_template::{ChatTemplate, TemplateError};
pub use error::ModelError;
pub use export::{Export, fill_model_dir, fill_twin, write_model_dir};
pub use files::ModelFiles;
pub use model_dir::ModelDir;
pub use safetensors::{SafetensorsFile, Storage};
pub use tokenizer::TextTokenizer;
