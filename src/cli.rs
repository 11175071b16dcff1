//! The command line: what can be typed, and its help.

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::backend::gpu::Gpus;
use crate::config::choices::{Shapes, Task};
use crate::config::text::{BlendWeight, Depth, Item, Length, List, ModelSource, Size, Source};
use crate::config::{Settings, defaults, file};
use crate::data::Columns;
use crate::error::Result;
use crate::eval::longbench::Metric;
use crate::io::Storage;
use crate::model::rope::RopeKind;

/// Longer context for Llama-style language models.
#[derive(Debug, Parser)]
#[command(
    name = "ltrain",
    version,
    about = "Longer context for Llama-style language models, trained on short chunks",
    long_about = "Extends the context of a Llama-style model by training on short chunks of text whose tokens pretend to be far apart.\n\
                  Without options: extends the built-in model on the CPU and shows it before and after.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do instead of training.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of training.
    #[command(flatten)]
    pub train: TrainArgs,
}

const EXAMPLES: &str = "\
Examples:
  ltrain                                                  the built-in model, from 256 to 2048 tokens
  ltrain --model ./SmolLM2-135M --data ./books --target 32k
  ltrain --model ./SmolLM2-135M --data ./books --positions uniform --train lora --rank 32
  ltrain config dump --target 4k > run.toml               every setting with its value
  ltrain --config run.toml --set steps=500                the same run, longer
  ltrain plan --model ./Llama-3-8B --target 128k --mem-limit 80g
                                                          does it fit?
  ltrain data inspect --model ./Llama-3-8B-Instruct --data chats.jsonl
                                                          what exactly is learned?
  ltrain eval runs/x/merged --data ./held-out.txt --at 4k,16k,32k
                                                          is the context really longer?
  ltrain eval runs/x/merged --tasks ruler --at 4k,8k      what can it do with it?
  ltrain generate runs/x/merged -p 'Once upon a time'

Every option is also a key of the --config file: --seq-len 4k is seq_len = \"4k\".
Exit codes: 0 ok, 2 usage, 3 data or settings, 4 memory, 5 device, 6 corrupt file, 7 disk, 8 diverged, 9 cannot resume,
75 stopped with a good checkpoint (run the same command again).";

/// Where settings come from: flags win over `--set`, that over `--config`, that over the defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct TrainArgs {
    /// Read settings from a TOML file; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Set one key of the file, as in --set target=128k; repeatable
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,
    /// The settings given as flags.
    #[command(flatten)]
    pub settings: Settings,
}

impl TrainArgs {
    /// The settings of all sources together.
    ///
    /// # Errors
    /// An unusable file or assignment.
    pub fn gather(self) -> Result<Settings> {
        Settings::gather(self.settings, &self.set, self.config.as_deref())
    }
}

