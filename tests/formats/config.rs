//! `config.json`: read, extend, read again.

use std::path::Path;

use ltrain::io::hf_config::{check_roundtrip, extended_config, parse_config, set_dtype};
use ltrain::io::{ModelDir, Storage};
use ltrain::model::{Arch, ModelConfig, RopeConfig, RopeScaling};
use serde_json::{Value, json};

use crate::{MODELS, assert_error, model, read_json, with_config};

fn raw(name: &str) -> Value {
    read_json(&model(name).join("config.json"))
}

fn parse(raw: &Value) -> ltrain::Result<ModelConfig> {
    parse_config(Path::new("config.json"), raw)
}

fn edited(name: &str, edit: impl FnOnce(&mut Value)) -> ltrain::Result<ModelConfig> {
    let mut raw = raw(name);
    edit(&mut raw);
    parse(&raw)
}

/// Numbers here need all 17 digits; a parser that rounds the last one fails the comparison.
fn rotations() -> Vec<RopeScaling> {
    let yarn = |attention_factor, truncate, mscale| RopeScaling::Yarn {
        factor: 16.1,
        original: 4096,
        attention_factor,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale,
        mscale_all_dim: mscale,
        truncate,
    };
    vec![
        RopeScaling::Default,
        RopeScaling::Linear { factor: 8.0 },
        RopeScaling::Dynamic { factor: 1.0 / 0.3 },
        yarn(None, true, None),
        yarn(Some(1.138_629_436_111_989), false, Some(0.707)),
        RopeScaling::Llama3 { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 },
    ]
}

#[test]
fn every_model_extended_by_every_rotation_reads_back_equal() {
    for name in MODELS {
        let raw = raw(name);
        let base = parse(&raw).unwrap();
        for (i, scaling) in rotations().into_iter().enumerate() {
            let theta = 10_000.0 * (4.0f64 + i as f64).powf(16.0 / 14.0);
            let config = ModelConfig { context: 131_072, rope: RopeConfig { theta, scaling }, ..base.clone() };
            let mut written = extended_config(&raw, &config);
            set_dtype(&mut written, Storage::Bf16);
            check_roundtrip(&written, &config).unwrap();

            assert_eq!(written["max_position_embeddings"].to_string(), "131072");
            assert_eq!(written["rope_theta"], json!(theta));
            assert_eq!(written["rope_parameters"]["rope_theta"], json!(theta));
            let old = &written["rope_scaling"];
            assert!(old.is_null() || *old == written["rope_parameters"]);
            assert_eq!(written["rope_parameters"]["type"], written["rope_parameters"]["rope_type"]);
            assert_eq!((&written["dtype"], &written["torch_dtype"]), (&json!("bfloat16"), &json!("bfloat16")));
        }
    }
}

#[test]
fn the_extension_changes_nothing_else() {
    let mut raw = raw("qwen3");
    raw["something_new"] = json!({"kept": [1, 2.5]});
    let mut config = parse(&raw).unwrap();
    config.context = 4096;
    let written = extended_config(&raw, &config);
    let changed = ["max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"];
    for (key, value) in raw.as_object().unwrap() {
        if !changed.contains(&key.as_str()) {
            assert_eq!(&written[key], value, "{key}");
        }
    }
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(keys(&written).starts_with(&keys(&raw)), "the base's order is kept");
}

#[test]
fn a_rotation_that_would_not_survive_is_refused() {
    let raw = raw("llama");
    let config = parse(&raw).unwrap();
    let mut written = extended_config(&raw, &config);
    written["rope_scaling"] = json!({"rope_type": "linear", "factor": 4.0});
    assert_error(check_roundtrip(&written, &config), "E102", &["the rotation", "Linear { factor: 4.0 }"]);
}

