//! Settings as they are given: every field a flag and, under the same name, a key of a configuration file.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::backend::gpu::Gpus;
use crate::data::attend::Group;
use crate::data::{Columns, Format, Holdout, Long, Loss};
use crate::io::Storage;
use crate::model::rope::RopeKind;
use crate::model::{LoraTarget, Recompute};
use crate::optim::Shape;
use crate::positions::Spec;
use crate::train::TrainMode;

use super::choices::{Attention, Best, Export, NanPolicy, Progress, ScalePer, Task};
use super::text::{self, Length, List, ModelSource, Portion, Recipe, Resume, Size, Source, Warmup};

/// Everything that can be set; what is absent gets its default in [`RunConfig::resolve`](super::RunConfig::resolve).
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Model to extend: a Hugging Face folder, or the built-in builtin:tiny
    #[arg(long, value_name = "PATH", help_heading = "Model and text")]
    pub model: Option<ModelSource>,
    /// Start from random weights in the shape of this config.json (pre-training; needs --tokenizer)
    #[arg(long, value_name = "CONFIG_JSON", help_heading = "Model and text")]
    pub init: Option<PathBuf>,
    /// Folder with tokenizer.json
    #[arg(long, value_name = "DIR", help_heading = "Model and text")]
    pub tokenizer: Option<PathBuf>,
    /// Text to train on: files and folders (.txt, .md, .jsonl), or synthetic:STAGE
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Model and text")]
    #[serde(deserialize_with = "text::one_or_many")]
    pub data: Option<Vec<Source>>,
    /// Text to evaluate on, instead of documents held back from --data
    #[arg(long, value_name = "FILE", help_heading = "Model and text")]
    pub eval_data: Option<PathBuf>,
    /// Field of a .jsonl row that holds the text
    #[arg(long, value_name = "text=FIELD", help_heading = "Model and text")]
    pub columns: Option<Columns>,
    /// What the rows of .jsonl files are: auto, text, messages, sharegpt or alpaca
    #[arg(long, value_name = "NAME", help_heading = "Model and text")]
    pub format: Option<Format>,
    /// Chat template (Jinja) for conversations
    #[arg(long, value_name = "FILE", help_heading = "Model and text")]
    pub chat_template: Option<PathBuf>,
    /// Tokens of conversations that are learned: answers or all
    #[arg(long, value_name = "WHICH", help_heading = "Model and text")]
    pub loss: Option<Loss>,
    /// Conversations longer than a row: skip (and count) them, or cut their end
    #[arg(long, value_name = "HOW", help_heading = "Model and text")]
    pub long: Option<Long>,
    /// Folder for tokenised text
    #[arg(long, value_name = "DIR", help_heading = "Model and text")]
    pub cache: Option<PathBuf>,
    /// Documents held back for evaluation: a number, a share such as 1%, or none
    #[arg(long, value_name = "N|N%", help_heading = "Model and text")]
    pub val: Option<Holdout>,
    /// Leave out documents shorter than a row instead of packing several into one (they never see each other)
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Model and text")]
    pub no_pack: Option<bool>,

    /// Context to reach, in tokens: 131072, 128k, 1m
    #[arg(long, value_name = "LEN", help_heading = "Method")]
    pub target: Option<Length>,
    /// Tokens per training row
    #[arg(long, value_name = "LEN", help_heading = "Method")]
    pub seq_len: Option<Length>,
    /// Preset of the settings below and of --train: pose, e2-llm, longrecipe, replay, longlora, endprompt, uniform, random or
    /// full-length; with :paper behind it also the paper's learning rate, steps and batch
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub method: Option<Recipe>,
    /// Where tokens pretend to be: natural, random, pose, e2-llm, longrecipe, endprompt, uniform, retrieval, or several of them by
    /// their shares of the rows: mix:pose=70,natural=30
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub positions: Option<Spec>,
    /// Share of rows at their true positions, whatever the method
    #[arg(long, value_name = "SHARE", help_heading = "Method")]
    pub contiguous: Option<Portion>,
    /// Share of rows that state facts and ask for one of them far away
    #[arg(long, value_name = "SHARE", help_heading = "Method")]
    pub retrieval: Option<Portion>,
    /// Chunks per document, with --positions pose
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub pose_chunks: Option<usize>,
    /// Largest scale, with --positions e2-llm
    #[arg(long, value_name = "N", help_heading = "Method")]
    pub e2_max_scale: Option<usize>,
    /// Draw a scale for every row or once per step, with --positions e2-llm
    #[arg(long, value_name = "WHAT", help_heading = "Method")]
    pub e2_scale_per: Option<ScalePer>,
    /// Tokens that make a sentence worth keeping, from ltrain analyze, with --positions longrecipe
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    pub select: Option<PathBuf>,
    /// Share of the sentences without a selected token that is kept, with --positions longrecipe
    #[arg(long, value_name = "SHARE", help_heading = "Method")]
    pub select_rest: Option<Portion>,
    /// Text at the end of the target, or eos for the end-of-text token, with --positions endprompt
    #[arg(long, value_name = "TEXT", help_heading = "Method")]
    pub end_prompt: Option<String>,
    /// Loss weight of that text's tokens
    #[arg(long, value_name = "X", help_heading = "Method")]
    pub end_prompt_weight: Option<f64>,
    /// Who sees whom: full, or s2 for LongLoRA's shifted groups (training only)
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub attention: Option<Attention>,
    /// Size of the groups, with --attention s2: a length, or a share of each document such as 1/4
    #[arg(long, value_name = "LEN", help_heading = "Method")]
    pub s2_group: Option<Group>,
    /// Rotation of the extended model: keep, linear, ntk, yarn, llama3, longrecipe, theta:VALUE, or a total factor such as linear:4
    #[arg(long, value_name = "KIND", help_heading = "Method")]
    pub rope: Option<RopeKind>,

    /// What moves: lora, lora+ (adds embeddings and norms) or full
    #[arg(long, value_name = "MODE", help_heading = "Training")]
    pub train: Option<TrainMode>,
    /// Rank of the adapters
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub rank: Option<usize>,
    /// LoRA's alpha
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub alpha: Option<f32>,
    /// Linear layers with adapters: all, or a list of q, k, v, o, gate, up, down
    #[arg(long, value_name = "LIST", help_heading = "Training")]
    pub lora_targets: Option<List<LoraTarget>>,
    /// Scale adapters by alpha/sqrt(rank) instead of alpha/rank
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Training")]
    pub rslora: Option<bool>,
    /// Learning rate
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Learning rate of embeddings and norms
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr_embed: Option<f64>,
    /// What follows the warm-up: constant, linear or cosine
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    pub schedule: Option<Shape>,
    /// Last learning rate as a share of --lr, with --schedule linear and cosine
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub min_lr_ratio: Option<f64>,
    /// Warm-up: steps, or a share such as 3%
    #[arg(long, value_name = "N|N%", help_heading = "Training")]
    pub warmup: Option<Warmup>,
    /// Optimizer steps
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub steps: Option<u64>,
    /// Rows computed at once
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub micro_batch: Option<usize>,
    /// Micro-batches per step
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub accum: Option<usize>,
    /// AdamW's decay of the two moments
    #[arg(long, value_name = "B1,B2", help_heading = "Training")]
    pub betas: Option<List<f64>>,
    /// Decoupled weight decay; norms and biases are exempt
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Largest gradient norm
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub clip: Option<f64>,
    /// What backward computes again to save memory: nothing or layers
    #[arg(long, value_name = "WHAT", help_heading = "Training")]
    pub recompute: Option<Recompute>,
    /// After a non-finite step: stop (after three in a row) or skip
    #[arg(long, value_name = "NAME", help_heading = "Training")]
    pub nan: Option<NanPolicy>,
    /// Random seed
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,

    /// GPUs to use: auto, 0 for the CPU, 1
    #[arg(long, value_name = "N", help_heading = "Device")]
    pub gpus: Option<Gpus>,
    /// Most GPU memory for tensors: 80g, 512m; the driver's context and the kernels come on top
    #[arg(long, value_name = "SIZE", help_heading = "Device")]
    pub mem_limit: Option<Size>,
    /// Compare every kernel with the CPU before training on a GPU
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Device")]
    pub check_kernels: Option<bool>,
    /// CPU threads
    #[arg(long, value_name = "N", help_heading = "Device")]
    pub threads: Option<usize>,

    /// Lengths to evaluate at
    #[arg(long, value_name = "LEN,…", help_heading = "Evaluation")]
    pub eval_at: Option<List<Length>>,
    /// What to measure: ppl, passkey, niah, ruler, single tasks of RULER such as vt, or none
    #[arg(long, value_name = "TASK,…", help_heading = "Evaluation")]
    pub eval: Option<List<Task>>,
    /// Prompts per length and depth of passkey and niah
    #[arg(long, value_name = "N", help_heading = "Evaluation")]
    pub passkey_samples: Option<usize>,
    /// Evaluate every N steps, besides before and after
    #[arg(long, value_name = "N", help_heading = "Evaluation")]
    pub eval_every: Option<u64>,
    /// Which state is the result: the last, or with --eval-every the best by loss, or by retrieval at the target
    #[arg(long, value_name = "WHAT", help_heading = "Evaluation")]
    pub best: Option<Best>,
    /// Also train a control at natural positions, to tell the method's share of the gain
    #[arg(long, num_args = 0, default_missing_value = "true", overrides_with = "no_control", help_heading = "Evaluation")]
    pub control: Option<bool>,
    /// Train no control
    #[arg(long, num_args = 0, default_missing_value = "true", overrides_with = "control", help_heading = "Evaluation")]
    pub no_control: Option<bool>,

    /// Folder of the run
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Start anew in a folder that holds a run
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Output")]
    pub overwrite: Option<bool>,
    /// Continue: auto (an unfinished run with the same settings in --out), PATH, or never
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub resume: Option<Resume>,
    /// Write a checkpoint every N steps
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub save_every: Option<u64>,
    /// Checkpoints kept
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub keep: Option<usize>,
    /// What to write at the end: adapter, merged, both or none
    #[arg(long, value_name = "WHAT", help_heading = "Output")]
    pub export: Option<Export>,
    /// Number format of written weights: f32, bf16 or f16
    #[arg(long, value_name = "TYPE", help_heading = "Output")]
    pub save_dtype: Option<Storage>,
    /// Log every N steps
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub log_every: Option<u64>,
    /// How progress is shown: auto, bar, plain or quiet
    #[arg(long, value_name = "HOW", help_heading = "Output")]
    pub progress: Option<Progress>,
}
