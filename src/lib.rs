//! Longer context for Llama-style language models on one GPU.
//!
//! Read in this order: [`tensor`], [`tape`], [`ops::rms_norm`] (one op end to end), [`backend`], [`model`],
//! [`positions`], [`data`], [`train`], [`eval`].

#[macro_use]
mod choices;

pub mod backend;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod doctor;
pub mod error;
pub mod eval;
pub mod generate;
pub mod io;
pub mod model;
pub mod ops;
pub mod optim;
pub mod plan;
pub mod positions;
pub mod report;
pub mod rng;
pub mod run;
pub mod tape;
pub mod tensor;
pub mod train;
pub mod units;

pub use error::{Error, Result};
