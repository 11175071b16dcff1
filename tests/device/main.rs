//! Training on a device, end to end: on the emulation, with the kernels and the launch code that train on a GPU, and on a GPU
//! where there is one.
#![allow(unsafe_code)] // stands between the launch code and the emulation

#[path = "../common/mod.rs"]
mod common;

mod recorded;
mod whole;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::backends::{devices, emulated};
use common::{builtin, fixtures, small_model};
use ltrain::backend::device::KERNELS;
use ltrain::backend::selftest::self_test;
use ltrain::backend::{Cpu, Device, Emu, EmuMode, Kernels, Meta};
use ltrain::checkpoint::{self, Context};
use ltrain::data::attend::Group;
use ltrain::data::synthetic::STAGES;
use ltrain::data::{Attend, Batch, SyntheticBuilder};
use ltrain::io::ModelDir;
use ltrain::model::{Llama, LoraConfig, LoraTarget, Recompute, RopeConfig, RopeScaling};
use ltrain::optim::{AdamW, AdamWConfig, Schedule, Shape};
use ltrain::positions::{self, MethodArgs, Spec, Words};
use ltrain::train::{self, LoopConfig, OnNan, Outcome, State, TrainMode};
use recorded::Recorded;

fn lora() -> LoraConfig {
    LoraConfig { rank: 4, alpha: 8.0, rslora: false, targets: LoraTarget::ALL.into() }
}

/// A fresh state on a backend.
fn state(mut model: Llama, mode: TrainMode, kernels: &dyn Kernels) -> State {
    train::prepare(&mut model, mode, Some(&lora()), 7).unwrap();
    model.place(kernels).unwrap();
    let optimizer = AdamW::new(AdamWConfig::default(), &model.params, kernels).unwrap();
    State { model, optimizer, step: 0, skipped: 0 }
}

/// Rows of the synthetic language at PoSE's positions.
fn batches(target: usize, seq_len: usize, attention: Attend) -> impl FnMut(u64) -> Batch {
    let method = positions::build(&Spec::only("pose"), &MethodArgs::new(target, 32, seq_len), &Words::default()).unwrap();
    let rows = SyntheticBuilder { stage: STAGES[2], method, seed: 5, attention, seq_len };
    move |step| rows.batch(2 * step, 2).unwrap()
}

/// Trains up to `steps` steps and returns the losses.
fn train(kernels: &dyn Kernels, state: &mut State, steps: u64, mut batch: impl FnMut(u64) -> Batch) -> Vec<f64> {
    let config = LoopConfig {
        steps,
        accum: 1,
        schedule: Schedule { peak: 5e-3, warmup: 2, steps: 20, shape: Shape::Constant, floor: 0.0 },
        embed_lr_ratio: 0.2,
        recompute: Recompute::Layers,
        on_nan: OnNan::Stop,
    };
    let mut losses = Vec::new();
    let mut at = state.step;
    let mut next = || {
        at += 1;
        Ok(batch(at - 1))
    };
    let stop = Arc::new(AtomicBool::new(false));
    let ended = train::train(kernels, state, &config, &mut next, &stop, &mut |report, _| {
        losses.push(report.loss);
        Ok(())
    });
    assert_eq!(ended.unwrap(), Outcome::Finished);
    losses
}

fn floats(state: &State) -> Vec<(String, Vec<f32>)> {
    let host = |p: &ltrain::model::Param| (p.name.clone(), p.exact().to_host_f32().unwrap().as_f32().unwrap().to_vec());
    state.model.params.iter().map(host).collect()
}

#[test]
fn twenty_steps_follow_the_cpu() {
    for (mode, attention) in
        [(TrainMode::LoraPlus, Attend::Full), (TrainMode::Full, Attend::Shifted { group: Group::Tokens(16) })]
    {
        let model = || Llama::init(small_model(), 3).unwrap();
        let want = train(&Cpu, &mut state(model(), mode, &Cpu), 20, batches(256, 48, attention));
        assert!(want[19] < want[0] - 0.3, "{mode}: the CPU learns nothing: {want:?}");
        for (on, device) in devices(EmuMode::Eager) {
            let got = train(&*device, &mut state(model(), mode, &*device), 20, batches(256, 48, attention));
            for (step, (want, got)) in want.iter().zip(&got).enumerate() {
                // A loss is a mean over 90 tokens whose logits are off by 1 % (see tests/model.rs) of a few units; steps add up.
                let allowed = 0.01 * (1.0 + step as f64 / 10.0);
                let off = (want - got).abs();
                assert!(off <= allowed, "{mode} on {on}, step {step}: loss {got}, the CPU has {want}, allowed {allowed:.3}");
            }
        }
    }
}

/// Writes the state, forgets it, reads it into a fresh one.
fn through_a_checkpoint(state: State, mode: TrainMode, base: &ModelDir, run: &Path, kernels: &dyn Kernels) -> State {
    let context = Context { base, config: &state.model.config, base_name: "base", seconds: 1.0 };
    let path: PathBuf = checkpoint::save(run, &state, &context, 2).unwrap();
    let mut fresh = self::state(Llama::new(base.config().clone(), base.load().unwrap()).unwrap(), mode, kernels);
    checkpoint::restore(&path, &mut fresh, kernels).unwrap();
    assert_eq!(floats(&fresh), floats(&state));
    fresh
}

