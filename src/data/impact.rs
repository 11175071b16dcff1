//! Which tokens a longer context changes most: LongRecipe's impactful tokens (arXiv 2409.00509, section 4.1).
//!
//! The significance of a token id is the mean change of its raw logit, at the places where it is the true next token, from the
//! base to an extended model. Raw logits grow with the place and with training, so places are ranked among those at similar
//! places only: a window of places holds `2^k..2^(k+1)`, as losses by position do.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One place of a text and how two models differ there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The true next token.
    pub token: u32,
    /// Its place in its row, from 1.
    pub place: usize,
    /// Its raw logit in the extended model less that in the base.
    pub logit: f64,
    /// The same of its logarithmic probability, which is the logit after the softmax.
    pub log_prob: f64,
}

/// Sums of changes over some places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// Places.
    pub count: u64,
    /// Of these, in the top share of their window of places.
    pub impactful: u64,
    /// Mean change of the logit: the significance.
    pub logit: f64,
    /// Mean change of the logarithmic probability.
    pub log_prob: f64,
}

impl Impact {
    fn add(&mut self, change: &Change, impactful: bool) {
        self.count += 1;
        self.impactful += u64::from(impactful);
        self.logit += (change.logit - self.logit) / self.count as f64;
        self.log_prob += (change.log_prob - self.log_prob) / self.count as f64;
    }

    /// Both together.
    pub fn join(self, other: Self) -> Self {
        let count = self.count + other.count;
        let mean = |a: f64, b: f64| (a * self.count as f64 + b * other.count as f64) / (count as f64).max(1.0);
        Self {
            count,
            impactful: self.impactful + other.impactful,
            logit: mean(self.logit, other.logit),
            log_prob: mean(self.log_prob, other.log_prob),
        }
    }

    /// The share of its places that are impactful.
    pub fn share(&self) -> f64 {
        self.impactful as f64 / (self.count as f64).max(1.0)
    }
}

/// Impact by token id. In each window of places, the `share` of places with the largest change of the logit is impactful.
pub fn by_token(changes: &[Change], share: f64) -> BTreeMap<u32, Impact> {
    let mut windows: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, change) in changes.iter().enumerate() {
        windows.entry(change.place.ilog2()).or_default().push(i);
    }
    let mut impactful = vec![false; changes.len()];
    for mut window in windows.into_values() {
        // Stable: of equals the first are taken.
        window.sort_by(|&a, &b| changes[b].logit.total_cmp(&changes[a].logit));
        let top = (share * window.len() as f64).round() as usize;
        window[..top].iter().for_each(|&i| impactful[i] = true);
    }
    let mut ids: BTreeMap<u32, Impact> = BTreeMap::new();
    for (change, impactful) in changes.iter().zip(impactful) {
        ids.entry(change.token).or_default().add(change, impactful);
    }
    ids
}

/// Places of average impact that are added to every id when ids are ranked, so that one seen twice is not first by luck.
const PRIOR: f64 = 10.0;

/// Ids by falling share of impactful places, where `average` is that share over all ids.
pub fn ranked(ids: &BTreeMap<u32, Impact>, average: f64) -> Vec<u32> {
    let rank = |impact: &Impact| (impact.impactful as f64 + PRIOR * average) / (impact.count as f64 + PRIOR);
    let mut order: Vec<u32> = ids.keys().copied().collect();
    order.sort_by(|a, b| rank(&ids[b]).total_cmp(&rank(&ids[a])).then(ids[b].logit.total_cmp(&ids[a].logit)));
    order
}

/// The first of `ranked` that together have `share` of all places; the last of them may bring more.
pub fn covering<'a>(ids: &BTreeMap<u32, Impact>, ranked: &'a [u32], share: f64) -> &'a [u32] {
    let all: u64 = ids.values().map(|impact| impact.count).sum();
    let mut covered = 0;
    let enough = |id: &u32| {
        covered += ids[id].count;
        covered as f64 >= share * all as f64
    };
    let last = ranked.iter().position(enough);
    &ranked[..last.map_or(ranked.len(), |last| last + 1)]
}

/// What a token is, judged by its text alone. There is no part-of-speech tagger: it would be a model for one language, and its
/// words are not a tokenizer's tokens. Digits are what it would call numerals, the paper's most impactful class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Holds a digit.
    Digit,
    /// A word or the beginning of one, with an upper-case first letter.
    CapitalisedWord,
    /// A word or a part of one, with a lower-case first letter.
    LowerCaseWord,
    /// Neither letters nor digits.
    Punctuation,
    /// Blanks and line breaks alone.
    Whitespace,
    /// The rest: scripts without case, parts of characters, special tokens, nothing.
    Other,
}

