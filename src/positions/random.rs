//! RandPos (Ruoss et al., arXiv 2305.16843), the baseline of PoSE's Table 1: all positions at random.
//!
//! Positions: a sorted sample without replacement of `want` out of `0..target`. Locality is lost, and with it quality
//! (perplexity above 11 where PoSE has 4.8); it is here to show that. Content: a window at a uniformly random offset.
//!
//! Draws: the window's offset, then Floyd's sampling: for `last = T−n .. T−1` a number in `0..=last`, which joins the sample; where it
//! is there already, `last` joins.

use std::collections::BTreeSet;

use super::{Method, MethodArgs, MethodError, Part, Plan, PositionPlan, Words, position, room, slack};
use crate::rng::Rng;

/// A sorted random subset of all positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandPos {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
}

impl Method for RandPos {
    const NAME: &'static str = "random";
    const ABOUT: &'static str = "RandPos: every position at random (a baseline that does badly)";

    fn new(args: &MethodArgs, _: &Words) -> Result<Self, MethodError> {
        Ok(Self { target: args.target })
    }
}

impl PositionPlan for RandPos {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let start = rng.between(0, slack(text.len(), want));
        // Floyd's sampling: one draw per chosen position, whatever the target.
        let mut chosen = BTreeSet::new();
        for last in room(self.target, want)..self.target {
            let drawn = rng.between(0, last);
            if !chosen.insert(drawn) {
                chosen.insert(last);
            }
        }
        Plan { parts: vec![Part::Text(start..start + want)], positions: chosen.into_iter().map(position).collect() }
    }
}
