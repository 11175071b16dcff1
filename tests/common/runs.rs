//! Whole runs of the binary in a folder of their own.
#![allow(dead_code)] // as in `mod.rs`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ltrain::config::{ModelInfo, RunConfig, Settings};
use tempfile::TempDir;

use super::builtin;

/// A model of 20 thousand parameters, so that a run takes a fraction of a second.
const SMALL: &str = r#"{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "hidden_act": "silu",
  "max_position_embeddings": 64, "initializer_range": 0.05, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"
}"#;

/// Random weights on synthetic text; nothing is measured.
pub const FULL: &str =
    "--init small.json --data synthetic:facts-64 --micro-batch 2 --accum 1 --warmup 2 --schedule constant --eval none";
/// Adapters on the built-in model.
pub const LORA: &str = "--data synthetic:facts-64 --target 512 --seq-len 64 --train lora --rank 4 --micro-batch 2 --accum 1 --warmup 2 \
                        --schedule constant --eval none --no-control";

/// A current folder for runs.
pub struct Runs {
    dir: TempDir,
}

impl Runs {
    /// An empty one, but for the small model's configuration.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("small.json"), SMALL).unwrap();
        Self { dir }
    }

    /// A path in it.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The binary with these words as arguments.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ltrain"));
        command.args(words.split_whitespace()).current_dir(self.dir.path());
        if words.contains("--init") {
            command.arg("--tokenizer").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny"));
        }
        // The text's tokens stay in this folder, too.
        command.env("NO_COLOR", "1").env("COLUMNS", "400").env("LTRAIN_CACHE", self.dir.path().join("cache"));
        // On the CPU, also where a GPU is.
        command.env("CUDA_VISIBLE_DEVICES", "").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs it to its end, which must be a good one; returns what it said on stderr.
    pub fn succeed(&self, words: &str) -> String {
        let output = self.run(words);
        let text = stderr(&output);
        assert!(output.status.success(), "ltrain {words}: {}\n{text}", output.status);
        text
    }

    /// What the command line would make of these settings, with the built-in model's tokenizer.
    pub fn config(&self, out: &str, words: &str) -> RunConfig {
        let own = [("tokenizer", builtin()), ("out", self.at(out)), ("cache", self.at("cache"))];
        let own = own.map(|(key, path)| format!("{key}={}", path.display()));
        let words: Vec<String> = own.into_iter().chain(words.split_whitespace().map(str::to_owned)).collect();
        let settings = Settings::assigned(&words).unwrap();
        RunConfig::resolve(&settings, &ModelInfo::read(&settings).unwrap()).unwrap()
    }

    /// Starts it in silence.
    pub fn start(&self, words: &str) -> Child {
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The exported model's weights.
    pub fn weights(&self, out: &str) -> Vec<u8> {
        fs::read(self.at(out).join("merged/model.safetensors")).unwrap()
    }

    /// Numbers of the checkpoints, ascending.
    pub fn checkpoints(&self, out: &str) -> Vec<u64> {
        let mut steps: Vec<u64> =
            entries(&self.at(out)).iter().filter_map(|n| n.strip_prefix("checkpoint-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }
}

/// What a process said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names in a folder; none when it is not there.
pub fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Every file below a folder with its content.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => drop(files.insert(entry.path(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    files
}

/// Files that a process left half-written.
pub fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let half = |path: &Path| path.iter().any(|part| [".tmp-", ".old-"].iter().any(|tag| part.to_string_lossy().contains(tag)));
    tree(dir).into_keys().filter(|path| half(path)).collect()
}
