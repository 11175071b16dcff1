//! E²-LLM (Liu et al., arXiv 2401.06951, section 4, eq. 4 to 8): random interpolation scales and offsets on one short context.
//!
//! - scale: `g ~ U{1 .. G_max}` per training row, or per step; every position is divided by it
//! - offset: `t ~ U{0 .. max(0, g·L0 − n)}` per document
//! - positions: `m` for the first four tokens, `m + t` for the rest, kept as integers: the rotation divides by `g`
//!
//! The first four tokens stay put because attention dumps its surplus there (the paper's reason). Content: a window of
//! the document at a uniformly random offset. Where the paper is unclear: its equations draw `g` per iteration, its text
//! per sample, and both can be had; where it is silent: a row longer than `g·L0` gets no offset, so it sees positions beyond the base context without interpolation.
//!
//! Draws: `g` from the stream of scales, at the number of the row or of the step; then for each document `t` and the window's offset.
//!
//! What it trains is densities and far access to the first tokens: distances between later tokens never exceed the row.

use super::registry::check_positions;
use super::{Chunk, Method, MethodArgs, MethodError, Plan, PositionPlan, Words, slack};
use crate::rng::Rng;

/// Tokens without offset.
const SINKS: usize = 4;

/// Random scale, random offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E2Llm {
    /// The base model's context `L0`.
    pub context: usize,
    /// Largest scale `G_max`, at least 1. The paper trains with 20.
    pub max_scale: usize,
}

impl Method for E2Llm {
    const NAME: &'static str = "e2-llm";
    const ABOUT: &'static str = "E2-LLM: random interpolation scale per row, random offset per document";

    fn new(args: &MethodArgs, _: &Words) -> Result<Self, MethodError> {
        let &MethodArgs { target, context, max_scale, .. } = args;
        let max_scale = max_scale.unwrap_or_else(|| target.div_ceil(context));
        if max_scale == 0 {
            return Err(MethodError::Zero { what: "max-scale" });
        }
        check_positions(max_scale.saturating_mul(context))?;
        Ok(Self { context, max_scale })
    }
}

impl PositionPlan for E2Llm {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn rope_scale(&self, rng: &mut Rng) -> Option<f32> {
        Some(rng.between(1, self.max_scale) as f32)
    }

    /// Positions are below `max(rope_scale · context, want)`.
    fn plan(&self, text: &[u32], want: usize, rope_scale: f32, rng: &mut Rng) -> Plan {
        let window = rope_scale as usize * self.context;
        let offset = rng.between(0, window.saturating_sub(want));
        let passed = rng.between(0, slack(text.len(), want));
        let sinks = want.min(SINKS);
        Plan::from_chunks([Chunk { len: sinks, skipped: 0, passed }, Chunk { len: want - sinks, skipped: offset, passed }])
    }
}
