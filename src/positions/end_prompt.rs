//! EndPrompt (section 3, eq. 4 to 11): short text at its true positions, and a fixed prompt at the very end of the target.
//!
//! - text: the document's first `n − b` tokens, positions `0 .. n−b−1`
//! - prompt: `b` tokens, positions `T−b .. T−1`
//!
//! The distances it shows are those within the text and `T−n+1 .. T−1`, but the far ones only between text and prompt; everything
//! between is left to the smoothness of interpolation. The paper gives the prompt's loss a small weight and does not say which; the
//! released code gives it 1. A constant prompt is known by heart after a few steps, so 0.1 is the default here. A document with no
//! more than twice the prompt's length stays as it is.

use std::sync::Arc;

use super::{Method, MethodArgs, MethodError, Part, Plan, PositionPlan, Words, room};
use crate::rng::Rng;

/// A prompt at the end of the target.
#[derive(Debug, Clone, PartialEq)]
pub struct EndPrompt {
    /// Target context `T`; at least as long as the longest row.
    pub target: usize,
    /// The prompt, `b` tokens.
    pub prompt: Arc<[u32]>,
    /// Loss weight of its tokens.
    pub weight: f32,
}

impl Method for EndPrompt {
    const NAME: &'static str = "endprompt";
    const ABOUT: &'static str = "EndPrompt: short text, and a fixed prompt at the end of the target";

    fn new(args: &MethodArgs, words: &Words) -> Result<Self, MethodError> {
        Ok(Self { target: args.target, prompt: Arc::clone(&words.end_prompt), weight: args.end_prompt_weight })
    }
}

impl PositionPlan for EndPrompt {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn plan(&self, _text: &[u32], want: usize, _rope_scale: f32, _rng: &mut Rng) -> Plan {
        let room = room(self.target, want);
        let b = self.prompt.len();
        if want <= 2 * b {
            return Plan::contiguous(want);
        }
        let mut plan = Plan::contiguous(want - b);
        if b > 0 {
            plan.push(Part::Own(Arc::clone(&self.prompt), self.weight), room);
        }
        plan
    }
}