#[test]
fn architectures_differ_in_biases_norms_and_defaults() {
    let read = |name| parse(&raw(name)).unwrap();
    let qwen2 = read("qwen2");
    assert_eq!((qwen2.arch, qwen2.qkv_bias, qwen2.o_bias, qwen2.qk_norm), (Arch::Qwen2, true, false, false));
    let qwen3 = read("qwen3");
    assert_eq!((qwen3.arch, qwen3.qkv_bias, qwen3.qk_norm), (Arch::Qwen3, false, true));
    let llama = edited("llama", |c| c["attention_bias"] = json!(true)).unwrap();
    assert!(llama.qkv_bias && llama.o_bias && !llama.mlp_bias);
    assert_eq!((llama.bos, llama.eos), (Some(1), vec![2]));
    assert!(read("llama_tied").tied);
    assert_eq!(read("llama_headdim").head_dim, 32);
}

#[test]
fn absent_fields_take_the_class_defaults() {
    let without = |name, keys: &[&str]| {
        edited(name, |c| {
            for key in keys {
                c.as_object_mut().unwrap().shift_remove(*key);
            }
        })
    };
    let keys = [
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_parameters",
        "bos_token_id",
        "eos_token_id",
        "hidden_act",
        "attention_bias",
        "mlp_bias",
        "initializer_range",
    ];
    let llama = without("llama", &keys).unwrap();
    assert_eq!((llama.kv_heads, llama.head_dim, llama.rms_eps, llama.tied), (4, 16, 1e-6, false));
    assert_eq!((llama.bos, llama.eos), (Some(1), vec![2]));
    let plain = RopeConfig { theta: 10_000.0, scaling: RopeScaling::Default };
    assert_eq!(llama.rope, plain);
    assert_eq!(without("qwen3", &["head_dim"]).unwrap().head_dim, 128);
    // Mistral's class default of 8 key-value heads does not divide the fixture's 4 heads.
    assert_error(without("mistral", &["num_key_value_heads"]), "E307", &["num_key_value_heads", "divisor", "8"]);
    assert_error(without("llama", &["vocab_size"]), "E307", &["vocab_size: expected an integer", "got nothing"]);
}

#[test]
fn token_ids_may_be_one_or_many() {
    let eos = |value: Value| edited("llama", |c| c["eos_token_id"] = value).map(|c| c.eos);
    assert_eq!(eos(json!(2)).unwrap(), [2]);
    assert_eq!(eos(json!([5, 7])).unwrap(), [5, 7]);
    assert_eq!(eos(Value::Null).unwrap(), [0u32; 0]);
    assert_error(eos(json!(-1)), "E307", &["eos_token_id", "token id", "got -1"]);
    assert_error(eos(json!([2, 128])), "E307", &["a token id below vocab_size 128", "got [2,128]"]);
}

#[test]
fn both_spellings_of_the_rotation_are_read() {
    let old = |scaling: Value| {
        edited("llama", |c| {
            c.as_object_mut().unwrap().shift_remove("rope_parameters");
            c["rope_theta"] = json!(500000.0);
            c["rope_scaling"] = scaling;
        })
        .map(|c| c.rope)
    };
    let linear = RopeConfig { theta: 500_000.0, scaling: RopeScaling::Linear { factor: 8.0 } };
    assert_eq!(old(json!({"type": "linear", "factor": 8.0})).unwrap(), linear);
    assert_eq!(old(json!({"rope_type": "linear", "factor": 8})).unwrap(), linear);
    assert_eq!(old(Value::Null).unwrap().scaling, RopeScaling::Default);
    let yarn = old(json!({"type": "yarn", "factor": 4.0})).unwrap().scaling;
    assert!(matches!(yarn, RopeScaling::Yarn { original: 512, .. }), "{yarn:?}");
}

#[test]
fn rope_scaling_wins_over_rope_parameters_unless_it_hides_a_base() {
    let both = |scaling: Value| edited("llama_llama3", |c| c["rope_scaling"] = scaling).map(|c| c.rope);
    let won = both(json!({"type": "linear", "factor": 2.0, "rope_theta": 500000.0})).unwrap();
    assert_eq!(won.scaling, RopeScaling::Linear { factor: 2.0 });
    assert_error(
        both(json!({"type": "linear", "factor": 2.0})),
        "E307",
        &["rope_parameters.rope_theta: expected 10000.0", "got 500000.0"],
    );
}

