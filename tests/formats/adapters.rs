//! PEFT adapters: PEFT's own are read, ours have PEFT's names and keys.

use std::fs;

use ltrain::checkpoint::untied;
use ltrain::io::peft::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, AdapterTensor, Factor, factor_name, parse_name, read_adapter, saved_name,
    target_modules, write_adapter,
};
use ltrain::io::{ModelDir, SafetensorsFile, Storage};
use ltrain::model::Llama;
use ltrain::tensor::Tensor;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{assert_error, copy, edit_json, fixture, join_weights, model, read_json, split_weights};

const ADAPTERS: [&str; 2] = ["lora_llama_plus", "lora_qwen2"];

fn write(dir: &std::path::Path, adapter: &Adapter, config: &Value) {
    let tensors = adapter.tensors.iter().map(|(n, t)| (n.as_str(), t));
    write_adapter(dir, &adapter.config, Storage::F32, tensors, config).unwrap();
}

#[test]
fn adapters_read_back_as_they_were_written() {
    for name in ADAPTERS {
        let source = fixture("adapters").join(name);
        let adapter = read_adapter(&source).unwrap();
        assert_eq!((adapter.config.r, adapter.config.scale()), (8, 2.0));
        let dir = tempfile::tempdir().unwrap();
        let extended = json!({"max_position_embeddings": 4096});
        write(dir.path(), &adapter, &extended);
        let again = read_adapter(dir.path()).unwrap();
        assert_eq!((&again.config, &again.tensors), (&adapter.config, &adapter.tensors));
        assert_eq!(read_json(&dir.path().join("base_config/config.json")), extended);

        let theirs = SafetensorsFile::open(&source.join(ADAPTER_WEIGHTS)).unwrap();
        let ours = SafetensorsFile::open(&dir.path().join(ADAPTER_WEIGHTS)).unwrap();
        for view in theirs.views().map(Result::unwrap) {
            assert_eq!(ours.view(view.name).unwrap().bytes, view.bytes);
        }
        let keys = read_json(&source.join(ADAPTER_CONFIG));
        for (key, value) in read_json(&dir.path().join(ADAPTER_CONFIG)).as_object().unwrap() {
            assert_eq!(value, &keys[key], "{name}: {key}");
        }
    }
}

#[test]
fn only_keys_that_old_loaders_know_are_written() {
    let adapter = read_adapter(&fixture("adapters/lora_qwen2")).unwrap();
    let mut keys: Vec<String> = adapter.config.to_json().as_object().unwrap().keys().cloned().collect();
    keys.sort();
    let known = "alpha_pattern base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights layers_pattern \
                 layers_to_transform lora_alpha lora_dropout modules_to_save peft_type r rank_pattern revision target_modules \
                 task_type use_dora use_rslora";
    assert_eq!(keys.join(" "), known);
}

#[test]
fn every_name_in_a_peft_file_is_understood() {
    for name in ADAPTERS {
        let adapter = read_adapter(&fixture("adapters").join(name)).unwrap();
        for (tensor, _) in &adapter.tensors {
            let rebuilt = match parse_name(tensor).unwrap() {
                AdapterTensor::Factor(module, factor) => factor_name(module, factor),
                AdapterTensor::Saved(name) => saved_name(name),
            };
            assert_eq!(&rebuilt, tensor);
        }
        let mut targets = adapter.config.target_modules.clone();
        targets.sort();
        assert_eq!(target_modules(adapter.tensors.iter().map(|(n, _)| n.as_str())), targets);
    }
    assert_eq!(
        factor_name("model.layers.3.self_attn.q_proj", Factor::B),
        "base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight"
    );
    for wrong in [
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.embed_tokens.modules_to_save.default.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
    ] {
        assert_eq!(parse_name(wrong), None, "{wrong}");
    }
}

#[test]
fn rank_stabilised_adapters_scale_by_the_square_root() {
    let dir = copy(&fixture("adapters/lora_qwen2"));
    edit_json(&dir.path().join(ADAPTER_CONFIG), |c| c["use_rslora"] = json!(true));
    let config = read_adapter(dir.path()).unwrap().config;
    assert_eq!(config.scale(), 16.0 / 8f64.sqrt());
}

