//! The training loop: batches in, gradients, one optimiser step, one event out.

mod mode;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use mode::{TrainMode, is_embedding_or_norm, prepare};

use crate::backend::Kernels;
use crate::data::Batch;
use crate::error::{Explain, Explanation, Result};
use crate::model::{Llama, Recompute};
use crate::optim::{AdamW, Schedule, StepStats};
use crate::tape::{ParamGrads, Tape};
use crate::tensor::Tensor;

/// A training run that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Several steps in a row were not finite.
    #[error("loss or gradient became non-finite at step {first} and stayed so for {count} steps; training stopped")]
    Diverged {
        /// First of the steps.
        first: u64,
        /// How many in a row.
        count: u64,
        /// The last good step: number, loss, gradient norm, learning rate.
        last_good: Option<(u64, f64, f64, f64)>,
        /// First parameter whose gradient was not finite.
        parameter: Option<String>,
        /// What was saved.
        saved: Vec<PathBuf>,
    },
}

impl Explain for TrainError {
    fn explain(&self) -> Explanation {
        let Self::Diverged { last_good, parameter, saved, .. } = self;
        let mut e = Explanation::new("E801");
        if let Some((step, loss, norm, lr)) = last_good {
            e = e.fact(format!("last good step {step}: loss {loss:.3}, gradient norm {norm:.2}, lr {lr:.1e}"));
        }
        if let Some(name) = parameter {
            e = e.fact(format!("first non-finite gradient: {name}"));
        }
        if !saved.is_empty() {
            let list: Vec<_> = saved.iter().map(|p| p.display().to_string()).collect();
            e = e.fact(format!("saved: {}", list.join(", ")));
        }
        let half = last_good.map_or(String::new(), |(.., lr)| format!(" (try {:.0e})", lr / 2.0));
        e.help(format!("often cured by a lower --lr{half} or a longer --warmup"))
    }
}

/// What to do with a step whose loss or gradient is not finite. A single one is always skipped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNan {
    /// Stop after three in a row.
    Stop,
    /// Skip every one.
    Skip,
}

/// Constants of the loop.
#[derive(Debug, Clone)]
pub struct LoopConfig {
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Micro-batches per step; their loss is one token-weighted mean.
    pub accum: u64,
    /// Learning rate by step.
    pub schedule: Schedule,
    /// Factor on the learning rate of embeddings and norms.
    pub embed_lr_ratio: f64,
    /// Whether layers are recomputed in backward.
    pub recompute: Recompute,
    /// Policy for non-finite steps.
    pub on_nan: OnNan,
}

/// One finished optimiser step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done so far, this one included.
    pub step: u64,
    /// Token-weighted mean loss of the step.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Tokens the model read in this step.
    pub tokens: u64,
    /// Wall time of this step.
    pub seconds: f64,
    /// Steps skipped so far because they were not finite.
    pub skipped: u64,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The stop flag was raised; the state is that after the reported step.
    Stopped,
}

/// Everything that moves during training.
#[derive(Debug)]
pub struct State {
    /// Model with its current parameters.
    pub model: Llama,
    /// Optimiser with its moments.
    pub optimizer: AdamW,
    /// Steps done.
    pub step: u64,
    /// Steps skipped because they were not finite.
    pub skipped: u64,
}

/// Called after every step with the state, so that it can be logged, evaluated or saved.
pub type AfterStep<'a> = dyn FnMut(&StepReport, &mut State) -> Result<()> + 'a;

/// Trains from `state.step` to `config.steps`. `next` yields the micro-batches of the run in order, starting at micro-batch
/// `state.step · accum`; `stop` is looked at before every micro-batch.
pub fn train(
    kernels: &dyn Kernels,
    state: &mut State,
    config: &LoopConfig,
    next: &mut dyn FnMut() -> Result<Batch>,
    stop: &Arc<AtomicBool>,
    after_step: &mut AfterStep,
) -> Result<Outcome> {
    let mut bad = 0;
    let mut last_good = None;
    while state.step < config.steps {
        let started = Instant::now();
        let mut micro = Vec::new();
        for _ in 0..config.accum {
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            micro.push(next()?);
        }
        let lr = config.schedule.at(state.step);
        let (grads, loss) = match gradients(kernels, &state.model, &micro, config.recompute, stop)? {
            Some(done) => done,
            None => return Ok(Outcome::Stopped),
        };
        let ratio = config.embed_lr_ratio;
        let lr_of = |name: &str| if is_embedding_or_norm(name) { lr * ratio } else { lr };
        let stats = match loss.is_finite() {
            true => state.optimizer.apply(kernels, &mut state.model.params, &grads, lr_of)?,
            false => StepStats { grad_norm: f64::NAN, applied: false },
        };
        state.step += 1;
        if stats.applied {
            bad = 0;
            last_good = Some((state.step, loss, stats.grad_norm, lr));
        } else {
            bad += 1;
            state.skipped += 1;
        }
        if bad == 3 && config.on_nan == OnNan::Stop {
            let mut parameter = None;
            for (id, grad) in grads.iter() {
                if !grad.to_host_f32()?.as_f32()?.iter().all(|v| v.is_finite()) {
                    parameter = Some(state.model.params.get(id).name.clone());
                    break;
                }
            }
            let first = state.step - 2;
            return Err(TrainError::Diverged { first, count: bad, last_good, parameter, saved: Vec::new() }.into());
        }
        // What comes after the step, an evaluation perhaps, gets their memory.
        drop(grads);
        let tokens = micro.iter().map(|b| b.ids.shape().len() as u64).sum();
        let seconds = started.elapsed().as_secs_f64();
        let report =
            StepReport { step: state.step, loss, grad_norm: stats.grad_norm, lr, tokens, seconds, skipped: state.skipped };
        after_step(&report, state)?;
    }
    Ok(Outcome::Finished)
}

/// Gradients and loss of one step: the mean over all counted tokens of all micro-batches. `None` when stopped.
pub fn gradients(
    kernels: &dyn Kernels,
    model: &Llama,
    micro: &[Batch],
    recompute: Recompute,
    stop: &AtomicBool,
) -> Result<Option<(ParamGrads, f64)>> {
    let mut weight = 0.0;
    for batch in micro {
        weight += batch.targets.total_weight()?;
    }
    let scale = (1.0 / weight.max(f64::MIN_POSITIVE)) as f32;
    let mut grads = ParamGrads::new(model.params.len());
    let mut losses = Vec::new();
    for batch in micro {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut tape = Tape::new(kernels);
        let (sum, _) = model.loss(&mut tape, batch, recompute, scale)?;
        tape.backward(&sum, Tensor::scalar(1.0), &mut grads)?;
        losses.push(sum.value().clone());
    }
    // Read when everything is queued: a device waits for nobody in between.
    let mut loss = 0.0;
    for sum in losses {
        loss += f64::from(sum.to_host_f32()?.as_f32()?[0]);
    }
    Ok(Some((grads, loss)))
}