/// Everything besides training.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure a model at several lengths
    Eval(Box<EvalArgs>),
    /// Continue a text
    Generate(GenerateArgs),
    /// Extend a model in LongRecipe's three stages: train, replay instruction data, mix with the base
    #[command(name = "longrecipe")]
    LongRecipe(Box<LongRecipeArgs>),
    /// Multiply an adapter into its base model, or mix two models
    Merge(MergeArgs),
    /// Write one set of weights under several rotations
    Export(ExportArgs),
    /// Find the tokens that an extended model predicts otherwise than its base
    Analyze(AnalyzeArgs),
    /// Count the GPU memory of a run, without weights or a GPU
    Plan(Box<TrainArgs>),
    /// Show what this machine has and what ltrain can use
    Doctor(DoctorArgs),
    /// Measure every kernel, verified first, against what the device can do
    Bench(BenchArgs),
    /// Look at the text of a run
    #[command(subcommand)]
    Data(DataCommand),
    /// Show or check settings without training
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `ltrain eval`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct EvalArgs {
    /// Model folder, or builtin:tiny
    #[arg(value_name = "MODEL")]
    pub model: ModelSource,
    /// Adapter to put on it
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Folder with tokenizer.json [default: the model's]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Lengths to evaluate at [default: a quarter, half and all of the model's context; with --against also all of BASE's]
    #[arg(long, value_name = "LEN,…", value_parser = some::<Length>)]
    pub at: Option<List<Length>>,
    /// Rotations to compare: kinds such as yarn, each extended to the longest length, or with a total factor over the model's
    /// original rotation, such as linear:4 [default: the model's own]
    #[arg(long, value_name = "KIND,…", value_parser = some::<RopeKind>)]
    pub rope: Option<List<RopeKind>>,
    /// What to measure: ppl, passkey, niah, ruler, longbench, or single tasks of RULER such as niah_single_2,vt
    #[arg(long, value_name = "TASK,…", default_value = "ppl,passkey", value_parser = some::<Task>)]
    pub tasks: List<Task>,
    /// Text to measure perplexity on; needed for other models than the built-in
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Field of a .jsonl row that holds the text
    #[arg(long, value_name = "text=FIELD", default_value_t = Columns::default())]
    pub columns: Columns,
    /// Tokens by which the window moves, for sliding-window perplexity [default: the length, so that windows do not overlap]
    #[arg(long, value_name = "LEN")]
    pub stride: Option<Length>,
    /// Windows per length, fewer where the text does not hold them; 1 is the text's beginning alone [default: 3]
    #[arg(long, value_name = "N", value_parser = count(u32::MAX as usize))]
    pub windows: Option<usize>,
    /// Prompts per length and depth of the passkey task [default: 10]
    #[arg(long, value_name = "N", value_parser = count(file::MOST_SAMPLES))]
    pub passkey_samples: Option<usize>,
    /// Samples per task of RULER and length [default: 20], per length and depth of niah [default: 10], most rows of a LongBench
    /// dataset [default: all]
    #[arg(long, value_name = "N", value_parser = count(file::MOST_SAMPLES))]
    pub samples: Option<usize>,
    /// Depths of passkey and niah, as shares or percent: 0,0.5,1 or 0%,50%,100% [default: 0%,25%,50%,75%,100%]
    #[arg(long, value_name = "DEPTH,…", value_parser = some::<Depth>)]
    pub depths: Option<List<Depth>>,
    /// Needles of niah that are not asked for [default: 3]
    #[arg(long, value_name = "N", value_parser = from_none(1000))]
    pub distractors: Option<usize>,
    /// Text around the needles of niah and RULER [default: sentences of our own]
    #[arg(long, value_name = "FILE")]
    pub haystack: Option<PathBuf>,
    /// SQuAD's JSON, for RULER's qa_1
    #[arg(long, value_name = "FILE")]
    pub squad: Option<PathBuf>,
    /// HotpotQA's JSON, for RULER's qa_2
    #[arg(long, value_name = "FILE")]
    pub hotpotqa: Option<PathBuf>,
    /// Files in LongBench's format, or folders of them
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub longbench: Vec<PathBuf>,
    /// Metric of datasets that are not LongBench's: f1, rouge-l, classification, count, retrieval, edit [default: f1]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// Model to compare with
    #[arg(long, value_name = "BASE")]
    pub against: Option<ModelSource>,
    /// Also write the results here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write a table per kind of task into this folder
    #[arg(long, value_name = "DIR")]
    pub csv: Option<PathBuf>,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = defaults::SEED)]
    pub seed: u64,
    /// Where it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Where a command other than training runs.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct DeviceArgs {
    /// GPUs to use: auto, 0 for the CPU, 1
    #[arg(long, value_name = "N", default_value_t = Gpus::Auto)]
    pub gpus: Gpus,
    /// Most GPU memory for tensors: 80g, 512m; the driver's context and the kernels come on top [default: what is free at the
    /// start, less 1 GiB]
    #[arg(long, value_name = "SIZE")]
    pub mem_limit: Option<Size>,
    /// CPU threads [default: the CPU's cores]
    #[arg(long, value_name = "N", value_parser = count(file::MOST_THREADS))]
    pub threads: Option<usize>,
}

/// `ltrain generate`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct GenerateArgs {
    /// Model folder, or builtin:tiny
    #[arg(value_name = "MODEL")]
    pub model: ModelSource,
    /// Adapter to put on it
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Folder with tokenizer.json [default: the model's]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Text to continue
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: String,
    /// Most tokens to add
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    pub tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = from_zero)]
    pub temperature: f64,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    pub top_p: f64,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = defaults::SEED)]
    pub seed: u64,
    /// Where it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `ltrain longrecipe`.
