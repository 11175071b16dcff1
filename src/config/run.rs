//! A run's configuration: complete, checked, and what the program passes on.

use std::path::PathBuf;

use crate::backend::gpu::Gpus;
use crate::data::{Attend, Format, Holdout, Long, Loss, Packing, Reading};
use crate::io::Storage;
use crate::model::rope::RopeKind;
use crate::model::{LoraConfig, Recompute, RopeConfig};
use crate::optim::{AdamWConfig, Schedule, Shape};
use crate::positions::{self, MethodArgs, MethodError, Mix, Spec, Words};
use crate::train::TrainMode;
use crate::units::format_length;

use super::choices::{Attention, Best, Export, NanPolicy, Progress, ScalePer, Task};
use super::text::{Length, List, ModelSource, Portion, Resume, Size, Source, Warmup};
use super::{ConfigError, ModelInfo, Settings, resolve};

/// Everything a run is told.
#[derive(Debug, Clone, PartialEq)]
pub struct RunConfig {
    /// What is trained.
    pub model: ModelSettings,
    /// On which text.
    pub data: DataSettings,
    /// At which positions, under which attention and rotation.
    pub positions: PositionSettings,
    /// What moves, for how long, where.
    pub train: TrainSettings,
    /// How it moves.
    pub optim: OptimSettings,
    /// What is measured.
    pub eval: EvalSettings,
    /// What is written and shown.
    pub output: OutputSettings,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// The base model, if weights are read.
    pub source: ModelSource,
    /// Start from random weights in the shape of this `config.json`; `source` is then not used.
    pub init: Option<PathBuf>,
    /// Another tokenizer than the model's.
    pub tokenizer: Option<PathBuf>,
    /// Short name for folders and the first screen.
    pub name: String,
}

/// Text and how it is cut.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSettings {
    /// Files, folders or synthetic text; at least one.
    pub train: Vec<Source>,
    /// Evaluation text, instead of held-back documents.
    pub eval: Option<PathBuf>,
    /// How JSON rows are read.
    pub reading: Reading,
    /// Chat template, instead of the tokenizer's.
    pub chat_template: Option<PathBuf>,
    /// Tokens of conversations that are learned, where it was said.
    pub loss: Option<Loss>,
    /// What becomes of conversations longer than a row, where it was said.
    pub long: Option<Long>,
    /// Folder for tokenised text, if one was named.
    pub cache: Option<PathBuf>,
    /// Documents held back.
    pub val: Holdout,
    /// Whether short documents share rows.
    pub packing: Packing,
    /// Tokens per row; at most the target.
    pub seq_len: usize,
}

/// Positions, attention and rotation.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionSettings {
    /// The method or methods.
    pub method: Spec,
    /// The method's numbers; `target`, `context` and `seq_len` among them.
    pub args: MethodArgs,
    /// What EndPrompt puts at the end of the target: a text, or [`defaults::EOS`](super::defaults::EOS).
    pub end_prompt: String,
    /// LongRecipe's selection; tokens with a digit when absent.
    pub select: Option<PathBuf>,
    /// Context to reach: positions are below it.
    pub target: usize,
    /// The base model's context.
    pub context: usize,
    /// Who sees whom in training.
    pub attend: Attend,
    /// How the rotation is extended.
    pub rope: RopeKind,
    /// The base model's rotation.
    pub base_rope: RopeConfig,
    /// The extended model's rotation: what evaluation uses and export writes.
    pub target_rope: RopeConfig,
}

impl PositionSettings {
    /// The position method, with what it needs to know of the language.
    ///
    /// # Errors
    /// None for a resolved configuration.
    pub fn plan(&self, words: &Words) -> Result<Mix, MethodError> {
        positions::build(&self.method, &self.args, words)
    }

    /// What the method is called in tables: `pose`, `mix`, `natural + s2`.
    pub fn label(&self) -> String {
        match self.attend {
            Attend::Full => self.method.name().to_owned(),
            Attend::Shifted { .. } => format!("{} + s2", self.method.name()),
        }
    }

    /// The rotation in training: E²-LLM's scales take the place of the extended model's factor.
    pub fn training_rope(&self) -> &RopeConfig {
        if self.method.has(resolve::E2_LLM) { &self.base_rope } else { &self.target_rope }
    }
}

/// What moves, for how long, where.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    /// Which parameters.
    pub mode: TrainMode,
    /// The adapters' shape, where the mode has adapters.
    pub lora: Option<LoraConfig>,
    /// Optimizer steps.
    pub steps: u64,
    /// Rows computed at once.
    pub micro_batch: usize,
    /// Micro-batches per step.
    pub accum: usize,
    /// What backward computes again.
    pub recompute: Recompute,
    /// What a non-finite step does.
    pub nan: NanPolicy,
    /// Random seed.
    pub seed: u64,
    /// Where to run.
    pub gpus: Gpus,
    /// Most bytes of GPU memory; what is free less a margin when absent.
    pub mem_limit: Option<u64>,
    /// Whether a GPU's kernels are compared with the CPU's first.
    pub check_kernels: bool,
    /// CPU threads; the CPU's cores when absent.
    pub threads: Option<usize>,
}

