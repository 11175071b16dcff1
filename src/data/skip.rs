//! Nothing is left out in silence: what was skipped, and why.

use std::collections::BTreeMap;
use std::fmt;

/// Why a document was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum SkipReason {
    /// Nothing but white space, or a JSON null.
    Empty,
    /// Text for which the tokenizer has no token.
    NoTokens,
    /// Shorter than a training row, while packing is off.
    ShorterThanRow,
    /// A conversation longer than a training row.
    LongerThanRow,
    /// A conversation in which nothing is to be learned.
    NoAnswer,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::NoTokens => "without tokens",
            Self::ShorterThanRow => "shorter than a sequence",
            Self::LongerThanRow => "longer than a row",
            Self::NoAnswer => "without an answer",
        })
    }
}

/// How many documents were left out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SkipReport(BTreeMap<SkipReason, u64>);

impl SkipReport {
    /// Counts one document.
    pub fn add(&mut self, reason: SkipReason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Documents left out for `reason`.
    pub fn count(&self, reason: SkipReason) -> u64 {
        self.0.get(&reason).copied().unwrap_or_default()
    }

    /// Adds another report's counts.
    pub fn merge(&mut self, other: &Self) {
        for (reason, n) in &other.0 {
            *self.0.entry(*reason).or_default() += n;
        }
    }

    /// Documents left out.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for SkipReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (reason, n)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{n} {reason}")?;
        }
        Ok(())
    }
}