#[derive(Debug, Clone, Default, Args)]
pub struct LongRecipeArgs {
    /// Instruction data of the second stage: conversations (.jsonl), or text
    #[arg(long, value_name = "PATH", num_args = 1.., required = true, help_heading = "Stages")]
    pub replay_data: Vec<Source>,
    /// Steps of the second stage [default: a tenth of the first's]
    #[arg(long, value_name = "N", help_heading = "Stages")]
    pub replay_steps: Option<u64>,
    /// How much of the trained model the third stage takes, the rest being the base's: a number from 0 to 1, or search for the best of
    /// 0, 0.25, 0.5, 0.75 and 1 by the losses at the base's context and the target [default: 0.5]
    #[arg(long, value_name = "W", help_heading = "Stages")]
    pub weight: Option<BlendWeight>,
    /// Settings of the first stage, whose rest the second shares.
    #[command(flatten)]
    pub train: TrainArgs,
}

/// `ltrain merge`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct MergeArgs {
    /// Base model folder
    #[arg(long, value_name = "BASE")]
    pub model: ModelSource,
    /// Adapter folder
    #[arg(long, value_name = "DIR", required_unless_present = "with", conflicts_with = "with")]
    pub adapter: Option<PathBuf>,
    /// Model to mix in, of the same shape; the result has its configuration and rotation
    #[arg(long, value_name = "MODEL")]
    pub with: Option<ModelSource>,
    /// How much of MODEL: the result is (1 - W) BASE + W MODEL; search takes the best of 0, 0.25, 0.5, 0.75 and 1, that with the
    /// smallest sum of losses at the lengths of --at [default: 0.5]
    #[arg(long, value_name = "W")]
    pub weight: Option<BlendWeight>,
    /// Folder with tokenizer.json, with --weight search [default: MODEL's]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Text to measure on, with --weight search; needed for other models than the built-in
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Field of a .jsonl row that holds the text
    #[arg(long, value_name = "text=FIELD", default_value_t = Columns::default())]
    pub columns: Columns,
    /// Lengths to measure at, a short one and a long one, with --weight search [default: the contexts of BASE and MODEL]
    #[arg(long, value_name = "LEN,…", value_parser = some::<Length>)]
    pub at: Option<List<Length>>,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number format of the written weights: f32, bf16 or f16 [default: the base model's; with --with that of both models, f32
    /// where they differ]
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Storage>,
    /// Where it measures; merging itself is the CPU's.
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl MergeArgs {
    /// The model whose weight is to be searched.
    pub fn searched(&self) -> Option<&ModelSource> {
        self.with.as_ref().filter(|_| self.weight == Some(BlendWeight::Search))
    }
}

/// `ltrain export`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ExportArgs {
    /// Model folder, or builtin:tiny
    #[arg(value_name = "MODEL")]
    pub model: ModelSource,
    /// Adapter to multiply in
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Rotations with their factors, such as linear:4,linear:8; the context is the factor times the model's original one
    #[arg(long, value_name = "KIND,…", value_parser = some::<RopeKind>)]
    pub rope: List<RopeKind>,
    /// Folder to write; each rotation gets a folder in it, such as DIR/linear-4, and all share one file of weights
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number format of the written weights: f32, bf16 or f16 [default: the base model's]
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<Storage>,
}

/// `ltrain analyze`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct AnalyzeArgs {
    /// Model folder before the extension, or builtin:tiny
    #[arg(long, value_name = "BASE")]
    pub model: ModelSource,
    /// The extended model
    #[arg(long, value_name = "EXTENDED")]
    pub against: ModelSource,
    /// Folder with tokenizer.json [default: BASE's]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Text to analyse; needed for other models than the built-in
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Field of a .jsonl row that holds the text
    #[arg(long, value_name = "text=FIELD", default_value_t = Columns::default())]
    pub columns: Columns,
    /// Tokens of a row, fewer where a text ends [default: EXTENDED's context]
    #[arg(long, value_name = "LEN")]
    pub seq_len: Option<Length>,
    /// Share of places that count as impactful, and of the text that the chosen tokens cover
    #[arg(long, value_name = "P", default_value_t = 0.2, value_parser = probability)]
    pub share: f64,
    /// File to write
    #[arg(long, value_name = "FILE", default_value = "selection.json")]
    pub out: PathBuf,
    /// Where it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `ltrain doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// List the supported architectures and what each needs
    #[arg(long)]
    pub architectures: bool,
}

