//! From settings to a run: defaults, then checks, every problem collected.

mod positions;

use crate::backend::gpu::Gpus;
use crate::data::synthetic::Stage;
use crate::data::{Columns, Holdout, Loss, Packing, Reading};
use crate::model::{LoraConfig, LoraTarget, Recompute};
use crate::optim::{AdamWConfig, Shape};
use crate::train::TrainMode;

use super::choices::{Best, Export, NanPolicy, Preset, Progress, ScalePer, Task};
use super::run::{DataSettings, EvalSettings, ModelSettings, OptimSettings, OutputSettings, PositionSettings, TrainSettings};
use super::text::{List, ModelSource, Resume, Source, Warmup};
use super::{ConfigError, ModelInfo, Problem, RunConfig, Settings, defaults, presets};

/// Names in the registry of methods that settings of their own belong to.
pub(super) const POSE: &str = "pose";
pub(super) const E2_LLM: &str = "e2-llm";
pub(super) const LONG_RECIPE: &str = "longrecipe";
pub(super) const END_PROMPT: &str = "endprompt";
const NATURAL: &str = "natural";
const RETRIEVAL: &str = "retrieval";

/// What the parts of the resolution share.
struct Resolver<'a> {
    /// The user's, completed by those of the preset.
    settings: &'a Settings,
    /// The user's alone.
    given: &'a Settings,
    model: &'a ModelInfo,
    source: ModelSource,
    problems: Vec<Problem>,
}

pub(super) fn resolve(given: &Settings, model: &ModelInfo) -> Result<RunConfig, ConfigError> {
    let source = given.model.clone().unwrap_or_default();
    let settings = &given.clone().over(given.method.map_or_else(Settings::default, presets::settings));
    let mut r = Resolver { settings, given, model, source, problems: Vec::new() };
    let model_settings = r.model();
    let (mut positions, not_longer) = r.positions();
    let data = r.data(&positions);
    let train = r.train(&data);
    if settings.e2_scale_per == Some(ScalePer::Step) {
        positions.args.rows_per_scale = (train.micro_batch.saturating_mul(train.accum) as u64).max(1);
    }
    let optim = r.optim(&train);
    let eval = r.eval(&positions);
    let output = r.output(&train);
    r.problems.extend(settings.uncountable());
    match (not_longer, r.problems) {
        (None, problems) if problems.is_empty() => {
            Ok(RunConfig { model: model_settings, data, positions, train, optim, eval, output })
        }
        (Some(error), problems) if problems.is_empty() => Err(error),
        (error, mut problems) => {
            problems.extend(error.as_ref().map(Problem::from_error));
            Err(ConfigError::Problems(problems))
        }
    }
}

