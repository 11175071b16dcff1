//! What is measured.

use super::longbench::Questionnaire;
use super::perplexity::{Window, disjoint, sliding};
use super::ruler::{RulerTask, Source};
use super::{EvalError, Language, Meter, PasskeyPlan};
use crate::error::Result;

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
    /// Retrieval of one key, when wanted.
    pub passkey: Option<PasskeyPlan<'a>>,
    /// Retrieval of one key among others, when wanted.
    pub niah: Option<PasskeyPlan<'a>>,
    /// RULER's tasks, when wanted.
    pub ruler: Option<RulerPlan<'a>>,
    /// LongBench's files, when wanted.
    pub longbench: Option<LongBenchPlan<'a>>,
}

/// RULER's tasks.
#[derive(Clone)]
pub struct RulerPlan<'a> {
    /// What the model reads and writes in.
    pub language: &'a dyn Language,
    /// What samples are made from.
    pub source: Source<'a>,
    /// The tasks.
    pub tasks: Vec<RulerTask>,
    /// Tokens of prompt and answer.
    pub lengths: Vec<usize>,
    /// Samples per task and length.
    pub samples: usize,
}

/// LongBench's files.
#[derive(Clone)]
pub struct LongBenchPlan<'a> {
    /// What the model reads and writes in.
    pub language: &'a dyn Language,
    /// The datasets.
    pub sets: &'a [Questionnaire],
    /// Tokens of prompt and answer: longer prompts lose their middle.
    pub lengths: Vec<usize>,
}

impl Default for EvalPlan<'_> {
    fn default() -> Self {
        Self { lengths: Vec::new(), windows: 3, stride: None, passkey: None, niah: None, ruler: None, longbench: None }
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
            _ => Ok(()),
        }?;
        if self.ruler.as_ref().is_some_and(|plan| plan.samples == 0) {
            return refuse("samples", "at least 1", 0);
        }
        [&self.passkey, &self.niah].into_iter().flatten().try_for_each(PasskeyPlan::check)
    }

    /// Announces the tokens of everything but perplexity.
    pub(super) fn expect(&self, meter: &mut Meter) -> Result<()> {
        for plan in [&self.passkey, &self.niah].into_iter().flatten() {
            for (length, tokens) in plan.tokens()? {
                meter.expect(tokens, length);
            }
        }
        if let Some(plan) = &self.ruler {
            for &length in &plan.lengths {
                meter.expect((length * plan.samples * plan.tasks.len()) as u64, length);
            }
        }
        if let Some(plan) = &self.longbench {
            let rows: usize = plan.sets.iter().map(|set| set.rows.len()).sum();
            for &length in &plan.lengths {
                meter.expect((length * rows) as u64, length);
            }
        }
        Ok(())
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
