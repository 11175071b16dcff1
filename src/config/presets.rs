//! What `--method` stands for: a layer of settings below the user's own and above the defaults.
//!
//! `NAME` sets what makes the method: positions, attention, what moves. `NAME:paper` adds the paper's numbers, for models of the size
//! it used; sources are in `docs/methods.md`. What the papers leave open keeps its default here.

use super::Settings;
use super::choices::{Attention, Preset, ScalePer};
use super::text::{List, Recipe, Warmup};
use crate::data::Loss;
use crate::data::attend::Group;
use crate::model::LoraTarget;
use crate::model::rope::RopeKind;
use crate::optim::Shape;
use crate::positions::Spec;
use crate::train::TrainMode;

/// Share of the target that LongRecipe's rows have, and those of the default method.
const ROW_SHARE: f64 = 0.3;

/// The settings of a preset.
pub(super) fn settings(recipe: Recipe) -> Settings {
    let paper = if recipe.paper { paper(recipe.preset) } else { Settings::default() };
    paper.over(method(recipe.preset))
}

/// Tokens of a row, where the preset has an opinion.
pub(super) fn seq_len(preset: Preset, target: usize) -> Option<usize> {
    match preset {
        Preset::FullLength | Preset::LongLora => Some(target),
        Preset::LongRecipe => Some(share_of(target).max(2)),
        _ => None,
    }
}

/// Tokens of a row that has its share of the target.
pub(super) fn share_of(target: usize) -> usize {
    (target as f64 * ROW_SHARE) as usize
}

/// Rows of an optimizer step in the papers.
pub(super) fn rows_per_step(recipe: Recipe) -> Option<usize> {
    let rows = match recipe.preset {
        Preset::E2Llm => 16,
        Preset::LongRecipe | Preset::Replay => 96,
        Preset::Uniform => return None,
        Preset::Pose | Preset::Random | Preset::FullLength | Preset::LongLora | Preset::EndPrompt => 64,
    };
    recipe.paper.then_some(rows)
}

fn method(preset: Preset) -> Settings {
    let positions = |name: &str| Some(name.parse::<Spec>().expect("presets: a method of the list"));
    let plain = Settings::default();
    match preset {
        Preset::Pose => Settings { positions: positions("pose"), ..plain },
        Preset::Uniform => Settings { positions: positions("uniform"), ..plain },
        Preset::Random => Settings { positions: positions("random"), ..plain },
        Preset::E2Llm => Settings { positions: positions("e2-llm"), ..plain },
        Preset::EndPrompt => Settings { positions: positions("endprompt"), ..plain },
        Preset::LongRecipe => Settings { positions: positions("longrecipe"), rope: Some(RopeKind::LongRecipe(None)), ..plain },
        Preset::FullLength => Settings { positions: positions("natural"), ..plain },
        Preset::LongLora => Settings {
            positions: positions("natural"),
            attention: Some(Attention::S2),
            s2_group: Some(Group::Parts(4)),
            rope: Some(RopeKind::Linear),
            train: Some(TrainMode::LoraPlus),
            rank: Some(8),
            alpha: Some(16.0),
            lora_targets: Some(List(vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::O])),
            ..plain
        },
        Preset::Replay => {
            Settings { positions: positions("natural"), rope: Some(RopeKind::Keep), loss: Some(Loss::All), ..plain }
        }
    }
}

fn paper(preset: Preset) -> Settings {
    let full = |lr, betas: [f64; 2], steps, warmup, shape| Settings {
        train: Some(TrainMode::Full),
        lr: Some(lr),
        betas: Some(List(betas.to_vec())),
        weight_decay: Some(0.0),
        schedule: Some(shape),
        warmup: Some(Warmup::Steps(warmup)),
        steps: Some(steps),
        ..Settings::default()
    };
    let linear = |settings| Settings { rope: Some(RopeKind::Linear), ..settings };
    let adam = [0.9, 0.999];
    match preset {
        // PoSE's released scripts, its baselines among them: linear decay to nothing.
        Preset::Pose | Preset::Random | Preset::FullLength => {
            linear(Settings { min_lr_ratio: Some(0.0), ..full(2e-5, adam, 1000, 10, Shape::Linear) })
        }
        // Section 4.1; the schedule is not stated, and its equations draw a scale per iteration.
        Preset::E2Llm => Settings {
            e2_max_scale: Some(20),
            e2_scale_per: Some(ScalePer::Step),
            ..full(1e-5, [0.9, 0.95], 30_000, 0, Shape::Constant)
        },
        // Appendix A: 104 steps of 96 rows.
        Preset::LongRecipe => Settings { weight_decay: Some(0.1), ..full(5e-5, adam, 104, 0, Shape::Constant) },
        Preset::Replay => Settings { weight_decay: Some(0.1), ..full(5e-6, adam, 30, 0, Shape::Constant) },
        // The README's commands: one rate for adapters, embeddings and norms.
        Preset::LongLora => Settings {
            lr: Some(2e-5),
            lr_embed: Some(2e-5),
            betas: Some(List(vec![0.9, 0.95])),
            weight_decay: Some(0.0),
            schedule: Some(Shape::Constant),
            warmup: Some(Warmup::Steps(20)),
            steps: Some(1000),
            ..Settings::default()
        },
        // The released script; a billion tokens are 1,907 steps of 64 rows of 8k.
        Preset::EndPrompt => linear(Settings { end_prompt_weight: Some(1.0), ..full(2e-5, adam, 1907, 20, Shape::Constant) }),
        Preset::Uniform => Settings::default(),
    }
}
