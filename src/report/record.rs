//! What a run measured: the one input of every page, plot and table, and the contents of `report.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, Result};

/// JSON has no NaN and no infinity: both are written as `null`, and `null` reads back as NaN.
mod nullable {
    use serde::{Deserialize, Deserializer};

    pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }

    pub fn grid<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<f64>>, D::Error> {
        let rows = Vec::<Vec<Option<f64>>>::deserialize(from)?;
        let row = |row: Vec<Option<f64>>| row.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
        Ok(rows.into_iter().map(row).collect())
    }
}

/// Everything a run leaves to look at. Empty parts are left out of the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The base model.
    pub model: ModelRecord,
    /// What was done to it.
    pub method: MethodRecord,
    /// How to do it again.
    pub origin: Origin,
    /// What was written and how others load it.
    pub export: Export,
    /// The effective configuration, in the order of the run file.
    pub settings: Vec<Setting>,
    /// One entry per logged step, in order.
    pub steps: Vec<StepRecord>,
    /// Loss on held-out text during training.
    pub validation: Vec<ValidationRecord>,
    /// Measurements before and after, in the order they should be shown.
    pub evaluations: Vec<EvalRecord>,
    /// Which relative distances the training positions exercised.
    pub coverage: Option<Vec<CoverageRecord>>,
    /// Share of the single distances from the base's context to the target that they exercised.
    pub covered_share: Option<f64>,
    /// Remarks for the reader, one paragraph each.
    pub notes: Vec<String>,
}

/// The base model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRecord {
    /// Name on the Hub, or the folder's name.
    pub name: String,
    /// Parameters in total.
    pub parameters: u64,
    /// Parameters that were trained.
    pub trainable: u64,
    /// Tokens of context the base was trained for.
    pub context: usize,
    /// Its RoPE, as people write it: `theta 10000`.
    pub rope: String,
}

/// What was done to the model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodRecord {
    /// Where tokens pretended to be: `pose`, `e2-llm`, `natural`.
    pub positions: String,
    /// RoPE afterwards, as people write it: `yarn ×8, theta 10000`.
    pub rope: String,
    /// What was trained: `full`, `lora r=16`, `lora+`.
    pub mode: String,
    /// The text it was trained on.
    pub data: String,
    /// Tokens of context that were asked for.
    pub target: usize,
    /// Tokens per training row.
    pub seq_len: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
}

/// How to do the run again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The command line.
    pub command: String,
    /// ltrain's version and revision.
    pub version: String,
    /// What it ran on.
    pub device: String,
    /// When it ended, ISO 8601 in UTC.
    pub date: String,
    /// The seed.
    pub seed: u64,
}

/// What was written. Paths are as a reader would type them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Export {
    /// The base on the Hub or on disk.
    pub base: String,
    /// Folder with the complete model, when one was written.
    pub merged: Option<String>,
    /// Folder with the PEFT adapter, when one was written.
    pub adapter: Option<String>,
    /// Folder with the base's `config.json` changed to the new RoPE; an adapter cannot carry it.
    pub patched_config: Option<String>,
    /// Rank of the adapter.
    pub rank: Option<usize>,
    /// What changed in `config.json` as compact JSON (RoPE, `max_position_embeddings`), for vLLM's `--hf-overrides`.
    pub overrides: Option<String>,
}

/// One line of the effective configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Dotted key as in the run file.
    pub key: String,
    /// Its value as written there.
    pub value: String,
}

/// One logged optimizer step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, counted from 1.
    pub step: u64,
    /// Mean training loss in nats per token.
    #[serde(deserialize_with = "nullable::number")]
    pub loss: f64,
    /// Gradient norm before clipping.
    #[serde(deserialize_with = "nullable::number")]
    pub grad_norm: f64,
    /// Learning rate that was used.
    #[serde(deserialize_with = "nullable::number")]
    pub lr: f64,
    /// Throughput since the previous logged step.
    #[serde(deserialize_with = "nullable::number")]
    pub tokens_per_second: f64,
    /// Peak memory so far, on the device if there is one.
    pub memory_bytes: u64,
    /// Seconds of training so far, over all sessions of a resumed run.
    #[serde(deserialize_with = "nullable::number")]
    pub seconds: f64,
    /// Passes over the data so far.
    #[serde(deserialize_with = "nullable::number")]
    pub epoch: f64,
    /// Tokens trained on so far.
    pub total_tokens: u64,
}

/// What was measured while training.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Steps done when it was measured.
    pub step: u64,
    /// Mean loss on held-out text, in nats per token; NaN where none was measured.
    #[serde(deserialize_with = "nullable::number")]
    pub loss: f64,
    /// Share of the questions at the target that were answered, where they were asked.
    #[serde(default)]
    pub retrieval: Option<f64>,
}

