//! Tables of tasks and of grids, one per evaluation, and what stands below every table: how many samples, which seed.

use super::record::{EvalRecord, Grid, TaskScore};
use super::table::{Cell, Comparison, GRIDS};
use super::text;
use crate::eval::ruler::EFFECTIVE;
use crate::units::format_count;

/// The largest length whose RULER average is [`EFFECTIVE`] or more: `32k`, `none`, or `–` without a score.
pub fn effective(eval: &EvalRecord) -> String {
    let mut lengths: Vec<usize> = eval.ruler.iter().map(|s| s.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let works = |length: &&usize| eval.ruler_at(**length).is_some_and(|(score, _)| score >= EFFECTIVE);
    match lengths.iter().rev().find(works) {
        Some(&length) => text::length(length),
        None if lengths.is_empty() => "–".into(),
        None => "none".into(),
    }
}

/// Everything that the comparison only has the means of.
pub fn details(evaluations: &[EvalRecord]) -> Vec<Comparison> {
    let mut tables = Vec::new();
    for (name, grid) in GRIDS {
        tables.extend(evaluations.iter().filter_map(|e| Some(of_grid(heading(name, e, evaluations), grid(e)?))));
    }
    tables.extend(scores(evaluations));
    tables
}

/// Scores by task and length, a table per evaluation.
pub fn scores(evaluations: &[EvalRecord]) -> Vec<Comparison> {
    let ruler = evaluations.iter().filter(|e| !e.ruler.is_empty()).map(|e| {
        let mut table = Scores::new(&e.ruler);
        table.rows(&e.ruler);
        table.mean("average", |length| e.ruler_at(length));
        table.finish(heading("RULER", e, evaluations))
    });
    let longbench = evaluations.iter().filter(|e| !e.longbench.is_empty()).map(|e| {
        let mut table = Scores::new(&e.longbench);
        table.rows(&e.longbench);
        let longest = table.lengths.last().copied().unwrap_or(0);
        for (group, _) in e.longbench_groups(longest) {
            let mean = |length| e.longbench_groups(length).into_iter().find(|(name, _)| *name == group).map(|(_, mean)| mean);
            table.mean(&format!("mean: {group}"), mean);
        }
        table.mean("average of means", |length| e.longbench_at(length));
        table.finish(heading("LongBench", e, evaluations))
    });
    ruler.chain(longbench).collect()
}

/// With one evaluation everybody knows whose table it is.
fn heading(what: &str, eval: &EvalRecord, all: &[EvalRecord]) -> String {
    if all.len() == 1 { what.to_owned() } else { format!("{what}: {}", text::one_line(&eval.name)) }
}

/// Depths in rows, lengths in columns.
fn of_grid(caption: String, grid: &Grid) -> Comparison {
    let cell = |depth: usize, column: usize| {
        let share = grid.cell(depth, column);
        Cell::measured(share.map(|share| (share, grid.error_of(share, 1))), text::percent)
    };
    let row = |(depth, share): (usize, &f64)| {
        let cells = (0..grid.lengths.len()).map(|column| cell(depth, column)).collect();
        (format!("depth {}", text::percent(Some(*share))), cells)
    };
    let columns = grid.lengths.iter().map(|&length| text::length(length)).collect();
    Comparison::single(caption, columns, grid.depths.iter().enumerate().map(row).collect())
}

/// A table of scores in the making.
struct Scores {
    lengths: Vec<usize>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Scores {
    fn new(scores: &[TaskScore]) -> Self {
        let mut lengths: Vec<usize> = scores.iter().map(|s| s.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { lengths, rows: Vec::new() }
    }

    /// A row per task, in the order of the longest length, which holds them all.
    fn rows(&mut self, scores: &[TaskScore]) {
        let mut names: Vec<&str> = Vec::new();
        for &length in self.lengths.iter().rev() {
            for score in scores.iter().filter(|s| s.length == length) {
                if !names.contains(&score.task.as_str()) {
                    names.push(&score.task);
                }
            }
        }
        for name in names {
            let at = |length| scores.iter().find(|s| s.task == name && s.length == length);
            self.mean(name, |length| at(length).map(|s| (s.score, s.error)));
        }
    }

    fn mean(&mut self, name: &str, value: impl Fn(usize) -> Option<(f64, f64)>) {
        let cells = self.lengths.iter().map(|&length| Cell::measured(value(length), text::score)).collect();
        self.rows.push((text::one_line(name), cells));
    }

    fn finish(self, caption: String) -> Comparison {
        let columns = self.lengths.iter().map(|&length| text::length(length)).collect();
        Comparison::single(caption, columns, self.rows)
    }
}

/// How many samples stand behind the numbers, and which seed: a line per kind of measurement.
pub fn notes(evaluations: &[EvalRecord]) -> Vec<String> {
    let mut notes = Vec::new();
    let windows = evaluations.iter().flat_map(|e| &e.perplexity).map(|s| s.windows).filter(|&n| n > 0);
    if let Some(windows) = span(windows) {
        notes.push(match windows.as_str() {
            "1" => "perplexity: 1 window per length".to_owned(),
            _ => format!("perplexity: {windows} windows per length, ± standard error over them"),
        });
    }
    for (name, grid) in GRIDS {
        if let Some(grid) = evaluations.iter().find_map(grid) {
            let (samples, depths) = (grid.samples, grid.depths.len());
            notes.push(format!("{name}: {samples} prompts at each of {depths} depths per length, ± standard error"));
        }
    }
    let of = |scores: fn(&EvalRecord) -> &[TaskScore]| evaluations.iter().flat_map(scores).map(|s| s.samples);
    if let Some(samples) = span(of(|e| &e.ruler)) {
        let averaged =
            |e: &EvalRecord, length| e.ruler.iter().filter(|s| s.length == length && s.score.is_finite()).count() as u64;
        let tasks: Vec<u64> = evaluations.iter().flat_map(|e| e.ruler.iter().map(|s| averaged(e, s.length))).collect();
        notes.push(format!(
            "RULER: {samples} samples per task and length, ± standard error; averages over {} of 13 tasks; effective is the largest \
             length with an average of {} or more",
            span(tasks.into_iter()).unwrap_or_default(),
            text::score(Some(EFFECTIVE))
        ));
    }
    if let Some(samples) = span(of(|e| &e.longbench)) {
        notes.push(format!("LongBench: {samples} rows per dataset, ± standard error; the mean is one of categories' means"));
    }
    if let Some(eval) = evaluations.iter().find(|e| e.passkey.is_some() || e.niah.is_some() || !e.ruler.is_empty()) {
        notes.push(format!("seed {}", eval.seed));
    }
    notes
}

/// `20`, or `3 to 20` where numbers differ; `None` without any.
fn span(numbers: impl Iterator<Item = u64> + Clone) -> Option<String> {
    let (least, most) = (numbers.clone().min()?, numbers.max()?);
    Some(if least == most { format_count(least) } else { format!("{} to {}", format_count(least), format_count(most)) })
}
