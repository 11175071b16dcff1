//! One damaged model per test, each with the message its owner needs.

use std::fs;
use std::path::Path;

use ltrain::io::ModelDir;
use ltrain::io::safetensors::SafetensorsFile;
use serde_json::{Value, json};

use crate::{assert_error, copy, model, split_weights, with_config, with_weights};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

fn open(dir: &Path) -> ltrain::Result<ModelDir> {
    ModelDir::open(dir)
}

#[test]
fn a_truncated_file_is_incomplete_with_both_sizes() {
    let dir = copy(&model("llama"));
    let path = dir.path().join("model.safetensors");
    let (_, tensors) = split_weights(&path);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100_000]).unwrap();
    let count = |n: usize| ltrain::units::format_count(n as u64);
    assert_error(
        open(dir.path()),
        "E601",
        &[
            &format!("{path:?} is incomplete"),
            &format!(
                "header promises {} bytes of tensors, the file has {} (download stopped early?)",
                count(tensors.len()),
                count(tensors.len() - 100_000)
            ),
            "fetch this one file again:  hf download",
            "model.safetensors --local-dir",
        ],
    );
    fs::write(&path, &bytes[..500]).unwrap();
    assert_error(open(dir.path()), "E601", &["the header needs", "the file has 492"]);
    fs::write(&path, "").unwrap();
    assert_error(open(dir.path()), "E601", &["is incomplete", "the file has 0"]);
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let dir = copy(&model("llama"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:6f\nsize 4999802720\n";
    fs::write(dir.path().join("model.safetensors"), pointer).unwrap();
    assert_error(
        open(dir.path()),
        "E601",
        &[&format!("is a Git LFS pointer ({} bytes), not the weights", pointer.len()), "run `git lfs pull` in"],
    );
}

#[test]
fn a_flipped_bit_in_the_header_is_found() {
    let path = model("llama").join("model.safetensors");
    let bytes = fs::read(path).unwrap();
    let flipped = |at: usize, mask: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= mask;
        SafetensorsFile::from_bytes("w.safetensors".into(), bytes)
    };
    assert_error(flipped(6, 0x40), "E601", &["is damaged: header length"]);
    assert_error(flipped(8, 0x01), "E601", &["is damaged: header length"]);
    assert_error(flipped(9, 0x80), "E601", &["is damaged: header JSON"]);
}

#[test]
fn offsets_that_overlap_or_leave_gaps_or_lie_are_found() {
    let file = |header: Value, tensors: usize| {
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + tensors, 0);
        SafetensorsFile::from_bytes("w.safetensors".into(), bytes)
    };
    let t = |shape: Value, start: u64, end: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
    assert!(file(json!({"a": t(json!([2]), 0, 8), "b": t(json!([1]), 8, 12)}), 12).is_ok());

    let overlap = file(json!({"a": t(json!([2]), 0, 8), "b": t(json!([2]), 4, 12)}), 12);
    assert_error(overlap, "E601", &["\"b\": expected to start at byte 8, got bytes 4 to 12"]);
    let gap = file(json!({"a": t(json!([1]), 0, 4), "b": t(json!([1]), 8, 12)}), 12);
    assert_error(gap, "E601", &["\"b\": expected to start at byte 4"]);
    let backwards = file(json!({"a": t(json!([1]), 0, 4), "b": t(json!([1]), 4, 0)}), 4);
    assert_error(backwards, "E601", &["got bytes 4 to 0"]);
    let size = file(json!({"a": t(json!([3]), 0, 8)}), 8);
    assert_error(size, "E601", &["\"a\": expected [3] elements of F32, got 8 bytes"]);
    let overflow = file(json!({"a": t(json!([1u64 << 33, 1u64 << 33]), 0, 8)}), 8);
    assert_error(overflow, "E601", &["elements of F32, got 8 bytes"]);
    let trailing = file(json!({"a": t(json!([1]), 0, 4)}), 7);
    assert_error(trailing, "E601", &["3 bytes after the last tensor"]);
    let shape = file(json!({"a": t(json!([-1]), 0, 4)}), 4);
    assert_error(shape, "E601", &["header JSON", "-1"]);
    // Sizes whose sum wraps around to the file's own length.
    let huge = 1u64 << 61;
    let wrapped: serde_json::Map<String, Value> = (0..8u64)
        .map(|i| {
            let end = if i == 7 { u64::MAX - 3 } else { (i + 1) * huge };
            (format!("t{i}"), json!({"dtype": "U8", "shape": [end - i * huge], "data_offsets": [i * huge, end]}))
        })
        .collect();
    assert_error(file(Value::Object(wrapped), 4), "E601", &["is incomplete"]);
}

