//! Questions whose answer stands somewhere far above them.

use super::EvalError;
use crate::data::Encode;
use crate::data::synthetic::{Probe, SyntheticError};
use crate::error::Result;
use crate::rng::{Rng, Stream};

/// What is asked and what should be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The text up to where the answer begins.
    pub tokens: Vec<u32>,
    /// The answer.
    pub answer: Vec<u32>,
    /// Place in `tokens` where the sentence that states the answer begins.
    pub stated: usize,
}

impl Question {
    /// Tokens of question and answer together.
    pub fn length(&self) -> usize {
        self.tokens.len() + self.answer.len()
    }
}

/// A kind of question.
pub trait Questions {
    /// The shortest length at which questions are asked; at any length from there on [`Questions::ask`] succeeds.
    fn shortest(&self) -> Result<usize>;

    /// Question number `index` of exactly `length` tokens with its answer, which is stated at `depth`: 0 is the
    /// beginning, 1 right before the end. A pure function of its arguments.
    fn ask(&self, length: usize, depth: f64, seed: u64, index: u64) -> Result<Question>;
}

/// Questions in the language of the built-in model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Facts about other keys that stand around the one that is asked for.
    pub distractors: usize,
}

impl Questions for Facts {
    fn shortest(&self) -> Result<usize> {
        match (Probe { length: 0, depth: 0.0, distractors: self.distractors }).prompt(0, 0) {
            Err(SyntheticError::TooShort { needs, .. }) => Ok(needs),
            Err(e) => Err(EvalError::from(e).into()),
            Ok(_) => Ok(0),
        }
    }

    fn ask(&self, length: usize, depth: f64, seed: u64, index: u64) -> Result<Question> {
        /// `key is amber`, in front of the value.
        const SUBJECT: usize = 3;
        let prompt = Probe { length, depth, distractors: self.distractors }.prompt(seed, index).map_err(EvalError::from)?;
        let stated = prompt.tokens.len() - prompt.distance;
        Ok(Question { stated: stated.saturating_sub(SUBJECT), tokens: prompt.tokens, answer: prompt.answer })
    }
}

const TASK: &str = "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz \
                    you about the important information there.\n";
const FILLER: &str = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
const QUESTION: &str = "\nWhat is the pass key? The pass key is";
/// The keys are uniform in `1..=KEYS`.
const KEYS: usize = 50_000;

/// The passkey task of LongLoRA and PoSE (Mohtashami & Jaggi, arXiv 2305.16300) for any tokenizer.
///
/// The released scripts cut the filler by characters and miss the length they ask for; here it is cut by tokens. After
/// the info the filler begins anew, as there.
pub struct Passkey<'a> {
    encode: &'a dyn Encode,
    /// What begins the text, with the line break after it.
    task: Vec<u32>,
    /// The filler's first unit, and every later one.
    filler: [Vec<u32>; 2],
}

impl<'a> Passkey<'a> {
    /// Prepares the parts that all prompts share.
    pub fn new(encode: &'a dyn Encode) -> Result<Self> {
        let task = encode.bos().into_iter().chain(encode.encode(TASK)?).collect();
        let filler = [after(encode, "\n", FILLER)?, after(encode, FILLER, &format!(" {FILLER}"))?];
        Ok(Self { encode, task, filler })
    }

    /// The sentence to remember, the question and the answer.
    fn parts(&self, key: usize) -> Result<[Vec<u32>; 3]> {
        let info = format!("\nThe pass key is {key}. Remember it. {key} is the pass key.\n");
        let info = after(self.encode, ".", &info)?;
        let asked = after(self.encode, ".", QUESTION)?;
        let answered = after(self.encode, ".", &format!("{QUESTION} {key}"))?;
        let shared = common_prefix(&asked, &answered);
        Ok([info, answered[..shared].to_vec(), answered[shared..].to_vec()])
    }

    fn fill(&self, tokens: usize) -> impl Iterator<Item = u32> {
        let [first, later] = &self.filler;
        first.iter().chain(later.iter().cycle()).copied().take(tokens)
    }
}

impl Questions for Passkey<'_> {
    fn shortest(&self) -> Result<usize> {
        // One unit of filler is more than keys differ in length.
        let parts = self.parts(KEYS - 1)?;
        Ok(self.task.len() + parts.iter().map(Vec::len).sum::<usize>() + self.filler[0].len())
    }

    fn ask(&self, length: usize, depth: f64, seed: u64, index: u64) -> Result<Question> {
        let key = Rng::at(seed, Stream::Eval, index).between(1, KEYS);
        let [info, question, answer] = self.parts(key)?;
        let needs = self.task.len() + info.len() + question.len() + answer.len();
        let Some(filler) = length.checked_sub(needs) else {
            return Err(EvalError::TooShort { needs, length }.into());
        };
        let before = (depth.clamp(0.0, 1.0) * filler as f64).round() as usize;
        let mut tokens = self.task.clone();
        tokens.extend(self.fill(before));
        let stated = tokens.len();
        tokens.extend(info);
        tokens.extend(self.fill(filler - before));
        tokens.extend(question);
        Ok(Question { tokens, answer, stated })
    }
}

/// Tokens of `text` where it follows `before`: tokenizers treat the beginning of a text differently.
pub(super) fn after(encode: &dyn Encode, before: &str, text: &str) -> Result<Vec<u32>> {
    let (start, all) = (encode.encode(before)?, encode.encode(&format!("{before}{text}"))?);
    Ok(all[common_prefix(&start, &all)..].to_vec())
}

pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
