//! Retrieval by depth and length.
//!
//! Scored by teacher forcing: an answer is right when the likeliest token at each of its places, given the true tokens
//! before it, is its own. That holds exactly when greedy decoding would have written it, and takes one forward pass.

use std::sync::atomic::AtomicBool;

use super::{EvalError, Question, Questions, batches, stopped};
use crate::backend::Kernels;
use crate::data::Batch;
use crate::error::Result;
use crate::model::{Llama, Recompute};
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
        PasskeyPlan { questions, lengths, depths: vec![0.0, 0.25, 0.5, 0.75, 1.0], samples: 10, seed: 0 }
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

    /// Tokens the grid takes.
    pub(super) fn tokens(&self) -> Result<u64> {
        let shortest = self.questions.shortest()?;
        let column: usize = self.lengths.iter().filter(|&&l| l >= shortest).sum();
        Ok((column * self.depths.len() * self.samples) as u64)
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
    Tokens(u64),
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
pub fn grid(plan: &PasskeyPlan, answer: &mut Answer, stop: &AtomicBool, news: &mut dyn FnMut(CellNews)) -> Result<Option<Grid>> {
    plan.check()?;
    let needs = plan.questions.shortest()?;
    let mut accuracy = vec![vec![f64::NAN; plan.lengths.len()]; plan.depths.len()];
    for (column, &length) in plan.lengths.iter().enumerate() {
        if length < needs {
            news(CellNews::TooShort { length, needs });
            continue;
        }
        for (row, &depth) in plan.depths.iter().enumerate() {
            let mut right = 0;
            for questions in batches(&plan.cell(length, depth)?, Question::length) {
                if stopped(stop) {
                    return Ok(None);
                }
                let given = answer(questions)?;
                right += questions.iter().zip(&given).filter(|(q, given)| q.answer == **given).count();
                news(CellNews::Tokens((length * questions.len()) as u64));
            }
            accuracy[row][column] = right as f64 / plan.samples as f64;
        }
    }
    Ok(Some(Grid { lengths: plan.lengths.clone(), depths: plan.depths.clone(), accuracy, samples: plan.samples as u64 }))
}

/// The model's likeliest token at each place of each answer, given the true tokens before it. Questions and answers
/// together are of one length. Logits exist at these places only.
pub fn answers(kernels: &dyn Kernels, model: &Llama, questions: &[Question]) -> Result<Vec<Vec<u32>>> {
    let seen = |q: &Question| -> Vec<u32> { q.tokens.iter().chain(&q.answer).copied().take(q.length() - 1).collect() };
    let rows: Vec<Vec<u32>> = questions.iter().map(seen).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    EvalError::check_tokens(model, &rows)?;
    let batch = Batch::contiguous(&rows);
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, &batch, Recompute::Nothing, None)?;

    let length = rows[0].len();
    let places = |(row, q): (usize, &Question)| (q.tokens.len() - 1..length).map(move |place| (row * length + place) as u32);
    let places: Vec<u32> = questions.iter().enumerate().flat_map(places).collect();
    // Picking rows of a matrix by number is what an embedding does.
    let [count, width] = hidden.value().rows_cols("answers: hidden (B,T,C)")?;
    let matrix = hidden.value().reshape("answers: hidden (B·T,C)", [count, width])?;
    let picked = kernels.embedding_fwd(&Tensor::u32(places.clone(), [1, places.len()]), &matrix)?;
    let logits = model.logits(kernels, &picked)?.to_host_f32()?;
    let mut likeliest = logits.as_f32()?.chunks_exact(model.config.vocab).map(argmax);
    Ok(questions.iter().map(|q| likeliest.by_ref().take(q.answer.len()).collect()).collect())
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

/// Standard error of a share that was measured on `samples` questions: `√(p(1−p)/n)`. It is 0 where all answers were
/// right or all wrong, which for few samples says little.
pub fn standard_error(share: f64, samples: u64) -> f64 {
    (share * (1.0 - share) / samples as f64).sqrt()
}
