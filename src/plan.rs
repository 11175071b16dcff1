//! What a run takes of a device's memory: a training step and an evaluation on a device that only counts, through the same
//! code that trains.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use crate::backend::device::{Bytes, Purpose};
use crate::backend::{Device, Kernels, Meta};
use crate::config::RunConfig;
use crate::config::choices::{Best, Task};
use crate::config::defaults::{DEPTHS, RULER_SAMPLES, WINDOWS};
use crate::config::run::EvalSettings;
use crate::data::Batch;
use crate::error::{Explain, Explanation, Result};
use crate::eval::ruler::RulerTask;
use crate::eval::{Question, passkey, rows_of_a_pass, rows_written_together};
use crate::generate::{Sampler, Until, generate_together};
use crate::model::{Llama, LoraConfig, ModelConfig, Recompute};
use crate::optim::AdamW;
use crate::tape::Tape;
use crate::train::{self, TrainMode};
use crate::units::{format_bytes, format_length};

/// A stage of a run and what is in use when it needs most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What happens.
    pub name: String,
    /// By purpose.
    pub bytes: Bytes,
}

impl Phase {
    /// Everything in use.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// Memory of all stages of a run, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The stages.
    pub phases: Vec<Phase>,
}

/// A run that the device has no room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this run needs {} of GPU memory, {} are there", format_bytes(*needs), format_bytes(*limit))]
pub struct DoesNotFit {
    /// Its peak.
    pub needs: u64,
    /// What it may use.
    pub limit: u64,
    /// The table of stages.
    pub table: String,
    /// Flags that would make it fit, and its peak then.
    pub alternatives: Vec<(String, u64)>,
}

impl Explain for DoesNotFit {
    fn explain(&self) -> Explanation {
        let e = self.table.lines().fold(Explanation::new("E401"), |e, line| e.fact(line));
        if self.alternatives.is_empty() {
            return e.help("no setting of batch, row length or recomputation fits: use a smaller model or a larger device");
        }
        let width = self.alternatives.iter().map(|(flags, _)| flags.len()).max().unwrap_or(0);
        let lines: Vec<_> = self.alternatives.iter().map(|(f, peak)| format!("  {f:<width$}  {}", format_bytes(*peak))).collect();
        e.help(format!("what would fit:\n{}", lines.join("\n")))
    }
}

impl MemoryPlan {
    /// Counts a run of this configuration on a model of this shape. No weights are read.
    pub fn of(config: &RunConfig, model: &ModelConfig) -> Result<Self> {
        let device = Device::new(Meta::default(), u64::MAX);
        let mut plan = Self { phases: Vec::new() };
        let mut phase = |name: String| plan.phases.push(Phase { name, bytes: device.launcher().take_peak() });

        let mut llama = Llama::outline(model.clone(), |shape| device.reserve(shape))?;
        let settings = &config.train;
        train::prepare(&mut llama, settings.mode, settings.lora.as_ref(), settings.seed)?;
        llama.place(&device)?;
        let mut optimizer = AdamW::new(config.optim.adamw, &llama.params, &device)?;
        phase("loaded".into());

        // Tokens that differ: what tells them apart in the gradient of an embedding is as long as it can be.
        let row: Vec<u32> = (0..config.data.seq_len).map(|i| (i % model.vocab) as u32).collect();
        let batch = Batch::contiguous(&vec![row.as_slice(); settings.micro_batch]);
        // A second micro-batch meets the gradients of the first; a third meets no more.
        let micro = vec![batch; settings.accum.min(2)];
        let never = AtomicBool::new(false);
        let (grads, _) = train::gradients(&device, &llama, &micro, settings.recompute, &never)?.expect("plan: nobody stops it");
        phase("forward and backward".into());
        optimizer.apply(&device, &mut llama.params, &grads, |_| 0.0)?;
        drop(grads);
        phase("optimizer".into());
        if !config.eval.tasks.is_empty() {
            let mut longest = config.eval.at.iter().copied().max().unwrap_or(0);
            for (&task, &length) in config.eval.tasks.iter().flat_map(|task| config.eval.at.iter().map(move |at| (task, at))) {
                evaluate(&device, &llama, task, length, &config.eval)?;
            }
            if config.eval.best == Best::Retrieval {
                // By these questions, wherever the others are asked.
                evaluate(&device, &llama, Task::Passkey, config.positions.target, &config.eval)?;
                longest = longest.max(config.positions.target);
            }
            phase(format!("evaluation at {}", format_length(longest)));
        }
        Ok(plan)
    }

    /// The stage that needs most.
    pub fn peak(&self) -> &Phase {
        self.phases.iter().max_by_key(|p| p.total()).expect("plan: a run has stages")
    }