#[test]
fn a_name_listed_twice_is_found() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let header = format!(r#"{{"a":{entry},"a":{entry}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let file = SafetensorsFile::from_bytes("w.safetensors".into(), bytes);
    assert_error(file, "E601", &["tensor \"a\" is listed twice"]);
}

#[test]
fn a_number_type_that_cannot_be_trained_is_named() {
    let dir = with_weights("llama", |header, _| header[Q]["dtype"] = json!("I32"));
    assert_error(open(dir.path()), "E604", &[Q, "stored as I32; expected F32, F16 or BF16"]);
}

#[test]
fn a_nan_is_found_in_its_tensor() {
    let dir = with_weights("llama", |header, tensors| {
        let start = header[Q]["data_offsets"][0].as_u64().unwrap() as usize;
        tensors[start + 12..start + 16].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let model = open(dir.path()).unwrap();
    assert_error(model.load(), "E603", &[Q, "holds NaN (element 3)"]);
}

#[test]
fn a_renamed_tensor_is_missing_and_its_new_name_is_suggested() {
    let renamed = Q.replace("q_proj", "query_proj");
    let dir = with_weights("llama", |header, _| {
        let map = header.as_object_mut().unwrap();
        let entry = map.shift_remove(Q).unwrap();
        map.insert(renamed.clone(), entry);
    });
    assert_error(
        open(dir.path()),
        "E605",
        &[&format!("tensor {Q:?} is missing"), &format!("nearest name in the file: {renamed:?}")],
    );
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let dir = with_weights("llama", |header, _| header[Q]["shape"] = json!([32, 128]));
    assert_error(open(dir.path()), "E605", &[Q, "expected shape [64, 64], got [32, 128]"]);
}

#[test]
fn a_tensor_that_the_configuration_has_no_place_for_is_not_ignored() {
    // Two layers in the file, one in the configuration.
    let dir = with_config("llama", |c| c["num_hidden_layers"] = json!(1));
    assert_error(open(dir.path()), "E605", &["model.layers.1.", "has no place in the model"]);
    // Qwen2's biases under a Llama name.
    let dir = with_config("qwen2", |c| c["architectures"] = json!(["LlamaForCausalLM"]));
    assert_error(open(dir.path()), "E605", &["bias", "has no place in the model"]);
}

#[test]
fn buffers_of_old_exports_are_ignored() {
    let dir = with_weights("llama", |header, tensors| {
        let start = tensors.len();
        let offsets = json!([start, start + 32]);
        header["model.layers.0.self_attn.rotary_emb.inv_freq"] = json!({"dtype": "F32", "shape": [8], "data_offsets": offsets});
        tensors.extend([0; 32]);
    });
    assert_eq!(open(dir.path()).unwrap().load().unwrap().len(), 21);
}

#[test]
fn an_untied_model_needs_its_output_projection() {
    let dir = with_config("llama_tied", |c| c["tie_word_embeddings"] = json!(false));
    assert_error(open(dir.path()), "E605", &["\"lm_head.weight\" is missing", "\"tie_word_embeddings\": true"]);
}

#[test]
fn a_tied_model_may_hold_a_copy_of_its_embedding_but_no_other_matrix() {
    let dir = with_config("llama", |c| c["tie_word_embeddings"] = json!(true));
    assert_error(
        open(dir.path()).unwrap().load(),
        "E606",
        &["tie_word_embeddings", "different lm_head.weight", "first difference at element 0"],
    );
    let dir = with_weights("llama_tied", |header, tensors| {
        let embedding = &header["model.embed_tokens.weight"];
        let [start, end] = [0, 1].map(|i| embedding["data_offsets"][i].as_u64().unwrap() as usize);
        let mut head = embedding.clone();
        head["data_offsets"] = json!([tensors.len(), tensors.len() + end - start]);
        tensors.extend_from_within(start..end);
        header["lm_head.weight"] = head;
    });
    let tensors = open(dir.path()).unwrap().load().unwrap();
    assert!(tensors.iter().all(|(name, _)| name != "lm_head.weight"));
}
