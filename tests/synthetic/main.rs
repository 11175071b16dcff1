//! The synthetic language: does every document keep what it promises?

mod documents;
mod probes;
mod stages;
mod tokenizer;

use ltrain::data::synthetic::vocabulary::STOP;

const CONTEXT: usize = 256;

/// Sentences of a document without its first token, each with the place where it starts.
fn sentences(tokens: &[u32]) -> Vec<(usize, &[u32])> {
    let mut start = 1;
    let ends = tokens[1..].split_inclusive(|&t| t == STOP);
    ends.map(|s| {
        let at = start;
        start += s.len();
        (at, s)
    })
    .collect()
}
