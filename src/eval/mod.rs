//! Before and after: loss by context length and by position, retrieval by depth and length.
//!
//! [`Evaluation::run`] measures one model under one rotation; running it for several [`Subject`]s puts them side by side
//! on the same weights, the same text and the same questions.

mod error;
pub mod passkey;
pub mod perplexity;
mod prompts;

use std::sync::atomic::{AtomicBool, Ordering};

pub use error::EvalError;
pub use passkey::PasskeyPlan;
pub use prompts::{Facts, Passkey, Question, Questions};

use crate::backend::Kernels;
use crate::error::Result;
use crate::model::Llama;
use crate::model::rope::RopeConfig;
use crate::report::record::{EvalRecord, Grid, LengthScore, Role};
use passkey::CellNews;
use perplexity::{Window, disjoint, score, sliding};

/// Tokens of one forward pass, unless a single row is longer: enough to keep a backend busy.
const FORWARD_TOKENS: usize = 8192;

/// Rows of one length that a forward pass takes at once.
pub fn rows_of_a_pass(length: usize) -> usize {
    (FORWARD_TOKENS / length.max(1)).max(1)
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

/// What is measured.
#[derive(Clone)]
pub struct EvalPlan<'a> {
    /// Context lengths in tokens.
    pub lengths: Vec<usize>,
    /// Windows per length, fewer where the text does not hold them.
    pub windows: usize,
    /// `None`: disjoint windows. `Some`: windows this far apart that score what those before them have not reached, over
    /// the same amount of text.
    pub stride: Option<usize>,
    /// Retrieval, when wanted.
    pub passkey: Option<PasskeyPlan<'a>>,
}

impl Default for EvalPlan<'_> {
    fn default() -> Self {
        Self { lengths: Vec::new(), windows: 3, stride: None, passkey: None }
    }
}

impl EvalPlan<'_> {
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// [`EvalError::Plan`].
    pub fn check(&self) -> std::result::Result<(), EvalError> {
        let refuse = |key, expected, got: usize| Err(EvalError::Plan { key, expected, got: got.to_string() });
        if let Some(&length) = self.lengths.iter().find(|&&length| length < 2) {
            return refuse("length", "at least 2", length);
        }
        if self.windows == 0 {
            return refuse("windows", "at least 1", 0);
        }
        match (self.stride, self.lengths.iter().min()) {
            (Some(0), _) => refuse("stride", "at least 1", 0),
            (Some(stride), Some(&shortest)) if stride > shortest => refuse("stride", "at most the shortest length", stride),
            _ => self.passkey.as_ref().map_or(Ok(()), PasskeyPlan::check),
        }
    }

    /// The windows of one length; none when no document is that long.
    pub fn windows_of<'d>(&self, docs: &[&'d [u32]], length: usize) -> Vec<Window<'d>> {
        let Some(stride) = self.stride else {
            return disjoint(docs, length, self.windows);
        };
        let mut left = self.windows.saturating_mul(length);
        let mut windows = Vec::new();
        for doc in docs.iter().filter(|doc| doc.len() >= length) {
            if left < length {
                break;
            }
            let part = &doc[..doc.len().min(left)];
            left -= part.len();
            windows.extend(sliding(part, length, stride));
        }
        windows
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
    },
    /// No document is this long; the record says so with 0 windows.
    TextTooShort {
        /// The context length.
        length: usize,
        /// Tokens of the longest document.
        longest: usize,
    },
    /// No question fits this length; its column of the grid stays empty.
    PromptTooLong {
        /// The context length.
        length: usize,
        /// Tokens a question takes.
        needs: usize,
    },
}

/// Counts tokens and passes news on.
struct Meter<'p> {
    progress: &'p mut dyn FnMut(EvalProgress),
    done: u64,
    total: u64,
}

impl Meter<'_> {
    fn tell(&mut self, news: EvalProgress) {
        (self.progress)(news);
    }

    fn advance(&mut self, tokens: u64) {
        self.done += tokens;
        self.tell(EvalProgress::Tokens { done: self.done, total: self.total });
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
        let text: usize = windows.iter().flat_map(|(_, windows)| windows).map(|w| w.tokens.len()).sum();
        let asked = self.plan.passkey.as_ref().map_or(Ok(0), PasskeyPlan::tokens)?;
        let mut meter = Meter { progress, done: 0, total: text as u64 + asked };

        let mut record = EvalRecord { rope: model.config.rope.to_string(), ..EvalRecord::default() };
        for (length, windows) in windows {
            if windows.is_empty() {
                let longest = self.docs.iter().map(|doc| doc.len()).max().unwrap_or(0);
                meter.tell(EvalProgress::TextTooShort { length, longest });
                record.perplexity.push(LengthScore { length, ppl: f64::NAN, nll: f64::NAN, tokens: 0, windows: 0 });
                continue;
            }
            let Some(losses) = score(self.kernels, model, &windows, self.stop, &mut |n| meter.advance(n))? else {
                return Ok(None);
            };
            record.perplexity.push(losses.score(length));
            record.buckets = losses.buckets(length);
        }
        if let Some(plan) = &self.plan.passkey {
            let Some(grid) = self.grid(model, plan, &mut meter)? else {
                return Ok(None);
            };
            record.passkey = Some(grid);
        }
        Ok(Some(record))
    }

    fn grid(&self, model: &Llama, plan: &PasskeyPlan, meter: &mut Meter) -> Result<Option<Grid>> {
        let mut answer = |questions: &[Question]| passkey::answers(self.kernels, model, questions);
        let mut news = |news| match news {
            CellNews::Tokens(n) => meter.advance(n),
            CellNews::TooShort { length, needs } => meter.tell(EvalProgress::PromptTooLong { length, needs }),
        };
        passkey::grid(plan, &mut answer, self.stop, &mut news)
    }
}
