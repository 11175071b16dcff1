//! LongRecipe's rows (Hu et al., arXiv 2409.00509, sections 4.1 and 4.2, appendix algorithm 1).
//!
//! 1. **Selection.** The document is cut into sentences. Those with a marked token (an impactful one, or a digit) are kept, of the
//!    others a share, until the row's `n` tokens are full; the last one is cut. Where that is not enough, the first of the others
//!    fill the rest. The text's order stays.
//! 2. **Positions.** The `T−n` skipped positions fall between the `N` kept sentences and behind the last one as a uniform random
//!    composition: of `T−n+N` slots the first and `N−1` others, drawn without replacement, are the sentences.
//! 3. **Head.** The first `h ~ U{1 .. (n+1)/2}` tokens keep contiguous positions; the skips of their sentences come after them.
//!
//! The released code selects on the first part of the text but lays positions over the unselected one, and pairs texts with lists of
//! other documents; here one plan makes both, so they cannot part. A sentence keeps its tokens at consecutive positions, but for
//! the one that the head ends in.
//!
//! Draws: for every sentence without a marked token, in order, a number in `[0, 1)`, which keeps it when it is below the share (the
//! document's first sentence is always kept and draws none); the slots, by Floyd's sampling as in `random`; `h`.

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

    /// Ranges of the sentences that fill `want` tokens, in order.
    fn select(&self, text: &[u32], want: usize, rng: &mut Rng) -> Vec<Range<usize>> {
        let sentences: Vec<Range<usize>> = sentences(text, |token| Self::is(&self.ends, token)).collect();
        // The document's beginning stays: a beginning-of-text token belongs to position 0.
        let worth = |s: &Range<usize>| s.start == 0 || text[s.clone()].iter().any(|&token| Self::is(&self.marked, token));
        let mut chosen: Vec<bool> = sentences.iter().map(|s| worth(s) || rng.uniform() < self.rest).collect();
        let total: usize = sentences.iter().zip(&chosen).filter(|(_, c)| **c).map(|(s, _)| s.len()).sum();
        let mut missing = want.saturating_sub(total);
        for (sentence, chosen) in sentences.iter().zip(&mut chosen).filter(|(_, c)| !**c) {
            if missing == 0 {
                break;
            }
            *chosen = true;
            missing = missing.saturating_sub(sentence.len());
        }
        let mut left = want;
        let kept = sentences.into_iter().zip(chosen).filter(|(_, c)| *c).map(|(s, _)| {
            let cut = s.start..s.end.min(s.start + left);
            left -= cut.len();
            cut
        });
        kept.filter(|s| !s.is_empty()).collect()
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
