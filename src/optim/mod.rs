//! Optimisation: learning-rate schedules, global-norm clipping, AdamW's state.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, StepStats};
pub use schedule::{Schedule, Shape};
