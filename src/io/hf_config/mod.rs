//! `config.json` to [`ModelConfig`] and back.
//!
//! Reading follows each transformers class's defaults. Writing starts from the base's own JSON and changes only what the
//! extension changes, so everything that ltrain does not know about survives.

pub(in crate::io) mod fields;
mod rope;

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Value, json};

use super::ModelError;
use super::safetensors::Storage;
use crate::error::{IoContext, Result};
use crate::model::{Arch, ModelConfig, RopeConfig, RopeScaling};
use fields::Fields;

/// Class name, `model_type` and ours.
const ARCHITECTURES: [(&str, &str, Arch); 4] = [
    ("LlamaForCausalLM", "llama", Arch::Llama),
    ("MistralForCausalLM", "mistral", Arch::Mistral),
    ("Qwen2ForCausalLM", "qwen2", Arch::Qwen2),
    ("Qwen3ForCausalLM", "qwen3", Arch::Qwen3),
];

/// Sizes beyond these are typing errors, and their products must not overflow.
const VOCAB: RangeInclusive<usize> = 3..=1 << 24;
const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
const LAYERS: RangeInclusive<usize> = 1..=1024;
const HEADS: RangeInclusive<usize> = 1..=4096;
const HEAD_DIM: RangeInclusive<usize> = 2..=4096;
const CONTEXT: RangeInclusive<usize> = 1..=u32::MAX as usize;

/// The class name in `config.json`.
pub fn class_name(arch: Arch) -> &'static str {
    ARCHITECTURES[arch as usize].0
}

/// [`parse_config`] of a file.
pub fn read_config(path: &Path) -> Result<ModelConfig> {
    let bytes = std::fs::read(path).context("read", path)?;
    let raw = serde_json::from_slice(&bytes).map_err(|cause| ModelError::Json { path: path.to_path_buf(), cause })?;
    parse_config(path, &raw)
}

