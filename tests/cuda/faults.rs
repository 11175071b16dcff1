//! Runs whose device fails: what is said, and that nothing but the steps since the last checkpoint is lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::runs::Runs;
use crate::fake::{Driver, usable};
use ltrain::backend::Device;
use ltrain::backend::cuda::Launches;
use ltrain::backend::device::KERNELS;
use ltrain::backend::gpu::Place;
use ltrain::checkpoint;
use ltrain::error::{Error, Explain as _, Shown};
use ltrain::run::{self, Ending};

/// A model whose training step launches every kernel and takes the emulation a moment.
const MODEL: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96,
  "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "hidden_act": "silu",
  "max_position_embeddings": 64, "initializer_range": 0.05, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"
}"#;

/// Runs on the driver's device.
struct OnDriver(Runs);

impl OnDriver {
    fn new() -> Self {
        let runs = Runs::new();
        fs::write(runs.at("model.json"), MODEL).unwrap();
        Self(runs)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.at(name)
    }

    fn train(&self, driver: &Driver, out: &str, limit: u64) -> ltrain::Result<Ending> {
        self.train_with(driver, out, limit, "eval=none")
    }

    fn train_with(&self, driver: &Driver, out: &str, limit: u64, more: &str) -> ltrain::Result<Ending> {
        let words = format!(
            "init={} data=synthetic:facts-64 seq_len=32 micro_batch=1 accum=1 steps=6 save_every=2 warmup=1 \
             schedule=constant progress=quiet {more}",
            self.at("model.json").display()
        );
        let device = Device::new(driver.open(KERNELS, Launches::Queued).unwrap(), limit);
        run::train(&self.0.config(out, &words), &Place::Gpu(usable()), &device, "a test")
    }

    fn json(&self, file: &str) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.at(file)).unwrap()).unwrap()
    }
}

/// Steps of the newest complete checkpoint; every checkpoint must be complete.
fn saved(run: &Path) -> u64 {
    let (newest, rejected) = checkpoint::newest(run).unwrap();
    assert_eq!(rejected, [] as [String; 0]);
    newest.map_or(0, |path| checkpoint::step_of(&path).unwrap())
}

#[test]
fn a_device_that_fails_in_mid_run_costs_no_more_than_the_steps_since_the_last_checkpoint() {
    let driver = Driver::new();
    let runs = OnDriver::new();
    assert_eq!(runs.train(&driver, "whole", u64::MAX).unwrap(), Ending::Finished);
    let calls = ["kernel", "cuLaunchKernel", "cuMemcpyHtoDAsync_v2"].map(|call| driver.calls(call));
    assert!(calls.iter().all(|&n| n > 50), "six steps are many calls: {calls:?}");
    for (all, (call, share, code, says)) in calls.into_iter().zip([
        ("kernel", 0.9, 700, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuLaunchKernel", 0.6, 1, "failed on a grid of"),
        ("cuMemcpyHtoDAsync_v2", 0.7, 1, "could not write"),
    ]) {
        driver.reset();
        driver.fail(call, (f64::from(all) * share) as i32, code);
        let error = runs.train(&driver, call, u64::MAX).unwrap_err();
        let text = Shown(&error).to_string();
        assert!(text.starts_with("error[E504]") && text.contains(says) && text.contains("checkpoints are intact"), "{text}");
        assert_eq!(error.explain().exit_code(), 5);
        let step = saved(&runs.at(call));
        assert!((2..6).contains(&step), "{call}: stopped after step {step}");
        assert!(text.contains(&format!("{call}/checkpoint-{step} is the newest")), "{text}");

        driver.reset();
        assert_eq!(runs.train(&driver, call, u64::MAX).unwrap(), Ending::Finished);
        assert_eq!(runs.0.weights(call), runs.0.weights("whole"), "{call}");
    }
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_anything_is_read() {
    let driver = Driver::new();
    let runs = OnDriver::new();
    fs::write(runs.at("book.txt"), "a text that nobody reads ".repeat(200)).unwrap();
    let text = format!("data={} eval=none", runs.at("book.txt").display());
    let error = runs.train_with(&driver, "run", 100_000, &text).unwrap_err();
    assert!(matches!(error, Error::Memory(_)), "{}", Shown(&error));
    assert_eq!(error.explain().exit_code(), 4);
    assert_eq!(driver.calls("cuMemAllocAsync"), 0);
    assert!(!runs.at("run").exists() && !runs.at("cache").exists(), "nothing was made");
}

#[test]
fn steps_log_the_memory_of_training_and_the_report_has_the_most() {
    let driver = Driver::new();
    let runs = OnDriver::new();
    // Rows of 32 tokens train; 512 are measured, before, in between and after.
    for (out, more) in [("plain", "eval=none"), ("measured", "eval=ppl eval_at=512 eval_every=1")] {
        assert_eq!(runs.train_with(&driver, out, u64::MAX, more).unwrap(), Ending::Finished);
    }
    let logged = |out: &str| {
        let log = fs::read_to_string(runs.at(out).join("trainer_log.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter_map(|line| line["vram_peak_gib"].as_f64()).collect::<Vec<_>>()
    };
    let plain = logged("plain");
    assert!(plain.iter().all(|&gib| gib > 0.0), "{plain:?}");
    assert_eq!(logged("measured"), plain);
    let most = |out: &str| {
        let report = runs.json(&format!("{out}/report.json"));
        let note = report["notes"][0].as_str().unwrap().to_owned();
        note.split("Peak memory: ").nth(1).unwrap().to_owned()
    };
    assert_ne!(most("measured"), most("plain"));
    assert_eq!(runs.json("measured/eval/before.json")["device"], "NVIDIA Imaginary");
    assert_eq!(runs.json("measured/run.json")["devices"], serde_json::json!(["NVIDIA Imaginary"]));
}

#[test]
fn memory_that_runs_out_anywhere_says_what_holds_it_and_leaves_checkpoints_alone() {
    let driver = Driver::new();
    let runs = OnDriver::new();
    runs.train(&driver, "whole", u64::MAX).unwrap();
    // Eleven parameters are loaded, each with a master copy and two moments.
    let (allocations, loading) = (driver.calls("cuMemAllocAsync"), 44);
    // While weights are loaded, in the first step, in the fifth.
    for (out, nth, least, held) in [
        ("load", 3, 0, "master weights and AdamW"),
        ("first", loading + (allocations - loading) / 12, 0, "activations"),
        ("later", allocations * 3 / 4, 2, "master weights"),
    ] {
        driver.reset();
        // The driver is asked once more after unused memory is given back.
        driver.fail("cuMemAllocAsync", nth, 2);
        driver.fail("cuMemAllocAsync", nth + 1, 2);
        let error = runs.train(&driver, out, u64::MAX).unwrap_err();
        let text = Shown(&error).to_string();
        assert!(text.starts_with("error[E402]: out of GPU memory") && text.contains(held), "{out}: {text}");
        assert!(
            text.contains("driver: CUDA_ERROR_OUT_OF_MEMORY") && text.contains("help: train on shorter rows"),
            "{out}: {text}"
        );
        assert_eq!(error.explain().exit_code(), 4);
        assert!(saved(&runs.at(out)) >= least, "{out}");

        driver.reset();
        assert_eq!(runs.train(&driver, out, u64::MAX).unwrap(), Ending::Finished);
        assert_eq!(runs.0.weights(out), runs.0.weights("whole"), "{out}");
    }
}
