//! `rope_scaling`, `rope_parameters` and `rope_theta`, read the way transformers reads them.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::error::Result;
use crate::io::ModelError;
use crate::model::{RopeConfig, RopeScaling};

/// What transformers assumes when no file says otherwise.
const DEFAULT_THETA: f64 = 10_000.0;
const DEFAULT_BETA_FAST: f64 = 32.0;
const DEFAULT_BETA_SLOW: f64 = 1.0;
/// Positions are 32-bit.
const MAX_CONTEXT: usize = u32::MAX as usize;

/// Reads the rotation of a `config.json` whose context is `context`.
pub(super) fn parse(config: &Fields<'_>, context: usize) -> Result<RopeConfig> {
    refuse_partial(config)?;
    let legacy = config.object("rope_scaling", "rope_scaling.")?.filter(|f| !f.is_empty());
    let current = config.object("rope_parameters", "rope_parameters.")?;
    // With both, transformers takes rope_scaling and drops the other.
    let chosen = legacy.or(current);
    let theta = theta(config, legacy, current)?;
    let scaling = match chosen {
        Some(fields) => scaling(&fields, context)?,
        None => RopeScaling::Default,
    };
    Ok(RopeConfig { theta, scaling })
}

fn theta(config: &Fields<'_>, legacy: Option<Fields<'_>>, current: Option<Fields<'_>>) -> Result<f64> {
    let read = |fields: &Fields<'_>| fields.real("rope_theta", 2.0..=1e15);
    let of = |fields: &Option<Fields<'_>>| fields.as_ref().map_or(Ok(None), read);
    let (legacy_theta, current_theta, top) = (of(&legacy)?, of(&current)?, read(config)?);
    let theta = match &legacy {
        Some(_) => legacy_theta.or(top),
        None => current_theta.or(top),
    }
    .unwrap_or(DEFAULT_THETA);
    // rope_scaling without a theta hides the one in rope_parameters: transformers would rotate with another base than
    // the one written down, so neither reading is safe.
    match (&legacy, &current, current_theta) {
        (Some(_), Some(current), Some(hidden)) if hidden != theta => {
            Err(current.bad("rope_theta", format!("{theta:?} as in rope_scaling, which takes precedence")))
        }
        _ => Ok(theta),
    }
}

fn refuse_partial(fields: &Fields<'_>) -> Result<()> {
    match fields.real("partial_rotary_factor", 0.0..=1.0)? {
        Some(part) if part != 1.0 => Err(fields.bad("partial_rotary_factor", "1.0")),
        _ => Ok(()),
    }
}

fn scaling(fields: &Fields<'_>, context: usize) -> Result<RopeScaling> {
    refuse_partial(fields)?;
    let kind = match fields.text("rope_type")? {
        Some(kind) => kind,
        None => fields.text("type")?.unwrap_or("default"),
    };
    let unsupported = |kind: &str| ModelError::RopeType { path: fields.path().to_path_buf(), kind: kind.to_string() };
    if fields.values().any(Value::is_object) {
        return Err(unsupported("one per layer type").into());
    }
    let factor = || fields.need_real("factor", 1.0..=1e6);
    let original = || fields.size("original_max_position_embeddings", 1..=MAX_CONTEXT);
    Ok(match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: factor()? },
        "dynamic" => RopeScaling::Dynamic { factor: factor()? },
        "yarn" => RopeScaling::Yarn {
            factor: factor()?,
            original: original()?.unwrap_or(context),
            attention_factor: fields.real("attention_factor", 1e-3..=1e3)?,
            beta_fast: fields.real("beta_fast", 1e-3..=1e6)?.unwrap_or(DEFAULT_BETA_FAST),
            beta_slow: fields.real("beta_slow", 1e-3..=1e6)?.unwrap_or(DEFAULT_BETA_SLOW),
            mscale: fields.real("mscale", 0.0..=1e3)?,
            mscale_all_dim: fields.real("mscale_all_dim", 0.0..=1e3)?,
            truncate: fields.flag("truncate")?.unwrap_or(true),
        },
        "llama3" => {
            let low_freq_factor = fields.need_real("low_freq_factor", 1e-3..=1e6)?;
            let high_freq_factor = fields.need_real("high_freq_factor", 1e-3..=1e6)?;
            if high_freq_factor <= low_freq_factor {
                return Err(fields.bad("high_freq_factor", format!("more than low_freq_factor {low_freq_factor}")));
            }
            RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor,
                high_freq_factor,
                original: fields.need_size("original_max_position_embeddings", 1..=MAX_CONTEXT)?,
            }
        }
        other => return Err(unsupported(other).into()),
    })
}

/// The rotation as one JSON object, readable by old and new transformers: `rope_type` and `type`, theta inside.
pub(super) fn to_json(rope: &RopeConfig) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_string(), value);
    };
    let kind = match &rope.scaling {
        RopeScaling::Default => "default",
        RopeScaling::Linear { .. } => "linear",
        RopeScaling::Dynamic { .. } => "dynamic",
        RopeScaling::Yarn { .. } => "yarn",
        RopeScaling::Llama3 { .. } => "llama3",
    };
    put("rope_type", json!(kind));
    put("type", json!(kind));
    put("rope_theta", json!(rope.theta));
    match &rope.scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => put("factor", json!(factor)),
        RopeScaling::Yarn { factor, original, attention_factor, beta_fast, beta_slow, mscale, mscale_all_dim, truncate } => {
            put("factor", json!(factor));
            put("original_max_position_embeddings", json!(original));
            put("beta_fast", json!(beta_fast));
            put("beta_slow", json!(beta_slow));
            for (key, value) in [("attention_factor", attention_factor), ("mscale", mscale), ("mscale_all_dim", mscale_all_dim)] {
                if let Some(value) = value {
                    put(key, json!(value));
                }
            }
            if !truncate {
                put("truncate", json!(false));
            }
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
            put("factor", json!(factor));
            put("low_freq_factor", json!(low_freq_factor));
            put("high_freq_factor", json!(high_freq_factor));
            put("original_max_position_embeddings", json!(original));
        }
    }
    map
}
