//! Before and after: loss by context length and by position, retrieval by depth and length, tasks by length.
//!
//! Read in this order: [`perplexity`], [`passkey`] with its kinds of questions (`prompts`, `needle`), [`ruler`], [`longbench`].
//!
//! [`Evaluation::run`] measures one model under one rotation; running it for several [`Subject`]s puts them side by side
//! on the same weights, the same text and the same questions.

mod error;
mod fit;
mod generated;
mod haystack;
pub mod longbench;
mod needle;
pub mod passkey;
pub mod perplexity;
mod plan;
mod prompts;
pub mod ruler;
pub mod score;
mod tasks;
mod words;

use std::sync::atomic::{AtomicBool, Ordering};

pub use error::EvalError;
pub use generated::{Language, Prompt, Writer};
pub use haystack::Haystack;
pub use needle::Needles;
pub use passkey::PasskeyPlan;
pub use plan::{EvalPlan, LongBenchPlan, RulerPlan};
pub use prompts::{Facts, Passkey, Question, Questions};

use crate::backend::Kernels;
use crate::error::Result;
use crate::model::Llama;
use crate::model::rope::RopeConfig;
use crate::report::record::{EvalRecord, Grid, LengthScore, Role};
use passkey::CellNews;
use perplexity::score;

/// Tokens of one forward pass, unless a single row is longer: enough to keep a backend busy.
const FORWARD_TOKENS: usize = 8192;

/// Rows of one length that a forward pass takes at once.
pub fn rows_of_a_pass(length: usize) -> usize {
    (FORWARD_TOKENS / length.max(1)).max(1)
}

/// Rows of one of some lengths whose answers are written together: the keys and values of all take no more memory than those of a row
/// of the longest, or 4 GiB.
pub fn rows_written_together(model: &Llama, length: usize, lengths: &[usize]) -> usize {
    const BYTES: usize = 4 << 30;
    const MOST: usize = 8;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    (longest.max(BYTES / model.cache_bytes()) / length.max(1)).clamp(1, MOST)
}

/// Cuts `items` into runs of equal length that fit one forward pass.
fn batches<T>(items: &[T], tokens: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let size = |run: &[T]| rows_of_a_pass(tokens(&run[0]));
    let runs: Vec<(&[T], usize)> = items.chunk_by(|a, b| tokens(a) == tokens(b)).map(|run| (run, size(run))).collect();
    runs.into_iter().flat_map(|(run, size)| run.chunks(size))
}

fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

impl EvalError {
    /// Kernels index the embedding with tokens, so they must be in the vocabulary.
    pub(crate) fn check_tokens(model: &Llama, rows: &[&[u32]]) -> std::result::Result<(), Self> {
        let vocab = model.config.vocab;
        match rows.iter().flat_map(|row| *row).find(|&&token| token as usize >= vocab) {
            Some(&token) => Err(Self::Vocabulary { token, vocab }),
            None => Ok(()),
        }
    }
}

/// A name, a place in the comparison and a rotation: what is measured on one set of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// `base`, `base + yarn ×8`, `after pose`.
    pub name: String,
    /// Its place in the comparison.
    pub role: Role,
    /// The rotation to measure with.
    pub rope: RopeConfig,
}

/// News from an evaluation.
#[derive(Debug, Clone)]
pub enum EvalProgress {
    /// A forward pass is done.
    Tokens {
        /// Tokens so far.
        done: u64,
        /// Tokens in all.
        total: u64,
        /// Share of the work done, 0 to 1: a token of a long row is more work than one of a short row.
        share: f64,
    },
    /// No document is this long; the record says so with 0 windows.
    TextTooShort {
        /// The context length.
        length: usize,
        /// Tokens of the longest document.
        longest: usize,
    },
    /// No question fits this length: its column of the grid stays empty, and it is no part of an average.
    PromptTooLong {
        /// The task.
        task: String,
        /// The context length.
        length: usize,
        /// Tokens a question takes.
        needs: usize,
    },
}

/// Tokens and the lengths of the rows they stand in.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    tokens: u64,
    /// In tokens whose attention costs nothing.
    cost: f64,
}

/// Counts tokens and passes news on.
struct Meter<'p> {
    progress: &'p mut dyn FnMut(EvalProgress),
    done: Work,
    total: Work,
    /// Length of a row whose tokens cost as much in attention as in everything else.
    even: f64,
}

