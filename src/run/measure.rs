//! Evaluations of a run, each kept in a file so that a continued run does not measure twice.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::questions::Material;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::config::choices::Task;
use crate::config::{RunConfig, defaults};
use crate::error::{IoContext, Result};
use crate::eval::{EvalPlan, EvalProgress, Evaluation, PasskeyPlan, Subject};
use crate::io::atomic::write_bytes_atomically;
use crate::model::{Llama, RopeConfig};
use crate::report::record::{EvalRecord, Role, ValidationRecord};
use crate::train::State;
use crate::units::{format_count, format_duration, format_length};

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
    /// Decided the questions.
    pub seed: u64,
}

impl<'a> Measure<'a> {
    /// The evaluation that the settings ask for; `None` when they ask for none.
    pub fn of_run(
        config: &RunConfig,
        (place, kernels): (&'a Place, &'a dyn Kernels),
        material: &'a Material,
        docs: &'a [Vec<u32>],
        stop: &'a AtomicBool,
        ui: Ui,
    ) -> Option<Self> {
        let eval = &config.eval;
        if eval.tasks.is_empty() {
            return None;
        }
        let docs = if eval.tasks.contains(&Task::Ppl) { docs.iter().map(Vec::as_slice).collect() } else { Vec::new() };
        let plan = material.plan(defaults::WINDOWS, None);
        Some(Self { kernels, plan, docs, stop, ui, device: place.name(), seed: material.seed() })
    }

    /// What was measured here before, or measures it now and keeps it. `None` when stopped. What was measured on another device
    /// is measured again: subjects are compared, and devices round differently.
    pub fn kept(
        &self,
        run: &Path,
        name: &str,
        measure: impl FnOnce() -> Result<Option<EvalRecord>>,
    ) -> Result<Option<EvalRecord>> {
        let path = run.join("eval").join(format!("{name}.json"));
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
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).context("create", folder)?;
        }
        write_bytes_atomically(&path, text.as_bytes())?;
        Ok(Some(record))
    }

    /// Measures one subject. `None` when stopped.
    pub fn run(&self, model: &mut Llama, subject: &Subject) -> Result<Option<EvalRecord>> {
        let bar = self.ui.bar(&format!("evaluate {}", subject.name), 1);
        let mut pace = Pace::new();
        let mut hear = |news: EvalProgress| match news {
            EvalProgress::Tokens { done, total, share } => {
                let line = format!("{} tokens  eta {}", format_count(done), format_duration(pace.left(share)));
                if self.ui == Ui::Plain && pace.is_due() {
                    self.ui.say(&format!("evaluate {} | {:.0}% | {line}", subject.name, 100.0 * share));
                }
                bar.at(done, total, line);
            }
            EvalProgress::TextTooShort { length, longest } => bar.say(
                self.ui,
                &format!(
                    "skipped perplexity at {}: the longest text has {} tokens",
                    format_length(length),
                    format_count(longest as u64)
                ),
            ),
            EvalProgress::PromptTooLong { task, length, needs } => {
                bar.say(self.ui, &format!("skipped {task} at {}: a question takes about {needs} tokens", format_length(length)));
            }
        };
        let evaluation = Evaluation { kernels: self.kernels, plan: &self.plan, docs: &self.docs, stop: self.stop };
        let record = evaluation.run(model, subject, &mut hear)?;
        Ok(record.map(|record| EvalRecord { device: self.device.to_owned(), seed: self.seed, ..record }))
    }

    /// Measures all subjects on one model, which is gone then, and hands out each record as soon as it is there. False when stopped.
    pub fn run_all(&self, mut model: Llama, subjects: &[Subject], finished: &mut dyn FnMut(EvalRecord)) -> Result<bool> {
        for subject in subjects {
            let Some(record) = self.run(&mut model, subject)? else { return Ok(false) };
            finished(record);
        }
        Ok(true)
    }

    /// Measures a state in mid-training under `rope`: the loss at the longest length that the text holds and, with `retrieval`, how many
    /// of the questions at `target` it answers. `None` when stopped, or when there is nothing to measure.
    pub fn validation(
        &self,
        state: &mut State,
        step: u64,
        rope: &RopeConfig,
        retrieval: Option<usize>,
    ) -> Result<Option<ValidationRecord>> {
        let longest = self.docs.iter().map(|d| d.len()).max().unwrap_or(0);
        let length = self.plan.lengths.iter().filter(|&&l| l <= longest).max();
        let questions = self.plan.niah.as_ref().or(self.plan.passkey.as_ref());
        let asked = retrieval.and_then(|target| Some(PasskeyPlan { lengths: vec![target], ..questions?.clone() }));
        if length.is_none() && asked.is_none() {
            return Ok(None);
        }
        let EvalPlan { windows, stride, .. } = self.plan;
        let plan =
            EvalPlan { lengths: length.copied().into_iter().collect(), windows, stride, niah: asked, ..EvalPlan::default() };
        let evaluation = Evaluation { kernels: self.kernels, plan: &plan, docs: &self.docs, stop: self.stop };
        let subject = Subject { name: String::new(), role: Role::Other, rope: rope.clone() };
        let record = evaluation.run(&mut state.model, &subject, &mut |_| {})?;
        Ok(record.map(|record| ValidationRecord {
            step,
            loss: record.perplexity.first().map_or(f64::NAN, |score| score.nll),
            retrieval: record.niah.map(|grid| mean(grid.accuracy.concat())),
        }))
    }
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How fast an evaluation goes.
struct Pace {
    started: Instant,
    told: Instant,
}

impl Pace {
    /// Between lines where there is no bar.
    const PAUSE: Duration = Duration::from_secs(30);

    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, told: now }
    }

    /// Seconds left when this share is done.
    fn left(&self, share: f64) -> f64 {
        self.started.elapsed().as_secs_f64() * (1.0 / share.max(1e-9) - 1.0)
    }

    /// Whether it is time for another line.
    fn is_due(&mut self) -> bool {
        let due = self.told.elapsed() >= Self::PAUSE;
        if due {
            self.told = Instant::now();
        }
        due
    }
}

/// Name of a measurement's file in `eval/`.
pub fn file_of(role: Role) -> &'static str {
    match role {
        Role::Before => "before",
        Role::RopeOnly => "rope_only",
        Role::After => "after",
        Role::Control => "control",
        Role::Other => "other",
    }
}
