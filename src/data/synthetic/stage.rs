//! The curriculum: first copying, then facts, then length; the same mix for long rows; and long text to measure on.

use std::fmt;
use std::str::FromStr;

use super::{Document, Kind, SyntheticError};
use crate::rng::{Rng, Stream};

/// One stage: documents of one length, drawn from a mix of kinds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Its name in `synthetic:NAME`.
    pub name: &'static str,
    /// Tokens of a document.
    pub length: usize,
    /// Kinds with their shares of the documents; the shares sum to 1.
    pub mix: &'static [(f64, Kind)],
}

const fn facts(keys: usize, recalls: usize) -> Kind {
    Kind::Facts { keys, recalls }
}

/// Every stage. The first five are the order of training: asking for facts before copying is learnt does not work.
#[rustfmt::skip]
pub const STAGES: [Stage; 9] = [
    Stage { name: "repeat", length: 64, mix: &[(1.0, Kind::Repeat)] },
    Stage { name: "facts-64", length: 64, mix: &[(0.3, Kind::Repeat), (0.7, facts(6, 4))] },
    Stage { name: "facts-128", length: 128, mix: &[(0.3, Kind::Repeat), (0.7, facts(9, 8))] },
    Stage { name: "facts-256", length: 256, mix: &[
        (0.3, Kind::Repeat),
        (0.6, facts(12, 15)),
        (0.1, Kind::Chains { chains: 4, links: 2 }),
    ] },
    Stage { name: "mixed-256", length: 256, mix: &[
        (0.2, Kind::Repeat),
        (0.4, Kind::LateFacts { keys: 12, recalls: 15 }),
        (0.3, Kind::LateFacts { keys: 3, recalls: 4 }),
        (0.1, Kind::Chains { chains: 4, links: 2 }),
    ] },
    Stage { name: "mixed-2048", length: 2048, mix: &[
        (0.2, Kind::Repeat),
        (0.4, Kind::LateFacts { keys: 64, recalls: 96 }),
        (0.3, Kind::LateFacts { keys: 16, recalls: 24 }),
        (0.1, Kind::Chains { chains: 8, links: 2 }),
    ] },
    Stage { name: "mixed-8192", length: 8192, mix: &[
        (0.2, Kind::Repeat),
        (0.4, Kind::LateFacts { keys: 64, recalls: 384 }),
        (0.3, Kind::LateFacts { keys: 16, recalls: 96 }),
        (0.1, Kind::Chains { chains: 8, links: 2 }),
    ] },
    Stage { name: "long-2048", length: 2048, mix: &[(1.0, facts(64, 96))] },
    Stage { name: "long-8192", length: 8192, mix: &[(1.0, facts(64, 256))] },
];

impl Stage {
    /// The curriculum's last mix in the shortest documents of at least `length` tokens, or else the longest there are.
    pub fn mixed(length: usize) -> Self {
        let mixed = || STAGES.into_iter().filter(|stage| stage.name.starts_with("mixed-"));
        let fitting = mixed().filter(|stage| stage.length >= length).min_by_key(|stage| stage.length);
        fitting.or_else(|| mixed().max_by_key(|stage| stage.length)).expect("stages: some are mixed")
    }

    /// Document number `index`.
    ///
    /// # Errors
    /// As [`Kind::document`]; never for one of [`STAGES`].
    pub fn document(&self, seed: u64, index: u64) -> Result<Document, SyntheticError> {
        let rng = &mut Rng::at(seed, Stream::Text, index);
        let mut left = rng.uniform();
        for (share, kind) in self.mix {
            left -= share;
            if left < 0.0 {
                return kind.write(self.length, rng);
            }
        }
        let last = self.mix.last().map_or(Kind::Repeat, |m| m.1);
        last.write(self.length, rng)
    }
}

const PREFIX: &str = "synthetic:";

pub(super) fn names() -> String {
    STAGES.map(|s| s.to_string()).join(", ")
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.name)
    }
}

impl FromStr for Stage {
    type Err = SyntheticError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.strip_prefix(PREFIX)
            .and_then(|name| STAGES.into_iter().find(|stage| stage.name == name))
            .ok_or_else(|| SyntheticError::UnknownStage { got: s.to_owned() })
    }
}
