//! LoRA adapters in PEFT's format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::ModelError;
use super::atomic::{write_bytes_atomically, write_file_atomically};
use super::files::ModelFiles;
use super::hf_config::fields::{Fields, brief};
use super::safetensors::{Storage, write_safetensors};
use crate::error::Result;
use crate::model::{LoraConfig, Param, Params};
use crate::tensor::{Shape, Tensor};

/// The adapter's settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The adapter's tensors.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// In front of every module's name.
const PREFIX: &str = "base_model.model.";
const RANK: std::ops::RangeInclusive<usize> = 1..=1 << 16;

/// Features that change what an adapter computes and that are not read here: each must be absent, null, false or empty.
const MUST_BE_OFF: [&str; 17] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "trainable_token_indices",
    "target_parameters",
    "megatron_config",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
];

/// The two factors of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// `(r, in)`, applied first.
    A,
    /// `(out, r)`.
    B,
}

/// The file's name for a factor of `module`, such as `model.layers.0.self_attn.q_proj`.
pub fn factor_name(module: &str, factor: Factor) -> String {
    format!("{PREFIX}{module}.lora_{factor:?}.weight")
}

/// The file's name for a whole tensor, such as `model.norm.weight`.
pub fn saved_name(tensor: &str) -> String {
    format!("{PREFIX}{tensor}")
}

/// What a tensor in an adapter file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterTensor<'a> {
    /// A factor of the update of a module.
    Factor(&'a str, Factor),
    /// A replacement of a tensor of the base.
    Saved(&'a str),
}

/// The inverse of [`factor_name`] and [`saved_name`]; `None` for a name that PEFT would not write.
pub fn parse_name(name: &str) -> Option<AdapterTensor<'_>> {
    let name = name.strip_prefix(PREFIX)?;
    if let Some(module) = name.strip_suffix(".lora_A.weight") {
        return Some(AdapterTensor::Factor(module, Factor::A));
    }
    if let Some(module) = name.strip_suffix(".lora_B.weight") {
        return Some(AdapterTensor::Factor(module, Factor::B));
    }
    let in_memory_only = name.contains("lora_") || name.contains(".default.") || name.contains(".modules_to_save.");
    (!in_memory_only).then_some(AdapterTensor::Saved(name))
}

/// `adapter_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Dropout the adapter was trained with.
    pub lora_dropout: f64,
    /// Scale by `alpha/√r` instead of `alpha/r`.
    pub use_rslora: bool,
    /// Last name parts of the adapted modules.
    pub target_modules: Vec<String>,
    /// Last name parts of the modules that are replaced as a whole.
    pub modules_to_save: Vec<String>,
    /// The base model.
    pub base_model_name_or_path: Option<String>,
}

impl AdapterConfig {
    /// What `B·A` is multiplied by.
    pub fn scale(&self) -> f64 {
        let r = self.r as f64;
        self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }
    }

    /// The settings of a model's adapters.
    pub fn of(lora: &LoraConfig, params: &Params, base: &str) -> Self {
        let saved = |p: &Param| {
            let module = p.name.strip_suffix(".weight")?;
            (p.trainable && !p.name.contains(".lora_")).then(|| module.rsplit('.').next().unwrap_or(module).to_string())
        };
        let modules_to_save: BTreeSet<String> = params.iter().filter_map(saved).collect();
        Self {
            r: lora.rank,
            lora_alpha: f64::from(lora.alpha),
            lora_dropout: 0.0,
            use_rslora: lora.rslora,
            target_modules: lora.targets.iter().map(|t| t.module().to_string()).collect(),
            modules_to_save: modules_to_save.into_iter().collect(),
            base_model_name_or_path: Some(base.to_string()),
        }
    }

    /// Reads settings; `path` is what messages call them.
    ///
    /// # Errors    [`ModelError::Adapter`] for features that are not supported, [`ModelError::Field`] otherwise.
    pub fn parse(path: &Path, raw: &Value) -> Result<Self> {
        let f = Fields::of(path, raw)?;
        let unsupported = |field: &str, expected| ModelError::Adapter {
            path: path.to_path_buf(),
            field: field.to_string(),
            expected,
            got: f.get(field).map_or_else(|| "missing".to_string(), brief),
        };
        if f.text("peft_type")? != Some("LORA") {
            return Err(unsupported("peft_type", "\"LORA\"").into());
        }
        if !matches!(f.text("bias")?, None | Some("none")) {
            return Err(unsupported("bias", "\"none\"").into());
        }
        // These change the base weights when training starts, so the update alone does not fit the original base.
        match f.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(how)) if ["gaussian", "eva", "orthogonal"].contains(&how.as_str()) => {}
            Some(_) => {
                return Err(unsupported("init_lora_weights", "true, false or \"gaussian\"").into());
            }
        }
        for field in MUST_BE_OFF {
            let off = match f.get(field) {
                None | Some(Value::Bool(false)) => true,
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                Some(_) => false,
            };
            if !off {
                return Err(unsupported(field, "none").into());
            }
        }
        if let Some(Value::String(_)) = f.get("target_modules") {
            return Err(unsupported("target_modules", "a list of module names").into());
        }
        let r = f.need_size("r", RANK)?;
        Ok(Self {
            r,
            lora_alpha: f.real("lora_alpha", 0.0..=1e6)?.unwrap_or(8.0),
            lora_dropout: f.real("lora_dropout", 0.0..=1.0)?.unwrap_or(0.0),
            use_rslora: f.flag("use_rslora")?.unwrap_or(false),
            target_modules: f.texts("target_modules")?.ok_or_else(|| f.bad("target_modules", "a list of strings"))?,
            modules_to_save: f.texts("modules_to_save")?.unwrap_or_default(),
            base_model_name_or_path: f.text("base_model_name_or_path")?.map(str::to_string),
        })
    }

    /// The settings with the keys that every version of PEFT knows, and no others.
    pub fn to_json(&self) -> Value {
        let saved = (!self.modules_to_save.is_empty()).then_some(&self.modules_to_save);
        let alpha = match self.lora_alpha {
            whole if whole.fract() == 0.0 => json!(whole as u64),
            other => json!(other),
        };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model_name_or_path,
            "revision": null,
            "r": self.r,
            "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": self.target_modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "modules_to_save": saved,
            "layers_to_transform": null,
            "layers_pattern": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "use_rslora": self.use_rslora,
            "use_dora": false,
        })
    }
}

