//! `ltrain longrecipe`: the three stages of LongRecipe (arXiv 2409.00509, section 4 and appendix A), one after the other.
//!
//! Each stage is a command of its own and leaves a folder of its own: `extend` (training with its method), `replay` (instruction data at
//! true positions, a tenth of the learning rate) and `merged` (the weighted mean with the base). A stage that is complete is not
//! done again, one that was begun continues, and one whose predecessor's model is another since then starts anew: `stages.json` says what
//! each was made from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::base::open_dir;
use super::blend::check_tokens;
use super::commands::print;
use super::merge::{merge, merge_best};
use super::{Ending, train};
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::{DeviceArgs, LongRecipeArgs, MergeArgs};
use crate::config::choices::{Export, Preset};
use crate::config::text::{BlendWeight, Length, List, ModelSource, Recipe, Source};
use crate::config::{ConfigError, ModelInfo, Problem, RunConfig, Settings};
use crate::error::{IoContext, Result};
use crate::io::TextTokenizer;
use crate::io::atomic::write_bytes_atomically;
use crate::model::ModelConfig;

/// The replay's learning rate over that of the extension.
const REPLAY_RATE: f64 = 0.1;
/// The replay's steps over those of the extension, where nobody says: 5 to 10 % of the tokens, the paper advises.
const REPLAY_STEPS: f64 = 0.1;

/// What the later stages were made from.
const STAGES: &str = "stages.json";

/// The three stages, all resolved before anything runs.
pub struct Stages {
    /// The training that extends.
    pub extend: RunConfig,
    replay: Settings,
    replayed: ModelInfo,
    merge: MergeArgs,
    out: PathBuf,
}

/// What the later stages were made from: hashes of their predecessors' models, which stay when only measurements are done again.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Made {
    replay_of: String,
    merged_of: String,
}

impl Stages {
    /// The stages that the arguments ask for.
    ///
    /// # Errors
    /// Settings that cannot be used, or that the stages set themselves.
    pub fn of(args: LongRecipeArgs) -> Result<Self> {
        let given = args.train.gather()?;
        let (out, weight) = (check(&given, args.weight)?, args.weight.unwrap_or_default());
        let recipe = given.method.unwrap_or(Recipe { preset: Preset::LongRecipe, paper: false });
        // LongRecipe takes sentences out of its text, so that is never a conversation; what is for conversations is for the replay.
        let settings = Settings {
            method: Some(recipe),
            out: Some(out.join("extend")),
            export: Some(Export::Merged),
            format: None,
            chat_template: None,
            loss: None,
            long: None,
            ..given.clone()
        };
        if let Some(folder) = &given.tokenizer {
            // The last stage would refuse it, after both trainings.
            let base = open_dir(&given.model.clone().unwrap_or_default())?;
            check_tokens(&base, folder, &TextTokenizer::open(folder, base.config())?)?;
        }
        let base = ModelInfo::read(&settings)?;
        let extend = RunConfig::resolve(&settings, &base)?;
        let replay = replay(&given, recipe, &extend, args.replay_data, args.replay_steps, &out);
        let positions = &extend.positions;
        let extended = ModelConfig { context: positions.target, rope: positions.target_rope.clone(), ..base.config };
        let replayed = ModelInfo::new("merged", extended);
        RunConfig::resolve(&replay, &replayed)?;

        let search = weight == BlendWeight::Search;
        let merge = MergeArgs {
            model: given.model.clone().unwrap_or_default(),
            adapter: None,
            with: Some(ModelSource::Folder(out.join("replay/merged"))),
            weight: args.weight,
            tokenizer: None,
            data: given.eval_data.filter(|_| search),
            columns: extend.data.reading.columns.clone(),
            at: search.then(|| List(vec![Length(positions.context), Length(positions.target)])),
            out: out.join("merged"),
            dtype: given.save_dtype,
            device: DeviceArgs { gpus: extend.train.gpus, mem_limit: given.mem_limit, threads: extend.train.threads },
        };
        Ok(Self { extend, replay, replayed, merge, out })
    }

