//! Logs that grow during training: `trainer_log.jsonl`, and `trainer_state.json` with Transformers' keys.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clock;
use super::record::{StepRecord, ValidationRecord};
use crate::error::{IoContext, Result};
use crate::io::atomic::write_bytes_atomically;
use crate::units::format_duration;

/// One training line of `trainer_log.jsonl`: LLaMA-Factory's keys first, so that its plot scripts work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepLine {
    /// Steps done.
    pub current_steps: u64,
    /// Steps in total.
    pub total_steps: u64,
    /// Training loss; `null` when it was not finite.
    pub loss: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Gradient norm before clipping.
    pub grad_norm: Option<f64>,
    /// Passes over the data.
    pub epoch: Option<f64>,
    /// Share of the steps done, in percent.
    pub percentage: f64,
    /// Training time so far, `0:01:42`.
    pub elapsed_time: String,
    /// Training time left at the average speed so far.
    pub remaining_time: String,
    /// Tokens per second.
    pub throughput: Option<f64>,
    /// Tokens trained on.
    pub total_tokens: u64,
    /// Peak device memory in GiB.
    pub vram_peak_gib: f64,
    /// Steps whose update was skipped.
    pub skipped_steps: u64,
    /// When it was written, UTC.
    pub time: String,
}

impl StepLine {
    /// The line for a step of a run of `total_steps`, written at `unix` seconds.
    pub fn new(step: &StepRecord, total_steps: u64, skipped_steps: u64, unix: f64) -> Self {
        let finite = |v: f64| v.is_finite().then_some(v);
        let left = total_steps.saturating_sub(step.step) as f64;
        Self {
            current_steps: step.step,
            total_steps,
            loss: finite(step.loss),
            lr: finite(step.lr),
            grad_norm: finite(step.grad_norm),
            epoch: finite(step.epoch),
            percentage: rounded(100.0 * step.step as f64 / total_steps.max(1) as f64, 100.0),
            elapsed_time: format_duration(step.seconds),
            remaining_time: format_duration(step.seconds / step.step.max(1) as f64 * left),
            throughput: finite(rounded(step.tokens_per_second, 10.0)),
            total_tokens: step.total_tokens,
            vram_peak_gib: rounded(step.memory_bytes as f64 / f64::from(1 << 30), 1e4),
            skipped_steps,
            time: clock::iso(unix),
        }
    }
}

fn rounded(v: f64, per_unit: f64) -> f64 {
    (v * per_unit).round() / per_unit
}

/// What resuming did to an existing log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truncated {
    /// Lines kept.
    pub kept: usize,
    /// Lines dropped: later than the resumed step, or torn by the end of the process that wrote them.
    pub dropped: usize,
}

/// Appends to `trainer_log.jsonl`, one write per line.
#[derive(Debug)]
pub struct TrainerLog {
    file: File,
    path: PathBuf,
}

impl TrainerLog {
    /// Starts an empty log, replacing an old one.
    pub fn create(path: &Path) -> Result<Self> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Continues a log after `step`: what it says about later steps will happen again, so it is dropped.
    ///
    /// # Errors
    /// The file cannot be read or written. A missing one is created.
    pub fn resume(path: &Path, step: u64) -> Result<(Self, Truncated)> {
        let old = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).context("read", path),
        };
        let lines = || old.split_inclusive(|&b| b == b'\n').filter(|l| !l.trim_ascii().is_empty());
        let kept: Vec<&[u8]> = lines().filter(|line| keep(line, step)).collect();
        let truncated = Truncated { kept: kept.len(), dropped: lines().count() - kept.len() };
        if truncated.dropped > 0 {
            write_bytes_atomically(path, &kept.concat())?;
        }
        let log = Self::open(path, OpenOptions::new().append(true).create(true))?;
        Ok((log, truncated))
    }

    fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let file = options.open(path).context("open", path)?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Writes a training line.
    pub fn step(&mut self, line: &StepLine) -> Result<()> {
        self.append(line)
    }

    /// Writes a line with a validation loss, under LLaMA-Factory's key `eval_loss`, and retrieval where it was measured.
    pub fn validation(&mut self, at: &ValidationRecord, total_steps: u64, unix: f64) -> Result<()> {
        let loss = at.loss.is_finite().then_some(at.loss);
        let mut line = json!({ "current_steps": at.step, "total_steps": total_steps, "eval_loss": loss });
        if let Some(retrieval) = at.retrieval {
            line["eval_retrieval"] = retrieval.into();
        }
        line["time"] = clock::iso(unix).into();
        self.append(&line)
    }

    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let mut bytes = serde_json::to_vec(line).map_err(std::io::Error::from).context("serialise", &self.path)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes).context("write", &self.path)
    }
}