#[test]
fn a_rotation_that_is_not_ours_is_refused_by_name() {
    for kind in ["longrope", "su", "mrope"] {
        let parsed = edited("llama", |c| c["rope_parameters"] = json!({"rope_type": kind, "factor": 4.0}));
        assert_error(parsed, "E302", &[kind, "supported: default, linear, dynamic, yarn, llama3"]);
    }
    let partial = edited("llama", |c| c["partial_rotary_factor"] = json!(0.5));
    assert_error(partial, "E307", &["partial_rotary_factor: expected 1.0, got 0.5"]);
}

#[test]
fn an_unsupported_architecture_is_named_with_the_supported_ones() {
    let dir = with_config("llama", |c| {
        c["architectures"] = json!(["Gemma3ForCausalLM"]);
        c["model_type"] = json!("gemma3_text");
    });
    assert_error(
        ModelDir::open(dir.path()),
        "E302",
        &[
            "this model's architecture is not supported: Gemma3ForCausalLM (model_type \"gemma3_text\")",
            "config.json\n  supported: LlamaForCausalLM, MistralForCausalLM (no sliding window), Qwen2ForCausalLM, Qwen3ForCausalLM",
            "help: nothing was loaded. See `ltrain doctor --architectures` for what each one needs.",
        ],
    );
}

#[test]
fn mistral_with_a_sliding_window_is_refused_and_qwen_with_an_unused_one_is_not() {
    let mistral = |window: Option<Value>| {
        edited("mistral", |c| match window {
            Some(window) => c["sliding_window"] = window,
            None => drop(c.as_object_mut().unwrap().shift_remove("sliding_window")),
        })
    };
    assert!(mistral(Some(Value::Null)).is_ok());
    assert_error(mistral(Some(json!(4096))), "E302", &["sliding window of 4096 tokens", "v0.2 and later"]);
    assert_error(mistral(None), "E302", &["default when the field is absent"]);
    let qwen = |used| {
        edited("qwen2", |c| {
            c["sliding_window"] = json!(131072);
            c["use_sliding_window"] = json!(used);
        })
    };
    assert!(qwen(false).is_ok());
    assert_error(qwen(true), "E302", &["Qwen2ForCausalLM", "131072", "use_sliding_window"]);
}

#[test]
fn absurd_sizes_are_typed_errors() {
    for (key, value, part) in [
        ("num_attention_heads", json!(0), "from 1 to 4096, got 0"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads 4"),
        ("head_dim", json!(15), "an even number"),
        ("hidden_size", json!(1e300), "got 1e+300"),
        ("num_hidden_layers", json!(u64::MAX), "got 18446744073709551615"),
        ("vocab_size", json!("128"), "got \"128\""),
        ("max_position_embeddings", json!(512.5), "got 512.5"),
        ("intermediate_size", Value::Null, "got null"),
        ("rms_norm_eps", json!(-1), "a number from"),
        ("hidden_act", json!("gelu"), "expected \"silu\", got \"gelu\""),
        ("tie_word_embeddings", json!("yes"), "true or false"),
        ("quantization_config", json!({"bits": 4}), "weights in 16 or 32 bits"),
        ("rope_parameters", json!({"rope_type": "linear", "factor": 0.5}), "rope_parameters.factor"),
        ("rope_parameters", json!({"rope_type": "llama3"}), "rope_parameters.low_freq_factor"),
    ] {
        let parsed = edited("llama", |c| c[key] = value);
        assert_error(parsed, "E307", &[key, part]);
    }
    let context = edited("llama", |c| c["max_position_embeddings"] = json!(32768.0));
    assert_eq!(context.unwrap().context, 32768, "an integral float is a size");
}