/// `ltrain bench`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct BenchArgs {
    /// Ops to measure, by the beginnings of their names, such as attention or 'linear fwd' [default: all]
    #[arg(long, value_name = "OP,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Models whose sizes are used: 8b and 1b are Llama 3's [default: 8b,1b on a GPU, tiny on the CPU]
    #[arg(long, value_name = "MODEL,…", value_parser = some::<Shapes>)]
    pub shapes: Option<List<Shapes>>,
    /// Row lengths [default: 4k,16k,32k,128k on a GPU, 256 on the CPU]
    #[arg(long, value_name = "LEN,…", value_parser = some::<Length>)]
    pub tokens: Option<List<Length>>,
    /// About how long each op is timed, at every size
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = from_zero)]
    pub seconds: f64,
    /// Also append a JSON object per row to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where it runs.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `ltrain data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show the first rows token by token: what is learned, what is masked, where documents begin, at which positions
    Inspect(Box<InspectArgs>),
}

/// `ltrain data inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Rows to show
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rows: u64,
    /// The run that would have these rows.
    #[command(flatten)]
    pub train: TrainArgs,
}

/// `ltrain config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective settings as a file for --config
    Dump(Box<TrainArgs>),
    /// Check the settings and say nothing if they are good
    Check(Box<TrainArgs>),
}

/// From 1 to `most`.
fn count(most: usize) -> impl Fn(&str) -> std::result::Result<usize, String> + Clone {
    move |text| {
        let value = text.parse().ok().filter(|n| (1..=most).contains(n));
        value.ok_or_else(|| format!("expected a whole number from 1 to {most}"))
    }
}

/// From 0 to `most`.
fn from_none(most: usize) -> impl Fn(&str) -> std::result::Result<usize, String> + Clone {
    move |text| text.parse().ok().filter(|n| *n <= most).ok_or_else(|| format!("expected a whole number from 0 to {most}"))
}

/// A list that holds something.
fn some<T: Item<Err: Display>>(text: &str) -> std::result::Result<List<T>, String> {
    let list: List<T> = text.parse()?;
    if list.0.is_empty() { Err("expected at least one, separated by commas".to_owned()) } else { Ok(list) }
}

fn from_zero(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    value.ok_or_else(|| "expected a number from 0".to_owned())
}

fn probability(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse().ok().filter(|x: &f64| *x > 0.0 && *x <= 1.0);
    value.ok_or_else(|| "expected a number above 0, at most 1".to_owned())
}

/// The command with every default in its help.
pub fn command() -> clap::Command {
    with_defaults(Cli::command())
}

fn with_defaults(command: clap::Command) -> clap::Command {
    let trains = matches!(command.get_name(), "ltrain" | "dump" | "check" | "plan" | "inspect" | "longrecipe");
    let command = command.mut_subcommands(with_defaults);
    if !trains {
        return command;
    }
    command.allow_negative_numbers(true).mut_args(|arg| match (defaults::shown(arg.get_id().as_str()), arg.get_help().cloned()) {
        (Some(default), Some(help)) => arg.help(format!("{help} [default: {default}]")),
        _ => arg,
    })
}

/// Parses the command line; prints help, version or a usage error and exits where that is what it asks for.
pub fn parse() -> Cli {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| with_synonym(error).exit())
}

/// Adds a tip where the unknown option is another trainer's name for one of ours.
fn with_synonym(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return error };
    let name = option.trim_start_matches('-').replace('-', "_");
    if let Some(ours) = file::synonym(&name) {
        let flag = format!("--{}", ours.replace('_', "-"));
        error.insert(ContextKind::SuggestedArg, ContextValue::String(flag));
    }
    error
}
