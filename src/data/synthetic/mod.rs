//! Text that can be understood only by remembering: the language the built-in tiny model speaks.
//!
//! Every document is a pure function of `(kind, length, seed, index)`. Sentences of a bigram language are the filler;
//! in between stand facts (`key is amber 4 7 .`) that are stated again later, or chains (`let A 4 7 .`, `let B A .`)
//! that are walked later (`trace B A 4 7 .`). A recall repeats the words right before its value, so one attention
//! step from a key to the word after its first mention answers it.

mod known;
mod language;
mod probe;
mod stage;
mod tokenizer;
pub mod vocabulary;

pub use known::known;
pub use probe::{Probe, Prompt, Recall, recalls};
pub use stage::{STAGES, Stage};
pub use tokenizer::{tokenizer_config_json, tokenizer_identity, tokenizer_json};
pub use vocabulary::text;

use std::ops::Range;

use crate::error::{Explain, Explanation};
use crate::rng::{Rng, Stream};
use vocabulary::{BOS, DIGITS, FILLER, IS, KEY, KEYS, LET, STOP, TRACE, VARIABLES};

/// Loss weight of what a reader of the document so far can know: recalled values, walked chains.
pub const KNOWN: f32 = 5.2;
/// Loss weight of everything else in documents of sentences.
pub const OTHER: f32 = 0.2;
/// Loss weight of the repeated tokens of a repetition; its first round has weight 0.
pub const REPEATED: f32 = 1.0;

/// Lengths of the segments that repetitions repeat.
const SEGMENT: (usize, usize) = (4, 16);
/// `key is amber 4 7 .`
const FACT: usize = 6;
/// Facts are stated in this share of a document, so that every distance up to its length is asked for.
const STATED: f64 = 0.75;

/// What a document is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One segment of random words, over and over.
    Repeat,
    /// Sentences, facts and their recalls.
    Facts {
        /// Distinct facts; the names run out at 64.
        keys: usize,
        /// Recalls in all, spread evenly over the facts.
        recalls: usize,
    },
    /// [`Kind::Facts`] that are stated up to the end of the document, some a few words before they are asked for.
    LateFacts {
        /// As there.
        keys: usize,
        /// As there.
        recalls: usize,
    },
    /// Sentences and chains of variables, each walked once after it is complete.
    Chains {
        /// Number of chains.
        chains: usize,
        /// Variables of a chain besides the one that holds the value; names run out at 24 variables in all.
        links: usize,
    },
}

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its tokens; the first is [`vocabulary::BOS`].
    pub tokens: Vec<u32>,
    /// Loss weight of predicting each token; as many as tokens, the first is 0.
    pub weights: Vec<f32>,
}

impl Document {
    /// Its words separated by spaces; encoding them gives [`Document::tokens`] back.
    pub fn text(&self) -> String {
        text(&self.tokens)
    }

    /// Places of the tokens that the document so far determines: what accuracy is measured on.
    pub fn known(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tokens.len()).filter(|&i| self.weights[i] >= REPEATED)
    }
}

/// A document that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntheticError {
    /// No stage of this name.
    #[error("synthetic text: expected one of {}, got {got:?}", stage::names())]
    UnknownStage {
        /// What was asked for.
        got: String,
    },
    /// The length does not hold what the document must contain.
    #[error("synthetic text: {what} needs at least {needs} tokens, got a length of {length}")]
    TooShort {
        /// What was to be written.
        what: &'static str,
        /// Tokens it takes.
        needs: usize,
        /// Tokens there are.
        length: usize,
    },
    /// More distinct names than the vocabulary has.
    #[error("synthetic text: the vocabulary has {has} {what}, got a request for {wanted}")]
    TooManyNames {
        /// Which names.
        what: &'static str,
        /// How many there are.
        has: usize,
        /// How many were asked for.
        wanted: usize,
    },
}

impl Explain for SyntheticError {
    fn explain(&self) -> Explanation {
        match self {
            Self::UnknownStage { .. } => Explanation::new("E211"),
            Self::TooShort { .. } => Explanation::new("E212").help("ask for a longer document or for less in it"),
            Self::TooManyNames { .. } => Explanation::new("E213").help("ask for fewer facts or shorter chains"),
        }
    }
}

/// A sentence on its way into a document.
struct Sentence {
    /// Where in the document it wants to stand, in `[0, 1)`.
    at: f64,
    tokens: Vec<u32>,
    /// Which of `tokens` are determined by what came before.
    known: Range<usize>,
}

impl Sentence {
    fn new(at: f64, tokens: Vec<u32>) -> Self {
        Self { at, tokens, known: 0..0 }
    }
}

impl Kind {
    /// Document number `index` of `length` tokens.
    ///
    /// # Errors
    /// [`SyntheticError::TooShort`] or [`SyntheticError::TooManyNames`] when the length or the vocabulary does not
    /// hold what the kind asks for.
    pub fn document(&self, length: usize, seed: u64, index: u64) -> Result<Document, SyntheticError> {
        self.write(length, &mut Rng::at(seed, Stream::Text, index))
    }

