//! Contiguous positions: ordinary training, and the control every other method is compared with.
//!
//! Position of token `k`: `k`. Content: a window of the document at a uniformly random offset, the only draw.

use super::{Chunk, Method, MethodArgs, MethodError, Plan, PositionPlan, Words, slack};
use crate::rng::Rng;

/// Contiguous positions from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Natural;

impl Method for Natural {
    const NAME: &'static str = "natural";
    const ABOUT: &'static str = "contiguous positions: full-length training, or a control";

    fn new(_: &MethodArgs, _: &Words) -> Result<Self, MethodError> {
        Ok(Self)
    }
}

impl PositionPlan for Natural {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let passed = rng.between(0, slack(text.len(), want));
        Plan::from_chunks([Chunk { len: want, skipped: 0, passed }])
    }
}
