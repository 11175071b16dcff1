//! What the numbers say, computed: the only place that judges a run.

use super::record::{EvalRecord, Role, RunRecord};
use super::text;

/// Perplexity at the long length may exceed the base's at its own context by this factor and still count as extended.
pub const LONG_SLACK: f64 = 1.1;
/// Short-context perplexity may grow by this factor and still count as kept.
pub const SHORT_SLACK: f64 = 1.05;
/// Passkey accuracy from which retrieval counts as working.
pub const PASSKEY_WORKS: f64 = 0.9;

/// The outcome in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Long context is as good as the base was within its own, and short context was kept.
    Extended,
    /// Better at long context than the base, but not all of the above.
    Partly,
    /// No better at long context than the base.
    NotExtended,
    /// Before or after was not measured beyond the base's context.
    Unmeasured,
}

impl Outcome {
    /// The word as readers see it.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Extended => "extended",
            Outcome::Partly => "partly extended",
            Outcome::NotExtended => "not extended",
            Outcome::Unmeasured => "not measured",
        }
    }
}

/// Whether a claim speaks for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// For it.
    Good,
    /// With reservations.
    Mixed,
    /// Against it.
    Bad,
}

/// One before/after comparison, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What was compared: `perplexity at 8k`.
    pub label: String,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
    /// Relative change, or the control's value.
    pub note: Option<String>,
    /// Whether it speaks for the run.
    pub tone: Tone,
}

impl Claim {
    /// `perplexity at 8k: 156.0 → 6.9, control 9.1`
    pub fn sentence(&self) -> String {
        let note = self.note.as_ref().map(|n| format!(", {n}")).unwrap_or_default();
        format!("{}: {} → {}{note}", self.label, self.before, self.after)
    }
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// What it rests on: long context, passkey, short context, as far as measured.
    pub claims: Vec<Claim>,
    /// What is missing for [`Outcome::Extended`].
    pub shortfalls: Vec<String>,
    context: usize,
}

impl Verdict {
    /// Judges a run by its `Before` and `After` evaluations.
    pub fn of(run: &RunRecord) -> Self {
        let (Some(before), Some(after)) = (run.evaluation(Role::Before), run.evaluation(Role::After)) else {
            return Self { outcome: Outcome::Unmeasured, claims: Vec::new(), shortfalls: Vec::new(), context: run.model.context };
        };
        let facts = Facts { context: run.model.context, before, after, control: run.evaluation(Role::Control) };
        let long = facts.long(run.method.target);
        let short = facts.short();
        let passkey = facts.passkey(run.method.target);
        let shortfalls = shortfalls(long, short, passkey, run.model.context);
        let outcome = judge(long, passkey, &shortfalls);
        let claims = [long.map(|l| facts.long_claim(l, short)), passkey.map(|p| facts.passkey_claim(p)), short.map(short_claim)];
        Self { outcome, claims: claims.into_iter().flatten().collect(), shortfalls, context: run.model.context }
    }

    /// What it means, in one sentence.
    pub fn headline(&self) -> String {
        let (context, but) = (text::length(self.context), self.shortfalls.join("; "));
        match self.outcome {
            Outcome::Extended => {
                format!("beyond {context} the model is now about as good as the base was within it, and it stayed good there")
            }
            Outcome::Partly => format!("better beyond {context} than the base, but {but}"),
            Outcome::NotExtended => format!("no better beyond {context} than the base: {but}"),
            Outcome::Unmeasured => {
                "there is no measurement before and after at a common length beyond the original context".into()
            }
        }
    }

    /// All claims in one sentence, or why there are none.
    pub fn sentence(&self) -> String {
        if self.claims.is_empty() {
            return "there is no measurement before and after at a common length".into();
        }
        let claims: Vec<_> = self.claims.iter().map(Claim::sentence).collect();
        claims.join("; ")
    }
}

/// Short-context perplexity after over before, if both were measured, and its standard error over their windows.
pub fn damage(before: &EvalRecord, after: &EvalRecord, context: usize) -> Option<(f64, f64)> {
    let pair = common(before, after, |l| l <= context)?;
    let error = after.score_at(pair.length)?.error_of_difference(before.score_at(pair.length)?);
    let ratio = pair.after / pair.before;
    // The ratio is the exponential of the difference of losses.
    (pair.before > 0.0).then_some((ratio, ratio * error))
}

/// The same quantity before and after.
#[derive(Clone, Copy)]
struct Pair {
    length: usize,
    before: f64,
    after: f64,
}

fn common(before: &EvalRecord, after: &EvalRecord, wanted: impl Fn(usize) -> bool) -> Option<Pair> {
    let pair = |length| {
        let (before, after) = (before.ppl_at(length)?, after.ppl_at(length)?);
        Some(Pair { length, before, after })
    };
    let lengths = after.perplexity.iter().map(|s| s.length).filter(|&l| wanted(l));
    lengths.filter_map(pair).max_by_key(|p| p.length)
}

struct Facts<'a> {
    context: usize,
    before: &'a EvalRecord,
    after: &'a EvalRecord,
    control: Option<&'a EvalRecord>,
}