impl Class {
    /// The class of a token's text.
    pub fn of(text: &str) -> Self {
        let word = text.trim();
        let symbol = |c: char| c != '\u{fffd}' && !c.is_alphanumeric() && !c.is_control() && !c.is_whitespace();
        match word.chars().next() {
            None if text.is_empty() => Self::Other,
            None => Self::Whitespace,
            // `<s>`, `[BOS]`, `<|end|>`: names, not text.
            Some('<' | '[') if word.ends_with(['>', ']']) && word.chars().any(char::is_alphanumeric) => Self::Other,
            Some(_) if word.chars().any(char::is_numeric) => Self::Digit,
            Some(c) if c.is_uppercase() => Self::CapitalisedWord,
            Some(c) if c.is_lowercase() => Self::LowerCaseWord,
            Some(_) if word.chars().all(symbol) => Self::Punctuation,
            Some(_) => Self::Other,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digit => "digit",
            Self::CapitalisedWord => "capitalised word",
            Self::LowerCaseWord => "lower-case word",
            Self::Punctuation => "punctuation",
            Self::Whitespace => "whitespace",
            Self::Other => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(token: u32, place: usize, logit: f64) -> Change {
        Change { token, place, logit, log_prob: -logit }
    }

    #[test]
    fn places_are_ranked_within_their_window() {
        // Places 4 to 7 change several times as much as 2 and 3, and yet half of each window is impactful.
        let changes =
            [change(1, 2, 0.5), change(2, 3, 0.75), change(1, 4, 5.0), change(2, 5, 4.0), change(3, 6, 3.0), change(3, 7, 9.0)];
        let ids = by_token(&changes, 0.5);
        let counts: Vec<_> = ids.iter().map(|(&id, i)| (id, i.count, i.impactful)).collect();
        assert_eq!(counts, [(1, 2, 1), (2, 2, 1), (3, 2, 1)]);
        assert_eq!((ids[&1].logit, ids[&1].log_prob), (2.75, -2.75));
        assert_eq!(by_token(&changes, 1.0).values().map(|i| i.impactful).sum::<u64>(), 6);
    }

    #[test]
    fn ids_are_taken_until_enough_places_are_covered() {
        let impact = |count, impactful| Impact { count, impactful, ..Impact::default() };
        let ids = BTreeMap::from([(7, impact(50, 10)), (8, impact(30, 25)), (9, impact(19, 1)), (10, impact(1, 1))]);
        let ranked = ranked(&ids, 0.37);
        assert_eq!(ranked, [8, 10, 7, 9], "a single lucky place does not come first");
        assert_eq!(covering(&ids, &ranked, 0.3), [8]);
        assert_eq!(covering(&ids, &ranked, 0.301), [8, 10]);
        assert_eq!(covering(&ids, &ranked, 1.0), ranked);
    }

    #[test]
    fn impacts_of_two_parts_are_that_of_the_whole() {
        let changes: Vec<_> = (1..40).map(|i| change(0, i, (i * i % 13) as f64)).collect();
        let whole = by_token(&changes, 0.3)[&0];
        let part = |range: std::ops::Range<usize>| {
            let mut impact = Impact::default();
            changes[range].iter().for_each(|c| impact.add(c, false));
            impact
        };
        let joined = part(0..11).join(part(11..39));
        assert_eq!(joined.count, whole.count);
        assert!((joined.logit - whole.logit).abs() < 1e-12 && (joined.log_prob + whole.logit).abs() < 1e-12);
        assert_eq!(Impact::default().join(Impact::default()), Impact::default());
    }

    #[test]
    fn classes_are_told_by_the_text() {
        use Class::*;
        let cases = [
            (" 1984", Digit),
            ("v2", Digit),
            (" Paris", CapitalisedWord),
            ("ing", LowerCaseWord),
            (" Über", CapitalisedWord),
            ("),", Punctuation),
            ("€", Punctuation),
            ("<", Punctuation),
            ("\n\n", Whitespace),
            (" ", Whitespace),
            ("", Other),
            ("\u{fffd}", Other),
            ("猫", Other),
            ("<s>", Other),
            ("<|end_of_text_1|>", Other),
        ];
        for (text, class) in cases {
            assert_eq!(Class::of(text), class, "{text:?}");
        }
    }
}
