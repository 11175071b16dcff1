//! Retrieval by depth and length.
//!
//! Scored by teacher forcing: an answer is right when the likeliest token at each of its places, given the true tokens
//! before it, is its own. That holds exactly when greedy decoding would have written it, and takes one forward pass.

use std::sync::atomic::AtomicBool;

use super::{EvalError, Question, Questions, batches, stopped};
use crate::backend::Kernels;
use crate::config::defaults::DEPTHS;
use crate::data::Batch;
use crate::error::Result;
use crate::generate::{hidden_behind, is_cached, piece_tokens};
use crate::model::{KvCache, Llama, Recompute};
use crate::report::record::Grid;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// Which questions are asked.
#[derive(Clone)]
pub struct PasskeyPlan<'a> {
    /// Their kind.
    pub questions: &'a dyn Questions,
    /// Tokens of question and answer together: the columns.
    pub lengths: Vec<usize>,
    /// Where the answer is stated, 0 (start) to 1 (end): the rows.
    pub depths: Vec<f64>,
    /// Questions per cell.
    pub samples: usize,
    /// Decides the questions, together with length, depth and sample alone: a cell asks the same in every grid.
    pub seed: u64,
}

impl PasskeyPlan<'_> {
    /// What is measured unless told otherwise: five depths, ten samples.
    pub fn new(questions: &dyn Questions, lengths: Vec<usize>) -> PasskeyPlan<'_> {
        PasskeyPlan { questions, lengths, depths: DEPTHS.into(), samples: 10, seed: 0 }
    }

    pub(super) fn check(&self) -> std::result::Result<(), EvalError> {
        let refuse = |key, expected, got| Err(EvalError::Plan { key, expected, got });
        if self.samples == 0 {
            return refuse("passkey samples", "at least 1", "0".into());
        }
        match self.depths.iter().find(|d| !(0.0..=1.0).contains(*d)) {
            Some(depth) => refuse("passkey depth", "between 0 and 1", depth.to_string()),
            None => Ok(()),
        }
    }

    /// Each column that can be asked, with the tokens it takes.
    pub(super) fn tokens(&self) -> Result<Vec<(usize, u64)>> {
        let shortest = self.questions.shortest()?;
        let column = |&length: &usize| (length, (length * self.depths.len() * self.samples) as u64);
        Ok(self.lengths.iter().filter(|&&length| length >= shortest).map(column).collect())
    }

    /// The questions of one cell.
    pub fn cell(&self, length: usize, depth: f64) -> Result<Vec<Question>> {
        let index = |sample: usize| (length as u64) << 32 | ((depth * 1000.0).round() as u64) << 20 | sample as u64;
        (0..self.samples).map(|sample| self.questions.ask(length, depth, self.seed, index(sample))).collect()
    }
}

/// News from [`grid`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CellNews {
    /// Some tokens were processed.
    Tokens {
        /// How many.
        tokens: u64,
        /// The column.
        length: usize,
    },
    /// No question fits this length; its column stays empty.
    TooShort {
        /// The column.
        length: usize,
        /// Tokens a question takes.
        needs: usize,
    },
}

/// Says which tokens a model puts at the answers' places, for questions of one length.
pub type Answer<'a> = dyn FnMut(&[Question]) -> Result<Vec<Vec<u32>>> + 'a;

/// Asks every question of the plan; `answer` is usually [`answers`]. `None` when `stop` was raised in between.
///
/// Questions of one length are of equal length at every depth, and are answered together.
pub fn grid(plan: &PasskeyPlan, answer: &mut Answer, stop: &AtomicBool, news: &mut dyn FnMut(CellNews)) -> Result<Option<Grid>> {
    plan.check()?;
    let needs = plan.questions.shortest()?;
    let mut accuracy = vec![vec![f64::NAN; plan.lengths.len()]; plan.depths.len()];
    for (column, &length) in plan.lengths.iter().enumerate() {
        if length < needs {
            news(CellNews::TooShort { length, needs });
            continue;
        }
        let mut questions = Vec::with_capacity(plan.depths.len() * plan.samples);
        for &depth in &plan.depths {
            questions.extend(plan.cell(length, depth)?);
        }
        let mut right = Vec::with_capacity(questions.len());
        for questions in batches(&questions, Question::length) {
            if stopped(stop) {
                return Ok(None);
            }
            let given = answer(questions)?;
            right.extend(questions.iter().zip(&given).map(|(q, given)| q.answer == *given));
            news(CellNews::Tokens { tokens: (length * questions.len()) as u64, length });
        }
        for (row, right) in right.chunks(plan.samples).enumerate() {
            accuracy[row][column] = right.iter().filter(|right| **right).count() as f64 / plan.samples as f64;
        }
    }
    Ok(Some(Grid { lengths: plan.lengths.clone(), depths: plan.depths.clone(), accuracy, samples: plan.samples as u64 }))
}

