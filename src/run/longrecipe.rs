//! `ltrain longrecipe`: the three stages of LongRecipe (arXiv 2409.00509, section 4 and appendix A), one after the other.
//!
//! Each stage is a command of its own and leaves a folder of its own: `extend` (training with its method), `replay` (instruction data at
//! true positions, a tenth of the learning rate) and `merged` (the weighted mean with the base). A stage that is complete is not
//! done again, and one that was begun continues.

use std::path::{Path, PathBuf};

use super::commands::print;
use super::merge::{merge, merge_best};
use super::{Ending, train};
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::{DeviceArgs, LongRecipeArgs, MergeArgs};
use crate::config::choices::{Export, Preset};
use crate::config::text::{Length, List, ModelSource, Recipe};
use crate::config::{ConfigError, ModelInfo, Problem, RunConfig, Settings};
use crate::error::Result;

/// The replay's learning rate over that of the extension.
const REPLAY_RATE: f64 = 0.1;
/// The replay's steps over those of the extension, where nobody says: 5 to 10 % of the tokens, the paper advises.
const REPLAY_STEPS: f64 = 0.1;

/// The three stages, resolved before anything runs.
pub struct Stages {
    /// Settings of the training that extends.
    pub extend: RunConfig,
    replay: Settings,
    merge: MergeArgs,
}

impl Stages {
    /// The stages that the arguments ask for.
    ///
    /// # Errors
    /// Settings that cannot be used, or that the stages set themselves.
    pub fn of(args: LongRecipeArgs) -> Result<Self> {
        let given = args.train.gather()?;
        let problem = |key: &str, what: &str, help: &str| Problem::new(key, what).help(help);
        let taken = [
            (given.export.is_some(), problem("export", "every stage writes a merged model", "leave out export")),
            (given.init.is_some(), problem("init", "random weights have nothing to merge with", "give a --model")),
            (
                given.out.is_none(),
                problem("out", "expected a folder, got nothing", "add --out DIR: it will hold the three stages"),
            ),
        ];
        let problems: Vec<_> = taken.into_iter().filter_map(|(wrong, problem)| wrong.then_some(problem)).collect();
        let (Some(out), true) = (given.out.clone(), problems.is_empty()) else {
            return Err(ConfigError::Problems(problems).into());
        };
        let recipe = given.method.unwrap_or(Recipe { preset: Preset::LongRecipe, paper: false });
        let settings =
            Settings { method: Some(recipe), out: Some(out.join("extend")), export: Some(Export::Merged), ..given.clone() };
        let extend = RunConfig::resolve(&settings, &ModelInfo::read(&settings)?)?;

        let from = &extend;
        let model = given.model.clone().unwrap_or_default();
        let steps = ((from.train.steps as f64 * REPLAY_STEPS).round() as u64).max(1);
        let replay = Settings {
            model: Some(ModelSource::Folder(out.join("extend/merged"))),
            method: Some(Recipe { preset: Preset::Replay, ..recipe }),
            tokenizer: Some(out.join("extend/merged")),
            data: Some(args.replay_data),
            target: Some(Length(from.positions.target)),
            seq_len: Some(Length(from.data.seq_len)),
            lr: Some(from.optim.lr * REPLAY_RATE),
            steps: Some(args.replay_steps.unwrap_or(steps)),
            out: Some(out.join("replay")),
            no_control: Some(true),
            // What belongs to the extension alone.
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
            control: None,
            lr_embed: None,
            resume: None,
            ..settings
        };
        let at = List(vec![Length(from.positions.context), Length(from.positions.target)]);
        let merge = MergeArgs {
            model,
            adapter: None,
            with: Some(ModelSource::Folder(out.join("replay/merged"))),
            weight: args.weight,
            tokenizer: None,
            data: args.weight.is_some_and(|w| w.is_search()).then(|| given.eval_data.clone()).flatten(),
            columns: from.data.reading.columns.clone(),
            at: args.weight.filter(|w| w.is_search()).map(|_| at),
            out: out.join("merged"),
            dtype: given.save_dtype,
            device: DeviceArgs { gpus: from.train.gpus, mem_limit: given.mem_limit, threads: from.train.threads },
        };
        Ok(Self { extend, replay, merge })
    }

    /// Runs what is not complete.
    pub fn run(&self, place: &Place, kernels: &dyn Kernels, command: &str) -> Result<Ending> {
        say(1, "extend", &self.extend.first_out())?;
        if train(&self.extend, place, kernels, command)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
        let replay = RunConfig::resolve(&self.replay, &ModelInfo::read(&self.replay)?)?;
        say(2, "replay", &replay.first_out())?;
        if train(&replay, place, kernels, command)? == Ending::Stopped {
            return Ok(Ending::Stopped);
        }
        let out: &PathBuf = &self.merge.out;
        say(3, "merge", out)?;
        if out.exists() {
            print(&format!("{} is there already\n", out.display()))?;
            return Ok(Ending::Finished);
        }
        match self.merge.searched() {
            Some(with) => merge_best(&self.merge, with, (place, kernels)),
            None => merge(&self.merge),
        }
    }
}

fn say(number: u32, what: &str, folder: &Path) -> Result<()> {
    print(&format!("\nstage {number} of 3: {what}, in {}\n", folder.display()))
}