impl Facts<'_> {
    /// Perplexity at the longest length up to the target; past it if only that was measured.
    fn long(&self, target: usize) -> Option<Pair> {
        common(self.before, self.after, |l| l > self.context && l <= target)
            .or_else(|| common(self.before, self.after, |l| l > self.context))
    }

    fn short(&self) -> Option<Pair> {
        common(self.before, self.after, |l| l <= self.context)
    }

    /// Passkey at the longest length up to the target. The task says nothing of the context of a model that never solves it,
    /// not even within its own.
    fn passkey(&self, target: usize) -> Option<Pair> {
        let lengths = &self.after.passkey.as_ref()?.lengths;
        let mut within = lengths.iter().filter(|&&l| l <= self.context).filter_map(|&l| self.before.passkey_at(l)).peekable();
        let hopeless = within.peek().is_some() && within.all(|share| share == 0.0);
        if hopeless && lengths.iter().all(|&l| self.after.passkey_at(l).unwrap_or(0.0) == 0.0) {
            return None;
        }
        let pair = |&length: &usize| {
            let (before, after) = (self.before.passkey_at(length)?, self.after.passkey_at(length)?);
            Some(Pair { length, before, after })
        };
        let beyond = lengths.iter().filter(|&&l| l > self.context && l <= target.max(self.context));
        beyond.filter_map(pair).max_by_key(|p| p.length)
    }

    fn long_claim(&self, long: Pair, short: Option<Pair>) -> Claim {
        let control = self.control.and_then(|c| c.ppl_at(long.length));
        let tone = if long_works(long, short) {
            Tone::Good
        } else if improves(long) {
            Tone::Mixed
        } else {
            Tone::Bad
        };
        Claim {
            label: format!("perplexity at {}", text::length(long.length)),
            before: text::perplexity(Some(long.before)),
            after: text::perplexity(Some(long.after)),
            note: control.map(|c| format!("control {}", text::perplexity(Some(c)))),
            tone,
        }
    }

    fn passkey_claim(&self, pair: Pair) -> Claim {
        let control = self.control.and_then(|c| c.passkey_at(pair.length));
        let tone = if pair.after >= PASSKEY_WORKS {
            Tone::Good
        } else if pair.after > pair.before + 0.1 {
            Tone::Mixed
        } else {
            Tone::Bad
        };
        Claim {
            label: format!("passkey at {}", text::length(pair.length)),
            before: text::percent(Some(pair.before)),
            after: text::percent(Some(pair.after)),
            note: control.map(|c| format!("control {}", text::percent(Some(c)))),
            tone,
        }
    }
}

fn short_claim(pair: Pair) -> Claim {
    let ratio = pair.after / pair.before;
    Claim {
        label: format!("short context ({})", text::length(pair.length)),
        before: text::perplexity(Some(pair.before)),
        after: text::perplexity(Some(pair.after)),
        note: Some(text::change(ratio)),
        tone: match ratio {
            r if r <= SHORT_SLACK => Tone::Good,
            r if r <= 1.0 + 3.0 * (SHORT_SLACK - 1.0) => Tone::Mixed,
            _ => Tone::Bad,
        },
    }
}

fn long_works(long: Pair, short: Option<Pair>) -> bool {
    short.is_some_and(|s| long.after <= LONG_SLACK * s.before)
}

fn improves(long: Pair) -> bool {
    long.after <= 0.9 * long.before
}

fn judge(long: Option<Pair>, passkey: Option<Pair>, shortfalls: &[String]) -> Outcome {
    let better = long.is_some_and(improves) || passkey.is_some_and(|p| p.after > p.before + 0.1);
    match (long.is_some() || passkey.is_some(), shortfalls.is_empty(), better) {
        (false, _, _) => Outcome::Unmeasured,
        (true, true, _) => Outcome::Extended,
        (true, false, true) => Outcome::Partly,
        (true, false, false) => Outcome::NotExtended,
    }
}

fn shortfalls(long: Option<Pair>, short: Option<Pair>, passkey: Option<Pair>, context: usize) -> Vec<String> {
    let mut found = Vec::new();
    match (long, short) {
        (None, _) => found.push(format!("perplexity beyond {} was not measured", text::length(context))),
        (Some(l), Some(s)) if !long_works(l, short) => found.push(format!(
            "perplexity at {} is {} times the base’s at {}",
            text::length(l.length),
            text::perplexity(Some(l.after / s.before)),
            text::length(s.length)
        )),
        _ => {}
    }
    if let Some(p) = passkey.filter(|p| p.after < PASSKEY_WORKS) {
        found.push(format!("a passkey at {} is found {} of the time", text::length(p.length), text::percent(Some(p.after))));
    }
    match short {
        None => found.push(format!("perplexity within {} was not measured", text::length(context))),
        Some(s) if s.after > SHORT_SLACK * s.before => {
            found.push(format!("short context changed by {}", text::change(s.after / s.before)));
        }
        Some(_) => {}
    }
    found
}
