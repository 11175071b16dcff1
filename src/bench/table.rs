//! Rows for people and, as JSON, for programs.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use super::dims::Dims;
use super::measure::Outcome;
use super::op::{Cost, Op};
use crate::config::choices::Shapes;
use crate::error::{IoContext, Result};
use crate::units::format_bytes;

/// One op at one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub op: String,
    /// The model whose sizes it has.
    pub shapes: Shapes,
    /// Row length; 0 where it does not matter.
    pub tokens: usize,
    /// Extents.
    pub shape: String,
    /// What a call costs.
    pub cost: Cost,
    /// What came of it.
    pub outcome: Outcome,
    /// Its rate over the device's.
    pub share: Option<f64>,
}

/// The device's rates, as far as they are measured: bytes and operations per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    bytes: Option<f64>,
    flops: Option<f64>,
}

impl Row {
    /// A row with its share of the limits.
    pub fn new(op: &Op, shapes: Shapes, dims: &Dims, outcome: Outcome, limits: Limits) -> Self {
        let cost = (op.cost)(dims);
        let tokens = if op.per_token { dims.tokens } else { 0 };
        let mut row = Self { op: op.name.clone(), shapes, tokens, shape: (op.shape)(dims), cost, outcome, share: None };
        let limit = match cost {
            Cost::Bytes(_) => limits.bytes,
            Cost::Flops(_) => limits.flops,
        };
        row.share = row.rate().zip(limit).map(|(rate, limit)| rate / limit);
        row
    }

    /// Bytes or operations per second.
    pub fn rate(&self) -> Option<f64> {
        let (Cost::Bytes(work) | Cost::Flops(work)) = self.cost;
        match &self.outcome {
            Outcome::Timed(times) => Some(work / times.median()),
            _ => None,
        }
    }

    /// Whether it was found to be right, as far as it ran.
    pub fn is_right(&self) -> bool {
        matches!(self.outcome, Outcome::Timed(_) | Outcome::TooLarge { .. })
    }

    fn json(&self) -> serde_json::Value {
        let mut row =
            json!({ "who": "ltrain", "op": self.op, "model": self.shapes.name(), "tokens": self.tokens, "shape": self.shape });
        match self.cost {
            Cost::Bytes(bytes) => row["bytes"] = json!(bytes),
            Cost::Flops(flops) => row["flops"] = json!(flops),
        }
        match &self.outcome {
            Outcome::Timed(times) => {
                row["runs"] = json!(times.runs());
                row["median_s"] = json!(times.median());
                row["p90_s"] = json!(times.at(0.9));
                row["best_s"] = json!(times.at(0.0));
                row["share"] = json!(self.share);
            }
            Outcome::TooLarge { needs, free } => row["skipped"] = json!({ "needs": needs, "free": free }),
            Outcome::Wrong { output, error, allowed } => {
                row["wrong"] = json!({ "output": output, "error": error.is_finite().then_some(error), "allowed": allowed });
            }
            Outcome::Refused(reason) => row["refused"] = json!(reason),
            Outcome::Failed(reason) | Outcome::Lost(reason) => row["failed"] = json!(reason),
        }
        row
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = match &self.outcome {
            Outcome::Timed(times) => {
                let rate = rate(self.cost, self.rate().unwrap_or(f64::NAN));
                let share = self.share.map_or_else(String::new, |share| format!("{:.0}%", share * 100.0));
                format!("{:>10} {:>10} {rate:>15} {share:>6}", duration(times.median()), duration(times.at(0.9)))
            }
            Outcome::TooLarge { needs, free } => format!("skipped: needs {} of {}", format_bytes(*needs), format_bytes(*free)),
            Outcome::Wrong { output, error, allowed } => {
                format!("WRONG: result {output} is off by {error:.1e}, allowed {allowed:.1e}; not timed")
            }
            Outcome::Refused(reason) => format!("refused: {reason}"),
            Outcome::Failed(reason) | Outcome::Lost(reason) => format!("FAILED: {reason}"),
        };
        write!(f, "{:<27} {:<5} {:<30} {result}", self.op, self.shapes.name(), self.shape)
    }
}

/// A rate in the unit of what is counted.
fn rate(cost: Cost, per_second: f64) -> String {
    match cost {
        Cost::Bytes(_) => format!("{:.1} GB/s", per_second / 1e9),
        Cost::Flops(_) if per_second < 1e12 => format!("{:.1} GFLOP/s", per_second / 1e9),
        Cost::Flops(_) => format!("{:.1} TFLOP/s", per_second / 1e12),
    }
}

/// Three digits and a unit.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// The rows so far.
pub struct Table<'a> {
    pub rows: Vec<Row>,
    pub limits: Limits,
    json: Option<PathBuf>,
    show: &'a mut dyn FnMut(&str) -> Result<()>,
}

impl<'a> Table<'a> {
    /// Shows the head.
    pub fn new(device: &str, json: Option<PathBuf>, show: &'a mut dyn FnMut(&str) -> Result<()>) -> Result<Self> {
        let table = Self { rows: Vec::new(), limits: Limits::default(), json, show };
        table.append(&json!({ "who": "ltrain", "version": env!("CARGO_PKG_VERSION"), "device": device }))?;
        let head =
            format!("{:<27} {:<5} {:<30} {:>10} {:>10} {:>15} {:>6}", "op", "model", "shape", "median", "p90", "rate", "limit");
        (table.show)(&format!("device {device}\n{head}\n"))?;
        Ok(table)
    }

    /// Shows a row of the copy or the product, whose rate is a limit for all that follow.
    pub fn push_limit(&mut self, row: Row) -> Result<()> {
        let limit = match row.cost {
            Cost::Bytes(_) => &mut self.limits.bytes,
            Cost::Flops(_) => &mut self.limits.flops,
        };
        *limit = row.rate();
        self.push(row)
    }

    /// Shows a row and keeps it.
    pub fn push(&mut self, row: Row) -> Result<()> {
        (self.show)(&format!("{row}\n"))?;
        self.append(&row.json())?;
        self.rows.push(row);
        Ok(())
    }

    /// One line, on the disk at once: a run that is cut off leaves what it measured.
    fn append(&self, line: &serde_json::Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).context("create", path)?;
        file.write_all(format!("{line}\n").as_bytes()).context("write", path)
    }
}