/// The model's likeliest token at each place of each answer, given the true tokens before it. Questions and answers
/// together are of one length. Logits exist at these places only.
///
/// A row of more tokens than a piece is read in pieces behind a cache, where the rotation allows it: its memory is then that of its
/// keys and values.
pub fn answers(kernels: &dyn Kernels, model: &Llama, questions: &[Question]) -> Result<Vec<Vec<u32>>> {
    let seen = |q: &Question| -> Vec<u32> { q.tokens.iter().chain(&q.answer).copied().take(q.length() - 1).collect() };
    let rows: Vec<Vec<u32>> = questions.iter().map(seen).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    EvalError::check_tokens(model, &rows)?;
    let piece = piece_tokens(kernels);
    match rows.as_slice() {
        [row] if row.len() > piece => in_pieces(kernels, model, row, questions[0].answer.len(), piece).map(|row| vec![row]),
        rows => at_once(kernels, model, questions, rows),
    }
}

/// One row's likeliest tokens behind each of its last `count`, read at most `piece` tokens at a time.
pub fn in_pieces(kernels: &dyn Kernels, model: &Llama, row: &[u32], count: usize, piece: usize) -> Result<Vec<u32>> {
    let mut cache = is_cached(model, row.len()).then(|| KvCache::new(model.config.layers, row.len()));
    let hidden = hidden_behind(kernels, model, row, count, cache.as_mut(), piece)?;
    likeliest(kernels, model, &hidden)
}

fn at_once(kernels: &dyn Kernels, model: &Llama, questions: &[Question], rows: &[&[u32]]) -> Result<Vec<Vec<u32>>> {
    let batch = Batch::contiguous(rows);
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, &batch, Recompute::Nothing, None)?;

    let length = rows[0].len();
    let places = |(row, q): (usize, &Question)| (q.tokens.len() - 1..length).map(move |place| (row * length + place) as u32);
    let places: Vec<u32> = questions.iter().enumerate().flat_map(places).collect();
    // Picking rows of a matrix by number is what an embedding does.
    let [count, width] = hidden.value().rows_cols("answers: hidden (B,T,C)")?;
    let matrix = hidden.value().reshape("answers: hidden (B·T,C)", [count, width])?;
    let picked = kernels.embedding_fwd(&Tensor::u32(places.clone(), [1, places.len()]), &matrix)?;
    let mut likeliest = likeliest(kernels, model, &picked)?.into_iter();
    Ok(questions.iter().map(|q| likeliest.by_ref().take(q.answer.len()).collect()).collect())
}

/// The likeliest token behind each of some hidden states.
fn likeliest(kernels: &dyn Kernels, model: &Llama, hidden: &Tensor) -> Result<Vec<u32>> {
    let logits = model.logits(kernels, hidden)?.to_host_f32()?;
    Ok(logits.as_f32()?.chunks_exact(model.config.vocab).map(argmax).collect())
}

/// The place of the largest value, the first of equals; [`u32::MAX`], which is no token, when one is NaN.
pub(crate) fn argmax(values: &[f32]) -> u32 {
    let mut best = (u32::MAX, f32::NEG_INFINITY);
    for (i, &value) in values.iter().enumerate() {
        if value.is_nan() {
            return u32::MAX;
        }
        if value > best.1 {
            best = (i as u32, value);
        }
    }
    best.0
}
