//! Model folders: opened, written, opened again.

use std::fs;
use std::path::Path;

use ltrain::Result;
use ltrain::io::atomic::Existing;
use ltrain::io::export::{Export, SHARD_LIMIT, write_model_dir};
use ltrain::io::{ModelDir, Storage};
use ltrain::model::llama::expected_tensors;
use ltrain::model::{ModelConfig, RopeScaling};
use ltrain::tensor::Tensor;
use serde_json::json;

use crate::{MODELS, assert_error, copy, edit_json, model, read_json};

/// A target four times as long.
fn extended(base: &ModelDir) -> ModelConfig {
    let mut config = base.config().clone();
    config.context *= 4;
    config.rope.scaling = RopeScaling::Linear { factor: 4.0 };
    config
}

fn export(base: &ModelDir, out: &Path, storage: Storage, shard_limit: u64) -> Result<()> {
    let config = extended(base);
    let export = Export { base, config: &config, storage, existing: Existing::Refuse, shard_limit };
    write_model_dir(out, &export, base.load().unwrap().into_iter().map(Ok))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_model_loads_completely_and_its_export_loads_equal() {
    let out = tempfile::tempdir().unwrap();
    for name in MODELS {
        let base = ModelDir::open(&model(name)).unwrap();
        let tensors = base.load().unwrap();
        let elements: usize = tensors.iter().map(|(_, t)| t.shape().len()).sum();
        assert_eq!(elements as u64, base.config().parameters(), "{name}");
        assert_eq!(tensors.len(), expected_tensors(base.config()).len());

        let path = out.path().join(name);
        export(&base, &path, Storage::F32, SHARD_LIMIT).unwrap();
        let again = ModelDir::open(&path).unwrap();
        assert_eq!(again.config(), &extended(&base), "{name}");
        assert_eq!(again.load().unwrap(), tensors, "{name}");
        assert_eq!(again.raw()["tie_word_embeddings"], base.raw()["tie_word_embeddings"]);
        assert_eq!(names(&path), ["config.json", "model.safetensors"]);
    }
    assert_eq!(names(out.path()), MODELS, "no temporary folders are left");
}

#[test]
fn shards_are_filled_in_order_and_loaded_back() {
    let out = tempfile::tempdir().unwrap();
    let base = ModelDir::open(&model("qwen2")).unwrap();
    let (whole, parts) = (out.path().join("whole"), out.path().join("parts"));
    export(&base, &whole, Storage::Bf16, SHARD_LIMIT).unwrap();
    export(&base, &parts, Storage::Bf16, 40_000).unwrap();
    let [whole, split] = [&whole, &parts].map(|p| ModelDir::open(p).unwrap());
    assert_eq!(split.storage().unwrap(), Storage::Bf16);
    assert_eq!(whole.load().unwrap(), split.load().unwrap());

    let index = read_json(&parts.join("model.safetensors.index.json"));
    let total = 2 * base.config().parameters();
    assert_eq!(index["metadata"]["total_size"], json!(total));
    let shards = names(&parts).into_iter().filter(|n| n.starts_with("model-")).count();
    assert!((4..20).contains(&shards), "{shards} shards");
    let first = format!("model-00001-of-{shards:05}.safetensors");
    assert_eq!(index["weight_map"]["model.embed_tokens.weight"], json!(first));
    assert_eq!(index["weight_map"].as_object().unwrap().len(), base.load().unwrap().len());
}

fn sharded() -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let base = ModelDir::open(&model("llama")).unwrap();
    export(&base, &out.path().join("m"), Storage::F32, 100_000).unwrap();
    out
}

#[test]
fn a_missing_shard_is_named() {
    let out = sharded();
    let dir = out.path().join("m");
    let shard = names(&dir).into_iter().find(|n| n.starts_with("model-00002")).unwrap();
    fs::remove_file(dir.join(&shard)).unwrap();
    assert_error(ModelDir::open(&dir), "E601", &[&format!("{shard:?} is missing"), "hf download", &shard]);
}

#[test]
fn an_index_that_lists_a_tensor_its_shard_lacks_is_named() {
    let out = sharded();
    let dir = out.path().join("m");
    let index = dir.join("model.safetensors.index.json");
    edit_json(&index, |v| v["weight_map"]["model.ghost.weight"] = v["weight_map"]["model.norm.weight"].clone());
    assert_error(ModelDir::open(&dir), "E605", &["places tensor \"model.ghost.weight\" in \"model-0000", "does not hold it"]);
    edit_json(&index, |v| v["weight_map"]["model.norm.weight"] = json!("../../model.safetensors"));
    assert_error(ModelDir::open(&dir), "E307", &["model.norm.weight", "a file in the same folder"]);
    edit_json(&index, |v| v["weight_map"] = json!([]));
    assert_error(ModelDir::open(&dir), "E307", &["weight_map", "got []"]);
}

#[test]
fn two_sets_of_weights_are_refused() {
    let out = sharded();
    let dir = out.path().join("m");
    fs::copy(model("llama").join("model.safetensors"), dir.join("model.safetensors")).unwrap();
    assert_error(ModelDir::open(&dir), "E605", &["two sets of weights"]);
}