#[test]
fn a_resumed_run_is_bit_equal() {
    let base = ModelDir::open(&fixtures().join("models/llama_headdim")).unwrap();
    let mut rows = {
        let mut of_256 = batches(256, 40, Attend::Full);
        move |step| {
            let mut batch = of_256(step);
            // The fixture's vocabulary has 128 entries.
            for ids in [&mut batch.ids, &mut batch.targets.ids] {
                let small = |&id: &u32| if id == ltrain::ops::cross_entropy::IGNORE { id } else { id % 128 };
                *ids = ltrain::tensor::Tensor::u32(ids.as_u32().unwrap().iter().map(small).collect(), ids.shape());
            }
            batch
        }
    };
    for (on, device) in devices(EmuMode::Late { seed: 9 }) {
        for mode in [TrainMode::LoraPlus, TrainMode::Full] {
            let fresh = || state(Llama::new(base.config().clone(), base.load().unwrap()).unwrap(), mode, &*device);
            let mut whole = fresh();
            let losses = train(&*device, &mut whole, 6, &mut rows);
            let mut half = fresh();
            let first = train(&*device, &mut half, 3, &mut rows);
            let run = tempfile::tempdir().unwrap();
            let mut half = through_a_checkpoint(half, mode, &base, run.path(), &*device);
            let second = train(&*device, &mut half, 6, &mut rows);
            assert_eq!([first, second].concat(), losses, "{mode} on {on}");
            assert_eq!(floats(&half), floats(&whole), "{mode} on {on}");
        }
    }
}

#[test]
fn the_built_in_model_trains_on_the_device() {
    let tiny = ModelDir::open(&builtin()).unwrap();
    let losses = |kernels: &dyn Kernels| {
        let mut model = Llama::new(tiny.config().clone(), tiny.load().unwrap()).unwrap();
        model.config.rope = RopeConfig { theta: 1e4, scaling: RopeScaling::yarn(8.0, 256) };
        train(kernels, &mut state(model, TrainMode::Full, kernels), 3, batches(2048, 96, Attend::Full))
    };
    let want = losses(&Cpu);
    for (on, device) in devices(EmuMode::Eager) {
        let got = losses(&*device);
        // As above, but these steps are long and change the loss by more than it is.
        let close = |(step, (want, got)): (usize, (&f64, &f64))| (want - got).abs() <= 0.01 * want * (1 + step) as f64;
        assert!(want.iter().zip(&got).enumerate().all(close), "{on}: {got:?}, the CPU has {want:?}");
    }
}

/// Most memory of one training step, counted by a backend's meter.
fn peak<L: ltrain::backend::device::Launcher>(device: &Device<L>, mode: TrainMode, recompute: Recompute) -> u64 {
    let mut state = state(Llama::init(small_model(), 3).unwrap(), mode, device);
    let batch = batches(256, 48, Attend::Full)(0);
    let never = AtomicBool::new(false);
    let (grads, _) = train::gradients(device, &state.model, &[batch.clone(), batch], recompute, &never).unwrap().unwrap();
    state.optimizer.apply(device, &mut state.model.params, &grads, |_| 1e-3).unwrap();
    device.launcher().usage().peak()
}

#[test]
fn the_counting_device_counts_what_a_real_one_uses() {
    for mode in [TrainMode::Lora, TrainMode::Full] {
        let of = |recompute| {
            let real = peak(&emulated(EmuMode::Eager), mode, recompute);
            assert_eq!(peak(&Device::new(Meta::default(), u64::MAX), mode, recompute), real, "{mode}");
            real
        };
        assert!(of(Recompute::Layers) < of(Recompute::Nothing));
    }
}

/// Files of kernels that are not the product's.
const TESTS: [&str; 4] = ["bugs", "bugs_hopper", "words", "words_hopper"];

#[test]
fn the_self_test_runs_every_kernel() {
    let (emulation, seen) = Recorded::new();
    let device = Device::new(emulation, u64::MAX);
    let checks = self_test(&device).unwrap();
    let wrong: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let all = KERNELS.iter().filter(|k| !TESTS.contains(&k.file)).map(|k| k.name).collect::<BTreeSet<_>>();
    assert_eq!(*seen.launched.lock().unwrap(), all);
}

#[test]
fn a_device_that_is_full_says_so_and_keeps_working() {
    let device = Device::new(Emu::new(EmuMode::Eager), 300_000);
    let mut model = Llama::init(small_model(), 3).unwrap();
    train::prepare(&mut model, TrainMode::Lora, Some(&lora()), 7).unwrap();
    model.place(&device).unwrap();
    let batch = batches(256, 48, Attend::Full)(0);
    let error = train::gradients(&device, &model, &[batch], Recompute::Nothing, &AtomicBool::new(false)).unwrap_err();
    let shown = ltrain::error::Shown(&error).to_string();
    assert!(shown.contains("E402") && shown.contains("293.0 KiB"), "{shown}");
    drop(model);
    assert_eq!(device.launcher().usage().used, [0; 5]);
}
