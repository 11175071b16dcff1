//! RULER's synthetic tasks (arXiv 2404.06654): texts of any length, made here, whose answers are known.
//!
//! Prompts, tokens to generate and scores are the released code's, so that numbers can be put side by side. Words, filler and
//! random numbers are ours. A [`Sample`] is a pure function of (task, length, seed, index) and of the files it is made from.

mod count;
mod names;
mod needles;
mod prompts;
mod qa;
mod trace;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use needles::needle_texts;
pub use qa::QaSet;

use super::EvalError;
use super::fit::fit;
use super::haystack::Haystack;
use super::score::Rule;
use crate::data::Encode;
use crate::error::Result;
use crate::rng::{Rng, Stream};

/// Average score from which a length counts as one that the model can use: Llama-2-7B-chat's at 4k.
pub const EFFECTIVE: f64 = 0.856;

macro_rules! tasks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $most:literal;)*) => {
        /// One of the thirteen tasks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RulerTask { $($(#[$doc])* $variant,)* }

        impl RulerTask {
            /// All tasks, in the order of RULER's tables.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// RULER's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Most tokens of an answer.
            pub fn answer_tokens(self) -> usize {
                match self { $(Self::$variant => $most,)* }
            }
        }
    };
}

tasks! {
    /// One number in a repeated line: the passkey task.
    NiahSingle1 = "niah_single_1", 128;
    /// One number in an essay.
    NiahSingle2 = "niah_single_2", 128;
    /// One UUID in an essay.
    NiahSingle3 = "niah_single_3", 128;
    /// Four keys in an essay, one of them asked for.
    NiahMultikey1 = "niah_multikey_1", 128;
    /// Nothing but needles, one of them asked for.
    NiahMultikey2 = "niah_multikey_2", 128;
    /// The same with UUIDs as keys and values.
    NiahMultikey3 = "niah_multikey_3", 128;
    /// Four values of one key in an essay.
    NiahMultivalue = "niah_multivalue", 128;
    /// Four keys in an essay, all asked for.
    NiahMultiquery = "niah_multiquery", 128;
    /// A chain of variables that have one value.
    Vt = "vt", 30;
    /// The ten most common words of a list.
    Cwe = "cwe", 120;
    /// The three most frequent of invented words.
    Fwe = "fwe", 50;
    /// A question of SQuAD among paragraphs.
    Qa1 = "qa_1", 32;
    /// A question of HotpotQA among paragraphs.
    Qa2 = "qa_2", 32;
}

impl RulerTask {
    /// How its answers are scored.
    pub fn rule(self) -> Rule {
        if self.reads_file() { Rule::Part } else { Rule::All }
    }

    /// Whether it hides its needles in an essay.
    pub fn reads_essay(self) -> bool {
        needles::reads_essay(self)
    }

    /// Whether it needs a file of questions.
    pub fn reads_file(self) -> bool {
        matches!(self, Self::Qa1 | Self::Qa2)
    }
}

impl FromStr for RulerTask {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Self::ALL.iter().copied().find(|task| task.name() == text).ok_or(())
    }
}

impl fmt::Display for RulerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What the model reads, the beginning of the answer included.
    pub text: String,
    /// The same in tokens, behind the token that begins a text.
    pub tokens: Vec<u32>,
    /// What should be written.
    pub answers: Vec<String>,
}

/// A question whose filler may have any of these sizes.
struct Draft<'a> {
    sizes: RangeInclusive<usize>,
    /// The task's text with filler of that size.
    write: Box<dyn Fn(usize) -> String + 'a>,
    /// Beginning of the answer.
    prefix: String,
    answers: Vec<String>,
}

/// What samples are made from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Counts tokens.
    pub encode: &'a dyn Encode,
    /// Filler of the tasks that hide things in essays.
    pub haystack: &'a Haystack,
    /// Questions of `qa_1`.
    pub squad: Option<&'a QaSet>,
    /// Questions of `qa_2`.
    pub hotpotqa: Option<&'a QaSet>,
    /// Decides all samples.
    pub seed: u64,
}

/// What a model reads of a task's text and the beginning of its answer: the two, one behind the other, as RULER does for base models.
/// The one place for a chat template, which would stand around `text` alone.
fn wrap(text: &str, prefix: &str) -> String {
    format!("{text}{prefix}")
}

impl Source<'_> {
    /// Sample number `index`: prompt and [`RulerTask::answer_tokens`] together have at most `length` tokens, and fewer only as far as
    /// the task's filler cannot be cut: essays and repeated lines are cut between any two characters, lists between entries, needles
    /// and documents are whole.
    ///
    /// # Errors
    /// [`EvalError::NoRoom`] when the length is too short for the task, [`EvalError::NoQuestions`] when its file is missing.
    pub fn sample(&self, task: RulerTask, length: usize, index: u64) -> Result<Sample> {
        let budget = length.saturating_sub(task.answer_tokens());
        let draft = self.draft(task, budget, index_of(task, length, index))?;
        let encode = |size: usize| -> Result<(String, Vec<u32>)> {
            let text = wrap(&(draft.write)(size), &draft.prefix);
            let tokens = self.encode.bos().into_iter().chain(self.encode.encode(&text)?).collect();
            Ok((text, tokens))
        };
        let size = fit(budget, draft.sizes.clone(), |size| Ok(encode(size)?.1.len()))?;
        let Some(size) = size else {
            let needs = encode(*draft.sizes.start())?.1.len() + task.answer_tokens();
            return Err(EvalError::NoRoom { task: task.name(), needs, length }.into());
        };
        let (text, tokens) = encode(size)?;
        Ok(Sample { text, tokens, answers: draft.answers })
    }

    fn draft(&self, task: RulerTask, budget: usize, index: u64) -> Result<Draft<'_>> {
        let rng = Rng::at(self.seed, Stream::Eval, index);
        Ok(match task {
            RulerTask::Vt => trace::draft(rng, self.encode, budget)?,
            RulerTask::Cwe => count::common(rng, budget),
            RulerTask::Fwe => count::frequent(rng, budget + task.answer_tokens()),
            RulerTask::Qa1 | RulerTask::Qa2 => {
                let set = if task == RulerTask::Qa1 { self.squad } else { self.hotpotqa };
                let set = set.ok_or(EvalError::NoQuestions { task: task.name() })?;
                qa::draft(rng, set, self.seed, index & INDEX)
            }
            _ => needles::draft(task, rng, self.haystack, budget, index),
        })
    }
}

/// Bits of a sample's number in [`index_of`].
const INDEX: u64 = (1 << 24) - 1;

/// A number of its own for every task, length and sample.
fn index_of(task: RulerTask, length: usize, index: u64) -> u64 {
    (task as u64 + 1) << 56 | (length as u64) << 24 | (index & INDEX)
}

/// Bytes of filler that no tokenizer of words or their parts makes fewer than this many tokens of.
fn enough(tokens: usize) -> usize {
    const BYTES_PER_TOKEN: usize = 10;
    tokens * BYTES_PER_TOKEN + 1000
}

/// The text's beginning of at most `bytes` bytes, in whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