impl Resolver<'_> {
    fn problem(&mut self, key: &str, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::new(key, what).help(help));
    }

    fn need(&mut self, holds: bool, key: &str, expected: &str, got: impl std::fmt::Display) {
        if !holds {
            self.problems.push(Problem::new(key, format!("expected {expected}, got {got}")));
        }
    }

    /// A setting without effect is a misunderstanding.
    fn only_with(&mut self, given: bool, key: &str, with: &str) {
        if given {
            self.problem(key, format!("has an effect only with {with}"), format!("leave out {key}, or add {with}"));
        }
    }

    fn builtin(&self) -> bool {
        self.settings.init.is_none() && self.source == ModelSource::Builtin
    }

    /// Context to reach.
    fn target(&self) -> usize {
        let (s, context) = (self.settings, self.model.config.context);
        let extension = if self.builtin() { defaults::BUILTIN_EXTENSION } else { defaults::EXTENSION };
        let stays = s.init.is_some() || s.method.is_some_and(|recipe| recipe.preset == Preset::Replay);
        s.target.map_or(if stays { context } else { context.saturating_mul(extension) }, |l| l.0)
    }

    /// The text to train on; nothing for another model that was given none.
    fn sources(&self) -> Vec<Source> {
        if let Some(given) = &self.settings.data {
            return given.clone();
        }
        if !self.builtin() {
            return Vec::new();
        }
        // Rows as long as the base's context hold a short document each; longer ones, and those that a preset makes a share of the
        // target, come from documents of the target's length.
        let (target, short) = (self.target(), Stage::mixed(0));
        let of_target = self.settings.method.is_some_and(|recipe| presets::seq_len(recipe.preset, target).is_some());
        vec![Source::Synthetic(if of_target || self.row().0 > short.length { Stage::mixed(target) } else { short })]
    }

    fn model(&mut self) -> ModelSettings {
        let s = self.settings;
        if s.init.is_some() {
            if s.model.is_some() {
                self.problem(
                    "init",
                    "expected either init or model, got both",
                    "random weights have no base model: leave out model",
                );
            }
            if s.tokenizer.is_none() {
                self.problem(
                    "tokenizer",
                    "expected a folder, got nothing",
                    "a config.json brings no tokenizer: add --tokenizer DIR",
                );
            }
        }
        ModelSettings {
            source: self.source.clone(),
            init: s.init.clone(),
            tokenizer: s.tokenizer.clone(),
            name: self.model.name.clone(),
        }
    }

    fn data(&mut self, positions: &PositionSettings) -> DataSettings {
        let s = self.settings;
        let train = self.sources();
        if train.is_empty() {
            self.problem(
                "data",
                "expected text to train on, got nothing",
                "add --data PATH: a file or folder of .txt, .md or .jsonl",
            );
        }
        let synthetic = train.iter().any(|source| source.stage().is_some());
        if synthetic && train.len() > 1 {
            let what = format!("expected files, or one synthetic:STAGE alone, got {} sources", train.len());
            self.problem("data", what, "train on one after the other: the second run with --model RUN/merged");
        }
        for (given, key) in [
            (s.format.is_some(), "format"),
            (s.chat_template.is_some(), "chat_template"),
            (s.loss == Some(Loss::Answers), "loss"),
            (s.long.is_some(), "long"),
        ] {
            self.only_with(synthetic && given, key, "files as --data");
        }
        if synthetic && !self.builtin() && s.tokenizer.is_none() {
            let what = format!("synthetic text is made of the words of {}", defaults::MODEL);
            self.problem("data", what, "train on files, or give a --tokenizer that knows these words");
        }
        if let (Some(file), Some(val)) = (&s.eval_data, s.val) {
            let what = format!("expected either val or eval_data, got {val} and {:?}", file.display().to_string());
            self.problem("val", what, "with --eval-data nothing needs to be held back: leave out val");
        }
        DataSettings {
            train,
            eval: s.eval_data.clone(),
            reading: Reading {
                columns: s.columns.clone().unwrap_or(Columns { text: defaults::COLUMN.into() }),
                format: s.format.unwrap_or_default(),
            },
            chat_template: s.chat_template.clone(),
            loss: s.loss,
            long: s.long,
            cache: s.cache.clone(),
            val: match s.eval_data {
                Some(_) => Holdout::None,
                None => s.val.unwrap_or(Holdout::Share(defaults::VAL_SHARE)),
            },
            packing: if s.no_pack == Some(true) { Packing::Off } else { Packing::On },
            seq_len: positions.args.seq_len,
        }
    }

    fn train(&mut self, data: &DataSettings) -> TrainSettings {
        let (s, small) = (self.settings, self.model.is_small());
        let mode = s.train.unwrap_or(if small || s.init.is_some() { TrainMode::Full } else { TrainMode::Lora });
        if s.init.is_some() && mode != TrainMode::Full {
            self.problem("train", format!("expected full with --init, got {mode}"), "adapters on random weights learn nothing");
        }
        let lora = self.lora(mode);
        let row = data.seq_len.max(1);
        let micro_batch = s.micro_batch.unwrap_or((self.model.by_size(defaults::MICRO_TOKENS) / row).max(1));
        let per_pass = row.saturating_mul(micro_batch).max(1);
        let of_paper = || Some(presets::rows_per_step(s.method?)?.div_ceil(micro_batch.max(1)));
        let nearest = || ((self.model.by_size(defaults::STEP_TOKENS) + per_pass / 2) / per_pass).max(1);
        let accum = s.accum.or_else(of_paper).unwrap_or_else(nearest);
        let steps = s.steps.unwrap_or(if self.builtin() { defaults::BUILTIN_STEPS } else { self.model.by_size(defaults::STEPS) });
        for (key, value) in [("micro_batch", micro_batch as u64), ("accum", accum as u64), ("steps", steps)] {
            self.need(value >= 1, key, "at least 1", value);
        }
        self.need(s.threads != Some(0), "threads", "at least 1", 0);
        let gpus = s.gpus.unwrap_or(Gpus::Auto);
        let on_cpu = gpus == Gpus::Count(0);
        self.only_with(on_cpu && s.mem_limit.is_some(), "mem_limit", "--gpus 1");
        self.only_with(on_cpu && s.check_kernels == Some(true), "check_kernels", "--gpus 1");
        TrainSettings {
            mode,
            lora,
            steps,
            micro_batch,
            accum,
            recompute: s.recompute.unwrap_or(self.model.by_size([Recompute::Layers, Recompute::Nothing])),
            nan: s.nan.unwrap_or(NanPolicy::Stop),
            seed: s.seed.unwrap_or(defaults::SEED),
            gpus,
            mem_limit: s.mem_limit.map(|size| size.0),
            check_kernels: s.check_kernels == Some(true),
            threads: s.threads,
        }
    }

    fn lora(&mut self, mode: TrainMode) -> Option<LoraConfig> {
        let s = self.settings;
        if !mode.adapters() {
            let given = self.given;
            let given = [
                ("rank", given.rank.is_some()),
                ("alpha", given.alpha.is_some()),
                ("lora_targets", given.lora_targets.is_some()),
                ("rslora", given.rslora == Some(true)),
            ];
            for (key, given) in given {
                self.only_with(given, key, "--train lora");
            }
            return None;
        }
        let rank = s.rank.unwrap_or(defaults::RANK);
        let alpha = s.alpha.unwrap_or(defaults::ALPHA_PER_RANK * rank as f32);
        let targets = s.lora_targets.clone().map_or(LoraTarget::ALL.to_vec(), |l| l.0);
        let largest = self.model.config.hidden.max(1);
        self.need((1..=largest).contains(&rank), "rank", &format!("1 to {largest}, the model's width"), rank);
        self.need(alpha.is_finite() && alpha > 0.0, "alpha", "a number above 0", alpha);
        self.need(!targets.is_empty(), "lora_targets", "at least one layer", "none");
        Some(LoraConfig { rank, alpha, rslora: s.rslora == Some(true), targets })
    }

    fn optim(&mut self, train: &TrainSettings) -> OptimSettings {
        let s = self.settings;
        let lr = s.lr.unwrap_or(match train.mode {
            TrainMode::Full if self.builtin() => defaults::LR_BUILTIN,
            TrainMode::Lora => self.model.by_size(defaults::LR_LORA),
            TrainMode::LoraPlus | TrainMode::Full => self.model.by_size(defaults::LR_FULL),
        });
        let embed_ratio = if train.mode == TrainMode::LoraPlus { defaults::LR_EMBED_RATIO } else { 1.0 };
        let lr_embed = s.lr_embed.unwrap_or(lr * embed_ratio);
        self.only_with(self.given.lr_embed.is_some() && train.mode == TrainMode::Lora, "lr_embed", "--train lora+ or full");
        let shape = s.schedule.unwrap_or(if self.model.is_small() { Shape::Cosine } else { Shape::Constant });
        self.only_with(
            self.given.min_lr_ratio.is_some() && shape == Shape::Constant,
            "min_lr_ratio",
            "--schedule linear or cosine",
        );
        let min_lr_ratio = s.min_lr_ratio.unwrap_or(defaults::MIN_LR_RATIO);
        // A preset's warm-up is for as many steps as the preset has.
        let of_preset = || s.warmup.map(|w| Warmup::Steps(w.steps(train.steps).min(train.steps)));
        let warmup = self.given.warmup.or_else(of_preset).unwrap_or_else(|| defaults::warmup(train.steps));
        let adamw = AdamWConfig::default();
        let (beta1, beta2) = match s.betas.as_ref().map(|l| l.0.as_slice()) {
            None => (adamw.beta1, adamw.beta2),
            Some(&[b1, b2]) => (b1, b2),
            Some(other) => {
                self.need(false, "betas", "two numbers such as 0.9,0.95", List(other.to_vec()));
                (adamw.beta1, adamw.beta2)
            }
        };
        let adamw = AdamWConfig {
            beta1,
            beta2,
            weight_decay: s.weight_decay.unwrap_or(adamw.weight_decay),
            max_grad_norm: s.clip.unwrap_or(adamw.max_grad_norm),
            ..adamw
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        self.need(positive(lr), "lr", "a number above 0", lr);
        if let Some(x) = s.lr_embed {
            self.need(x.is_finite() && x >= 0.0, "lr_embed", "a number from 0", x);
        }
        self.need((0.0..=1.0).contains(&min_lr_ratio), "min_lr_ratio", "a share from 0 to 1", min_lr_ratio);
        self.need(
            warmup.steps(train.steps) <= train.steps,
            "warmup",
            &format!("at most the {} steps of the run", train.steps),
            warmup,
        );
        for beta in [beta1, beta2] {
            self.need((0.0..1.0).contains(&beta), "betas", "numbers from 0 to below 1", beta);
        }
        let decay = adamw.weight_decay;
        self.need(decay.is_finite() && decay >= 0.0, "weight_decay", "a number from 0", decay);
        // An infinite norm switches clipping off; TOML can write it, and nothing else could mean that.
        self.need(adamw.max_grad_norm > 0.0, "clip", "a number above 0, or inf for no clipping", adamw.max_grad_norm);
        OptimSettings { lr, lr_embed, shape, min_lr_ratio, warmup, adamw }
    }

    fn eval(&mut self, positions: &PositionSettings) -> EvalSettings {
        let s = self.settings;
        let tasks = s.eval.clone().map_or(vec![Task::Ppl, Task::Passkey], |l| l.0);
        let usual = || [positions.context].into_iter().chain(defaults::EVAL_PARTS.map(|part| positions.target / part)).collect();
        let mut at: Vec<usize> = s.eval_at.as_ref().map_or_else(usual, |l| l.0.iter().map(|l| l.0).collect());
        at.retain(|&length| length > 0);
        at.sort_unstable();
        at.dedup();
        self.need(!at.is_empty(), "eval_at", "at least one length", "none");
        let off = tasks.is_empty();
        self.only_with(off && s.eval_at.is_some(), "eval_at", "--eval ppl, passkey or another task");
        self.only_with(off && s.eval_every.is_some(), "eval_every", "--eval ppl, passkey or another task");
        let grids = tasks.iter().any(|task| matches!(task, Task::Passkey | Task::Niah));
        self.only_with(!grids && s.passkey_samples.is_some(), "passkey_samples", "--eval passkey or niah");
        for task in &tasks {
            let reads_file = matches!(task, Task::LongBench) || matches!(task, Task::One(task) if task.reads_file());
            self.need(!reads_file, "eval", "tasks that need no file of questions, which ltrain eval takes", task);
        }
        let passkey_samples = s.passkey_samples.unwrap_or(defaults::PASSKEY_SAMPLES);
        self.need(passkey_samples >= 1, "passkey_samples", "at least 1", passkey_samples);
        self.need(s.eval_every != Some(0), "eval_every", "at least 1", 0);
        let best = s.best.unwrap_or(Best::Last);
        self.only_with(best != Best::Last && s.eval_every.is_none(), "best", "--eval-every");
        let asks = tasks.iter().any(|task| matches!(task, Task::Passkey | Task::Niah));
        self.only_with(best == Best::Retrieval && !asks, "best", "--eval passkey or niah");
        self.only_with(best == Best::Loss && !tasks.contains(&Task::Ppl), "best", "--eval ppl");
        if s.control == Some(true) && s.no_control == Some(true) {
            self.problem("control", "expected either control or no_control, got both", "leave out one of them");
        }
        // Without evaluation there is nothing to compare, and natural positions are their own control.
        let usual = self.builtin() && !off && !positions.method.is(NATURAL);
        let control = match (s.control, s.no_control) {
            (Some(control), _) => control,
            (None, Some(no)) => !no,
            (None, None) => usual,
        };
        EvalSettings { at, tasks, passkey_samples, every: s.eval_every, best, control }
    }

    fn output(&mut self, train: &TrainSettings) -> OutputSettings {
        let s = self.settings;
        let adapters = train.mode.adapters();
        let export = s.export.unwrap_or(if adapters { Export::Both } else { Export::Merged });
        if !adapters && matches!(export, Export::Adapter | Export::Both) {
            let what = format!("expected merged or none with --train {}, got {export}", train.mode);
            self.problem("export", what, "full training makes no adapter");
        }
        let save_every = s.save_every.unwrap_or(defaults::SAVE_EVERY);
        let keep = s.keep.unwrap_or(defaults::KEEP);
        self.need(save_every >= 1, "save_every", "at least 1", save_every);
        self.need(keep >= 1, "keep", "at least 1", keep);
        self.need(s.log_every != Some(0), "log_every", "at least 1", 0);
        OutputSettings {
            out: s.out.clone(),
            overwrite: s.overwrite == Some(true),
            resume: s.resume.clone().unwrap_or(Resume::Auto),
            save_every,
            keep,
            export,
            save_dtype: s.save_dtype,
            log_every: s.log_every,
            progress: s.progress.unwrap_or(Progress::Auto),
        }
    }
}
