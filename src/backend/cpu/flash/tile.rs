//! The elementwise half of attention: visibility, softmax and its gradient on one tile of scores in base 2.

use super::TILE;
use crate::backend::cpu::simd::{Isa, Task, dispatch};

/// Vectors handled together, so that four dependent chains hide each other's latency. Divides every `TILE / LANES`.
const CHAINS: usize = 4;

/// Up to [`TILE`] consecutive queries of one head, one per lane. Unused lanes repeat the last query's range.
pub struct QueryTile {
    /// Lanes in use.
    pub lanes: usize,
    start: [u32; TILE],
    own: [u32; TILE],
}

impl QueryTile {
    /// Queries that see keys from `starts[lane]` to their own token, `first + lane`.
    ///
    /// # Panics
    /// If the starts are empty, more than [`TILE`], or past the query's own token.
    pub fn new(starts: &[u32], first: usize) -> Self {
        let lanes = starts.len();
        let own: [u32; TILE] = std::array::from_fn(|lane| (first + lane.min(lanes - 1)) as u32);
        let start = std::array::from_fn(|lane| starts[lane.min(lanes - 1)]);
        assert!(start.iter().zip(&own).all(|(start, own)| start <= own), "attention: a query does not see itself");
        debug_assert!(start.is_sorted(), "attention: visibility starts decrease");
        Self { lanes, start, own }
    }

    /// The keys any lane sees, as (first, len) of at most `step` keys. Starts do not decrease, so there is no gap.
    pub fn key_steps(&self, step: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let end = self.own[TILE - 1] as usize + 1;
        (self.start[0] as usize..end).step_by(step).map(move |first| (first, step.min(end - first)))
    }

    /// The tiles of [`TILE`] keys, counted from key 0, that hold a key some lane sees.
    pub fn key_tiles(&self) -> impl Iterator<Item = usize> + use<> {
        self.start[0] as usize / TILE..self.own[TILE - 1] as usize / TILE + 1
    }

    /// Whether some lane does not see some of the keys `first..first + len`.
    pub fn is_ragged(&self, first: usize, len: usize) -> bool {
        first + len - 1 > self.own[0] as usize || first < self.start[TILE - 1] as usize
    }
}

/// What the lanes of a tile of scores are; its rows are the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `S[key][query]`.
    Queries,
    /// `S[query][key]`.
    Keys,
}

/// Sets the scores of unseen keys to -inf.
pub struct Mask<'a> {
    /// Whose visibility.
    pub queries: &'a QueryTile,
    /// The tile's first key.
    pub first: usize,
    /// Rows of [`TILE`] scores.
    pub scores: &'a mut [f32],
    /// What the lanes are.
    pub lanes: Side,
}

impl Mask<'_> {
    /// Masks.
    pub fn run(self) {
        dispatch(self);
    }
}

impl Task for Mask<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let QueryTile { start, own, .. } = self.queries;
        let first = self.first as u32;
        for (row, scores) in self.scores.chunks_exact_mut(TILE).enumerate() {
            for (lane, score) in scores.iter_mut().enumerate() {
                let (query, key) = match self.lanes {
                    Side::Queries => (lane, first + row as u32),
                    Side::Keys => (row, first + lane as u32),
                };
                let seen = (start[query] <= key) & (key <= own[query]);
                *score = if seen { *score } else { f32::NEG_INFINITY };
            }
        }
    }
}

/// One step of the streaming softmax: scores become `2^(s - max)` under the new running maximum; the running sum and
/// the output columns are rescaled to it.
pub struct SoftmaxStep<'a> {
    /// `S[key][lane]`.
    pub scores: &'a mut [f32],
    /// Running maximum per lane; finite.
    pub max: &'a mut [f32; TILE],
    /// Running sum per lane.
    pub sum: &'a mut [f32; TILE],
    /// `O[d][lane]`.
    pub o: &'a mut [f32],
}

impl SoftmaxStep<'_> {
    /// Takes the step.
    pub fn run(self) {
        dispatch(self);
    }
}

impl Task for SoftmaxStep<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for lane in (0..TILE).step_by(CHAINS * I::LANES) {
            let at = |chain: usize| lane + chain * I::LANES;
            let mut max = [isa.splat(0.0); CHAINS];
            for (n, max) in max.iter_mut().enumerate() {
                *max = isa.load(&self.max[at(n)..]);
            }
            for scores in self.scores.chunks_exact(TILE) {
                for (n, max) in max.iter_mut().enumerate() {
                    *max = isa.max(*max, isa.load(&scores[at(n)..]));
                }
            }
            let mut rescale = [isa.splat(0.0); CHAINS];
            let mut sum = rescale;
            for n in 0..CHAINS {
                rescale[n] = isa.exp2(isa.sub(isa.load(&self.max[at(n)..]), max[n]));
                sum[n] = isa.mul(rescale[n], isa.load(&self.sum[at(n)..]));
            }
            for scores in self.scores.chunks_exact_mut(TILE) {
                for n in 0..CHAINS {
                    let p = isa.exp2(isa.sub(isa.load(&scores[at(n)..]), max[n]));
                    isa.store(p, &mut scores[at(n)..]);
                    sum[n] = isa.add(sum[n], p);
                }
            }
            for o in self.o.chunks_exact_mut(TILE) {
                for (n, &rescale) in rescale.iter().enumerate() {
                    let o = &mut o[at(n)..];
                    isa.store(isa.mul(rescale, isa.load(o)), o);
                }
            }
            for n in 0..CHAINS {
                isa.store(max[n], &mut self.max[at(n)..]);
                isa.store(sum[n], &mut self.sum[at(n)..]);
            }
        }
    }
}

/// Scores `S[query][key]` become `p = 2^(s - lse)`, and `dp = do . v` becomes `ds = p (dp - do . o)`.
pub struct GradStep<'a> {
    /// `S[query][lane]`.
    pub scores: &'a mut [f32],
    /// `dP[query][lane]`.
    pub grads: &'a mut [f32],
    /// Log-sum-exp per query, in base 2.
    pub lse: &'a [f32; TILE],
    /// `do . o` per query.
    pub delta: &'a [f32; TILE],
}

impl GradStep<'_> {
    /// Takes the step.
    pub fn run(self) {
        dispatch(self);
    }
}

impl Task for GradStep<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let rows = self.scores.chunks_exact_mut(TILE).zip(self.grads.chunks_exact_mut(TILE));
        for ((scores, grads), (&lse, &delta)) in rows.zip(self.lse.iter().zip(self.delta)) {
            let (lse, delta) = (isa.splat(lse), isa.splat(delta));
            for lane in (0..TILE).step_by(I::LANES) {
                let p = isa.exp2(isa.sub(isa.load(&scores[lane..]), lse));
                let ds = isa.mul(p, isa.sub(isa.load(&grads[lane..]), delta));
                isa.store(p, &mut scores[lane..]);
                isa.store(ds, &mut grads[lane..]);
            }
        }
    }
}
