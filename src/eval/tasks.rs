//! Tasks whose answers are generated: RULER's by length, LongBench's by length.

use rayon::prelude::*;

use super::generated::{Prompt, Writer};
use super::longbench::{Questionnaire, prompt_tokens};
use super::ruler::{RulerTask, Sample};
use super::score::mean_and_error;
use super::{EvalError, EvalProgress, Evaluation, LongBenchPlan, Meter, RulerPlan, rows_written_together, stopped};
use crate::error::{Error, Result};
use crate::model::Llama;
use crate::report::record::TaskScore;

/// Samples that are made at once, on all cores: bounds how long a stop takes.
const AT_ONCE: usize = 32;

/// Scores of one task at one length.
#[derive(Default)]
struct Scores {
    scores: Vec<f64>,
    tokens: u64,
}

impl Scores {
    /// Adds those of some prompts; false when stopped.
    fn ask(&mut self, writer: &Writer, prompts: &[Prompt], most: usize, length: usize, meter: &mut Meter) -> Result<bool> {
        let Some(scores) = writer.scores(prompts, most)? else { return Ok(false) };
        self.scores.extend(scores);
        self.tokens += prompts.iter().map(|prompt| (prompt.tokens.len() + most) as u64).sum::<u64>();
        meter.advance((length * prompts.len()) as u64, length);
        Ok(true)
    }

    fn record(self, task: &str, group: &str, length: usize) -> TaskScore {
        let (score, error) = mean_and_error(&self.scores);
        let samples = self.scores.len() as u64;
        let tokens = self.tokens as f64 / samples.max(1) as f64;
        TaskScore { task: task.into(), group: group.into(), length, score, error, samples, tokens }
    }
}

impl Evaluation<'_> {
    fn writer<'w>(&'w self, model: &'w Llama, language: &'w dyn super::Language) -> Writer<'w> {
        Writer { kernels: self.kernels, model, language, stop: self.stop }
    }

    /// RULER's tasks, by length and then by task. `None` when stopped. A task that does not fit a length is told and left out.
    pub(super) fn ruler(&self, model: &Llama, plan: &RulerPlan, meter: &mut Meter) -> Result<Option<Vec<TaskScore>>> {
        let writer = self.writer(model, plan.language);
        let mut all = Vec::new();
        for &length in &plan.lengths {
            for &task in &plan.tasks {
                match ruler_task(&writer, plan, task, length, meter) {
                    Ok(Some(scores)) => all.push(scores.record(task.name(), "", length)),
                    Ok(None) => return Ok(None),
                    Err(Error::Eval(EvalError::NoRoom { task, needs, length })) => {
                        meter.tell(EvalProgress::PromptTooLong { task: task.into(), length, needs });
                        meter.advance((length * plan.samples) as u64, length);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(all))
    }

    /// LongBench's datasets, by length and then by dataset. `None` when stopped. A dataset whose answers hardly fit a length is told
    /// and left out.
    pub(super) fn longbench(&self, model: &Llama, plan: &LongBenchPlan, meter: &mut Meter) -> Result<Option<Vec<TaskScore>>> {
        let writer = self.writer(model, plan.language);
        let mut all = Vec::new();
        for &length in &plan.lengths {
            for set in plan.sets {
                if length < set.shortest() {
                    meter.tell(EvalProgress::PromptTooLong { task: set.name.clone(), length, needs: set.shortest() });
                    meter.advance((length * set.rows.len()) as u64, length);
                    continue;
                }
                let Some(scores) = questionnaire(&writer, plan, set, length, meter)? else { return Ok(None) };
                all.push(scores.record(&set.name, set.category.name(), length));
            }
        }
        Ok(Some(all))
    }
}

/// All samples are made before the first is answered, so a task without room has no score at all, and never one over the samples
/// that happened to fit.
fn ruler_task(writer: &Writer, plan: &RulerPlan, task: RulerTask, length: usize, meter: &mut Meter) -> Result<Option<Scores>> {
    let (most, rule) = (task.answer_tokens(), task.rule());
    let Some(samples) = samples(writer, plan, task, length)? else { return Ok(None) };
    let mut scores = Scores::default();
    for samples in samples.chunks(rows_written_together(writer.model, length, &plan.lengths)) {
        let prompts: Vec<_> =
            samples.iter().map(|Sample { tokens, answers, .. }| Prompt { tokens, rule: &rule, answers }).collect();
        if !scores.ask(writer, &prompts, most, length, meter)? {
            return Ok(None);
        }
    }
    Ok(Some(scores))
}

/// All samples, without their texts: their tokens are enough, and there may be hundreds of long ones. `None` when stopped.
fn samples(writer: &Writer, plan: &RulerPlan, task: RulerTask, length: usize) -> Result<Option<Vec<Sample>>> {
    let make = |&index: &u64| plan.source.sample(task, length, index).map(|sample| Sample { text: String::new(), ..sample });
    let numbers: Vec<u64> = (0..plan.samples as u64).collect();
    let mut all = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks(AT_ONCE) {
        if stopped(writer.stop) {
            return Ok(None);
        }
        all.extend(numbers.par_iter().map(make).collect::<Result<Vec<_>>>()?);
    }
    Ok(Some(all))
}

fn questionnaire(
    writer: &Writer,
    plan: &LongBenchPlan,
    set: &Questionnaire,
    length: usize,
    meter: &mut Meter,
) -> Result<Option<Scores>> {
    let most = set.answer_tokens;
    let room = length - most;
    let mut scores = Scores::default();
    for rows in set.rows.chunks(rows_written_together(writer.model, length, &plan.lengths)) {
        let texts: Vec<Vec<u32>> =
            rows.iter().map(|row| prompt_tokens(writer.language, &row.prompt, room)).collect::<Result<_>>()?;
        let both = rows.iter().zip(&texts);
        let prompts: Vec<_> = both.map(|(row, tokens)| Prompt { tokens, rule: &row.rule, answers: &row.answers }).collect();
        if !scores.ask(writer, &prompts, most, length, meter)? {
            return Ok(None);
        }
    }
    Ok(Some(scores))
}
