//! Questions about documents, from the files of SQuAD and HotpotQA.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::Draft;
use super::prompts::{QA_PREFIX, qa};
use crate::error::{IoContext, Result};
use crate::eval::EvalError;
use crate::rng::{Rng, Stream};

/// Questions, and the documents that answer them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QaSet {
    documents: Vec<String>,
    questions: Vec<Question>,
}

/// A question with its documents by number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    text: String,
    answers: Vec<String>,
    /// Always there.
    gold: Vec<usize>,
    /// The first to be added.
    near: Vec<usize>,
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<SquadArticle>,
}

#[derive(Deserialize)]
struct SquadArticle {
    paragraphs: Vec<SquadParagraph>,
}

#[derive(Deserialize)]
struct SquadParagraph {
    context: String,
    qas: Vec<SquadQuestion>,
}

#[derive(Deserialize)]
struct SquadQuestion {
    question: String,
    answers: Vec<SquadAnswer>,
    /// Version 2 has questions without an answer, version 1 has no such field.
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct SquadAnswer {
    text: String,
}

#[derive(Deserialize)]
struct HotpotQuestion {
    question: String,
    answer: String,
    /// Title and sentences.
    context: Vec<(String, Vec<String>)>,
}

/// Numbers documents, the same text once.
#[derive(Default)]
struct Shelf {
    documents: Vec<String>,
    known: HashMap<String, usize>,
}

impl Shelf {
    fn number(&mut self, document: String) -> usize {
        *self.known.entry(document).or_insert_with_key(|document| {
            self.documents.push(document.clone());
            self.documents.len() - 1
        })
    }
}

/// Each number once, where it is first.
fn distinct(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = HashSet::new();
    numbers.filter(|&number| seen.insert(number)).collect()
}

impl QaSet {
    /// Reads SQuAD's JSON, version 1.1 or 2.0. Questions that have no answer are left out.
    ///
    /// # Errors
    /// The file cannot be read, or is not of this form.
    pub fn squad(path: &Path) -> Result<Self> {
        let file: Squad = parse(path, "SQuAD's JSON: {\"data\": [{\"paragraphs\": [{\"context\", \"qas\"}]}]}")?;
        let (mut shelf, mut questions) = (Shelf::default(), Vec::new());
        for article in file.data {
            let numbers: Vec<usize> = article.paragraphs.iter().map(|p| shelf.number(p.context.clone())).collect();
            for (paragraph, &gold) in article.paragraphs.into_iter().zip(&numbers) {
                for qa in paragraph.qas.into_iter().filter(|qa| !qa.is_impossible && !qa.answers.is_empty()) {
                    let near = distinct(numbers.iter().copied().filter(|&n| n != gold));
                    let answers = qa.answers.into_iter().map(|a| a.text).collect();
                    questions.push(Question { text: qa.question, answers, gold: vec![gold], near });
                }
            }
        }
        Self { documents: shelf.documents, questions }.checked(path)
    }

    /// Reads HotpotQA's JSON, such as `hotpot_dev_distractor_v1.json`.
    ///
    /// # Errors
    /// The file cannot be read, or is not of this form.
    pub fn hotpotqa(path: &Path) -> Result<Self> {
        let file: Vec<HotpotQuestion> = parse(path, "HotpotQA's JSON: [{\"question\", \"answer\", \"context\"}]")?;
        let (mut shelf, mut questions) = (Shelf::default(), Vec::new());
        for q in file {
            let gold = q.context.into_iter().map(|(title, text)| shelf.number(format!("{title}\n{}", text.concat())));
            let gold = distinct(gold);
            questions.push(Question { text: q.question, answers: vec![q.answer], gold, near: Vec::new() });
        }
        Self { documents: shelf.documents, questions }.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self> {
        if self.questions.is_empty() {
            return Err(EvalError::File {
                path: path.into(),
                expected: "a question with an answer",
                cause: "there is none".into(),
            }
            .into());
        }
        Ok(self)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, expected: &'static str) -> Result<T> {
    let text = std::fs::read(path).context("read", path)?;
    let parsed = serde_json::from_slice(&text);
    Ok(parsed.map_err(|e| EvalError::File { path: path.into(), expected, cause: e.to_string() })?)
}

/// Question number `index` of the set in an order that `seed` decides, among so many documents.
pub fn draft<'a>(mut rng: Rng, set: &'a QaSet, seed: u64, index: u64) -> Draft<'a> {
    let mut order: Vec<usize> = (0..set.questions.len()).collect();
    Rng::at(seed, Stream::Eval, 0).shuffle(&mut order);
    let question = &set.questions[order[index as usize % order.len()]];
    let (mut near, gold) = (question.near.clone(), &question.gold);
    rng.shuffle(&mut near);
    let mut others: Vec<usize> = (0..set.documents.len()).filter(|n| !gold.contains(n) && !near.contains(n)).collect();
    rng.shuffle(&mut others);
    let numbers: Vec<usize> = gold.iter().copied().chain(near).chain(others).collect();
    let sizes = gold.len()..=numbers.len();
    let write = move |size: usize| {
        let mut shown = numbers[..size].to_vec();
        rng.clone().shuffle(&mut shown);
        let document = |(i, &n): (usize, &usize)| format!("Document {}:\n{}", i + 1, set.documents[n]);
        let context: Vec<String> = shown.iter().enumerate().map(document).collect();
        qa(&context.join("\n\n"), &question.text)
    };
    Draft { sizes, write: Box::new(write), prefix: QA_PREFIX.into(), answers: question.answers.clone() }
}