fn keep(line: &[u8], step: u64) -> bool {
    #[derive(Deserialize)]
    struct At {
        current_steps: u64,
    }
    line.ends_with(b"\n") && serde_json::from_slice::<At>(line).is_ok_and(|at| at.current_steps <= step)
}

/// `trainer_state.json`: what Transformers' `TrainerState.load_from_json` reads. Only keys that every version since 4.30
/// has, because it refuses unknown ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerState {
    /// Best validation loss so far.
    pub best_metric: Option<f64>,
    /// Folder of the checkpoint that had it.
    pub best_model_checkpoint: Option<String>,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Steps between validations.
    pub eval_steps: u64,
    /// Steps done.
    pub global_step: u64,
    /// Always false here.
    pub is_hyper_param_search: bool,
    /// Always true here.
    pub is_local_process_zero: bool,
    /// Always true here.
    pub is_world_process_zero: bool,
    /// One object per logged step or validation.
    pub log_history: Vec<Value>,
    /// Steps between log lines.
    pub logging_steps: u64,
    /// Steps in total.
    pub max_steps: u64,
    /// Tokens trained on.
    pub num_input_tokens_seen: u64,
    /// Passes over the data in total.
    pub num_train_epochs: u64,
    /// Steps between checkpoints.
    pub save_steps: u64,
    /// Floating-point operations so far, 0 when not counted.
    pub total_flos: f64,
    /// Rows per micro-batch.
    pub train_batch_size: u64,
    /// Always null here.
    pub trial_name: Option<String>,
    /// Always null here.
    pub trial_params: Option<Map<String, Value>>,
}

impl Default for TrainerState {
    fn default() -> Self {
        Self {
            best_metric: None,
            best_model_checkpoint: None,
            epoch: 0.0,
            eval_steps: 500,
            global_step: 0,
            is_hyper_param_search: false,
            is_local_process_zero: true,
            is_world_process_zero: true,
            log_history: Vec::new(),
            logging_steps: 1,
            max_steps: 0,
            num_input_tokens_seen: 0,
            num_train_epochs: 1,
            save_steps: 500,
            total_flos: 0.0,
            train_batch_size: 1,
            trial_name: None,
            trial_params: None,
        }
    }
}

impl TrainerState {
    /// Adds a training step to the history and moves on to it.
    pub fn push_step(&mut self, step: &StepRecord) {
        self.global_step = step.step;
        if step.epoch.is_finite() {
            self.epoch = step.epoch;
        }
        self.num_input_tokens_seen = step.total_tokens;
        self.log_history.push(json!({
            "epoch": step.epoch,
            "grad_norm": step.grad_norm,
            "learning_rate": step.lr,
            "loss": step.loss,
            "step": step.step,
        }));
    }

    /// Adds a validation loss to the history; says whether it is the best so far.
    pub fn push_validation(&mut self, at: &ValidationRecord) -> bool {
        let mut entry = json!({ "epoch": self.epoch, "eval_loss": at.loss, "step": at.step });
        if let Some(retrieval) = at.retrieval {
            entry["eval_retrieval"] = retrieval.into();
        }
        self.log_history.push(entry);
        let best = at.loss.is_finite() && self.best_metric.is_none_or(|best| at.loss < best);
        if best {
            self.best_metric = Some(at.loss);
        }
        best
    }

    /// Replaces the file in one step.
    pub fn save(&self, path: &Path) -> Result<()> {
        super::write_json(path, self)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The file is missing or not a trainer state.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).context("read", path)?;
        serde_json::from_str(&text).map_err(std::io::Error::from).context("parse", path)
    }
}
