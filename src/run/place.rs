//! Where a command runs.

use super::ui::Ui;
use crate::backend::gpu::{self, Gpus, Place};
use crate::backend::{self, Kernels};
use crate::cli::DeviceArgs;
use crate::config::choices::Progress;
use crate::config::{ConfigError, Problem, RunConfig};
use crate::error::Result;

/// A place and its backend.
pub type Started = (Place, Box<dyn Kernels>);

/// The device of a run.
///
/// # Errors
/// A GPU that was asked for and cannot be used.
pub fn start_for_run(config: &RunConfig) -> Result<Started> {
    start(config.train.gpus, config.train.mem_limit, Ui::new(config.output.progress))
}

/// The device of a command other than training.
///
/// # Errors
/// As [`start_for_run`], and settings that contradict each other.
pub fn start_for(args: &DeviceArgs) -> Result<Started> {
    if args.gpus == Gpus::Count(0) && args.mem_limit.is_some() {
        let problem = Problem::new("mem_limit", "has an effect only with --gpus 1").help("leave out one of them");
        return Err(ConfigError::Problems(vec![problem]).into());
    }
    start(args.gpus, args.mem_limit.map(|size| size.0), Ui::new(Progress::Auto))
}

fn start(gpus: Gpus, limit: Option<u64>, ui: Ui) -> Result<Started> {
    let place = gpu::select(gpus)?;
    if limit.is_some() && matches!(place, Place::Cpu { .. }) {
        ui.say("--mem-limit has no effect: this is the CPU");
    }
    let kernels = backend::open(&place, limit)?;
    Ok((place, kernels))
}
