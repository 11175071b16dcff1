//! Words that stand more often than others.

use super::Draft;
use super::names::{Name, Names};
use super::prompts::{COMMON_PREFIX, FREQUENT_PREFIX, common as common_text, frequent as frequent_text};
use crate::eval::words::{ADJECTIVES, NOUNS, VERBS};
use crate::rng::Rng;

/// Common words of a list.
const COMMON: usize = 10;
/// Tokens from which lists are made as RULER makes them from 4k on.
const LONG: usize = 4096 - 120;

/// How often words stand in a list.
#[derive(Clone, Copy)]
struct Times {
    common: usize,
    other: usize,
}

/// The list `1. word 2. word …` and its common words.
///
/// `words` begins with the common ones. `others` counts the entries of the others: the last of these may stand less often than
/// the rest, so that a list can end at any entry.
fn list(words: &[String], times: Times, others: usize, mut rng: Rng) -> String {
    let common = words[..COMMON].iter().flat_map(|word| std::iter::repeat_n(word, times.common));
    let other = words[COMMON..].iter().flat_map(|word| std::iter::repeat_n(word, times.other)).take(others);
    let mut entries: Vec<&String> = common.chain(other).collect();
    rng.shuffle(&mut entries);
    numbered(entries.into_iter())
}

fn numbered<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.enumerate().map(|(i, word)| format!("{}. {word}", i + 1)).collect::<Vec<_>>().join(" ")
}

/// All our words in random order; more than there are, when more are asked for, are made of two.
fn words(count: usize, rng: &mut Rng) -> Vec<String> {
    let mut single: Vec<String> = [ADJECTIVES, NOUNS, VERBS].concat().into_iter().map(str::to_owned).collect();
    if count <= single.len() {
        rng.shuffle(&mut single);
        single.truncate(count);
        return single;
    }
    Names::default().several(Name::Words, count.min(ADJECTIVES.len() * NOUNS.len() / 2), rng)
}

/// The ten most common words of a list, behind an example.
pub fn common<'a>(mut rng: Rng, budget: usize) -> Draft<'a> {
    let rng = &mut rng;
    let (times, shown, shown_times) = match budget < LONG {
        true => (Times { common: 6, other: 1 }, 20, Times { common: 3, other: 1 }),
        false => (Times { common: 30, other: 3 }, 40, Times { common: 10, other: 3 }),
    };
    let example = words(shown, rng);
    let answer = numbered(example[..COMMON].iter());
    let shown = list(&example, shown_times, usize::MAX, branch(rng));
    let example = format!("{}{COMMON_PREFIX} {answer}\n", common_text(&shown));

    // An entry is a number, a dot and a word: three tokens at least.
    let words = words(COMMON + (budget / 3).div_ceil(times.other), rng);
    let answers = words[..COMMON].to_vec();
    let others = (words.len() - COMMON) * times.other;
    let order = branch(rng);
    let write = move |others: usize| example.clone() + &common_text(&list(&words, times, others, order.clone()));
    Draft { sizes: COMMON * times.other..=others, write: Box::new(write), prefix: COMMON_PREFIX.into(), answers }
}

/// The three most frequent of invented words, whose counts fall with the square of their rank. The most frequent of all is `...`.
/// Their number follows from the whole length, as in the released code.
pub fn frequent<'a>(mut rng: Rng, length: usize) -> Draft<'a> {
    /// Tokens per word of the vocabulary.
    const PER_WORD: usize = 50;
    /// The fewest words at which the fourth in rank stands more often than the fifth.
    const LEAST: usize = 80;
    let rng = &mut rng;
    let vocabulary = Names::default().several(Name::Coded, (length / PER_WORD).max(8), rng);
    let answers = vocabulary[1..4].to_vec();
    let order = branch(rng);
    let write = move |size: usize| {
        let mut order = order.clone();
        let word = |(i, word)| std::iter::repeat_n(if i == 0 { "..." } else { word }, times(size, i + 1));
        let mut text: Vec<&str> = vocabulary.iter().map(String::as_str).enumerate().flat_map(word).collect();
        order.shuffle(&mut text);
        frequent_text(&text.join(" "))
    };
    Draft { sizes: LEAST..=length * 2 + LEAST, write: Box::new(write), prefix: FREQUENT_PREFIX.into(), answers }
}

/// How often the word of this rank stands in a text of `size` words: the zeta distribution of exponent 2.
fn times(size: usize, rank: usize) -> usize {
    const ZETA_2: f64 = std::f64::consts::PI * std::f64::consts::PI / 6.0;
    (size as f64 / (rank * rank) as f64 / ZETA_2) as usize
}

/// A generator that goes its own way.
fn branch(rng: &mut Rng) -> Rng {
    Rng::at(rng.bits(), crate::rng::Stream::Eval, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_zeta_distribution() {
        // int(N·k^-2/ζ(2)) for N = 1000, by Python.
        assert_eq!([1, 2, 3, 4, 5, 10, 24, 25].map(|rank| times(1000, rank)), [607, 151, 67, 37, 24, 6, 1, 0]);
        assert!((80..5000).all(|size| times(size, 4) > times(size, 5)), "the third answer is no tie");
    }
}
