//! Where tokens pretend to be: one file per method, one trait, one registry.
//!
//! A method is one file with a config struct implementing [`PositionPlan`] and [`Method`], its `mod` line and its line
//! in [`METHODS`]; tests and help find it there. Positions are raw integers: a method that interpolates says so through
//! [`PositionPlan::rope_scale`] and leaves the division to the rotation.

pub mod coverage;
pub mod e2_llm;
pub mod natural;
pub mod pose;
pub mod random;
mod registry;
pub mod uniform;

use std::ops::Range;

pub use coverage::{Coverage, CoverageBucket};
pub use e2_llm::E2Llm;
pub use natural::Natural;
pub use pose::Pose;
pub use random::RandPos;
pub use registry::{METHODS, Method, MethodArgs, MethodEntry, MethodError, build, names};
pub use uniform::Uniform;

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

    /// Documents are cut into spans of this many rows; a method that picks content from all over its span wants more
    /// than one (the released PoSE code cuts at five).
    fn span_rows(&self) -> usize {
        1
    }

    /// Positions are divided by this (E²-LLM's `g`); drawn once per training row.
    fn rope_scale(&self, rng: &mut Rng) -> f32 {
        let _ = rng;
        1.0
    }

    /// Chooses `want` of a document's `available` tokens (`1 <= want <= available`) and their positions.
    fn plan(&self, available: usize, want: usize, rope_scale: f32, rng: &mut Rng) -> Plan;
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
    /// Chunks laid end to end: token `k` of the row is at position `k + skipped`. Empty chunks vanish.
    fn from_chunks(chunks: impl IntoIterator<Item = Chunk>) -> Self {
        let mut plan = Self { tokens: Vec::new(), positions: Vec::new() };
        for Chunk { len, skipped, passed } in chunks.into_iter().filter(|chunk| chunk.len > 0) {
            let start = plan.positions.len();
            plan.tokens.push(start + passed..start + passed + len);
            plan.positions.extend((start + skipped..start + skipped + len).map(position));
        }
        plan
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
