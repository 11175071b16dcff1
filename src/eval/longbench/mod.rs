//! Files in LongBench's format (arXiv 2308.14508): JSON lines with `input`, `context`, `answers`, `length`, `dataset`, `language`
//! and `all_classes`.

mod datasets;
mod metrics;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use datasets::{Category, Dataset};
pub use metrics::Metric;

use super::EvalError;
use super::score::Rule;
use crate::data::Encode;
use crate::error::{IoContext, Result};

/// What is used of a line.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    input: String,
    context: String,
    answers: Vec<String>,
    #[serde(default)]
    dataset: Option<String>,
    #[serde(default)]
    all_classes: Option<Vec<String>>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The prompt, whole.
    pub prompt: String,
    /// What may be answered.
    pub answers: Vec<String>,
    /// How it is scored.
    pub rule: Rule,
}

/// The questions of one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questionnaire {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub category: Category,
    /// Most tokens of an answer.
    pub answer_tokens: usize,
    /// Its questions, in the file's order.
    pub rows: Vec<Row>,
}

/// The `.jsonl` files that a path stands for: itself, or those in the folder, by name.
///
/// # Errors
/// The folder cannot be read, or holds none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).context("read", path)? {
        let file = entry.context("read", path)?.path();
        if file.extension().is_some_and(|ext| ext == "jsonl") {
            found.push(file);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(EvalError::File { path: path.into(), expected: ".jsonl files", cause: "there is none".into() }.into()),
        false => Ok(found),
    }
}

/// Reads files; rows of one dataset are put together. `other` is the metric of datasets that are not LongBench's, at most `most`
/// rows of each are kept.
///
/// # Errors
/// [`EvalError::Chinese`] for the sets that cannot be scored here, [`EvalError::File`] with the line's number for a line that is not a
/// question, or one that no output can score at.
pub fn read(files: &[PathBuf], other: Metric, most: usize) -> Result<Vec<Questionnaire>> {
    let mut all: Vec<Questionnaire> = Vec::new();
    for path in files {
        let refuse = |cause: String| EvalError::File { path: path.clone(), expected: "LongBench's JSON lines", cause };
        let file = std::fs::File::open(path).context("read", path)?;
        let mut any = false;
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = line.context("read", path)?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).map_err(|e| refuse(format!("line {}: {e}", at + 1)))?;
            if line.answers.is_empty() {
                return Err(refuse(format!("line {}: \"answers\" is empty", at + 1)).into());
            }
            any = true;
            let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = line.dataset.clone().unwrap_or_else(stem);
            if datasets::is_chinese(&name) {
                return Err(EvalError::Chinese { dataset: name }.into());
            }
            let dataset = *Dataset::find(&name).unwrap_or(&Dataset { metric: other, ..datasets::UNKNOWN });
            let (metric, classes) = (dataset.metric, line.all_classes.as_deref().unwrap_or_default());
            if let Some(reason) = metric.unscorable(&line.answers, classes) {
                return Err(refuse(format!("line {}: nothing can score by {metric}: {reason}", at + 1)).into());
            }
            add(&mut all, name, dataset, line, most);
        }
        if !any {
            return Err(refuse("the file is empty".into()).into());
        }
    }
    Ok(all)
}

fn add(all: &mut Vec<Questionnaire>, name: String, dataset: Dataset, line: Line, most: usize) {
    let at = match all.iter().position(|q| q.name == name) {
        Some(at) => at,
        None => {
            let Dataset { category, answer_tokens, .. } = dataset;
            all.push(Questionnaire { name, category, answer_tokens, rows: Vec::new() });
            all.len() - 1
        }
    };
    if all[at].rows.len() < most {
        let rule = Rule::Best { metric: dataset.metric, classes: line.all_classes.unwrap_or_default(), counts: dataset.counts };
        all[at].rows.push(Row { prompt: dataset.prompt(&line.context, &line.input), answers: line.answers, rule });
    }
}

impl Questionnaire {
    /// The fewest tokens of prompt and answer at which it is asked: a prompt cut to less says nothing.
    pub fn shortest(&self) -> usize {
        self.answer_tokens + self.answer_tokens.min(64)
    }
}

/// The prompt in tokens, at most `most` of them: one that is longer loses its middle.
pub fn prompt_tokens(encode: &dyn Encode, prompt: &str, most: usize) -> Result<Vec<u32>> {
    let mut tokens: Vec<u32> = encode.bos().into_iter().chain(encode.encode(prompt)?).collect();
    if tokens.len() > most {
        let half = most / 2;
        tokens.drain(most - half..tokens.len() - half);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests;
