//! Text from a model, one token at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
/// As [`generate_together`].
pub fn generate(
    kernels: &dyn Kernels,
    model: &Llama,
    prompt: &[u32],
    max_new: usize,
    sampler: &Sampler,
    stops: &[u32],
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let until = Until { max_new, stops, stop: &AtomicBool::new(false) };
    let mut texts = generate_together(kernels, model, &[prompt], sampler, &until, &mut |_, token| on_token(token))?;
    Ok(texts.remove(0))
}

/// When texts end.
#[derive(Debug, Clone, Copy)]
pub struct Until<'a> {
    /// Most tokens of each.
    pub max_new: usize,
    /// Tokens that end one, and are left out.
    pub stops: &'a [u32],
    /// Raised, it ends all of them before the next prompt or token.
    pub stop: &'a AtomicBool,
}

/// Continues several prompts, as [`generate`] does one: they are read one after the other, and then a token of each costs one pass
/// over the weights for all. `on_token` hears the number of the prompt with each token.
///
/// # Errors
/// [`EvalError::EmptyPrompt`], [`EvalError::Vocabulary`], [`EvalError::NotFinite`].
pub fn generate_together(
    kernels: &dyn Kernels,
    model: &Llama,
    prompts: &[&[u32]],
    sampler: &Sampler,
    &Until { max_new, stops, stop }: &Until,
    on_token: &mut dyn FnMut(usize, u32) -> bool,
) -> Result<Vec<Vec<u32>>> {
    if prompts.iter().any(|prompt| prompt.is_empty()) {
        return Err(EvalError::EmptyPrompt.into());
    }
    EvalError::check_tokens(model, prompts)?;
    let mut texts: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0).saturating_add(max_new);
    // Nobody means it who asks for more.
    let cache = |prompt: &&[u32]| KvCache::new(model.config.layers, prompt.len() + max_new.min(4096));
    let mut caches: Option<Vec<KvCache>> = is_cached(model, longest).then(|| prompts.iter().map(cache).collect());
    // Texts that go on, each with its cache at the same place.
    let mut live: Vec<usize> = if max_new == 0 { Vec::new() } else { (0..texts.len()).collect() };
    let mut read = false;
    'texts: while !live.is_empty() && !stop.load(Ordering::Relaxed) {
        let last = match &mut caches {
            Some(caches) if read => {
                let rows: Vec<_> = live.iter().map(|&at| texts[at].split_at(texts[at].len() - 1)).collect();
                let mut tape = Tape::inference(kernels);
                model.hidden(&mut tape, &following(&rows), Recompute::Nothing, Some(caches))?.value().clone()
            }
            caches => {
                let mut caches = caches.iter_mut().flatten();
                let mut last = Vec::with_capacity(live.len());
                for &at in &live {
                    if stop.load(Ordering::Relaxed) {
                        break 'texts;
                    }
                    last.push(hidden_behind(kernels, model, &texts[at], 1, caches.next(), piece_tokens(kernels))?);
                }
                Tensor::joined(last)?
            }
        };
        read = true;
        let logits = model.logits(kernels, &last)?.to_host_f32()?;
        let mut goes_on = Vec::with_capacity(live.len());
        for (&at, logits) in live.iter().zip(logits.as_f32()?.chunks_exact(model.config.vocab)) {
            let text = &mut texts[at];
            let token = sampler.sample(logits, text.len()).ok_or(EvalError::NotFinite { tokens: text.len() })?;
            let ends = stops.contains(&token);
            if !ends {
                text.push(token);
            }
            goes_on.push(!ends && on_token(at, token) && text.len() - prompts[at].len() < max_new);
        }
        keep(&mut live, &goes_on);
        if let Some(caches) = &mut caches {
            keep(caches, &goes_on);
        }
    }
    Ok(texts.iter_mut().zip(prompts).map(|(text, prompt)| text.split_off(prompt.len())).collect())
}

/// Those items whose mark is set.
fn keep<T>(items: &mut Vec<T>, marks: &[bool]) {
    let mut marks = marks.iter();
    items.retain(|_| *marks.next().expect("generate: a mark for each text"));
}

/// Whether a text that grows to `most` tokens may have a cache: dynamic scaling turns all keys anew when the text grows beyond the
/// context, and those in a cache are turned already.
pub(crate) fn is_cached(model: &Llama, most: usize) -> bool {
    !matches!(model.config.rope.scaling, RopeScaling::Dynamic { .. }) || most <= model.config.context
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
            let cache = cache.as_deref_mut().map(std::slice::from_mut);
            model.hidden(&mut tape, &following(&[(&text[..done], &text[done..end])]), Recompute::Nothing, cache)?;
            done = end;
        }
    }
    let mut tape = Tape::inference(kernels);
    let cache = cache.map(std::slice::from_mut);
    let hidden = model.hidden(&mut tape, &following(&[text.split_at(done)]), Recompute::Nothing, cache)?;
    let [rows, width] = hidden.value().rows_cols("generate: hidden (1,T,C)")?;
    let matrix = hidden.value().reshape("generate: hidden (T,C)", [rows, width])?;
    let places: Vec<u32> = (rows - tail..rows).map(|place| place as u32).collect();
    // Picking rows of a matrix by number is what an embedding does.
    kernels.embedding_fwd(&Tensor::u32(places, [1, tail]), &matrix)
}

/// A row for each text: its tokens that follow others, as many in each.
fn following(texts: &[(&[u32], &[u32])]) -> Batch {
    let shape = [texts.len(), texts[0].1.len()];
    let tokens = shape[0] * shape[1];
    let ids = texts.iter().flat_map(|(_, tokens)| *tokens).copied().collect();
    let positions = texts.iter().flat_map(|(before, tokens)| before.len()..before.len() + tokens.len()).map(|p| p as u32);
    Batch {
        ids: Tensor::u32(ids, shape),
        targets: Targets { ids: Tensor::u32(vec![IGNORE; tokens], shape), weights: None },
        positions: Tensor::u32(positions.collect(), shape),
        rope_scale: vec![1.0; texts.len()],
        segments: Arc::new(Segments { starts: [vec![0; tokens], vec![0; tokens]] }),
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
