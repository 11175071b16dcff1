//! Evaluations of a run, each kept in a file so that a continued run does not measure twice.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::base::Base;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::config::choices::Task;
use crate::config::{RunConfig, defaults};
use crate::data::Encode;
use crate::error::{IoContext, Result};
use crate::eval::{EvalPlan, EvalProgress, Evaluation, Facts, Passkey, PasskeyPlan, Questions, Subject};
use crate::io::atomic::write_bytes_atomically;
use crate::model::{Llama, RopeConfig};
use crate::report::record::{EvalRecord, Role};
use crate::units::{format_count, format_length};

/// The questions that fit a model: its own language for the built-in one, LongLoRA's template for all others.
pub fn questions<'a>(base: &'a Base) -> Result<Box<dyn Questions + 'a>> {
    let speaks_synthetic = base.tokenizer.identity() == crate::data::synthetic::tokenizer_identity();
    Ok(match speaks_synthetic {
        true => Box::new(Facts::default()),
        false => Box::new(Passkey::new(&base.tokenizer)?),
    })
}

/// What all evaluations of a run share.
pub struct Measure<'a> {
    /// Where it runs.
    pub kernels: &'a dyn Kernels,
    /// What is measured.
    pub plan: EvalPlan<'a>,
    /// Held-out documents.
    pub docs: Vec<&'a [u32]>,
    /// Raised by a signal.
    pub stop: &'a AtomicBool,
    /// How progress is shown.
    pub ui: Ui,
    /// Name of the place where it runs.
    pub device: &'a str,
}

impl<'a> Measure<'a> {
    /// The evaluation that the settings ask for; `None` when they ask for none.
    pub fn of_run(
        config: &RunConfig,
        (place, kernels): (&'a Place, &'a dyn Kernels),
        questions: &'a dyn Questions,
        docs: &'a [Vec<u32>],
        stop: &'a AtomicBool,
        ui: Ui,
    ) -> Option<Self> {
        let eval = &config.eval;
        if eval.tasks.is_empty() {
            return None;
        }
        let passkey = eval.tasks.contains(&Task::Passkey).then(|| PasskeyPlan {
            samples: eval.passkey_samples,
            seed: config.train.seed,
            ..PasskeyPlan::new(questions, eval.at.clone())
        });
        let docs = if eval.tasks.contains(&Task::Ppl) { docs.iter().map(Vec::as_slice).collect() } else { Vec::new() };
        let plan = EvalPlan { lengths: eval.at.clone(), windows: defaults::WINDOWS, stride: None, passkey };
        Some(Self { kernels, plan, docs, stop, ui, device: place.name() })
    }

    /// What was measured here before, or measures it now and keeps it. `None` when stopped. What was measured on another device
    /// is measured again: subjects are compared, and devices round differently.
    pub fn kept(
        &self,
        run: &Path,
        role: Role,
        measure: impl FnOnce() -> Result<Option<EvalRecord>>,
    ) -> Result<Option<EvalRecord>> {
        let path = run.join("eval").join(file_of(role));
        if path.exists() {
            let text = std::fs::read_to_string(&path).context("read", &path)?;
            match serde_json::from_str::<EvalRecord>(&text) {
                Ok(record) if record.device == self.device => return Ok(Some(record)),
                Ok(_) => self.ui.say(&format!("{} is of another device: measuring again on {}", path.display(), self.device)),
                Err(_) => {}
            }
        }
        let Some(record) = measure()? else { return Ok(None) };
        let text = serde_json::to_string_pretty(&record).expect("measure: records serialise");
        write_bytes_atomically(&path, text.as_bytes())?;
        Ok(Some(record))
    }

    /// Measures one subject. `None` when stopped.
    pub fn run(&self, model: &mut Llama, subject: &Subject) -> Result<Option<EvalRecord>> {
        let bar = self.ui.bar(&format!("evaluate {}", subject.name), 1);
        let mut hear = |news: EvalProgress| match news {
            EvalProgress::Tokens { done, total } => bar.at(done, total, format!("{} tokens", format_count(done))),
            EvalProgress::TextTooShort { length, longest } => bar.say(
                self.ui,
                &format!(
                    "skipped perplexity at {}: the longest text has {} tokens",
                    format_length(length),
                    format_count(longest as u64)
                ),
            ),
            EvalProgress::PromptTooLong { length, needs } => {
                bar.say(self.ui, &format!("skipped passkey at {}: a question takes {needs} tokens", format_length(length)));
            }
        };
        let evaluation = Evaluation { kernels: self.kernels, plan: &self.plan, docs: &self.docs, stop: self.stop };
        let record = evaluation.run(model, subject, &mut hear)?;
        Ok(record.map(|record| EvalRecord { device: self.device.to_owned(), ..record }))
    }

    /// Measures all subjects on one model, which is gone then. `None` when stopped.
    pub fn run_all(&self, mut model: Llama, subjects: &[Subject]) -> Result<Option<Vec<EvalRecord>>> {
        subjects.iter().map(|subject| self.run(&mut model, subject)).collect()
    }

    /// Mean loss under `rope` at the longest length that the text holds, for validation while training.
    pub fn validation_loss(&self, model: &mut Llama, rope: &RopeConfig) -> Result<Option<f64>> {
        let longest = self.docs.iter().map(|d| d.len()).max().unwrap_or(0);
        let Some(&length) = self.plan.lengths.iter().filter(|&&l| l <= longest).max() else { return Ok(None) };
        let plan = EvalPlan { lengths: vec![length], passkey: None, ..self.plan.clone() };
        let evaluation = Evaluation { kernels: self.kernels, plan: &plan, docs: &self.docs, stop: self.stop };
        let subject = Subject { name: String::new(), role: Role::Other, rope: rope.clone() };
        let record = evaluation.run(model, &subject, &mut |_| {})?;
        Ok(record.and_then(|r| r.perplexity.first().map(|s| s.nll)))
    }
}

/// File of a measurement in `eval/`.
fn file_of(role: Role) -> &'static str {
    match role {
        Role::Before => "before.json",
        Role::RopeOnly => "rope_only.json",
        Role::After => "after.json",
        Role::Control => "control.json",
        Role::Other => "other.json",
    }
}