/// The optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimSettings {
    /// Peak learning rate.
    pub lr: f64,
    /// Peak learning rate of embeddings and norms.
    pub lr_embed: f64,
    /// What follows the warm-up.
    pub shape: Shape,
    /// Last learning rate as a share of the peak.
    pub min_lr_ratio: f64,
    /// Warm-up.
    pub warmup: Warmup,
    /// AdamW's constants.
    pub adamw: AdamWConfig,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSettings {
    /// Lengths, ascending.
    pub at: Vec<usize>,
    /// Tasks; none switches evaluation off.
    pub tasks: Vec<Task>,
    /// Prompts per length of the passkey task.
    pub passkey_samples: usize,
    /// Also every so many steps.
    pub every: Option<u64>,
    /// Which state of the training is the result.
    pub best: Best,
    /// Whether a control is trained at natural positions.
    pub control: bool,
}

/// What is written and shown.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSettings {
    /// Folder of the run; when absent, the first of [`RunConfig::usual_out`] that is free or can be continued.
    pub out: Option<PathBuf>,
    /// Start anew in a folder that holds a run.
    pub overwrite: bool,
    /// What to continue.
    pub resume: Resume,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// Checkpoints kept.
    pub keep: usize,
    /// What is written at the end.
    pub export: Export,
    /// Number format of written weights; the base model's when absent.
    pub save_dtype: Option<Storage>,
    /// Steps between log lines; by the step's duration when absent.
    pub log_every: Option<u64>,
    /// How progress is shown.
    pub progress: Progress,
}

/// Keys that may change when a run is continued.
const FREE: &[&str] = &[
    "cache",
    "chat_template",
    "check_kernels",
    "data",
    "eval",
    "eval_at",
    "eval_data",
    "eval_every",
    "export",
    "gpus",
    "keep",
    "log_every",
    "mem_limit",
    "out",
    "overwrite",
    "passkey_samples",
    "progress",
    "recompute",
    "resume",
    "save_dtype",
    "save_every",
    "select",
    "steps",
    "threads",
];

/// Free keys that decide what a finished run leaves behind.
const RESULTS: &[&str] = &["eval", "eval_at", "eval_data", "export", "passkey_samples", "save_dtype", "steps"];

impl RunConfig {
    /// Fills in the defaults for `model` and checks everything.
    ///
    /// # Errors
    /// [`ConfigError::NotLonger`] when that is all, else every problem at once.
    pub fn resolve(settings: &Settings, model: &ModelInfo) -> Result<Self, ConfigError> {
        resolve::resolve(settings, model)
    }

    /// Learning rate of everything but embeddings and norms, by step.
    pub fn schedule(&self) -> Schedule {
        let &OptimSettings { lr, shape, min_lr_ratio, warmup, .. } = &self.optim;
        let steps = self.train.steps;
        Schedule { peak: lr, warmup: warmup.steps(steps), steps, shape, floor: min_lr_ratio }
    }

    /// Tokens of one optimizer step.
    pub fn tokens_per_step(&self) -> usize {
        self.data.seq_len.saturating_mul(self.train.micro_batch).saturating_mul(self.train.accum)
    }

