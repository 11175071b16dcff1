//! Ordinary sentences: a random bigram language, the same in every run.
//!
//! A word's class decides which class may follow, the word itself which words of that class do: four of them, with
//! falling probability. So there is much to learn from one word back and nothing from further away; whatever a model
//! gains from a long context in these documents, it gains from facts, chains and repetitions.

use std::ops::Range;
use std::sync::LazyLock;

use super::any_of;
use super::vocabulary::{ADJECTIVES, ADVERBS, DETERMINERS, FILLER, NOUNS, PREPOSITIONS, STOP, VERBS};
use crate::rng::{Rng, Stream};

/// The language is a constant: its seed is part of the format, not of a run.
const SEED: u64 = 0x6c74_7261_696e;
/// Sentences longer than this are thrown away.
const LONGEST: usize = 14;
/// A remainder of at least this many tokens can always be filled with whole sentences.
const SHORTEST_REST: usize = 6;
/// Probability of a word's first, second … successor within a class.
const SUCCESSORS: [f64; 4] = [0.55, 0.25, 0.12, 0.08];

/// What follows a word.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// A word of [`CLASSES`] at this index.
    Word(usize),
    /// The end of the sentence.
    End,
}
use Next::{End, Word};

/// Probabilities of what follows.
type Follow = &'static [(f64, Next)];

/// First words of sentences.
const OPENING: Follow = &[(0.75, Word(0)), (0.15, Word(4)), (0.1, Word(5))];

/// Each class of words with what follows any of them.
#[rustfmt::skip]
const CLASSES: [(Range<u32>, Follow); 6] = [
    (DETERMINERS,  &[(0.6, Word(2)), (0.4, Word(1))]),
    (ADJECTIVES,   &[(0.9, Word(2)), (0.1, Word(1))]),
    (NOUNS,        &[(0.55, Word(3)), (0.25, End), (0.15, Word(4)), (0.05, Word(5))]),
    (VERBS,        &[(0.65, Word(0)), (0.15, Word(4)), (0.1, Word(5)), (0.1, End)]),
    (PREPOSITIONS, &[(0.8, Word(0)), (0.2, Word(2))]),
    (ADVERBS,      &[(0.5, End), (0.25, Word(0)), (0.25, Word(4))]),
];

/// For each filler word and each class, the words of that class that may follow it.
static FOLLOWERS: LazyLock<Vec<[[u32; SUCCESSORS.len()]; CLASSES.len()]>> = LazyLock::new(|| {
    FILLER
        .map(|word| {
            let mut rng = Rng::at(SEED, Stream::Text, u64::from(word));
            CLASSES.map(|(range, _)| {
                let mut words: Vec<u32> = range.collect();
                rng.shuffle(&mut words);
                std::array::from_fn(|i| words[i])
            })
        })
        .collect()
});

/// Index drawn with the given probabilities, the last one taking what rounding leaves.
fn choose(rng: &mut Rng, probabilities: impl ExactSizeIterator<Item = f64>) -> usize {
    let last = probabilities.len() - 1;
    let mut left = rng.uniform();
    for (i, p) in probabilities.enumerate() {
        left -= p;
        if left < 0.0 {
            return i;
        }
    }
    last
}

/// Draws the word after `previous`, or `None` at the end of the sentence.
fn next_word(rng: &mut Rng, previous: Option<u32>) -> Option<u32> {
    let after = match previous {
        None => OPENING,
        Some(word) => CLASSES
            .iter()
            .find_map(|(range, after)| range.contains(&word).then_some(*after))
            .expect("language: the previous word is a filler word"),
    };
    match after[choose(rng, after.iter().map(|a| a.0))].1 {
        End => None,
        Word(class) => Some(match previous {
            None => any_of(rng, CLASSES[class].0.clone()),
            Some(word) => {
                let rank = choose(rng, SUCCESSORS.into_iter());
                FOLLOWERS[(word - FILLER.start) as usize][class][rank]
            }
        }),
    }
}

/// One sentence with its final stop, at least two and at most [`LONGEST`] tokens.
fn sentence(rng: &mut Rng) -> Vec<u32> {
    loop {
        let mut words: Vec<u32> = Vec::with_capacity(LONGEST);
        while let Some(word) = next_word(rng, words.last().copied()) {
            words.push(word);
        }
        words.push(STOP);
        if words.len() <= LONGEST {
            return words;
        }
    }
}

/// A sentence of exactly `length` tokens that may break off early: the remainder no whole sentence fits.
fn broken_sentence(rng: &mut Rng, length: usize) -> Vec<u32> {
    let mut words: Vec<u32> = Vec::with_capacity(length);
    while words.len() + 1 < length {
        if let Some(word) = next_word(rng, words.last().copied()) {
            words.push(word);
        }
    }
    words.push(STOP);
    words
}

/// Sentences of `length` tokens in all.
pub(super) fn sentences(rng: &mut Rng, length: usize) -> Vec<Vec<u32>> {
    let mut sentences = Vec::new();
    let mut left = length;
    while left > 0 {
        let fits = |s: &Vec<u32>| s.len() == left || s.len() + SHORTEST_REST <= left;
        let drawn = (0..100).map(|_| sentence(rng)).find(fits);
        let drawn = drawn.unwrap_or_else(|| broken_sentence(rng, left));
        left -= drawn.len();
        sentences.push(drawn);
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let rows = CLASSES.map(|c| c.1);
        for row in rows.into_iter().chain([OPENING]) {
            let sum: f64 = row.iter().map(|r| r.0).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{row:?}");
        }
        assert!((SUCCESSORS.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn sentences_fill_any_length_exactly() {
        let mut rng = Rng::at(3, Stream::Text, 0);
        for length in 0..200 {
            let all = sentences(&mut rng, length);
            assert_eq!(all.iter().map(Vec::len).sum::<usize>(), length);
            assert!(all.iter().all(|s| s.last() == Some(&STOP)));
        }
    }
}