#[test]
fn features_that_change_the_result_are_refused_by_name() {
    for (field, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("rank_pattern", json!({"q_proj": 4})),
        ("alpha_pattern", json!({"q_proj": 4})),
        ("layers_to_transform", json!([0])),
        ("init_lora_weights", json!("pissa")),
        ("target_modules", json!("all-linear")),
    ] {
        let dir = copy(&fixture("adapters/lora_qwen2"));
        let shown = value.to_string();
        edit_json(&dir.path().join(ADAPTER_CONFIG), |c| c[field] = value);
        assert_error(read_adapter(dir.path()), "E308", &[&format!("{field} is {shown}"), "merge_and_unload"]);
    }
}

fn with_tensors(edit: impl FnOnce(&mut serde_json::Map<String, Value>)) -> TempDir {
    let dir = copy(&fixture("adapters/lora_qwen2"));
    let path = dir.path().join(ADAPTER_WEIGHTS);
    let (mut header, tensors) = split_weights(&path);
    edit(header.as_object_mut().unwrap());
    join_weights(&path, &header, &tensors);
    dir
}

#[test]
fn tensors_that_do_not_belong_are_named() {
    let q = |factor| factor_name("model.layers.0.self_attn.q_proj", factor);
    let rename = |from: String, to: String| {
        with_tensors(|map| {
            let entry = map.shift_remove(&from).unwrap();
            map.insert(to, entry);
        })
    };
    let in_memory = q(Factor::A).replace("lora_A.", "lora_A.default.");
    let dir = rename(q(Factor::A), in_memory.clone());
    assert_error(read_adapter(dir.path()), "E605", &[&in_memory]);
    let dir = rename(q(Factor::B), saved_name("model.norm.weight"));
    assert_error(read_adapter(dir.path()), "E605", &[&format!("{:?} is missing", q(Factor::B))]);
    let dir = with_tensors(|map| map[&q(Factor::A)]["shape"] = json!([16, 32]));
    assert_error(read_adapter(dir.path()), "E605", &[&q(Factor::A), "expected shape [8, 32], got [16, 32]"]);
}

#[test]
fn an_adapter_folder_without_its_files_says_which() {
    let dir = copy(&fixture("adapters/lora_qwen2"));
    fs::remove_file(dir.path().join(ADAPTER_WEIGHTS)).unwrap();
    assert_error(read_adapter(dir.path()), "E305", &["no adapter_model.safetensors in", "adapter_config.json"]);
    fs::remove_file(dir.path().join(ADAPTER_CONFIG)).unwrap();
    assert_error(read_adapter(dir.path()), "E305", &["no adapter_config.json in", "found instead: nothing"]);
}

#[test]
fn a_trained_output_projection_is_never_lost_on_a_tied_base() {
    let load = |name: &str| {
        let dir = ModelDir::open(&model(name)).unwrap();
        Llama::new(dir.config().clone(), dir.load().unwrap()).unwrap()
    };
    let tied = load("llama_tied");
    let own = tied.params.get(tied.params.id("model.embed_tokens.weight").unwrap()).value.clone();
    let trained = Tensor::zeros(own.shape().clone());
    let saved = |name: &str, value: &Tensor| (saved_name(name), value.clone());
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let kept = |tensors: Vec<(String, Tensor)>| untied("adapter".as_ref(), tensors, &tied.config, || Ok(own.clone()));

    assert_eq!(kept(vec![saved(head, &own)]).unwrap(), []);
    let both = kept(vec![saved(head, &trained), saved(embedding, &trained)]).unwrap();
    assert_eq!(both, [saved(embedding, &trained)]);
    for other in [vec![saved(head, &trained)], vec![saved(embedding, &trained), saved(head, &own)]] {
        assert_error(kept(other), "E308", &["adapter", "trained lm_head", "tie_word_embeddings"]);
    }
    let free = untied("adapter".as_ref(), vec![saved(head, &trained)], &load("llama").config, || unreachable!()).unwrap();
    assert_eq!(free, [saved(head, &trained)], "a model with an output projection of its own takes it");
}
