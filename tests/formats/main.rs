//! Files in, files out: every format reads back as it was written, and every malformed input has its own message.

mod adapters;
mod config;
mod folders;
mod malformed;
mod tokenizers;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use ltrain::error::{Explain, Shown};
use serde_json::Value;
use tempfile::TempDir;

/// Every fixture model; each has another architecture, rotation or shape.
const MODELS: [&str; 10] = [
    "llama",
    "llama_d64",
    "llama_headdim",
    "llama_linear",
    "llama_llama3",
    "llama_tied",
    "llama_yarn",
    "mistral",
    "qwen2",
    "qwen3",
];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn model(name: &str) -> PathBuf {
    fixture("models").join(name)
}

/// A copy of a fixture folder that a test may damage.
fn copy(folder: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Rewrites one JSON file.
fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = read_json(path);
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// A fixture model whose `config.json` is edited.
fn with_config(name: &str, edit: impl FnOnce(&mut Value)) -> TempDir {
    let dir = copy(&model(name));
    edit_json(&dir.path().join("config.json"), edit);
    dir
}

/// The header and the tensor bytes of a safetensors file.
fn split_weights(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (header, bytes[8 + length..].to_vec())
}

/// The inverse of [`split_weights`].
fn join_weights(path: &Path, header: &Value, tensors: &[u8]) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(tensors);
    fs::write(path, bytes).unwrap();
}

/// A fixture model whose weights are edited.
fn with_weights(name: &str, edit: impl FnOnce(&mut Value, &mut Vec<u8>)) -> TempDir {
    let dir = copy(&model(name));
    let path = dir.path().join("model.safetensors");
    let (mut header, mut tensors) = split_weights(&path);
    edit(&mut header, &mut tensors);
    join_weights(&path, &header, &tensors);
    dir
}

/// Checks an error's code and that its screen text contains each of `parts`.
#[track_caller]
fn assert_error<T>(result: ltrain::Result<T>, code: &str, parts: &[&str]) {
    let Err(error) = result else {
        panic!("expected {code}, got a success");
    };
    let shown = Shown(&error).to_string();
    assert_eq!(error.explain().code, code, "{shown}");
    assert!(shown.starts_with(&format!("error[{code}]: ")), "{shown}");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}
