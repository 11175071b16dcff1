//! Rows that cannot be predicted without looking far back.
//!
//! In an ordinary skip-wise row the far chunk is text that the model may ignore. Here the first chunk states a fact, others about
//! different things stand around it, and the row ends with the question and its answer, whose tokens weigh [`ANSWER`] in the loss.
//! Positions are those of [`Uniform`](super::Uniform)'s far rows: two chunks, the second after `u ~ U{0 .. T−n}` skipped positions, or
//! ending at the target. The templates are not those of any evaluation here. A document too short for a fact stays as it is.
//!
//! Draws, in this order:
//!
//! - `v ~ U{0 .. available−n}`, the tokens skipped behind the jump, or in front of a row without facts
//! - the things in random order and how many others, 2 to 5; then for each thing which of its facts. The first is asked for. They end
//!   before the first one that would take more than `n/2` tokens together with question and answer
//! - `k ~ U{0 .. others}`: so many stand before the fact asked for, in the order drawn; `j ~ U{k+1 .. facts}`: so many facts stand
//!   before the jump
//! - for each fact the text in front of it, counted from the start, `U{1 .. text}`, then sorted. Text behind the `j`-th fact, like
//!   everything after it, is behind the jump
//! - terminal (a number in `[0, 1)` below 0.2) or not; if not, `u`

use std::sync::Arc;

use super::{Chunk, Fact, Method, MethodArgs, MethodError, Part, Plan, PositionPlan, Words, room, slack};
use crate::rng::Rng;

/// Loss weight of an answer's tokens.
pub const ANSWER: f32 = 6.0;
/// Share of rows that end at the target.
const TERMINAL: f64 = 0.2;
/// Facts about other things, at least and at most.
const OTHERS: (usize, usize) = (2, 5);

/// Facts and a question about one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieval {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
    /// By the thing that they are about.
    pub facts: Arc<[Vec<Fact>]>,
}

impl Method for Retrieval {
    const NAME: &'static str = "retrieval";
    const ABOUT: &'static str = "a fact, others around it, and far away the question (for a share of a mix)";

    fn new(args: &MethodArgs, words: &Words) -> Result<Self, MethodError> {
        Ok(Self { target: args.target, facts: Arc::clone(&words.facts) })
    }
}

impl PositionPlan for Retrieval {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn plan(&self, text: &[u32], want: usize, _rope_scale: f32, rng: &mut Rng) -> Plan {
        let passed = rng.between(0, slack(text.len(), want));
        let Some(facts) = self.draw(want, rng) else {
            return Plan::from_chunks([Chunk { len: want, skipped: 0, passed }]);
        };
        let end = [&facts[0].question, &facts[0].answer].map(|t| t.len()).iter().sum::<usize>();
        let own = end + facts.iter().map(|f| f.statement.len()).sum::<usize>();

        // The fact that is asked for comes before the jump, the others anywhere; text before, between and behind.
        let asked = rng.between(0, facts.len() - 1);
        let jump = rng.between(asked + 1, facts.len());
        let mut cuts: Vec<usize> = (0..facts.len()).map(|_| rng.between(1, want - own)).collect();
        cuts.sort_unstable();
        let room = room(self.target, want);
        let far = if rng.uniform() < TERMINAL { room } else { rng.between(0, room) };

        let mut plan = Plan { parts: Vec::new(), positions: Vec::new() };
        let mut order = facts[1..].to_vec();
        order.insert(asked, facts[0]);
        let mut at = 0;
        for (i, end) in cuts.into_iter().chain([want - own]).enumerate() {
            let skipped = if i >= jump { far } else { 0 };
            if end > at {
                // Content is skipped where positions are, so that the beginning of the text stays.
                let passed = if i >= jump { passed } else { 0 };
                plan.push(Part::Text(at + passed..end + passed), skipped);
            }
            at = end;
            if let Some(fact) = order.get(i) {
                plan.push(Part::Own(Arc::clone(&fact.statement), 1.0), skipped);
            }
        }
        plan.push(Part::Own(Arc::clone(&facts[0].question), 1.0), far);
        plan.push(Part::Own(Arc::clone(&facts[0].answer), ANSWER), far);
        plan
    }
}

impl Retrieval {
    /// The fact to ask for and others, about different things, that take at most half of `want` tokens.
    fn draw(&self, want: usize, rng: &mut Rng) -> Option<Vec<&Fact>> {
        let mut things: Vec<usize> = (0..self.facts.len()).collect();
        rng.shuffle(&mut things);
        let count = 1 + rng.between(OTHERS.0, OTHERS.1);
        let mut left = want / 2;
        let mut drawn: Vec<&Fact> = Vec::new();
        for thing in things.into_iter().take(count) {
            let about = &self.facts[thing];
            let fact = &about[rng.between(0, about.len() - 1)];
            let question = if drawn.is_empty() { fact.question.len() + fact.answer.len() } else { 0 };
            let Some(rest) = left.checked_sub(fact.statement.len() + question) else { break };
            left = rest;
            drawn.push(fact);
        }
        (!drawn.is_empty()).then_some(drawn)
    }
}
