//! Where tokens pretend to be: one file per method, one trait, one registry.
//!
//! A method is one file with a config struct implementing [`PositionPlan`] and [`Method`], its `mod` line and its line
//! in [`METHODS`]; tests and help find it there. Positions are raw integers: a method that interpolates says so through
//! [`PositionPlan::rope_scale`] and leaves the division to the rotation. A run draws its rows from a [`Mix`] of methods,
//! which usually has one.

pub mod coverage;
pub mod e2_llm;
pub mod end_prompt;
pub mod long_recipe;
mod mix;
pub mod natural;
pub mod pose;
pub mod random;
mod registry;
pub mod retrieval;
pub mod uniform;
mod words;

use std::ops::Range;
use std::sync::Arc;

pub use coverage::{Coverage, CoverageBucket};
pub use e2_llm::E2Llm;
pub use end_prompt::EndPrompt;
pub use long_recipe::LongRecipe;
pub use mix::{Mix, Row, Share, Spec};
pub use natural::Natural;
pub use pose::Pose;
pub use random::RandPos;
pub use registry::{METHODS, Method, MethodArgs, MethodEntry, MethodError, build, method, names};
pub use retrieval::Retrieval;
pub use uniform::Uniform;
pub use words::{Fact, Words};

use crate::rng::Rng;

/// A stretch of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Tokens of the document.
    Text(Range<usize>),
    /// Tokens that the method brings, and the loss weight of predicting each of them; a document's own weigh 1.
    Own(Arc<[u32]>, f32),
}

impl Part {
    /// Tokens in it.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(range) => range.len(),
            Self::Own(tokens, _) => tokens.len(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One document's share of a training row: which of its tokens, what else, and at which positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What stands in the row, in order; text ranges rise and do not overlap. The lengths sum to `positions.len()`.
    pub parts: Vec<Part>,
    /// Position of each token: strictly increasing, below the target; E²-LLM's are below the scale times the base's context.
    pub positions: Vec<u32>,
}

/// A position method. Its config struct is the implementation; everything random comes from `rng`, so a plan is a
/// function of `(seed, epoch, row)` and nothing needs saving.
pub trait PositionPlan: Send + Sync + std::fmt::Debug {
    /// The name in `--positions` and in files.
    fn name(&self) -> &'static str;

    /// Documents are cut into spans of this many rows; a method that picks content from all over its span wants more
    /// than one (the released PoSE code cuts at five).
    fn span_rows(&self) -> usize {
        1
    }

    /// Positions are divided by this (E²-LLM's `g`); `None` where the method leaves scaling to the run.
    fn rope_scale(&self, rng: &mut Rng) -> Option<f32> {
        let _ = rng;
        None
    }

    /// Fills `want` places (`1 <= want <= text.len()`) with tokens of the document `text` and gives them positions.
    /// `rope_scale` is what was drawn for the row.
    fn plan(&self, text: &[u32], want: usize, rope_scale: f32, rng: &mut Rng) -> Plan;
}

/// A run of consecutive tokens at consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    /// Tokens in it.
    len: usize,
    /// Positions skipped before it, counted from the start (PoSE's `u`); never decreases from chunk to chunk.
    skipped: usize,
    /// Document tokens skipped before it, counted from the start (PoSE's `v`); never decreases.
    passed: usize,
}

impl Plan {
    /// The text's first `want` tokens at contiguous positions.
    pub fn contiguous(want: usize) -> Self {
        Self::from_chunks([Chunk { len: want, skipped: 0, passed: 0 }])
    }

    /// Chunks laid end to end: token `k` of the row is at position `k + skipped`. Empty chunks vanish.
    fn from_chunks(chunks: impl IntoIterator<Item = Chunk>) -> Self {
        let mut plan = Self { parts: Vec::new(), positions: Vec::new() };
        for Chunk { len, skipped, passed } in chunks.into_iter().filter(|chunk| chunk.len > 0) {
            let start = plan.positions.len();
            plan.push(Part::Text(start + passed..start + passed + len), skipped);
        }
        plan
    }

    /// Adds a part whose tokens skip `skipped` positions, counted from the start.
    fn push(&mut self, part: Part, skipped: usize) {
        let start = self.positions.len() + skipped;
        self.positions.extend((start..start + part.len()).map(position));
        self.parts.push(part);
    }
}

/// A position as it is stored.
fn position(p: usize) -> u32 {
    u32::try_from(p).expect("positions: below 2^32 (checked by build)")
}

/// How many positions a row of `want` tokens can skip.
fn room(target: usize, want: usize) -> usize {
    target.checked_sub(want).expect("positions: a row is never longer than the target (checked by build)")
}

/// How many document tokens a row can skip.
fn slack(available: usize, want: usize) -> usize {
    debug_assert!(want >= 1, "a plan of no tokens");
    available.checked_sub(want).expect("positions: a row never wants more tokens than the document has")
}