/// What an evaluation is for in the comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The base as it came.
    Before,
    /// The base with the new RoPE and no training.
    RopeOnly,
    /// The result.
    After,
    /// The same budget spent without the method.
    Control,
    /// Anything else worth showing.
    #[default]
    Other,
}

/// One model measured at several lengths.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalRecord {
    /// What was measured: `base`, `base + yarn ×8`, `after pose`, `after contiguous (control)`.
    pub name: String,
    /// Its place in the comparison.
    pub role: Role,
    /// RoPE it was measured with, as people write it.
    pub rope: String,
    /// Where it was measured: `cpu`, or the GPU's name.
    pub device: String,
    /// Perplexity by context length.
    pub perplexity: Vec<LengthScore>,
    /// Loss by position at the longest length.
    pub buckets: Vec<Bucket>,
    /// Passkey retrieval.
    pub passkey: Option<Grid>,
    /// Retrieval of one key among others.
    pub niah: Option<Grid>,
    /// RULER's tasks by length.
    pub ruler: Vec<TaskScore>,
    /// LongBench's datasets by length.
    pub longbench: Vec<TaskScore>,
    /// Decided the questions.
    pub seed: u64,
}

/// A task at one length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskScore {
    /// Its name.
    pub task: String,
    /// Its category, where tasks have one.
    pub group: String,
    /// Tokens of prompt and answer that were allowed.
    pub length: usize,
    /// Mean score, 0 to 1.
    #[serde(deserialize_with = "nullable::number")]
    pub score: f64,
    /// Standard error of the mean; NaN for one sample.
    #[serde(deserialize_with = "nullable::number")]
    pub error: f64,
    /// Samples scored.
    pub samples: u64,
    /// Mean tokens of prompt and answer that were used.
    #[serde(deserialize_with = "nullable::number")]
    pub tokens: f64,
}

/// Perplexity at one context length.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LengthScore {
    /// Tokens of context.
    pub length: usize,
    /// Perplexity.
    #[serde(deserialize_with = "nullable::number")]
    pub ppl: f64,
    /// Mean loss in nats per token.
    #[serde(deserialize_with = "nullable::number")]
    pub nll: f64,
    /// Standard error of the loss over windows; NaN for one window.
    #[serde(deserialize_with = "nullable::number")]
    pub error: f64,
    /// Tokens scored.
    pub tokens: u64,
    /// Windows scored.
    pub windows: u64,
    /// The loss of each, in their order.
    pub by_window: Vec<WindowLoss>,
}

/// Loss of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowLoss {
    /// Mean in nats per token.
    #[serde(deserialize_with = "nullable::number")]
    pub nll: f64,
    /// Tokens scored.
    pub tokens: u64,
}

impl LengthScore {
    /// A length at which there was nothing to measure.
    pub fn unmeasured() -> Self {
        Self { ppl: f64::NAN, nll: f64::NAN, error: f64::NAN, ..Self::default() }
    }

    /// Standard error of this loss less another's on the same windows: what is hard about a window is hard for both, so it is
    /// usually far below the error of either. NaN where the windows are not as many or not of one size.
    pub fn error_of_difference(&self, other: &Self) -> f64 {
        let pairs = || self.by_window.iter().zip(&other.by_window);
        if self.by_window.len() != other.by_window.len() || pairs().any(|(a, b)| a.tokens != b.tokens) {
            return f64::NAN;
        }
        let differences: Vec<_> = pairs().map(|(a, b)| WindowLoss { nll: a.nll - b.nll, tokens: a.tokens }).collect();
        error_over_windows(&differences)
    }
}

/// Standard error of the mean over windows, each of which weighs as many tokens as it scores, as in the mean; NaN for fewer than two.
/// Where all score equally many it is the sample's deviation by `√n`.
pub fn error_over_windows(windows: &[WindowLoss]) -> f64 {
    if windows.len() < 2 {
        return f64::NAN;
    }
    let n = windows.len() as f64;
    let tokens = windows.iter().map(|w| w.tokens as f64).sum::<f64>();
    let mean = windows.iter().map(|w| w.tokens as f64 / tokens * w.nll).sum::<f64>();
    let part = |w: &WindowLoss| (w.tokens as f64 / tokens * (w.nll - mean)).powi(2);
    (n / (n - 1.0) * windows.iter().map(part).sum::<f64>()).sqrt()
}

/// Loss of the tokens at positions `lo..hi`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bucket {
    /// First position.
    pub lo: usize,
    /// One past the last position.
    pub hi: usize,
    /// Mean loss in nats per token.
    #[serde(deserialize_with = "nullable::number")]
    pub nll: f64,
    /// Tokens scored.
    pub tokens: u64,
}

