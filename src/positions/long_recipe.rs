//! LongRecipe's rows (Hu et al., arXiv 2409.00509, sections 4.1 and 4.2, appendix algorithm 1).
//!
//! 1. **Selection.** The document is cut into sentences. Kept are its first one, those with a marked token (an impactful one, or a
//!    digit), and of the others a share. The row's `n` tokens are filled with kept ones, drawn evenly from the whole document, and
//!    with the others where that is not enough; the one drawn last is cut. The text's order stays.
//! 2. **Positions.** The `T−n` skipped positions fall between the `N` kept sentences and behind the last one as a uniform random
//!    composition: of `T−n+N` slots the first and `N−1` others, drawn without replacement, are the sentences.
//! 3. **Head.** The first `h ~ U{1 .. (n+1)/2}` tokens keep contiguous positions; the skips of their sentences come after them.
//!
//! The released code selects on the first part of the text, until the row is full, so that nobody ever reads the rest; and it lays
//! positions over the unselected text, and pairs texts with lists of other documents. Here one plan makes both, so they cannot
//! part. A sentence keeps its tokens at consecutive positions, but for the one that the head ends in.
//!
//! Draws: for every sentence but the first, in order, its turn (`LongRecipe::turn`); the slots, by Floyd's sampling as in
//! `random`; `h`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Method, MethodArgs, MethodError, Part, Plan, PositionPlan, Words, room};
use crate::data::MASKED;
use crate::rng::Rng;

/// Sentences that matter, with gaps between them.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRecipe {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
    /// Share of the sentences without a marked token that is kept (the released script's default: a half).
    pub rest: f64,
    /// By id: ends a sentence.
    pub ends: Arc<[bool]>,
    /// By id: makes its sentence worth keeping.
    pub marked: Arc<[bool]>,
}

impl Method for LongRecipe {
    const NAME: &'static str = "longrecipe";
    const ABOUT: &'static str = "LongRecipe: impactful sentences of a long document, gaps between them";

    fn new(args: &MethodArgs, words: &Words) -> Result<Self, MethodError> {
        let (ends, marked) = (Arc::clone(&words.ends), Arc::clone(&words.marked));
        Ok(Self { target: args.target, rest: args.select_rest, ends, marked })
    }
}

impl PositionPlan for LongRecipe {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// Rows of 30 % of the target choose from all of it.
    fn span_rows(&self) -> usize {
        4
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let kept = self.select(text, want, rng);
        let skips = composition(room(self.target, want), kept.len(), rng);
        let head = rng.between(1, want.div_ceil(2));
        let mut plan = Plan { parts: Vec::new(), positions: Vec::new() };
        for (sentence, skipped) in kept.into_iter().zip(skips) {
            let near = head.saturating_sub(plan.positions.len()).min(sentence.len());
            let (first, rest) = (sentence.start..sentence.start + near, sentence.start + near..sentence.end);
            for (tokens, skipped) in [(first, 0), (rest, skipped)] {
                if !tokens.is_empty() {
                    plan.push(Part::Text(tokens), skipped);
                }
            }
        }
        plan
    }
}

impl LongRecipe {
    fn is(flags: &[bool], token: u32) -> bool {
        flags.get((token & !MASKED) as usize).copied().unwrap_or(false)
    }

    /// When a sentence's turn comes to be taken, by a number in `[0, 1)`: all that are kept are alike, and come before the others.
    fn turn(&self, sentence: &[u32], u: f64) -> f64 {
        let matters = sentence.iter().any(|&token| Self::is(&self.marked, token));
        match matters {
            true => u,
            false if u < self.rest => u / self.rest,
            false => 1.0 + u,
        }
    }

    /// Ranges of the sentences that fill `want` tokens, in order.
    fn select(&self, text: &[u32], want: usize, rng: &mut Rng) -> Vec<Range<usize>> {
        // The document's beginning stays: a beginning-of-text token belongs to position 0.
        let turn = |s: &Range<usize>, rng: &mut Rng| if s.start == 0 { -1.0 } else { self.turn(&text[s.clone()], rng.uniform()) };
        let sentences = sentences(text, |token| Self::is(&self.ends, token));
        let mut waiting: Vec<(f64, Range<usize>)> = sentences.map(|s| (turn(&s, rng), s)).collect();
        waiting.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut left = want;
        let taken = waiting.into_iter().map(|(_, s)| {
            let cut = s.start..s.end.min(s.start + left);
            left -= cut.len();
            cut
        });
        let mut kept: Vec<Range<usize>> = taken.take_while(|s| !s.is_empty()).collect();
        kept.sort_by_key(|s| s.start);
        kept
    }
}

/// Sentences of a text; the token that ends one is its last.
fn sentences(text: &[u32], ends: impl Fn(u32) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|&token| ends(token)).map_or(rest.len(), |at| at + 1);
        start += len;
        Some(start - len..start)
    })
}

/// Positions skipped before each of `count` sentences, counted from the start: `room` skips in a uniform random composition whose last
/// part lies behind the last sentence.
fn composition(room: usize, count: usize, rng: &mut Rng) -> Vec<usize> {
    // `count - 1` of the slots behind the first, without replacement (Floyd's sampling).
    let slots = room + count - 1;
    let mut chosen = BTreeSet::new();
    for last in room..slots {
        let drawn = rng.between(0, last);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    std::iter::once(0).chain(chosen.into_iter().enumerate().map(|(i, slot)| slot - i)).collect()
}
