//! Questions about the past: what retrieval is measured with.

use super::vocabulary::{BOS, DIGITS, IS, KEY, KEYS, STOP, text};
use super::{FACT, SyntheticError, check, fact, language, names, value};
use crate::rng::{Rng, Stream};

/// A document that ends in a question: one fact at a chosen depth, filler around it, and its recall at the very end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Tokens of prompt and answer together.
    pub length: usize,
    /// Where the fact stands: 0 at the beginning, 1 right before the question; of all tokens but its own and the question's, this
    /// share comes before it.
    pub depth: f64,
    /// Further facts about other keys with other values. How many of them come before the fact is drawn evenly, as far as there is
    /// room; 0 is the plain passkey task.
    pub distractors: usize,
}

/// What is asked and what should be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The document up to and including the key that is asked for.
    pub tokens: Vec<u32>,
    /// The value, two digits.
    pub answer: Vec<u32>,
    /// Tokens from the value where it was stated to where it is asked for.
    pub distance: usize,
}

impl Prompt {
    /// The prompt's words; encoding them gives [`Prompt::tokens`] back.
    pub fn text(&self) -> String {
        text(&self.tokens)
    }
}

impl Probe {
    /// Prompt number `index`. Prompts have a random stream of their own, so no training document shares its numbers.
    ///
    /// # Errors
    /// [`SyntheticError::TooShort`] or [`SyntheticError::TooManyNames`] when the length or the vocabulary does not
    /// hold the facts.
    pub fn prompt(&self, seed: u64, index: u64) -> Result<Prompt, SyntheticError> {
        const QUESTION: usize = 3;
        let rng = &mut Rng::at(seed, Stream::Eval, index);
        let keys = names("keys", KEYS, self.distractors + 1, rng)?;
        let wanted = value(rng);
        let needs = 1 + FACT * keys.len() + QUESTION + wanted.len();
        check("a question", needs, self.length)?;

        let others = &keys[1..];
        let room = self.length - needs + FACT * others.len();
        let mut before = (self.depth.clamp(0.0, 1.0) * room as f64).round() as usize;
        if before / FACT + (room - before) / FACT < others.len() {
            before -= before % FACT;
        }
        // How many others come first is drawn whatever the depth: a deep fact must not be known by being the first.
        let least = others.len().saturating_sub((room - before) / FACT);
        let most = others.len().min(before / FACT);
        let (first, last) = others.split_at(rng.between(0, others.len()).clamp(least, most));
        let mut tokens = vec![BOS];
        tokens.extend(part(first, before - FACT * first.len(), wanted, rng));
        let stated = tokens.len();
        tokens.extend(fact(keys[0], wanted));
        tokens.extend(part(last, room - before - FACT * last.len(), wanted, rng));
        let asked = tokens.len();
        tokens.extend([KEY, IS, keys[0]]);
        Ok(Prompt { tokens, answer: wanted.to_vec(), distance: asked - stated })
    }
}

/// Facts about `keys` with values other than `wanted` among filler of `length` tokens.
fn part(keys: &[u32], length: usize, wanted: [u32; 2], rng: &mut Rng) -> Vec<u32> {
    let mut sentences = language::sentences(rng, length);
    for &key in keys {
        let other = loop {
            let other = value(rng);
            if other != wanted {
                break other;
            }
        };
        sentences.push(fact(key, other));
    }
    rng.shuffle(&mut sentences);
    sentences.concat()
}

/// One recall of a fact in a row of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    /// Place of the first of the value's two tokens.
    pub at: usize,
    /// Tokens back to the latest earlier mention of the same fact: the shortest way to the answer.
    pub back: usize,
    /// Tokens back to its first mention.
    pub first: usize,
}

/// Every recall of a row: facts whose key was mentioned before, in order.
pub fn recalls(tokens: &[u32]) -> Vec<Recall> {
    let mut mentions = [None::<(usize, usize)>; KEYS.end as usize];
    let mut found = Vec::new();
    for (start, words) in tokens.windows(FACT).enumerate() {
        let &[KEY, IS, key, a, b, STOP] = words else {
            continue;
        };
        if !KEYS.contains(&key) || !DIGITS.contains(&a) || !DIGITS.contains(&b) {
            continue;
        }
        let at = start + 3;
        let mention = &mut mentions[key as usize];
        if let Some((first, latest)) = *mention {
            found.push(Recall { at, back: at - latest, first: at - first });
        }
        *mention = Some((mention.map_or(at, |m| m.0), at));
    }
    found
}