/// Accuracy of retrieval by depth and length.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Grid {
    /// Context lengths in tokens: the columns.
    pub lengths: Vec<usize>,
    /// Where the key hid, 0 (start) to 1 (end): the rows.
    pub depths: Vec<f64>,
    /// `accuracy[depth][length]`, 0 to 1; NaN or absent where nothing was measured.
    #[serde(deserialize_with = "nullable::grid")]
    pub accuracy: Vec<Vec<f64>>,
    /// Prompts per cell.
    pub samples: u64,
}

/// How often training saw two tokens `distance_lo..distance_hi` apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRecord {
    /// Smallest distance of the bin.
    pub distance_lo: u64,
    /// One past its largest distance.
    pub distance_hi: u64,
    /// Query-key pairs seen.
    pub pairs: u64,
    /// Training rows with at least one such pair.
    pub covered_rows: u64,
}

impl RunRecord {
    /// The evaluation with this role; the last one if there are several.
    pub fn evaluation(&self, role: Role) -> Option<&EvalRecord> {
        self.evaluations.iter().rev().find(|e| e.role == role)
    }

    /// Reads a `report.json`.
    ///
    /// # Errors
    /// The file is missing, or not a run record.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("read", path)?;
        serde_json::from_str(&text).map_err(std::io::Error::from).context("parse", path)
    }

    /// Writes it as `report.json`, replacing the file in one step.
    pub fn save(&self, path: &Path) -> Result<()> {
        super::write_json(path, self)
    }
}

impl EvalRecord {
    /// Loss at this length, if it was asked for.
    pub fn score_at(&self, length: usize) -> Option<&LengthScore> {
        self.perplexity.iter().find(|s| s.length == length)
    }

    /// Perplexity at this length, if it was measured and is finite.
    pub fn ppl_at(&self, length: usize) -> Option<f64> {
        self.score_at(length).map(|s| s.ppl).filter(|ppl| ppl.is_finite())
    }

    /// Passkey accuracy at this length over all depths, if any cell was measured.
    pub fn passkey_at(&self, length: usize) -> Option<f64> {
        self.passkey.as_ref()?.mean_at(length)
    }

    /// Mean over RULER's tasks at this length, and its standard error; NaN where a task's is.
    pub fn ruler_at(&self, length: usize) -> Option<(f64, f64)> {
        let scores: Vec<_> = self.ruler.iter().filter(|s| s.length == length && s.score.is_finite()).collect();
        mean(&scores.iter().map(|s| (s.score, s.error)).collect::<Vec<_>>())
    }

    /// Mean over LongBench's categories, each of which is the mean over its datasets, and its standard error.
    pub fn longbench_at(&self, length: usize) -> Option<(f64, f64)> {
        mean(&self.longbench_groups(length).into_iter().map(|(_, mean)| mean).collect::<Vec<_>>())
    }

    /// Mean and standard error of each of LongBench's categories, in the order of their first dataset.
    pub fn longbench_groups(&self, length: usize) -> Vec<(&str, (f64, f64))> {
        let mut groups: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for score in self.longbench.iter().filter(|s| s.length == length && s.score.is_finite()) {
            match groups.iter_mut().find(|(name, _)| *name == score.group) {
                Some((_, scores)) => scores.push((score.score, score.error)),
                None => groups.push((&score.group, vec![(score.score, score.error)])),
            }
        }
        groups.into_iter().filter_map(|(name, scores)| Some((name, mean(&scores)?))).collect()
    }
}

/// Mean of independent means with their standard errors.
fn mean(parts: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = parts.len() as f64;
    let squares: f64 = parts.iter().map(|(_, error)| error * error).sum();
    (!parts.is_empty()).then(|| (parts.iter().map(|(score, _)| score).sum::<f64>() / n, squares.sqrt() / n))
}

impl Grid {
    /// One cell, `None` where nothing was measured.
    pub fn cell(&self, depth: usize, length: usize) -> Option<f64> {
        let value = *self.accuracy.get(depth)?.get(length)?;
        value.is_finite().then(|| value.clamp(0.0, 1.0))
    }

    /// Mean over the depths that were measured at this length.
    pub fn mean_at(&self, length: usize) -> Option<f64> {
        let column = self.lengths.iter().position(|&l| l == length)?;
        let cells: Vec<f64> = (0..self.depths.len()).filter_map(|d| self.cell(d, column)).collect();
        (!cells.is_empty()).then(|| cells.iter().sum::<f64>() / cells.len() as f64)
    }

    /// Standard error of a share of `cells` cells' prompts.
    pub fn error_of(&self, share: f64, cells: usize) -> f64 {
        standard_error(share, self.samples * cells as u64)
    }
}

/// Standard error of a share that was measured on `samples` questions: `√(p(1−p)/n)`. It is 0 where all answers were
/// right or all wrong, which for few samples says little.
pub fn standard_error(share: f64, samples: u64) -> f64 {
    (share * (1.0 - share) / samples as f64).sqrt()
}
