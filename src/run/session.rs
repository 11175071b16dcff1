//! One training from its first or last step to its end: batches, logs, checkpoints.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::base::Base;
use super::best::Best;
use super::error::RunError;
use super::memory::Memory;
use super::text::Rows;
use super::ui::{Bar, Ui, bar_message, step_line};
use crate::backend::Kernels;
use crate::checkpoint::{self, CheckpointError, Context};
use crate::config::RunConfig;
use crate::config::choices::{Best as Criterion, NanPolicy};
use crate::config::text::Resume;
use crate::data::Prefetch;
use crate::error::{Error, IoContext, Result};
use crate::model::{ModelConfig, RopeConfig};
use crate::optim::AdamW;
use crate::report::log::{StepLine, TrainerLog};
use crate::report::record::{StepRecord, ValidationRecord};
use crate::report::{clock, tensorboard::EventWriter};
use crate::train::{self, LoopConfig, OnNan, Outcome, State, StepReport, TrainError};

/// Name of the log of one training.
pub const LOG: &str = "trainer_log.jsonl";

/// What one training needs.
pub struct Session<'a> {
    /// The run's settings.
    pub config: &'a RunConfig,
    /// The base model.
    pub base: &'a Base,
    /// Configuration of the extended model, for checkpoints.
    pub extended: &'a ModelConfig,
    /// The rotation that this training's positions want.
    pub rope: &'a RopeConfig,
    /// Training rows with this training's positions.
    pub rows: Rows,
    /// Folder of logs and checkpoints.
    pub folder: &'a Path,
    /// Name for the bar.
    pub title: &'a str,
    /// How progress is shown.
    pub ui: Ui,
    /// All that a measurement depends on besides the state.
    pub measured_with: &'a str,
    /// Raised by a signal.
    pub stop: &'a Arc<AtomicBool>,
    /// The run's memory.
    pub memory: &'a Memory<'a>,
}

/// Measures the current state, after `step` steps, when evaluation during training was asked for.
pub type Validate<'a> = dyn FnMut(&mut State, u64) -> Result<Option<ValidationRecord>> + 'a;

/// Whether the log has a measurement of this step.
fn was_measured(log: &Path, step: u64) -> Result<bool> {
    let text = if log.exists() { std::fs::read_to_string(log).context("read", log)? } else { String::new() };
    let is_of_step = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        value["current_steps"].as_u64() == Some(step) && value.get("eval_loss").is_some()
    };
    Ok(text.lines().any(is_of_step))
}

/// Everything that is told about steps.
struct Logs<'a> {
    memory: &'a Memory<'a>,
    /// Most memory of the steps so far.
    peak: u64,
    log: TrainerLog,
    events: EventWriter,
    every: Option<u64>,
    steps: u64,
    seconds: f64,
    tokens: u64,
    per_epoch: Option<u64>,
    rows_per_step: u64,
    recent: VecDeque<(u64, f64)>,
}

impl Logs<'_> {
    /// Rate over the last steps and the time left at that rate.
    fn pace(&self, step: u64) -> (f64, f64) {
        let (tokens, seconds) = self.recent.iter().fold((0, 0.0), |(t, s), (tokens, seconds)| (t + tokens, s + seconds));
        let per_step = seconds / self.recent.len().max(1) as f64;
        (tokens as f64 / seconds.max(1e-9), per_step * (self.steps - step.min(self.steps)) as f64)
    }

    fn step(&mut self, report: &StepReport, ui: Ui, bar: &Bar) -> Result<()> {
        self.peak = self.peak.max(self.memory.part());
        self.seconds += report.seconds;
        self.tokens += report.tokens;
        self.recent.push_back((report.tokens, report.seconds));
        if self.recent.len() > 20 {
            self.recent.pop_front();
        }
        let (rate, remaining) = self.pace(report.step);
        bar.at(report.step, self.steps, bar_message(report, self.steps, rate, remaining));
        let every = self.every.unwrap_or(if report.seconds > 2.0 { 1 } else { 10 });
        if !report.step.is_multiple_of(every) && report.step != 1 && report.step != self.steps {
            return Ok(());
        }
        if ui == Ui::Plain {
            ui.say(&step_line(report, self.steps, rate, remaining));
        }
        let epoch = self.per_epoch.map_or(0.0, |rows| (report.step * self.rows_per_step) as f64 / rows as f64);
        let record = StepRecord {
            step: report.step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            lr: report.lr,
            tokens_per_second: rate,
            memory_bytes: self.peak,
            seconds: self.seconds,
            epoch,
            total_tokens: self.tokens,
        };
        self.log.step(&StepLine::new(&record, self.steps, report.skipped, clock::now()))?;
        for (tag, value) in [
            ("train/loss", record.loss),
            ("train/grad_norm", record.grad_norm),
            ("train/learning_rate", record.lr),
            ("train/epoch", record.epoch),
            ("perf/tokens_per_second", record.tokens_per_second),
            ("memory/peak_gib", record.memory_bytes as f64 / f64::from(1 << 30)),
        ] {
            self.events.scalar(tag, report.step, value)?;
        }
        Ok(())
    }
}

