//! Whole commands on a device: what they take of its memory, and what they leave on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::Parser as _;
use ltrain::backend::gpu::Place;
use ltrain::backend::{Device, Emu, EmuMode, Kernels};
use ltrain::cli::{Cli, Command};
use ltrain::config::RunConfig;
use ltrain::io::ModelDir;
use ltrain::io::hf_config::read_config;
use ltrain::plan::MemoryPlan;
use ltrain::run::{self, Ending};

use crate::common::runs::Runs;
use crate::recorded::Recorded;

const MODEL: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
  "max_position_embeddings": 64, "initializer_range": 0.05, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"
}"#;

fn place() -> Place {
    Place::Cpu { reason: "a test".into() }
}

fn folder() -> Runs {
    let runs = Runs::new();
    fs::write(runs.at("model.json"), MODEL).unwrap();
    runs
}

fn config(runs: &Runs, out: &str, words: &str) -> RunConfig {
    runs.config(out, &format!("seq_len=48 micro_batch=2 accum=2 steps=2 warmup=1 progress=quiet {words}"))
}

fn train(config: &RunConfig, device: &dyn Kernels) {
    assert_eq!(run::train(config, &place(), device, "a test").unwrap(), Ending::Finished);
}

/// A model that training has touched, as adapters want it, in f32.
fn base(runs: &Runs) -> PathBuf {
    let words = format!("init={} data=synthetic:facts-64 eval=none train=full export=merged", runs.at("model.json").display());
    train(&config(runs, "base", &words), &Device::new(Emu::new(EmuMode::Eager), u64::MAX));
    runs.at("base/merged")
}

/// What a run allocates at most, everything from its weights to its last evaluation, and what its plan said.
#[test]
fn a_run_takes_what_its_plan_says() {
    let runs = folder();
    let base = base(&runs);
    let model = read_config(&base.join("config.json")).unwrap();
    for (out, words) in [
        ("lora", "train=lora rank=4 eval=none"),
        ("kept", "train=lora rank=4 eval=none recompute=nothing"),
        ("lora-plus", "train=lora+ rank=4 eval=none"),
        ("full", "train=full eval=none"),
        ("measured", "train=full eval=ppl eval_at=64,256 eval_every=1"),
        ("asked", "train=lora rank=4 eval=ppl,passkey eval_at=512"),
    ] {
        let words = format!("model={} data=synthetic:facts-64 target=128 {words}", base.display());
        let config = config(&runs, out, &words);
        let planned = MemoryPlan::of(&config, &model).unwrap().peak().total();
        let (emulation, seen) = Recorded::new();
        // The limit is what was planned: one byte more would be an error.
        train(&config, &Device::new(emulation, planned));
        let taken = seen.peak.load(Ordering::Relaxed);
        assert!(taken as f64 >= 0.98 * planned as f64, "{out}: planned {planned}, took {taken}");
    }
}

/// The same where answers are written, several together: that is where this run needs most.
#[test]
fn answers_take_what_their_plan_says() {
    let runs = folder();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/bytes");
    fs::write(runs.at("model.json"), MODEL.replace("256", "340")).unwrap();
    fs::write(runs.at("text.txt"), "once upon a time there was a town ".repeat(40)).unwrap();
    let words = format!(
        "init={} tokenizer={} data={} eval=fwe eval_at=768 train=full export=merged",
        runs.at("model.json").display(),
        tokenizer.display(),
        runs.at("text.txt").display()
    );
    let config = config(&runs, "written", &words);
    let plan = MemoryPlan::of(&config, &read_config(&runs.at("model.json")).unwrap()).unwrap();
    let planned = plan.peak().total();
    assert_eq!(plan.peak(), plan.phases.last().unwrap());
    let (emulation, seen) = Recorded::new();
    train(&config, &Device::new(emulation, planned));
    let taken = seen.peak.load(Ordering::Relaxed);
    assert!(taken as f64 >= 0.98 * planned as f64, "planned {planned}, took {taken}");
    let report = fs::read_to_string(runs.at("written/report.json")).unwrap();
    assert!(report.contains("\"task\": \"fwe\""), "answers were asked for");
}

/// What nobody trained comes out of a device as it went in, though the device had it rounded: the run's merged model is the one
/// that `ltrain merge` makes of base and adapter, to the bit.
#[test]
fn a_merged_model_keeps_what_nobody_trained() {
    let runs = folder();
    let base = base(&runs);
    for mode in ["lora", "lora+"] {
        let words =
            format!("model={} data=synthetic:facts-64 target=128 eval=none export=both rank=4 train={mode}", base.display());
        train(&config(&runs, mode, &words), &Device::new(Emu::new(EmuMode::Eager), u64::MAX));
        let (merged, adapter, out) = (runs.at(mode).join("merged"), runs.at(mode).join("adapter"), runs.at("again").join(mode));
        let [model, adapter, to] = [&base, &adapter, &out].map(|path| path.to_str().unwrap());
        let command = ["ltrain", "merge", "--model", model, "--adapter", adapter, "--out", to];
        let Some(Command::Merge(args)) = Cli::try_parse_from(command).unwrap().command else { panic!("not merge") };
        fs::create_dir_all(runs.at("again")).unwrap();
        assert_eq!(run::merge(&args).unwrap(), Ending::Finished);

        let [before, after] = [&base, &merged].map(|path| ModelDir::open(path).unwrap());
        let (norm, weight) = ("model.norm.weight", "model.layers.1.self_attn.q_proj.weight");
        let same = |name: &str| before.view(name).unwrap().bytes == after.view(name).unwrap().bytes;
        assert_eq!((same(norm), same(weight)), (mode == "lora", false), "{mode}");
        assert!(
            fs::read(merged.join("model.safetensors")).unwrap() == fs::read(out.join("model.safetensors")).unwrap(),
            "{mode}"
        );
    }
}

#[test]
fn two_models_are_compared_in_the_memory_of_one() {
    let peak = |words: &[&str], limit: u64| {
        let device = Device::new(Emu::new(EmuMode::Eager), limit);
        let words = ["ltrain", "eval", "builtin:tiny", "--at", "48", "--tasks", "ppl", "--windows", "1"].iter().chain(words);
        let Some(Command::Eval(args)) = Cli::try_parse_from(words).unwrap().command else { panic!("not eval") };
        let place = Place::Cpu { reason: "a test".into() };
        assert_eq!(run::eval(&args, &place, &device).unwrap(), Ending::Finished);
        device.launcher().usage().peak()
    };
    let one = peak(&[], u64::MAX);
    assert_eq!(peak(&["--against", "builtin:tiny"], one), one);
}
