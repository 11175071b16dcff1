//! The measurements as CSV (RFC 4180), for spreadsheets and plot scripts: one row per number.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::record::{EvalRecord, Grid, LengthScore, TaskScore};
use super::text;
use crate::error::Result;
use crate::io::atomic::write_bytes_atomically;

/// Writes a table per kind of measurement into `dir`, those there is something for; returns their paths.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, evaluations: &[EvalRecord]) -> Result<Vec<PathBuf>> {
    const TASK: &str = "subject,task,group,length,score,error,samples,tokens,seed";
    const GRID: &str = "subject,length,depth,accuracy,error,samples,seed";
    let tables = [
        ("perplexity.csv", "subject,length,perplexity,nll,error,tokens,windows", perplexity(evaluations)),
        ("passkey.csv", GRID, grid(evaluations, |e| e.passkey.as_ref())),
        ("niah.csv", GRID, grid(evaluations, |e| e.niah.as_ref())),
        ("ruler.csv", TASK, tasks(evaluations, |e| &e.ruler)),
        ("longbench.csv", TASK, tasks(evaluations, |e| &e.longbench)),
    ];
    let mut written = Vec::new();
    for (name, head, rows) in tables {
        if !rows.is_empty() {
            let path = dir.join(name);
            write_bytes_atomically(&path, format!("{head}\n{}", rows.concat()).as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}

fn perplexity(evaluations: &[EvalRecord]) -> Vec<String> {
    let scores = evaluations.iter().flat_map(|e| e.perplexity.iter().map(move |s| (e, s)));
    let values = |s: &LengthScore| [s.length.to_string(), number(s.ppl), number(s.nll), number(s.error)];
    scores.map(|(e, s)| row(&e.name, &[&values(s).join(","), &s.tokens, &s.windows])).collect()
}

fn grid(evaluations: &[EvalRecord], grid: fn(&EvalRecord) -> Option<&Grid>) -> Vec<String> {
    let mut rows = Vec::new();
    for (e, grid) in evaluations.iter().filter_map(|e| Some((e, grid(e)?))) {
        for (column, length) in grid.lengths.iter().enumerate() {
            for (line, depth) in grid.depths.iter().enumerate() {
                let accuracy = grid.cell(line, column);
                let error = accuracy.map_or(f64::NAN, |share| grid.error_of(share, 1));
                let samples = if accuracy.is_some() { grid.samples } else { 0 };
                let accuracy = number(accuracy.unwrap_or(f64::NAN));
                rows.push(row(&e.name, &[length, depth, &accuracy, &number(error), &samples, &e.seed]));
            }
        }
    }
    rows
}

fn tasks(evaluations: &[EvalRecord], scores: fn(&EvalRecord) -> &[TaskScore]) -> Vec<String> {
    let all = evaluations.iter().flat_map(|e| scores(e).iter().map(move |s| (e, s)));
    let line = |(e, s): (&EvalRecord, &TaskScore)| {
        let (task, group) = (quoted(&s.task), quoted(&s.group));
        let (score, error, tokens) = (number(s.score), number(s.error), number(s.tokens));
        row(&e.name, &[&task, &group, &s.length, &score, &error, &s.samples, &tokens, &e.seed])
    };
    all.map(line).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text::one_line(text).replace('"', "\"\""))
}

fn row(subject: &str, values: &[&dyn Display]) -> String {
    let mut row = quoted(subject);
    values.iter().for_each(|value| row += &format!(",{value}"));
    row + "\n"
}

/// Nothing where nothing was measured: no two readers agree on how to write NaN.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}
