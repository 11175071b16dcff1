//! Answers that are generated, greedily, and scored as text.

use std::sync::atomic::AtomicBool;

use super::score::Rule;
use super::stopped;
use crate::backend::Kernels;
use crate::data::Encode;
use crate::error::Result;
use crate::generate::{Sampler, generate};
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
    /// Most tokens of the answer.
    pub most: usize,
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
    /// Ends it before its next token.
    pub stop: &'a AtomicBool,
}

impl Writer<'_> {
    /// The score of the model's continuation, which ends as soon as more words could not change it. `None` when stopped.
    pub fn score(&self, prompt: &Prompt) -> Result<Option<f64>> {
        let mut written = Vec::new();
        let mut failed = None;
        let mut on_token = |token: u32| {
            written.push(token);
            match self.language.decode(&written) {
                Ok(text) => !stopped(self.stop) && !prompt.rule.settled(&text, prompt.answers),
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        };
        let stops = self.language.stops();
        let tokens = generate(self.kernels, self.model, prompt.tokens, prompt.most, &Sampler::GREEDY, stops, &mut on_token)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let text = self.language.decode(&tokens)?;
        Ok((!stopped(self.stop)).then(|| prompt.rule.score(&text, prompt.answers)))
    }
}