/// An adapter in memory.
#[derive(Debug)]
pub struct Adapter {
    /// Its settings.
    pub config: AdapterConfig,
    /// Its tensors under their names in the file, in file order.
    pub tensors: Vec<(String, Tensor)>,
}

/// Reads an adapter folder.
///
/// # Errors    missing files, unsupported features, names PEFT would not write, factors without their partner or of
/// another rank, NaN.
pub fn read_adapter(dir: &Path) -> Result<Adapter> {
    let files = ModelFiles::folder(dir)?;
    let missing =
        |file| -> Result<ModelError> { Ok(ModelError::MissingFile { dir: dir.to_path_buf(), file, found: files.names()? }) };
    let Some(raw) = files.json(ADAPTER_CONFIG)? else {
        return Err(missing(ADAPTER_CONFIG)?.into());
    };
    let config = AdapterConfig::parse(&files.at(ADAPTER_CONFIG), &raw)?;
    if !files.has(ADAPTER_WEIGHTS) {
        return Err(missing(ADAPTER_WEIGHTS)?.into());
    }
    let weights = files.weights(ADAPTER_WEIGHTS)?;
    let tensors =
        weights.views().map(|view| view.and_then(|v| Ok((v.name.to_string(), v.to_tensor()?)))).collect::<Result<Vec<_>>>()?;
    check_tensors(weights.path(), &config, &tensors)?;
    Ok(Adapter { config, tensors })
}

fn check_tensors(path: &Path, config: &AdapterConfig, tensors: &[(String, Tensor)]) -> Result<()> {
    let path = path.to_path_buf();
    let mut partners: BTreeMap<&str, Vec<Factor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let unexpected = || ModelError::UnexpectedTensor { path: path.clone(), tensor: name.clone(), nearest: None };
        match parse_name(name).ok_or_else(unexpected)? {
            AdapterTensor::Factor(module, factor) => {
                let dims = tensor.shape().dims();
                let expected = match (factor, dims) {
                    (Factor::A, [_, inp]) => vec![config.r, *inp],
                    (Factor::B, [out, _]) => vec![*out, config.r],
                    _ => vec![config.r, 0],
                };
                if dims != expected {
                    return Err(ModelError::TensorShape {
                        path,
                        tensor: name.clone(),
                        expected: Shape::from(expected),
                        got: tensor.shape().clone(),
                    }
                    .into());
                }
                partners.entry(module).or_default().push(factor);
            }
            AdapterTensor::Saved(_) => {}
        }
    }
    for (module, factors) in partners {
        for factor in [Factor::A, Factor::B] {
            if !factors.contains(&factor) {
                let names = tensors.iter().map(|(n, _)| n.as_str());
                return Err(ModelError::missing_tensor(&path, &factor_name(module, factor), names, 1).into());
            }
        }
    }
    Ok(())
}

/// Writes an adapter into `dir`, which may hold other files. The settings come last: with them the adapter is complete.
///
/// An adapter cannot carry the rotation it was trained with, so the base's extended `config.json` goes beside it, into
/// `base_config/`.
pub fn write_adapter<'a>(
    dir: &Path,
    config: &AdapterConfig,
    storage: Storage,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    extended_config: &Value,
) -> Result<()> {
    write_file_atomically(&dir.join(ADAPTER_WEIGHTS), |tmp| write_safetensors(tmp, storage, tensors))?;
    write_bytes_atomically(&dir.join("base_config/config.json"), format!("{extended_config:#}\n").as_bytes())?;
    write_bytes_atomically(&dir.join(ADAPTER_CONFIG), format!("{:#}\n", config.to_json()).as_bytes())
}

/// The leaf names of adapted modules among tensor names of an adapter, for `target_modules`.
pub fn target_modules<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let leaf = |name: &'a str| match parse_name(name)? {
        AdapterTensor::Factor(module, _) => module.rsplit('.').next(),
        AdapterTensor::Saved(_) => None,
    };
    let leaves: BTreeSet<&str> = names.into_iter().filter_map(leaf).collect();
    leaves.into_iter().map(str::to_string).collect()
}