/// Reads a `config.json`; `path` is what messages call it.
///
/// # Errors    [`ModelError::Architecture`], [`ModelError::SlidingWindow`], [`ModelError::RopeType`] for models that are
/// not supported, [`ModelError::Field`] for anything missing, ill-typed or absurd.
pub fn parse_config(path: &Path, raw: &Value) -> Result<ModelConfig> {
    let f = Fields::of(path, raw)?;
    let arch = architecture(&f)?;
    refuse_sliding_window(&f, arch)?;
    if f.get("quantization_config").is_some() {
        return Err(f.bad("quantization_config", "none: weights in 16 or 32 bits"));
    }
    match f.text("hidden_act")? {
        None | Some("silu") => {}
        Some(_) => return Err(f.bad("hidden_act", "\"silu\"")),
    }

    let heads = f.need_size("num_attention_heads", HEADS)?;
    let hidden = f.need_size("hidden_size", WIDTH)?;
    let kv_heads = match (f.size("num_key_value_heads", HEADS)?, arch) {
        (Some(n), _) => n,
        (None, Arch::Llama) => heads,
        (None, _) if f.is_written("num_key_value_heads") => heads,
        (None, Arch::Mistral) => 8,
        (None, Arch::Qwen2 | Arch::Qwen3) => 32,
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(f.bad("num_key_value_heads", format!("a divisor of num_attention_heads {heads} (default {kv_heads})")));
    }
    let head_dim = match (f.size("head_dim", HEAD_DIM)?, arch) {
        (Some(n), _) => n,
        (None, Arch::Qwen3) if !f.is_written("head_dim") => 128,
        (None, _) if hidden.is_multiple_of(heads) => hidden / heads,
        (None, _) => {
            return Err(f.bad("hidden_size", format!("a multiple of num_attention_heads {heads}, or head_dim to be given")));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(f.bad("head_dim", format!("an even number, since halves rotate together (here {head_dim})")));
    }

    let context = f.need_size("max_position_embeddings", CONTEXT)?;
    let attention_bias = match arch {
        Arch::Llama | Arch::Qwen3 => f.flag("attention_bias")?.unwrap_or(false),
        Arch::Mistral | Arch::Qwen2 => false,
    };
    let vocab = f.need_size("vocab_size", VOCAB)?;
    let (bos, eos): (&[u32], &[u32]) = match arch {
        Arch::Llama | Arch::Mistral => (&[1], &[2]),
        Arch::Qwen2 | Arch::Qwen3 => (&[], &[]),
    };
    Ok(ModelConfig {
        arch,
        vocab,
        hidden,
        ffn: f.need_size("intermediate_size", WIDTH)?,
        layers: f.need_size("num_hidden_layers", LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        rms_eps: f.real("rms_norm_eps", 1e-30..=1.0)?.unwrap_or(1e-6) as f32,
        tied: f.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: attention_bias || arch == Arch::Qwen2,
        o_bias: attention_bias,
        mlp_bias: arch == Arch::Llama && f.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: arch == Arch::Qwen3,
        context,
        rope: rope::parse(&f, context)?,
        bos: f.ids("bos_token_id", vocab, bos)?.first().copied(),
        eos: f.ids("eos_token_id", vocab, eos)?,
        initializer_range: f.real("initializer_range", 0.0..=1e3)?.unwrap_or(0.02) as f32,
    })
}

fn architecture(f: &Fields<'_>) -> Result<Arch> {
    let class = match f.texts("architectures")? {
        Some(classes) => classes.into_iter().next(),
        None => None,
    };
    let model_type = f.text("model_type")?;
    let known = ARCHITECTURES.into_iter().find(|(name, kind, _)| match &class {
        Some(class) => class == name,
        None => model_type == Some(kind),
    });
    match known {
        Some((_, _, arch)) => Ok(arch),
        None => Err(ModelError::Architecture {
            path: f.path().to_path_buf(),
            arch: class.unwrap_or_else(|| "none given".to_string()),
            model_type: model_type.unwrap_or("none given").to_string(),
        }
        .into()),
    }
}

fn refuse_sliding_window(f: &Fields<'_>, arch: Arch) -> Result<()> {
    let window = match arch {
        Arch::Llama => None,
        // The class's default when the field is absent; null switches it off.
        Arch::Mistral if !f.is_written("sliding_window") => Some("4096 (Mistral's default when the field is absent)".to_string()),
        Arch::Mistral => f.get("sliding_window").map(fields::brief),
        Arch::Qwen2 | Arch::Qwen3 if f.flag("use_sliding_window")? == Some(true) => {
            Some(f.get("sliding_window").map_or_else(|| "4096".to_string(), fields::brief))
        }
        Arch::Qwen2 | Arch::Qwen3 => None,
    };
    match window {
        None => Ok(()),
        Some(window) => Err(ModelError::SlidingWindow { path: f.path().to_path_buf(), arch: class_name(arch), window }.into()),
    }
}

/// The base's `config.json` with `config`'s context, rotation and tying.
///
/// The rotation is written three times with one content: `rope_theta` and `rope_scaling` for transformers 4 and vLLM,
/// `rope_parameters` for transformers 5.
pub fn extended_config(raw: &Value, config: &ModelConfig) -> Value {
    let mut out = raw.clone();
    let rope = Value::Object(rope::to_json(&config.rope));
    out["max_position_embeddings"] = json!(config.context);
    out["rope_theta"] = json!(config.rope.theta);
    out["rope_scaling"] = match config.rope.scaling {
        RopeScaling::Default => Value::Null,
        _ => rope.clone(),
    };
    out["rope_parameters"] = rope;
    if config.tied != (raw["tie_word_embeddings"] == Value::Bool(true)) {
        out["tie_word_embeddings"] = json!(config.tied);
    }
    out
}

/// States the number type of the weights, for transformers 4 and 5.
pub fn set_dtype(config: &mut Value, storage: Storage) {
    config["torch_dtype"] = json!(storage.torch_name());
    config["dtype"] = json!(storage.torch_name());
}

/// Whether a `config.json` can hold this rotation of a model of `context` tokens, in the range that is read.
///
/// # Errors    [`ModelError::Field`], or [`ModelError::RoundTrip`] for a number that JSON does not have.
pub fn check_rope(rope: &RopeConfig, context: usize) -> Result<()> {
    let written = json!({"max_position_embeddings": context, "rope_parameters": rope::to_json(rope)});
    let (path, parsed) = reparsed(&written)?;
    let f = Fields::of(path, &parsed)?;
    let read = rope::parse(&f, f.need_size("max_position_embeddings", CONTEXT)?)?;
    check_same_rope(rope, &read)
}

fn check_same_rope(wrote: &RopeConfig, read: &RopeConfig) -> Result<()> {
    match wrote == read {
        true => Ok(()),
        false => {
            let (wrote, read) = (format!("{wrote:?}"), format!("{read:?}"));
            Err(ModelError::RoundTrip { what: "the rotation", wrote, read }.into())
        }
    }
}

/// What a reader of the file would see, and what messages call the file.
fn reparsed(written: &Value) -> Result<(&'static Path, Value)> {
    let path = Path::new("config.json");
    let parsed = serde_json::from_str(&written.to_string());
    Ok((path, parsed.map_err(|cause| ModelError::Json { path: path.to_path_buf(), cause })?))
}

/// Reads back what would be written and compares every field.
///
/// # Errors    [`ModelError::RoundTrip`] naming the first difference.
pub fn check_roundtrip(written: &Value, config: &ModelConfig) -> Result<()> {
    let (path, parsed) = reparsed(written)?;
    let read = parse_config(path, &parsed)?;
    check_same_rope(&config.rope, &read.rope)?;
    match read == *config {
        true => Ok(()),
        false => {
            let (wrote, read) = (format!("{config:?}"), format!("{read:?}"));
            Err(ModelError::RoundTrip { what: "the configuration", wrote, read }.into())
        }
    }
}
