//! Where tokens pretend to be: one file per method, one trait, one registry.

use std::ops::Range;

use crate::rng::Rng;

/// One document's share of a training row: which of its tokens, at which positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Token ranges within the document, in order; their lengths sum to `positions.len()`.
    pub tokens: Vec<Range<usize>>,
    /// Position of each chosen token: strictly increasing, below the target.
    pub positions: Vec<u32>,
}

/// A position method. Its config struct is the implementation; everything random comes from `rng`, so a plan is a
/// function of `(seed, epoch, row)` and nothing needs saving.
pub trait PositionPlan: Send + Sync + std::fmt::Debug {
    /// The name in `--positions` and in files.
    fn name(&self) -> &'static str;

    /// Positions are divided by this (E²-LLM's `g`); drawn once per training row.
    fn rope_scale(&self, rng: &mut Rng) -> f32 {
        let _ = rng;
        1.0
    }

    /// Chooses `want` of a document's `available` tokens (`1 <= want <= available`) and their positions.
    fn plan(&self, available: usize, want: usize, rope_scale: f32, rng: &mut Rng) -> Plan;
}
