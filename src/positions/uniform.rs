//! Coverage-uniform skips: PoSE's two chunks, drawn so that every relative distance is trained about equally often.
//!
//! PoSE's pairs at distance `D` are flat on `n ≤ D ≤ T−n` and fall to nothing at `T`: the longest distances, which the
//! target promises, are the ones it never sees. Here, per document of `n` tokens,
//!
//! - 10 %: contiguous (fills the distances `n/2..n`, which equal halves leave out)
//! - 72 %: halves, `l_0 = n/2` rounded up, `u ~ U{0 .. T−n}` (most pairs per row: `l_0·l_1 = n²/4`, PoSE's mean is `n²/6`)
//! - 18 %: terminal, the last `n/16` tokens, one at least, end at `T−1`
//!
//! For n = 256, T = 2048, without the contiguous rows, against PoSE: mean pairs per far distance 7.25 (5.72), their
//! coefficient of variation over `n..T−n/32` 0.133 (0.224), density at `T−n/16` relative to the mean 0.45 (0.01).
//! Content as in PoSE: the first chunk starts the document, the second follows after a uniformly random gap.
//!
//! Draws: contiguous (a number in `[0, 1)` below 0.1) or not; if not, terminal (below 0.2) or not; `u` of halves; the content's gap.

use super::{Chunk, Method, MethodArgs, MethodError, Plan, PositionPlan, Words, room, slack};
use crate::rng::Rng;

/// Share of contiguous rows.
const CONTIGUOUS: f64 = 0.1;
/// Share of terminal chunks among the others.
const TERMINAL: f64 = 0.2;
/// A terminal chunk is the row divided by this.
const TERMINAL_PARTS: usize = 16;

/// Equal halves and terminal chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uniform {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
}

impl Method for Uniform {
    const NAME: &'static str = "uniform";
    const ABOUT: &'static str = "PoSE with evenly trained distances, the longest included";

    fn new(args: &MethodArgs, _: &Words) -> Result<Self, MethodError> {
        Ok(Self { target: args.target })
    }
}

impl PositionPlan for Uniform {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn span_rows(&self) -> usize {
        5
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let (room, slack) = (room(self.target, want), slack(text.len(), want));
        let (last, skipped) = if rng.uniform() < CONTIGUOUS {
            (0, 0)
        } else if rng.uniform() < TERMINAL {
            // The document's first token stays at position 0, however short the document.
            ((want / TERMINAL_PARTS).max(1).min(want - 1), room)
        } else {
            (want / 2, rng.between(0, room))
        };
        let passed = rng.between(0, slack);
        Plan::from_chunks([Chunk { len: want - last, skipped: 0, passed: 0 }, Chunk { len: last, skipped, passed }])
    }
}
