//! The measurements as CSV (RFC 4180), for spreadsheets and plot scripts: one row per number.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::record::EvalRecord;
use super::text;
use crate::error::Result;
use crate::io::atomic::write_bytes_atomically;

/// Writes `eval/perplexity.csv` and `eval/passkey.csv` below `dir`, those there is something for; returns their paths.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, evaluations: &[EvalRecord]) -> Result<Vec<PathBuf>> {
    let tables = [
        ("perplexity.csv", "subject,length,perplexity,nll,tokens,windows", perplexity(evaluations)),
        ("passkey.csv", "subject,length,depth,accuracy,samples", passkey(evaluations)),
    ];
    let mut written = Vec::new();
    for (name, head, rows) in tables {
        if !rows.is_empty() {
            let path = dir.join("eval").join(name);
            write_bytes_atomically(&path, format!("{head}\n{}", rows.concat()).as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}

fn perplexity(evaluations: &[EvalRecord]) -> Vec<String> {
    let scores = evaluations.iter().flat_map(|e| e.perplexity.iter().map(move |s| (e, s)));
    scores.map(|(e, s)| row(&e.name, &[&s.length, &number(s.ppl), &number(s.nll), &s.tokens, &s.windows])).collect()
}

fn passkey(evaluations: &[EvalRecord]) -> Vec<String> {
    let mut rows = Vec::new();
    for (e, grid) in evaluations.iter().filter_map(|e| Some((e, e.passkey.as_ref()?))) {
        for (column, length) in grid.lengths.iter().enumerate() {
            for (line, depth) in grid.depths.iter().enumerate() {
                let accuracy = grid.cell(line, column);
                let samples = if accuracy.is_some() { grid.samples } else { 0 };
                rows.push(row(&e.name, &[length, depth, &number(accuracy.unwrap_or(f64::NAN)), &samples]));
            }
        }
    }
    rows
}

fn row(subject: &str, values: &[&dyn Display]) -> String {
    let mut row = format!("\"{}\"", text::one_line(subject).replace('"', "\"\""));
    values.iter().for_each(|value| row += &format!(",{value}"));
    row + "\n"
}

/// Nothing where nothing was measured: no two readers agree on how to write NaN.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}