    /// Runs what is not complete.
    pub fn run(&self, place: &Place, kernels: &dyn Kernels, command: &str) -> Result<Ending> {
        say(1, "extend", &self.out.join("extend"))?;
        if train(&self.extend, place, kernels, command)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
        let mut made = self.made()?;
        let (extended, folder) = (hash(&self.out.join("extend/merged"))?, self.out.join("replay"));
        say(2, "replay", &folder)?;
        if made.replay_of != extended {
            if folder.exists() && made.replay_of.is_empty() {
                let what = format!("{} is there, and {STAGES} does not say of which model it is", folder.display());
                let problem = Problem::new("out", what).help("remove it, or choose another --out");
                return Err(ConfigError::Problems(vec![problem]).into());
            }
            // Before anything says what the folder is of: a process that is killed in between must not leave an older replay there.
            if folder.exists() {
                std::fs::remove_dir_all(&folder).context("remove", &folder)?;
            }
            made.replay_of = extended;
            self.write(&made)?;
        }
        let replay = RunConfig::resolve(&self.replay, &self.replayed)?;
        if train(&replay, place, kernels, command)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
        say(3, "merge", &self.merge.out)?;
        let of = format!("{} {:?}", hash(&self.out.join("replay/merged"))?, self.merge.weight.unwrap_or_default());
        if self.merge.out.exists() {
            if made.merged_of == of {
                print(&format!("{} is there already\n", self.merge.out.display()))?;
                return Ok(Ending::Finished);
            }
            // Only what this command made is replaced; merging refuses what somebody else put there.
            if !made.merged_of.is_empty() {
                std::fs::remove_dir_all(&self.merge.out).context("remove", &self.merge.out)?;
            }
        }
        let ending = match self.merge.searched() {
            Some(with) => merge_best(&self.merge, with, (place, kernels)),
            None => merge(&self.merge),
        }?;
        if ending == Ending::Finished {
            made.merged_of = of;
            self.write(&made)?;
        }
        Ok(ending)
    }

    fn made(&self) -> Result<Made> {
        let path = self.out.join(STAGES);
        match path.exists() {
            true => Ok(serde_json::from_slice(&std::fs::read(&path).context("read", &path)?).unwrap_or_default()),
            false => Ok(Made::default()),
        }
    }

    fn write(&self, made: &Made) -> Result<()> {
        let text = serde_json::to_vec_pretty(made).expect("longrecipe: texts serialise");
        write_bytes_atomically(&self.out.join(STAGES), &text)
    }
}

/// The folder of the stages, when the settings can be theirs.
fn check(given: &Settings, weight: Option<BlendWeight>) -> Result<PathBuf> {
    let problem = |key: &str, what: &str, help: &str| Problem::new(key, what).help(help);
    let unmeasured =
        weight == Some(BlendWeight::Search) && given.eval_data.is_none() && matches!(given.model, Some(ModelSource::Folder(_)));
    let wrong = [
        (given.export.is_some(), problem("export", "every stage writes a merged model", "leave out export")),
        (given.init.is_some(), problem("init", "random weights have nothing to merge with", "give a --model")),
        (given.out.is_none(), problem("out", "expected a folder, got nothing", "add --out DIR: it will hold the three stages")),
        (
            unmeasured,
            problem("eval_data", "--weight search needs text to measure on", "add --eval-data FILE, as long as the target"),
        ),
    ];
    let problems: Vec<_> = wrong.into_iter().filter_map(|(wrong, problem)| wrong.then_some(problem)).collect();
    match (&given.out, problems.is_empty()) {
        (Some(out), true) => Ok(out.clone()),
        _ => Err(ConfigError::Problems(problems).into()),
    }
}

/// Settings of the second stage: the user's, but for what belongs to the extension.
fn replay(given: &Settings, recipe: Recipe, extend: &RunConfig, data: Vec<Source>, steps: Option<u64>, out: &Path) -> Settings {
    let tenth = ((extend.train.steps as f64 * REPLAY_STEPS).round() as u64).max(1);
    Settings {
        model: Some(ModelSource::Folder(out.join("extend/merged"))),
        tokenizer: Some(out.join("extend/merged")),
        method: Some(Recipe { preset: Preset::Replay, ..recipe }),
        data: Some(data),
        target: Some(Length(extend.positions.target)),
        seq_len: Some(Length(extend.data.seq_len)),
        lr: Some(extend.optim.lr * REPLAY_RATE),
        // The paper's are the preset's.
        steps: steps.or((!recipe.paper).then_some(tenth)),
        out: Some(out.join("replay")),
        export: Some(Export::Merged),
        no_control: Some(true),
        control: None,
        positions: None,
        contiguous: None,
        retrieval: None,
        pose_chunks: None,
        e2_max_scale: None,
        e2_scale_per: None,
        select: None,
        select_rest: None,
        end_prompt: None,
        end_prompt_weight: None,
        rope: None,
        lr_embed: None,
        warmup: None,
        no_pack: None,
        resume: None,
        ..given.clone()
    }
}

/// Of a model's configuration and weights.
fn hash(model: &Path) -> Result<String> {
    let entries = std::fs::read_dir(model).context("read", model)?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().context("read", model)?;
    files.retain(|file| file.ends_with("config.json") || file.extension().is_some_and(|kind| kind == "safetensors"));
    files.sort();
    let mut hash = blake3::Hasher::new();
    for file in files {
        let content = std::fs::File::open(&file).context("open", &file)?;
        hash.update_reader(content).context("read", &file)?;
    }
    Ok(hash.finalize().to_hex()[..16].to_owned())
}

fn say(number: u32, what: &str, folder: &Path) -> Result<()> {
    print(&format!("\nstage {number} of 3: {what}, in {}\n", folder.display()))
}
