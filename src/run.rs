//! What the commands do.

use crate::backend::gpu::Place;
use crate::cli::{EvalArgs, GenerateArgs, MergeArgs};
use crate::config::RunConfig;
use crate::error::Result;

/// `ltrain`.
pub fn train(config: &RunConfig, place: &Place) -> Result<()> {
    todo!("train {} on {place}", config.model.name)
}

/// `ltrain eval`.
pub fn eval(args: &EvalArgs) -> Result<()> {
    todo!("evaluate {}", args.model)
}

/// `ltrain generate`.
pub fn generate(args: &GenerateArgs) -> Result<()> {
    todo!("generate with {}", args.model)
}

/// `ltrain merge`.
pub fn merge(args: &MergeArgs) -> Result<()> {
    todo!("merge {}", args.adapter.display())
}
