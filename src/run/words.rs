//! What a run's methods need to know of its language.

use std::sync::Arc;

use super::error::RunError;
use crate::config::RunConfig;
use crate::config::defaults::EOS;
use crate::data::encode::encode_after;
use crate::data::selection::Selection;
use crate::data::synthetic::vocabulary::{self, DIGITS, IS, KEY, KEYS, STOP};
use crate::data::{Encode, synthetic};
use crate::error::Result;
use crate::io::TextTokenizer;
use crate::io::tokenizer::SpecialTokens;
use crate::positions::{EndPrompt, Fact, LongRecipe, Method, Retrieval, Words};
use crate::rng::{Rng, Stream};

/// Facts about one thing, with different answers, so that no answer can be learnt by heart.
const ANSWERS: usize = 16;
/// Facts are the same in every run.
const SEED: u64 = 0x0066_6163_7473;

/// Gathers what the run's methods ask for, and nothing else: a look at every token of a large vocabulary takes a moment.
pub fn gather(config: &RunConfig, tokenizer: &TextTokenizer, vocab: usize) -> Result<Words> {
    let positions = &config.positions;
    let mut words = Words::default();
    if positions.method.has(LongRecipe::NAME) {
        let pieces: Vec<String> =
            (0..vocab as u32).map(|id| tokenizer.decode(&[id], SpecialTokens::Skip)).collect::<Result<_>>()?;
        words.ends = pieces.iter().map(|piece| ends_sentence(piece)).collect();
        words.marked = match &positions.select {
            None => pieces.iter().map(|piece| piece.chars().any(char::is_numeric)).collect(),
            Some(file) => {
                let selected = Selection::read(file, &tokenizer.identity())?.tokens;
                (0..vocab as u32).map(|id| selected.binary_search(&id).is_ok()).collect()
            }
        };
    }
    if positions.method.has(EndPrompt::NAME) {
        words.end_prompt = end_prompt(&positions.end_prompt, tokenizer)?.into();
    }
    if positions.method.has(Retrieval::NAME) {
        words.facts = match tokenizer.identity() == synthetic::tokenizer_identity() {
            true => synthetic_facts(),
            false => facts(tokenizer)?,
        };
    }
    Ok(words)
}

/// LongRecipe's delimiters: a full stop, a question or exclamation mark, or a line break, whatever the vocabulary.
fn ends_sentence(piece: &str) -> bool {
    piece.contains('\n') || piece.trim_end().ends_with(['.', '?', '!', '。', '？', '！'])
}

fn end_prompt(text: &str, tokenizer: &TextTokenizer) -> Result<Vec<u32>> {
    if text == EOS {
        return Ok(vec![tokenizer.eos().ok_or(RunError::NoEndOfText)?]);
    }
    let ids = tokenizer.encode(text)?;
    match is_spelt(text, &ids, tokenizer)? {
        true => Ok(ids),
        false => Err(RunError::EndPrompt { text: text.to_owned() }.into()),
    }
}

/// Whether the ids give the text back, but for case and white space: some tokenizers have no tokens for some words.
fn is_spelt(text: &str, ids: &[u32], tokenizer: &TextTokenizer) -> Result<bool> {
    let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    Ok(!ids.is_empty() && letters(&tokenizer.decode(ids, SpecialTokens::Skip)?) == letters(text))
}

/// Facts in plain English. The wording is nobody's: no evaluation asks like this.
fn facts(encode: &TextTokenizer) -> Result<Arc<[Vec<Fact>]>> {
    let mut rng = Rng::at(SEED, Stream::Text, 0);
    let about = |thing: u32| {
        let name = vocabulary::text(&[thing]);
        let question = format!("\nWhich code opens the {name} locker? It is");
        let asked = encode_after(encode, ".", &question)?;
        let mut fact = || {
            let code = rng.between(1000, 9999);
            let answered = encode_after(encode, ".", &format!("{question} {code}"))?;
            // Tokenizers may join the question's end with the answer.
            let shared = answered.iter().zip(&asked).take_while(|(a, b)| a == b).count();
            let stated = format!(" The {name} locker opens with the code {code}.");
            let statement = encode_after(encode, ".", &stated)?;
            if !is_spelt(&stated, &statement, encode)? || shared == answered.len() {
                return Err(RunError::Facts { text: stated.trim().to_owned() }.into());
            }
            let [question, answer] = [&answered[..shared], &answered[shared..]].map(Arc::from);
            Ok(Fact { statement: statement.into(), question, answer })
        };
        (0..ANSWERS).map(|_| fact()).collect()
    };
    KEYS.map(about).collect()
}

/// Facts of the built-in model's language.
fn synthetic_facts() -> Arc<[Vec<Fact>]> {
    let mut rng = Rng::at(SEED, Stream::Text, 0);
    let mut digit = || DIGITS.start + rng.below(DIGITS.len() as u64) as u32;
    let mut fact = |key| {
        let value = [digit(), digit()];
        let statement = [KEY, IS, key, value[0], value[1], STOP];
        Fact { statement: statement.into(), question: [KEY, IS, key].into(), answer: value.into() }
    };
    KEYS.map(|key| (0..ANSWERS).map(|_| fact(key)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_with_their_mark_or_a_line_break() {
        for ends in [".", "?", "!", " end.", ".\n", "\n\n", "。", "it! "] {
            assert!(ends_sentence(ends), "{ends:?}");
        }
        for goes_on in ["", " ", ",", "e.g", ".5", "word", ";"] {
            assert!(!ends_sentence(goes_on), "{goes_on:?}");
        }
    }
}