    /// The settings that resolve to this configuration whatever the defaults are.
    pub fn settings(&self) -> Settings {
        let RunConfig { model, data, positions, train, optim, eval, output } = self;
        let lora = train.lora.as_ref();
        let group = match positions.attend {
            Attend::Full => None,
            Attend::Shifted { group } => Some(group),
        };
        let with = |method: &str| positions.method.has(method);
        let args = &positions.args;
        Settings {
            model: model.init.is_none().then(|| model.source.clone()),
            init: model.init.clone(),
            tokenizer: model.tokenizer.clone(),
            data: Some(data.train.clone()),
            eval_data: data.eval.clone(),
            columns: Some(data.reading.columns.clone()),
            format: (data.reading.format != Format::Auto).then_some(data.reading.format),
            chat_template: data.chat_template.clone(),
            loss: data.loss,
            long: data.long,
            cache: data.cache.clone(),
            val: data.eval.is_none().then_some(data.val),
            no_pack: (data.packing == Packing::Off).then_some(true),
            target: Some(Length(positions.target)),
            seq_len: Some(Length(data.seq_len)),
            method: None,
            positions: Some(positions.method.clone()),
            contiguous: None,
            retrieval: None,
            pose_chunks: with(resolve::POSE).then_some(args.chunks),
            e2_max_scale: args.max_scale,
            e2_scale_per: with(resolve::E2_LLM).then_some(if args.rows_per_scale == 1 { ScalePer::Row } else { ScalePer::Step }),
            select: with(resolve::LONG_RECIPE).then(|| positions.select.clone()).flatten(),
            select_rest: with(resolve::LONG_RECIPE).then_some(Portion(args.select_rest)),
            end_prompt: with(resolve::END_PROMPT).then(|| positions.end_prompt.clone()),
            end_prompt_weight: with(resolve::END_PROMPT).then_some(f64::from(args.end_prompt_weight)),
            attention: Some(if group.is_some() { Attention::S2 } else { Attention::Full }),
            s2_group: group,
            rope: Some(positions.rope),
            train: Some(train.mode),
            rank: lora.map(|l| l.rank),
            alpha: lora.map(|l| l.alpha),
            lora_targets: lora.map(|l| List(l.targets.clone())),
            rslora: lora.and_then(|l| l.rslora.then_some(true)),
            lr: Some(optim.lr),
            lr_embed: (train.mode != TrainMode::Lora).then_some(optim.lr_embed),
            schedule: Some(optim.shape),
            min_lr_ratio: (optim.shape != Shape::Constant).then_some(optim.min_lr_ratio),
            warmup: Some(optim.warmup),
            steps: Some(train.steps),
            micro_batch: Some(train.micro_batch),
            accum: Some(train.accum),
            betas: Some(List(vec![optim.adamw.beta1, optim.adamw.beta2])),
            weight_decay: Some(optim.adamw.weight_decay),
            clip: Some(optim.adamw.max_grad_norm),
            recompute: Some(train.recompute),
            nan: Some(train.nan),
            seed: Some(train.seed),
            gpus: Some(train.gpus),
            mem_limit: train.mem_limit.map(Size),
            check_kernels: train.check_kernels.then_some(true),
            threads: train.threads,
            eval_at: (!eval.tasks.is_empty()).then(|| List(eval.at.iter().copied().map(Length).collect())),
            eval: Some(List(eval.tasks.clone())),
            passkey_samples: eval
                .tasks
                .iter()
                .any(|task| matches!(task, Task::Passkey | Task::Niah))
                .then_some(eval.passkey_samples),
            eval_every: eval.every,
            best: (eval.best != Best::Last).then_some(eval.best),
            control: eval.control.then_some(true),
            no_control: (!eval.control).then_some(true),
            out: output.out.clone(),
            overwrite: output.overwrite.then_some(true),
            resume: Some(output.resume.clone()),
            save_every: Some(output.save_every),
            keep: Some(output.keep),
            export: Some(output.export),
            save_dtype: output.save_dtype,
            log_every: output.log_every,
            progress: Some(output.progress),
        }
    }

    /// The effective configuration as a file for `--config`; paths in it are absolute.
    pub fn to_toml(&self) -> String {
        self.settings().to_toml()
    }

    /// Keys and values of everything that a continued run must not change. The text is known by its content, not by its
    /// path: `data_hash` is the tokenised corpus's.
    pub fn fingerprint(&self, data_hash: &str) -> Vec<(String, String)> {
        let mut pairs = self.pairs(|key| !FREE.contains(&key));
        pairs.push(("data (hash)".into(), data_hash.into()));
        pairs
    }

    /// Keys and values of what a continued run may change, but not without doing its last part again.
    pub fn results(&self) -> Vec<(String, String)> {
        self.pairs(|key| RESULTS.contains(&key))
    }

    /// Everything that a measurement of a state depends on, in one text.
    pub fn measured_with(&self) -> String {
        let pairs = self.pairs(|key| ["eval", "eval_at", "eval_data", "passkey_samples"].contains(&key));
        pairs.into_iter().map(|(key, value)| format!("{key}={value} ")).collect()
    }

    fn pairs(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let table = self.settings().anywhere().to_table().into_iter().filter(|(key, _)| wanted(key));
        let plain = |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        table.map(|(key, value)| (key, plain(value))).collect()
    }

    /// Folders for a run that was given none, best first: `runs/tiny-pose-2k`, `runs/tiny-pose-2k-2`, …
    pub fn usual_out(&self) -> impl Iterator<Item = PathBuf> {
        let name = format!("runs/{}-{}-{}", self.model.name, self.positions.method.name(), format_length(self.positions.target));
        (1..).map(move |n: u32| PathBuf::from(if n == 1 { name.clone() } else { format!("{name}-{n}") }))
    }

    /// Folder of the run, or the first that will be tried.
    pub fn first_out(&self) -> PathBuf {
        self.output.out.clone().unwrap_or_else(|| self.usual_out().next().expect("usual_out: never ends"))
    }
}
