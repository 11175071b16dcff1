//! Text from a model, one token at a time.

use std::sync::Arc;

use crate::backend::Kernels;
use crate::data::Batch;
use crate::error::Result;
use crate::eval::EvalError;
use crate::eval::passkey::argmax;
use crate::model::rope::RopeScaling;
use crate::model::{KvCache, Llama, Recompute};
use crate::ops::attention::Segments;
use crate::ops::cross_entropy::{IGNORE, Targets};
use crate::rng::{Rng, Stream};
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Tokens of a text per forward pass: bounds memory, and the backend still works on full tiles. A device wants more of them at once
/// than the CPU.
pub(crate) fn piece_tokens(kernels: &dyn Kernels) -> usize {
    match kernels.usage() {
        Some(_) => 8192,
        None => 512,
    }
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest tokens that together reach this probability are drawn from (nucleus sampling, arXiv
    /// 1904.09751); 1 draws from all, and the likeliest is never excluded.
    pub top_p: f64,
    /// Decides the draws, together with the place in the text.
    pub seed: u64,
}

impl Sampler {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };

    /// The token for place `place` of the text; `None` when a logit is NaN or none is finite.
    pub fn sample(&self, logits: &[f32], place: usize) -> Option<u32> {
        let best = argmax(logits);
        let &top = logits.get(best as usize)?;
        if self.temperature <= 0.0 || top.is_infinite() {
            return top.is_finite().then_some(best);
        }
        let weight = |&logit: &f32| (f64::from(logit - top) / self.temperature).exp();
        let mut weights: Vec<(u32, f64)> = (0u32..).zip(logits.iter().map(weight)).collect();
        // The sort is stable, so of equals the first comes first, as in argmax.
        weights.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = weights.iter().map(|w| w.1).sum();
        let wanted = self.top_p.clamp(0.0, 1.0) * total;
        let mut mass = 0.0;
        let inside = weights.iter().take_while(|w| {
            let inside = mass < wanted;
            mass += w.1;
            inside
        });
        let nucleus = &weights[..inside.count().max(1)];
        let mass: f64 = nucleus.iter().map(|w| w.1).sum();
        let mut left = mass * Rng::at(self.seed, Stream::Sample, place as u64).uniform();
        let drawn = nucleus.iter().find(|w| {
            left -= w.1;
            left < 0.0
        });
        // Rounding can leave a sliver behind the last one.
        Some(drawn.unwrap_or(&nucleus[nucleus.len() - 1]).0)
    }
}

/// Continues `prompt` by at most `max_new` tokens, which are returned. Ends before a token of `stops`, which is left
/// out, or after one for which `on_token` returns false.
///
/// # Errors
/// [`EvalError::EmptyPrompt`], [`EvalError::Vocabulary`], [`EvalError::NotFinite`].
pub fn generate(
    kernels: &dyn Kernels,
    model: &Llama,
    prompt: &[u32],
    max_new: usize,
    sampler: &Sampler,
    stops: &[u32],
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(EvalError::EmptyPrompt.into());
    }
    EvalError::check_tokens(model, &[prompt])?;
    let most = prompt.len().saturating_add(max_new);
    let mut cache = cache_for(model, most);
    let mut text = prompt.to_vec();
    while text.len() < most {
        let last = hidden_behind(kernels, model, &text, 1, cache.as_mut(), piece_tokens(kernels))?;
        let logits = model.logits(kernels, &last)?;
        let token =
            sampler.sample(logits.to_host_f32()?.as_f32()?, text.len()).ok_or(EvalError::NotFinite { tokens: text.len() })?;
        if stops.contains(&token) {
            break;
        }
        text.push(token);
        if !on_token(token) {
            break;
        }
    }
    Ok(text.split_off(prompt.len()))
}

/// A cache for a text that grows to `most` tokens; none where it would be wrong: dynamic scaling turns all keys anew when the text
/// grows beyond the context, and those in a cache are turned already.
pub(crate) fn cache_for(model: &Llama, most: usize) -> Option<KvCache> {
    let grows = matches!(model.config.rope.scaling, RopeScaling::Dynamic { .. });
    (!grows || most <= model.config.context).then(|| KvCache::new(model.config.layers))
}

/// Hidden states of the last `tail` tokens of `text`, `(1, tail, hidden)`, once the cache holds all of it. What it already holds is
/// its beginning, without the tail; the rest is read in pieces of at most `piece` tokens. Without a cache everything is
/// computed anew in one pass.
pub fn hidden_behind(
    kernels: &dyn Kernels,
    model: &Llama,
    text: &[u32],
    tail: usize,
    mut cache: Option<&mut KvCache>,
    piece: usize,
) -> Result<Tensor> {
    let mut done = cache.as_ref().map_or(0, |cache| cache.tokens());
    if cache.is_some() {
        while text.len() - done > piece.max(tail) {
            let end = text.len().saturating_sub(tail).min(done + piece);
            let mut tape = Tape::inference(kernels);
            model.hidden(&mut tape, &following(&text[done..end], done), Recompute::Nothing, cache.as_deref_mut())?;
            done = end;
        }
    }
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, &following(&text[done..], done), Recompute::Nothing, cache)?;
    let [rows, width] = hidden.value().rows_cols("generate: hidden (1,T,C)")?;
    let matrix = hidden.value().reshape("generate: hidden (T,C)", [rows, width])?;
    let places: Vec<u32> = (rows - tail..rows).map(|place| place as u32).collect();
    // Picking rows of a matrix by number is what an embedding does.
    kernels.embedding_fwd(&Tensor::u32(places, [1, tail]), &matrix)
}

/// Tokens that follow `before` others.
fn following(tokens: &[u32], before: usize) -> Batch {
    let shape = [1, tokens.len()];
    let positions = (before..before + tokens.len()).map(|p| p as u32).collect();
    Batch {
        ids: Tensor::u32(tokens.to_vec(), shape),
        targets: Targets { ids: Tensor::u32(vec![IGNORE; tokens.len()], shape), weights: None },
        positions: Tensor::u32(positions, shape),
        rope_scale: vec![1.0],
        segments: Arc::new(Segments { starts: [vec![0; tokens.len()], vec![0; tokens.len()]] }),
    }
}

/// Turns tokens into text as they come. A character can be spread over several tokens; it is held back until it is whole.
pub struct TextStream<'a> {
    decode: &'a dyn Fn(&[u32]) -> Result<String>,
    tokens: Vec<u32>,
    shown: usize,
}

impl<'a> TextStream<'a> {
    /// A stream behind `prompt`, whose own text is not shown again.
    pub fn new(prompt: &[u32], decode: &'a dyn Fn(&[u32]) -> Result<String>) -> Result<Self> {
        Ok(Self { decode, tokens: prompt.to_vec(), shown: decode(prompt)?.len() })
    }

    /// The text that `token` completes; empty while a character is incomplete.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let text = (self.decode)(&self.tokens)?;
        // What cannot be decoded yet shows as replacement characters at the end.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        Ok(self.show(&text[..whole]))
    }

    /// What was held back, incomplete as it is.
    pub fn finish(mut self) -> Result<String> {
        let text = (self.decode)(&self.tokens)?;
        Ok(self.show(&text))
    }

    fn show(&mut self, text: &str) -> String {
        let new = text.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = self.shown.max(text.len());
        new
    }
}