    /// Stages by purposes, as a table.
    pub fn table(&self) -> String {
        let mut rows: Vec<Vec<String>> =
            vec![std::iter::once(String::new()).chain(self.phases.iter().map(|p| p.name.clone())).collect()];
        for purpose in Purpose::ALL {
            let cells = self.phases.iter().map(|p| format_bytes(p.bytes[purpose as usize]));
            rows.push(std::iter::once(purpose.name().to_owned()).chain(cells).collect());
        }
        rows.push(std::iter::once("total".to_owned()).chain(self.phases.iter().map(|p| format_bytes(p.total()))).collect());
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..=self.phases.len()).map(width).collect();
        let mut table = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
            let line = format!("{:<first$}{}", row[0], cells.collect::<String>(), first = widths[0]);
            writeln!(table, "{}", line.trim_end()).expect("plan: a String takes any text");
        }
        table
    }

    /// Nothing when the run fits into `limit` bytes.
    ///
    /// # Errors
    /// [`DoesNotFit`], with settings that would.
    pub fn check(&self, config: &RunConfig, model: &ModelConfig, limit: u64) -> Result<()> {
        let needs = self.peak().total();
        if needs <= limit {
            return Ok(());
        }
        let mut alternatives = Vec::new();
        for (flags, other) in smaller(config) {
            let peak = Self::of(&other, model)?.peak().total();
            // One more flag that saves nothing is no alternative.
            if peak <= limit && alternatives.last().is_none_or(|(_, least)| peak < *least) {
                alternatives.push((flags, peak));
            }
            if alternatives.len() == 3 {
                break;
            }
        }
        Err(DoesNotFit { needs, limit, table: self.table(), alternatives }.into())
    }
}

/// Tokens that the answer to a passkey's question takes, about.
const ANSWER: usize = 8;

/// The largest forward pass of a task at one length: windows of perplexity, questions of a grid, or answers' last tokens.
fn evaluate(device: &dyn Kernels, model: &Llama, task: Task, length: usize, eval: &EvalSettings) -> Result<()> {
    let rows = |there: usize| rows_of_a_pass(length).min(there);
    let written = |most: usize| {
        let text = vec![0; length.saturating_sub(most)];
        match text.is_empty() {
            true => Ok(()),
            false => {
                let until = Until { max_new: most, stops: &[], stop: &AtomicBool::new(false) };
                let texts = vec![text.as_slice(); rows_written_together(model, length, &eval.at).min(RULER_SAMPLES)];
                generate_together(device, model, &texts, &Sampler::GREEDY, &until, &mut |_, _| true).map(drop)
            }
        }
    };
    match task {
        Task::Ppl => {
            let row = vec![0; length];
            let batch = Batch::contiguous(&vec![row.as_slice(); rows(WINDOWS)]);
            let mut tape = Tape::inference(device);
            model.loss(&mut tape, &batch, Recompute::Nothing, 1.0).map(drop)
        }
        Task::Passkey | Task::Niah if length > ANSWER => {
            let question = Question { tokens: vec![0; length - ANSWER], answer: vec![0; ANSWER], stated: 0 };
            passkey::answers(device, model, &vec![question; rows(eval.passkey_samples * DEPTHS.len())]).map(drop)
        }
        Task::Passkey | Task::Niah | Task::LongBench => Ok(()),
        Task::Ruler => written(RulerTask::NiahSingle1.answer_tokens()),
        Task::One(task) => written(task.answer_tokens()),
    }
}

/// The same run with less at once: first what costs least, with the flags that say so.
fn smaller(config: &RunConfig) -> Vec<(String, RunConfig)> {
    let mut all = Vec::new();
    let (mut flags, mut run) = (Vec::new(), config.clone());
    let mut add = |flag: String, run: &RunConfig| {
        flags.push(flag);
        all.push((flags.join(" "), run.clone()));
    };
    if run.train.micro_batch > 1 {
        run.train.accum *= run.train.micro_batch;
        run.train.micro_batch = 1;
        add(format!("--micro-batch 1 --accum {}", run.train.accum), &run);
    }
    if run.train.recompute == Recompute::Nothing {
        run.train.recompute = Recompute::Layers;
        add("--recompute layers".into(), &run);
    }
    if run.train.mode == TrainMode::Full {
        run.train.mode = TrainMode::Lora;
        run.train.lora = Some(LoraConfig { rank: 16, alpha: 32.0, rslora: false, targets: crate::model::LoraTarget::ALL.into() });
        add("--train lora".into(), &run);
    }
    let longest = run.eval.at.iter().copied().max().unwrap_or(0);
    if !run.eval.tasks.is_empty() && longest > run.data.seq_len {
        run.eval.at = vec![run.data.seq_len];
        add(format!("--eval-at {}", format_length(run.data.seq_len)), &run);
    }
    let kept = flags.clone();
    while run.data.seq_len >= 1024 {
        run.data.seq_len /= 2;
        let mut flags = kept.clone();
        flags.push(format!("--seq-len {}", format_length(run.data.seq_len)));
        all.push((flags.join(" "), run.clone()));
    }
    all
}