impl Meter<'_> {
    fn new<'p>(model: &Llama, progress: &'p mut dyn FnMut(EvalProgress)) -> Meter<'p> {
        let config = &model.config;
        // Two operations per parameter, and four per visible key and value of each query head, of which half are visible on average.
        let even = config.parameters() as f64 / (config.layers * config.heads * config.head_dim) as f64;
        Meter { progress, done: Work::default(), total: Work::default(), even }
    }

    fn work(&self, tokens: u64, length: usize) -> Work {
        Work { tokens, cost: tokens as f64 * (1.0 + length as f64 / self.even) }
    }

    /// Announces tokens in rows of some length.
    fn expect(&mut self, tokens: u64, length: usize) {
        let work = self.work(tokens, length);
        self.total = Work { tokens: self.total.tokens + work.tokens, cost: self.total.cost + work.cost };
    }

    fn tell(&mut self, news: EvalProgress) {
        (self.progress)(news);
    }

    fn advance(&mut self, tokens: u64, length: usize) {
        let work = self.work(tokens, length);
        self.done = Work { tokens: self.done.tokens + work.tokens, cost: self.done.cost + work.cost };
        let share = self.done.cost / self.total.cost.max(f64::MIN_POSITIVE);
        self.tell(EvalProgress::Tokens { done: self.done.tokens, total: self.total.tokens, share });
    }
}

/// A plan with all it needs but the model.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// Where it runs.
    pub kernels: &'a dyn Kernels,
    /// What is measured.
    pub plan: &'a EvalPlan<'a>,
    /// Held-out text. Windows never cross documents; to measure on a stream of short ones, join them before.
    pub docs: &'a [&'a [u32]],
    /// Ends the evaluation before its next forward pass.
    pub stop: &'a AtomicBool,
}

impl Evaluation<'_> {
    /// Measures `model` under the subject's rotation and gives it its own back. `None` when stopped.
    ///
    /// A length that no document holds is in the record with 0 windows and NaN, as is one in the grid that holds no
    /// question.
    pub fn run(
        &self,
        model: &mut Llama,
        subject: &Subject,
        progress: &mut dyn FnMut(EvalProgress),
    ) -> Result<Option<EvalRecord>> {
        let own = std::mem::replace(&mut model.config.rope, subject.rope.clone());
        let record = self.measure(model, progress);
        model.config.rope = own;
        Ok(record?.map(|record| EvalRecord { name: subject.name.clone(), role: subject.role, ..record }))
    }

    /// Measures `model` as it is; the record has no name yet. `None` when stopped.
    pub fn measure(&self, model: &Llama, progress: &mut dyn FnMut(EvalProgress)) -> Result<Option<EvalRecord>> {
        self.plan.check()?;
        let mut lengths = self.plan.lengths.clone();
        lengths.sort_unstable();
        lengths.dedup();
        let windows: Vec<_> = lengths.iter().map(|&length| (length, self.plan.windows_of(self.docs, length))).collect();
        let mut meter = Meter::new(model, progress);
        for (length, windows) in &windows {
            meter.expect(windows.iter().map(|w| w.tokens.len() as u64).sum(), *length);
        }
        self.plan.expect(&mut meter)?;

        let mut record = EvalRecord { rope: model.config.rope.to_string(), ..EvalRecord::default() };
        for (length, windows) in windows {
            if windows.is_empty() {
                let longest = self.docs.iter().map(|doc| doc.len()).max().unwrap_or(0);
                meter.tell(EvalProgress::TextTooShort { length, longest });
                record.perplexity.push(LengthScore { length, ..LengthScore::unmeasured() });
                continue;
            }
            let mut advance = |n| meter.advance(n, length);
            let Some(losses) = score(self.kernels, model, &windows, self.stop, &mut advance)? else {
                return Ok(None);
            };
            record.perplexity.push(losses.score(length));
            record.buckets = losses.buckets(length);
        }
        if let Some(plan) = &self.plan.passkey {
            let Some(grid) = self.grid(model, "passkey", plan, &mut meter)? else { return Ok(None) };
            record.passkey = Some(grid);
        }
        if let Some(plan) = &self.plan.niah {
            let Some(grid) = self.grid(model, "niah", plan, &mut meter)? else { return Ok(None) };
            record.niah = Some(grid);
        }
        if let Some(plan) = &self.plan.ruler {
            let Some(scores) = self.ruler(model, plan, &mut meter)? else { return Ok(None) };
            record.ruler = scores;
        }
        if let Some(plan) = &self.plan.longbench {
            let Some(scores) = self.longbench(model, plan, &mut meter)? else { return Ok(None) };
            record.longbench = scores;
        }
        Ok(Some(record))
    }

    fn grid(&self, model: &Llama, task: &'static str, plan: &PasskeyPlan, meter: &mut Meter) -> Result<Option<Grid>> {
        let mut answer = |questions: &[Question]| passkey::answers(self.kernels, model, questions);
        let mut news = |news| match news {
            CellNews::Tokens { tokens, length } => meter.advance(tokens, length),
            CellNews::TooShort { length, needs } => meter.tell(EvalProgress::PromptTooLong { task: task.into(), length, needs }),
        };
        passkey::grid(plan, &mut answer, self.stop, &mut news)
    }
}
