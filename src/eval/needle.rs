//! Needles in a haystack by depth and length, among others that look like them: the heat map of EasyContext and of Kamradt's test, with
//! RULER's needles and words.

use super::haystack::Haystack;
use super::prompts::{after, common_prefix};
use super::ruler::needle_texts;
use super::{EvalError, Question, Questions};
use crate::data::Encode;
use crate::error::Result;
use crate::rng::{Rng, Stream};

/// Questions about one of several keys, each with a number of seven digits, that are hidden between the sentences of a text.
///
/// The needle that is asked for stands behind the sentence in which its depth lies; the others stand anywhere. The text is cut by tokens.
pub struct Needles<'a> {
    encode: &'a dyn Encode,
    distractors: usize,
    /// Sentences in tokens, each as it stands behind another one.
    sentences: Vec<Vec<u32>>,
}

impl<'a> Needles<'a> {
    /// Questions with so many other needles, for lengths up to `longest`.
    pub fn new(encode: &'a dyn Encode, haystack: &Haystack, distractors: usize, longest: usize) -> Result<Self> {
        let mut sentences = Vec::new();
        let mut tokens = 0;
        // A sentence that the tokenizer knows has one token at least.
        for i in 0..longest {
            if tokens >= longest {
                break;
            }
            let sentence = after(encode, ".", &format!(" {}", haystack.sentence(0, i)))?;
            tokens += sentence.len();
            sentences.extend((!sentence.is_empty()).then_some(sentence));
        }
        if sentences.is_empty() {
            let (key, expected) = ("haystack", "text that the tokenizer has tokens for");
            return Err(EvalError::Plan { key, expected, got: "none".into() }.into());
        }
        Ok(Self { encode, distractors, sentences })
    }

    /// Everything of a question but its filler.
    fn parts(&self, rng: &mut Rng) -> Result<Parts> {
        let texts = needle_texts(self.distractors + 1, rng);
        let head = self.encode.bos().into_iter().chain(self.encode.encode(&texts.head)?).collect();
        let needle = |text: &String| after(self.encode, ".", &format!(" {text}"));
        let needles = texts.needles.iter().map(needle).collect::<Result<Vec<_>>>()?;
        let asked = after(self.encode, ".", &texts.question)?;
        let answered = after(self.encode, ".", &format!("{} {}", texts.question, texts.answer))?;
        let shared = common_prefix(&asked, &answered);
        Ok(Parts { head, needles, question: answered[..shared].to_vec(), answer: answered[shared..].to_vec() })
    }
}

/// A question in tokens; the first needle is the one that is asked for.
struct Parts {
    head: Vec<u32>,
    needles: Vec<Vec<u32>>,
    question: Vec<u32>,
    answer: Vec<u32>,
}

impl Parts {
    fn tokens(&self) -> usize {
        let needles: usize = self.needles.iter().map(Vec::len).sum();
        self.head.len() + needles + self.question.len() + self.answer.len()
    }
}

impl Questions for Needles<'_> {
    fn shortest(&self) -> Result<usize> {
        /// Keys differ in length by less than this, each way. Every needle has one, and so have question and answer.
        const SPREAD: usize = 16;
        let parts = self.parts(&mut Rng::at(0, Stream::Eval, 0))?;
        Ok(parts.tokens() + SPREAD * (self.distractors + 3))
    }

    fn ask(&self, length: usize, depth: f64, seed: u64, index: u64) -> Result<Question> {
        let rng = &mut Rng::at(seed, Stream::Eval, index);
        let parts = self.parts(rng)?;
        let Some(filler) = length.checked_sub(parts.tokens()) else {
            return Err(EvalError::NoRoom { task: "niah", needs: parts.tokens(), length }.into());
        };
        let wanted = (depth.clamp(0.0, 1.0) * filler as f64).round() as usize;
        // Where each needle may stand at the earliest, in tokens of filler, and which it is.
        let mut places: Vec<(usize, usize)> = (1..parts.needles.len()).map(|n| (rng.between(0, filler), n)).collect();
        places.push((wanted, 0));
        places.sort_unstable();
        let first = rng.below(self.sentences.len() as u64) as usize;

        let mut tokens = parts.head.clone();
        let (mut used, mut stated) = (0, 0);
        let mut waiting = places.into_iter().peekable();
        for sentence in self.sentences[first..].iter().chain(self.sentences.iter().cycle()) {
            while let Some((_, needle)) = waiting.next_if(|(place, _)| *place <= used) {
                if needle == 0 {
                    stated = tokens.len();
                }
                tokens.extend(&parts.needles[needle]);
            }
            if used == filler {
                break;
            }
            let taken = sentence.len().min(filler - used);
            tokens.extend(&sentence[..taken]);
            used += taken;
        }
        tokens.extend(parts.question);
        Ok(Question { tokens, answer: parts.answer, stated })
    }
}
