//! PoSE, positional skip-wise training (Zhu et al., arXiv 2309.10400, section 3).
//!
//! A row is cut into `N` chunks of lengths `l_i`; chunk `i` skips `u_i` positions and `v_i` document tokens:
//!
//! - positions: `u_0 = 0`, `u_i ~ U{u_{i−1} .. T−n}`
//! - content: `v_0 = 0`, `v_i ~ U{v_{i−1} .. available−n}`
//! - lengths: `l_i ~ U{1 .. ceil(rest / chunks left)}`, the last chunk takes the rest
//!
//! The paper leaves the lengths open. Two chunks follow the released code: `l_0 ~ U{1 .. (n+1)/2}`, so that the far
//! chunk is the longer one; the rule above is its extension to more. As in the code, the first chunk starts both the
//! document and the positions, so a beginning-of-text token is always at position 0.
//!
//! Draws, chunk by chunk: `u_i` and `v_i`, which the first chunk lacks, then `l_i`, which the last one lacks.

use super::{Chunk, Method, MethodArgs, MethodError, Plan, PositionPlan, Words, room, slack};
use crate::rng::Rng;

/// Chunks with random skips between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pose {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
    /// Chunks `N` per document, at least 1; a document of fewer tokens gets one chunk per token.
    pub chunks: usize,
}

impl Method for Pose {
    const NAME: &'static str = "pose";
    const ABOUT: &'static str = "PoSE: chunks of a document with random skips between them";

    fn new(args: &MethodArgs, _: &Words) -> Result<Self, MethodError> {
        let &MethodArgs { target, chunks, seq_len, .. } = args;
        match chunks {
            0 => Err(MethodError::Zero { what: "pose-chunks" }),
            _ if chunks > seq_len => Err(MethodError::TooManyChunks { chunks, seq_len }),
            _ => Ok(Self { target, chunks }),
        }
    }
}

impl PositionPlan for Pose {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn span_rows(&self) -> usize {
        5
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let (room, slack) = (room(self.target, want), slack(text.len(), want));
        let (mut rest, mut skipped, mut passed) = (want, 0, 0);
        Plan::from_chunks((1..=self.chunks.min(want)).rev().map(|left| {
            if rest < want {
                skipped = rng.between(skipped, room);
                passed = rng.between(passed, slack);
            }
            let len = if left == 1 { rest } else { rng.between(1, rest.div_ceil(left)) };
            rest -= len;
            Chunk { len, skipped, passed }
        }))
    }
}