#[test]
fn a_folder_that_is_not_a_model_says_what_to_do() {
    assert_error(
        ModelDir::open(Path::new("meta-llama/Llama-3.1-8B")),
        "E305",
        &[
            "no model folder at \"meta-llama/Llama-3.1-8B\"",
            "help: hf download meta-llama/Llama-3.1-8B --local-dir ./Llama-3.1-8B",
        ],
    );
    assert_error(ModelDir::open(Path::new("./nowhere/at/all")), "E305", &["check the path"]);
    assert_error(ModelDir::open(&model("llama").join("config.json")), "E305", &["got the file", "models/llama"]);
    let dir = copy(&model("llama"));
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("pytorch_model.bin")).unwrap();
    assert_error(ModelDir::open(dir.path()), "E309", &["found instead: config.json, pytorch_model.bin", "save_pretrained("]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert_error(ModelDir::open(dir.path()), "E305", &["no config.json in", "found instead: pytorch_model.bin"]);
    fs::write(dir.path().join("config.json"), "{\"a\": 1,\n oops}").unwrap();
    assert_error(ModelDir::open(dir.path()), "E307", &["is not valid JSON", "line 2"]);
}

#[test]
fn an_export_carries_the_tokenizer_and_the_new_limits() {
    let dir = copy(&model("llama"));
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("tokenizer.json", "{\"any\": 1}");
    put("tokenizer.model", "\u{1}binary");
    put("chat_template.jinja", "{{ x }}");
    put("tokenizer_config.json", r#"{"eos_token": "</s>", "model_max_length": 1000000000000000019884624838656}"#);
    put("generation_config.json", r#"{"max_length": 512, "eos_token_id": 2}"#);
    put("README.md", "the base's own words");
    let base = ModelDir::open(dir.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("m");
    export(&base, &path, Storage::F32, SHARD_LIMIT).unwrap();
    assert_eq!(
        names(&path),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ]
    );
    let settings = read_json(&path.join("tokenizer_config.json"));
    assert_eq!(settings, json!({"eos_token": "</s>", "model_max_length": 2048}));
    assert_eq!(read_json(&path.join("generation_config.json"))["max_length"], json!(2048));
    let same = |name| fs::read(path.join(name)).unwrap() == fs::read(dir.path().join(name)).unwrap();
    assert!(same("tokenizer.json") && same("tokenizer.model"));
}

#[test]
fn an_export_carries_the_tokenizer_that_was_given_and_none_of_the_base() {
    let (dir, other) = (copy(&model("llama")), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "tokenizer.model", "chat_template.jinja", "LICENSE"] {
        fs::write(dir.path().join(name), "base").unwrap();
    }
    fs::write(other.path().join("tokenizer.json"), "given").unwrap();
    fs::write(other.path().join("LICENSE"), "given").unwrap();
    let base = ModelDir::open(dir.path()).unwrap().with_tokenizer(other.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("m");
    export(&base, &path, Storage::F32, SHARD_LIMIT).unwrap();
    assert_eq!(names(&path), ["LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(fs::read_to_string(path.join("tokenizer.json")).unwrap(), "given");
    assert_eq!(fs::read_to_string(path.join("LICENSE")).unwrap(), "base", "the license is that of the weights");
}

#[test]
fn a_tied_base_can_be_exported_untied() {
    let base = ModelDir::open(&model("llama_tied")).unwrap();
    let config = ModelConfig { tied: false, ..extended(&base) };
    let mut tensors = base.load().unwrap();
    tensors.push(("lm_head.weight".into(), Tensor::zeros([config.vocab, config.hidden])));
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("m");
    let export =
        Export { base: &base, config: &config, storage: Storage::F32, existing: Existing::Refuse, shard_limit: SHARD_LIMIT };
    write_model_dir(&path, &export, tensors.clone().into_iter().map(Ok)).unwrap();
    let again = ModelDir::open(&path).unwrap();
    assert_eq!(again.raw()["tie_word_embeddings"], json!(false));
    assert_eq!(again.load().unwrap(), tensors);
}

#[test]
fn an_export_never_overwrites_and_never_half_writes() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("m");
    let base = ModelDir::open(&model("llama")).unwrap();
    export(&base, &path, Storage::F32, SHARD_LIMIT).unwrap();
    assert_error(export(&base, &path, Storage::F32, SHARD_LIMIT), "E703", &["exists and is not empty", "--out DIR"]);

    let config = extended(&base);
    let export =
        Export { base: &base, config: &config, storage: Storage::Bf16, existing: Existing::Replace, shard_limit: SHARD_LIMIT };
    let half = base.load().unwrap().into_iter().take(5).map(Ok);
    assert_error(write_model_dir(&path, &export, half), "E605", &["is missing"]);
    assert_eq!(ModelDir::open(&path).unwrap().storage().unwrap(), Storage::F32);
    assert_eq!(names(out.path()), ["m"]);

    write_model_dir(&path, &export, base.load().unwrap().into_iter().map(Ok)).unwrap();
    assert_eq!(ModelDir::open(&path).unwrap().storage().unwrap(), Storage::Bf16);
    assert_eq!(names(out.path()), ["m"]);
}

#[test]
fn an_embedded_model_is_a_model() {
    static FILES: &[(&str, &[u8])] = &[
        ("config.json", include_bytes!("../fixtures/models/qwen3/config.json")),
        ("model.safetensors", include_bytes!("../fixtures/models/qwen3/model.safetensors")),
    ];
    let embedded = ModelDir::from_embedded("(embedded)/tiny", FILES).unwrap();
    let folder = ModelDir::open(&model("qwen3")).unwrap();
    assert_eq!(embedded.config(), folder.config());
    assert_eq!(embedded.load().unwrap(), folder.load().unwrap());
    let out = tempfile::tempdir().unwrap();
    export(&embedded, &out.path().join("m"), Storage::F32, SHARD_LIMIT).unwrap();
    assert_error(embedded.tokenizer(), "E301", &["no tokenizer found in \"(embedded)/tiny\""]);
}
