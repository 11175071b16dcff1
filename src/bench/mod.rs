//! `ltrain bench`: every op at real sizes, verified against the CPU, timed, and compared with what the device can do.
//!
//! Rates count what an op must do: pairs of query and key that see each other, bytes that must come from memory or go there. Two
//! calls that do nothing else, a copy and a large matrix product, are measured first; the others' rates are shares of theirs.

mod dims;
mod inputs;
mod measure;
mod op;
mod ops;
mod table;

pub use dims::Dims;
pub use inputs::Inputs;
pub use measure::{Outcome, Times};
pub use op::{Cost, Op};
pub use table::Row;

use std::path::PathBuf;

use self::inputs::Values;
use self::measure::Bench;
use self::table::Table;
use crate::backend::Kernels;
use crate::config::choices::Shapes;
use crate::error::{Explain, Explanation, Result};

/// What to measure, and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Beginnings of names of ops; all ops when there are none.
    pub only: Vec<String>,
    /// Models whose sizes are used.
    pub shapes: Vec<Shapes>,
    /// Row lengths.
    pub tokens: Vec<usize>,
    /// About how long each op is timed.
    pub seconds: f64,
    /// Bytes that may be used.
    pub limit: u64,
    /// Where a JSON object per row is appended.
    pub json: Option<PathBuf>,
}

/// Ops that were not timed because they are wrong, broke, or do not work at these sizes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {of} measurements failed", rows.len())]
pub struct Unmeasured {
    /// Their lines in the table.
    pub rows: Vec<String>,
    /// Measurements in all.
    pub of: usize,
    /// What they say about the device.
    pub verdict: Verdict,
}

/// What failed measurements say about the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: all of them were refused.
    Unfit,
    /// It computes what it should not.
    Wrong,
    /// It stopped, and what was to follow was not measured.
    Lost,
}

impl Explain for Unmeasured {
    fn explain(&self) -> Explanation {
        let (code, help) = match self.verdict {
            Verdict::Unfit => (
                "E503",
                "the GPU kernels do not work at these sizes: choose others with --shapes, or measure the CPU with --gpus 0",
            ),
            Verdict::Wrong => ("E505", "do not train on this device: `ltrain doctor` compares every kernel with the CPU"),
            Verdict::Lost => (
                "E504",
                "the device answers nothing more to this process, so nothing after this was measured: measure the other ops with \
                 --only; `ltrain doctor` compares every kernel with the CPU",
            ),
        };
        self.rows.iter().fold(Explanation::new(code), |e, row| e.fact(row)).help(help)
    }
}

/// Names of all ops that begin with one of these words, in the order of the table.
pub fn names(only: &[String]) -> Vec<String> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.starts_with(word.as_str()));
    ops::all().into_iter().map(|op| op.name).filter(|name| wanted(name)).collect()
}

/// Measures and shows a row for every op at every size, as soon as it is there. The device's limits come first, with the sizes of
/// the first model. A device that stops ends the table.
///
/// # Errors
/// Those of writing. What an op does wrong is in its row, see [`verdict`].
pub fn run(kernels: &dyn Kernels, device: &str, plan: &Plan, show: &mut dyn FnMut(&str) -> Result<()>) -> Result<Vec<Row>> {
    let values = Values::draw();
    let bench = Bench { kernels, values: &values, limit: plan.limit, seconds: plan.seconds };
    let mut table = Table::new(device, plan.json.clone(), show)?;
    let element = if kernels.rounds() { 2 } else { 4 };
    let (limits, all, chosen) = (ops::limits(), ops::all(), names(&plan.only));
    let of_the_device = plan.shapes.first().into_iter().flat_map(|&first| limits.iter().map(move |op| (first, op)));
    let wanted: Vec<&Op> = all.iter().filter(|op| chosen.contains(&op.name)).collect();
    let of_models = plan.shapes.iter().flat_map(|&shapes| wanted.iter().map(move |&op| (shapes, op)));
    for (at, (shapes, op)) in of_the_device.chain(of_models).enumerate() {
        // The small case has no length of the large one's.
        let wrong = bench.verify(op, &Dims::of(shapes, 0, element));
        for &tokens in if op.per_token { plan.tokens.as_slice() } else { &[0] } {
            let dims = Dims::of(shapes, tokens, element);
            let outcome = wrong.clone().unwrap_or_else(|| bench.time(op, &dims));
            let lost = matches!(outcome, Outcome::Lost(_));
            let row = Row::new(op, shapes, &dims, outcome, table.limits);
            if at < limits.len() { table.push_limit(row) } else { table.push(row) }?;
            if lost {
                return Ok(table.rows);
            }
        }
    }
    Ok(table.rows)
}

/// An error unless everything that had room was right.
///
/// # Errors
/// [`Unmeasured`].
pub fn verdict(rows: &[Row]) -> Result<()> {
    let failed: Vec<&Row> = rows.iter().filter(|row| !row.is_right()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let verdict = match failed.as_slice() {
        [.., last] if matches!(last.outcome, Outcome::Lost(_)) => Verdict::Lost,
        all if all.iter().all(|row| matches!(row.outcome, Outcome::Refused(_))) => Verdict::Unfit,
        _ => Verdict::Wrong,
    };
    Err(Unmeasured { rows: failed.iter().map(ToString::to_string).collect(), of: rows.len(), verdict }.into())
}