impl Logs<'_> {
    /// Writes a measurement down; what to say of it.
    fn validation(&mut self, at: &ValidationRecord) -> Result<String> {
        self.log.validation(at, self.steps, clock::now())?;
        let mut line = format!("step {}", at.step);
        for (tag, name, value) in [("eval/loss", "validation loss", Some(at.loss)), ("eval/retrieval", "retrieval", at.retrieval)]
        {
            if let Some(value) = value.filter(|v| !v.is_nan()) {
                self.events.scalar(tag, at.step, value)?;
                line += &format!(" | {name} {value:.4}");
            }
        }
        Ok(line)
    }
}

impl Session<'_> {
    /// A fresh state: base weights, adapters where the mode has them, zero moments.
    fn fresh(&self, kernels: &dyn Kernels) -> Result<State> {
        let train = &self.config.train;
        let mut model = self.base.load_for(train.mode, kernels)?;
        train::prepare(&mut model, train.mode, train.lora.as_ref(), train.seed)?;
        model.config.rope = self.rope.clone();
        model.place(kernels)?;
        let optimizer = AdamW::new(self.config.optim.adamw, &model.params, kernels)?;
        Ok(State { model, optimizer, step: 0, skipped: 0 })
    }

    /// The checkpoint to continue from, if there is one: this training's newest, else, for the run's own training, the one
    /// that was named.
    fn found(&self, main: bool) -> Result<Option<PathBuf>> {
        let resume = &self.config.output.resume;
        if *resume == Resume::Never {
            return Ok(None);
        }
        let (own, rejected) = checkpoint::newest(self.folder)?;
        for remark in &rejected {
            self.ui.say(&format!("ignored an incomplete checkpoint: {remark}"));
        }
        match (own, resume) {
            (None, Resume::From(path)) if main => match checkpoint::newest(path)? {
                (None, rejected) => Err(CheckpointError::Missing { path: path.clone(), rejected }.into()),
                (named, _) => Ok(named),
            },
            (own, _) => Ok(own),
        }
    }

    /// Trains to the end or to a signal. `main` is the run's own training, to which `--resume PATH` applies.
    ///
    /// # Errors
    /// Whatever ends it; a device that failed and a loss that diverged name the checkpoint to go back to.
    pub fn run(&self, kernels: &dyn Kernels, main: bool, validate: &mut Validate) -> Result<(State, Outcome)> {
        let (mut state, outcome) = self.train(kernels, main, validate).map_err(|e| self.with_last_checkpoint(e))?;
        if outcome == Outcome::Finished
            && let Some(best) = Best::open(self.folder, self.config.eval.best, self.measured_with.to_owned())?
            && let Some((path, at)) = best.checkpoint()?
            && at.step != state.step
        {
            checkpoint::restore(&path, &mut state, kernels)?;
            self.ui.say(&format!("taking step {}, the best by {}", at.step, self.config.eval.best));
        }
        Ok((state, outcome))
    }

    fn train(&self, kernels: &dyn Kernels, main: bool, validate: &mut Validate) -> Result<(State, Outcome)> {
        std::fs::create_dir_all(self.folder).context("create", self.folder)?;
        let mut state = self.fresh(kernels)?;
        let mut seconds = 0.0;
        if let Some(path) = self.found(main)? {
            seconds = checkpoint::restore(&path, &mut state, kernels)?;
            self.ui.say(&format!("continuing from {} (step {})", path.display(), state.step));
        }
        let config = self.config;
        let (steps, accum, micro) = (config.train.steps, config.train.accum as u64, config.train.micro_batch);
        // A signal may have come in the middle of measuring the step that was saved then.
        let missed = state.step > 0 && self.is_measured_after(state.step) && !was_measured(&self.folder.join(LOG), state.step)?;
        if state.step >= steps && !missed {
            return Ok((state, Outcome::Finished));
        }
        let log_path = self.folder.join(LOG);
        let log = match log_path.exists() {
            true => TrainerLog::resume(&log_path, state.step)?.0,
            false => TrainerLog::create(&log_path)?,
        };
        let events = EventWriter::resume(&self.events_dir(), state.step)?;
        let mut logs = Logs {
            memory: self.memory,
            peak: 0,
            log,
            events,
            every: config.output.log_every,
            steps,
            seconds,
            tokens: state.step * config.tokens_per_step() as u64,
            per_epoch: self.rows.per_epoch(),
            rows_per_step: accum * micro as u64,
            recent: VecDeque::new(),
        };
        let rows = self.rows.clone();
        let mut batches = Prefetch::new(state.step * accum..steps * accum, move |i| rows.batch(i * micro as u64, micro));
        let mut next = || batches.next().expect("session: one batch per micro-batch of the run");
        let peak = config.optim.lr;
        let loop_config = LoopConfig {
            steps,
            accum,
            schedule: config.schedule(),
            embed_lr_ratio: config.optim.lr_embed / peak.max(f64::MIN_POSITIVE),
            recompute: config.train.recompute,
            on_nan: match config.train.nan {
                NanPolicy::Stop => OnNan::Stop,
                NanPolicy::Skip => OnNan::Skip,
            },
        };
        let bar = self.ui.bar(self.title, steps);
        let first = state.step;
        let mut best = Best::open(self.folder, config.eval.best, self.measured_with.to_owned())?;
        let mut measure = |state: &mut State, step, logs: &mut Logs| -> Result<()> {
            if let Some(at) = validate(state, step)? {
                bar.say(self.ui, &logs.validation(&at)?);
                if let Some(best) = &mut best {
                    best.consider(&at, |folder| self.save(folder, state, logs.seconds, 1))?;
                }
            }
            Ok(())
        };
        if missed {
            measure(&mut state, first, &mut logs)?;
        }
        let mut after_step = |report: &StepReport, state: &mut State| -> Result<()> {
            logs.step(report, self.ui, &bar)?;
            if self.is_measured_after(report.step) {
                measure(state, report.step, &mut logs)?;
            }
            // After what was measured: a run that is killed in between measures again.
            if report.step.is_multiple_of(config.output.save_every) && report.step < steps {
                self.save(self.folder, state, logs.seconds, config.output.keep)?;
            }
            // What came between is no step's.
            self.memory.part();
            Ok(())
        };
        self.memory.part();
        let outcome = train::train(kernels, &mut state, &loop_config, &mut next, self.stop, &mut after_step)?;
        let seconds = logs.seconds;
        if state.step > first {
            self.save(self.folder, &state, seconds, config.output.keep)?;
        }
        Ok((state, outcome))
    }

    /// Whether the state after `step` steps is to be measured: every so often, and the last where the best is wanted.
    fn is_measured_after(&self, step: u64) -> bool {
        let last = self.config.eval.best != Criterion::Last && step == self.config.train.steps;
        self.config.eval.every.is_some_and(|n| last || step.is_multiple_of(n))
    }

    /// The folder of the run's event files: the one it has, as TensorBoard takes every folder for a run of its own.
    fn events_dir(&self) -> PathBuf {
        let all = self.folder.join("runs");
        let known = std::fs::read_dir(&all).ok().and_then(|dir| dir.flatten().map(|e| e.path()).filter(|p| p.is_dir()).min());
        known.unwrap_or_else(|| all.join(clock::tensorboard_folder(clock::now(), &clock::host())))
    }

    fn save(&self, folder: &Path, state: &State, seconds: f64, keep: usize) -> Result<()> {
        let base_name = self.base.dir.path().display().to_string();
        let context = Context { base: &self.base.dir, config: self.extended, base_name: &base_name, seconds };
        checkpoint::save(folder, state, &context, keep).map(drop)
    }

    /// Adds the checkpoint that the run can go back to.
    fn with_last_checkpoint(&self, error: Error) -> Error {
        let newest = || checkpoint::newest(self.folder).ok().and_then(|(path, _)| path);
        match error {
            Error::Train(TrainError::Diverged { first, count, last_good, parameter, .. }) => {
                TrainError::Diverged { first, count, last_good, parameter, saved: newest().into_iter().collect() }.into()
            }
            Error::Fault(fault) => RunError::Interrupted { fault: Box::new(fault), saved: newest() }.into(),
            error => error,
        }
    }
}
