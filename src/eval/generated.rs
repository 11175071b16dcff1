//! Answers that are generated, greedily, and scored as text.

use std::sync::atomic::AtomicBool;

use super::score::Rule;
use super::stopped;
use crate::backend::Kernels;
use crate::data::Encode;
use crate::error::Result;
use crate::generate::{Sampler, Until, generate_together};
use crate::io::TextTokenizer;
use crate::io::tokenizer::SpecialTokens;
use crate::model::Llama;

/// Text to tokens and back.
pub trait Language: Encode {
    /// Text of token ids, without special tokens.
    fn decode(&self, ids: &[u32]) -> Result<String>;
    /// Tokens that end a text.
    fn stops(&self) -> &[u32];
}

impl Language for TextTokenizer {
    fn decode(&self, ids: &[u32]) -> Result<String> {
        Self::decode(self, ids, SpecialTokens::Skip)
    }

    fn stops(&self) -> &[u32] {
        Self::stops(self)
    }
}

/// A prompt to be continued.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'p> {
    /// Its tokens.
    pub tokens: &'p [u32],
    /// How the answer is scored.
    pub rule: &'p Rule,
    /// Against what.
    pub answers: &'p [String],
}

/// Continues prompts.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Where it runs.
    pub kernels: &'a dyn Kernels,
    /// What writes.
    pub model: &'a Llama,
    /// What it writes in.
    pub language: &'a dyn Language,
    /// Ends it before its next prompt or token.
    pub stop: &'a AtomicBool,
}

impl Writer<'_> {
    /// The scores of the model's continuations of at most `most` tokens, which are written together; each ends as soon as more words
    /// could not change its score. `None` when stopped.
    pub fn scores(&self, prompts: &[Prompt], most: usize) -> Result<Option<Vec<f64>>> {
        let mut written = vec![Vec::new(); prompts.len()];
        let mut failed = None;
        let mut on_token = |at: usize, token: u32| {
            written[at].push(token);
            // What cannot be decoded ends all texts.
            let text = if failed.is_none() { self.language.decode(&written[at]) } else { return false };
            match text {
                Ok(text) => !prompts[at].rule.settled(&text, prompts[at].answers),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        };
        let texts: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens).collect();
        let until = Until { max_new: most, stops: self.language.stops(), stop: self.stop };
        let written = generate_together(self.kernels, self.model, &texts, &Sampler::GREEDY, &until, &mut on_token)?;
        if let Some(error) = failed {
            return Err(error);
        }
        if stopped(self.stop) {
            return Ok(None);
        }
        let score =
            |(prompt, tokens): (&Prompt, &Vec<u32>)| Ok(prompt.rule.score(&self.language.decode(tokens)?, prompt.answers));
        prompts.iter().zip(&written).map(score).collect::<Result<_>>().map(Some)
    }
}