    fn write(&self, length: usize, rng: &mut Rng) -> Result<Document, SyntheticError> {
        match *self {
            Kind::Repeat => repetition(length, rng),
            Kind::Facts { keys, recalls } | Kind::LateFacts { keys, recalls } => {
                let stated = if matches!(self, Kind::Facts { .. }) { STATED } else { 1.0 };
                let needs = 1 + FACT * (keys + recalls);
                check("a document of facts", needs, length)?;
                Ok(mixed(length, facts(keys, recalls, stated, rng)?, rng))
            }
            Kind::Chains { chains, links } => {
                let chains = chain_sentences(chains, links, rng)?;
                let needs = 1 + chains.iter().map(|s| s.tokens.len()).sum::<usize>();
                check("a document of chains", needs, length)?;
                Ok(mixed(length, chains, rng))
            }
        }
    }
}

fn check(what: &'static str, needs: usize, length: usize) -> Result<(), SyntheticError> {
    match length >= needs {
        true => Ok(()),
        false => Err(SyntheticError::TooShort { what, needs, length }),
    }
}

/// `count` distinct names of a class, in random order.
fn names(what: &'static str, class: Range<u32>, count: usize, rng: &mut Rng) -> Result<Vec<u32>, SyntheticError> {
    let mut all: Vec<u32> = class.collect();
    if count > all.len() {
        return Err(SyntheticError::TooManyNames { what, has: all.len(), wanted: count });
    }
    rng.shuffle(&mut all);
    all.truncate(count);
    Ok(all)
}

/// A word of a class, every one as likely.
fn any_of(rng: &mut Rng, class: Range<u32>) -> u32 {
    class.start + rng.below(class.len() as u64) as u32
}

/// Two random digits.
fn value(rng: &mut Rng) -> [u32; 2] {
    std::array::from_fn(|_| any_of(rng, DIGITS))
}

fn fact(key: u32, value: [u32; 2]) -> Vec<u32> {
    vec![KEY, IS, key, value[0], value[1], STOP]
}

fn repetition(length: usize, rng: &mut Rng) -> Result<Document, SyntheticError> {
    let period = rng.between(SEGMENT.0, SEGMENT.1);
    check("a repetition", 1 + 2 * SEGMENT.1, length)?;
    let segment: Vec<u32> = (0..period).map(|_| any_of(rng, STOP..FILLER.end)).collect();
    let repeats = segment.iter().copied().cycle().take(length - 1);
    let first_round = period + 1;
    Ok(Document {
        tokens: [BOS].into_iter().chain(repeats).collect(),
        // The first token of the second round is a surprise: nothing says that the segment is over.
        weights: (0..length).map(|i| if i > first_round { REPEATED } else { 0.0 }).collect(),
    })
}

/// Facts in the first `share` of a document and their recalls anywhere after them.
fn facts(keys: usize, recalls: usize, share: f64, rng: &mut Rng) -> Result<Vec<Sentence>, SyntheticError> {
    let names = names("keys", KEYS, keys, rng)?;
    let stated: Vec<(f64, Vec<u32>)> = names.into_iter().map(|key| (share * rng.uniform(), fact(key, value(rng)))).collect();
    let asked = stated.iter().cycle().take(if keys == 0 { 0 } else { recalls });
    let asked: Vec<Sentence> =
        asked.map(|(at, tokens)| Sentence { at: at + (1.0 - at) * rng.uniform(), tokens: tokens.clone(), known: 3..5 }).collect();
    Ok(stated.into_iter().map(|(at, tokens)| Sentence::new(at, tokens)).chain(asked).collect())
}

/// Assignments in order and the walk back along each chain.
fn chain_sentences(chains: usize, links: usize, rng: &mut Rng) -> Result<Vec<Sentence>, SyntheticError> {
    let variables = names("variables", VARIABLES, chains * (links + 1), rng)?;
    let mut sentences = Vec::new();
    for chain in variables.chunks_exact(links + 1) {
        let mut at: Vec<f64> = (0..links + 2).map(|_| rng.uniform()).collect();
        at.sort_by(f64::total_cmp);
        let value = value(rng);
        sentences.push(Sentence::new(at[0], vec![LET, chain[0], value[0], value[1], STOP]));
        for (link, pair) in chain.windows(2).enumerate() {
            sentences.push(Sentence::new(at[link + 1], vec![LET, pair[1], pair[0], STOP]));
        }
        let mut walk = vec![TRACE];
        walk.extend(chain.iter().rev().chain(&value));
        let known = 2..walk.len();
        walk.push(STOP);
        sentences.push(Sentence { at: at[links + 1], tokens: walk, known });
    }
    Ok(sentences)
}

/// Puts `special` sentences in their order, fills the rest of the length with ordinary ones and sets the weights.
fn mixed(length: usize, special: Vec<Sentence>, rng: &mut Rng) -> Document {
    let taken: usize = special.iter().map(|s| s.tokens.len()).sum();
    let mut all = special;
    for tokens in language::sentences(rng, length - 1 - taken) {
        all.push(Sentence::new(rng.uniform(), tokens));
    }
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    let mut document = Document { tokens: vec![BOS], weights: vec![0.0] };
    for sentence in all {
        let known = |i| {
            if sentence.known.contains(&i) { KNOWN } else { OTHER }
        };
        document.weights.extend((0..sentence.tokens.len()).map(known));
        document.tokens.extend(sentence.tokens);
    }
    document
}
