//! Two models of one shape, mixed element by element (LongRecipe, arXiv 2409.00509, stage 3).

use std::path::Path;

use rayon::prelude::*;

use super::base::open_dir;
use crate::config::text::ModelSource;
use crate::error::Result;
use crate::io::hf_config::class_name;
use crate::io::model_dir::{EMBEDDING, LM_HEAD};
use crate::io::safetensors::TensorView;
use crate::io::tokenizer::TOKENIZER;
use crate::io::{ModelDir, ModelError, Storage, TextTokenizer};
use crate::model::ModelConfig;
use crate::model::llama::expected_tensors;
use crate::tensor::Tensor;

/// A base and the model that is mixed into it.
pub struct Blend {
    /// Weighs `1 − w`.
    pub base: ModelDir,
    /// Weighs `w`; configuration, tokenizer and rotation of the result are its own.
    pub with: ModelDir,
}

impl Blend {
    /// Opens both.
    ///
    /// # Errors
    /// [`ModelError::NotAlike`] when they differ in more than context, rotation and tying.
    pub fn open(base: &ModelSource, with: &ModelSource) -> Result<Self> {
        let (base, with) = (open_dir(base)?, open_dir(with)?);
        if let Some((field, [ours, theirs])) = difference(base.config(), with.config()) {
            let [base, with] = [&base, &with].map(|dir| dir.path().to_path_buf());
            return Err(ModelError::NotAlike { base, with, field, ours, theirs }.into());
        }
        if with.tokenizer_files().has(TOKENIZER) {
            check_tokens(&base, with.path(), &with.tokenizer()?)?;
        }
        base.check_tying()?;
        with.check_tying()?;
        Ok(Self { base, with })
    }

    /// The result's configuration: that of `with`. It is tied where both are; a model that is taken whole stays as it was.
    pub fn config(&self, weight: f64) -> ModelConfig {
        let (base, with) = (self.base.config().tied, self.with.config().tied);
        let tied = match weight {
            0.0 => base,
            1.0 => with,
            _ => base && with,
        };
        ModelConfig { tied, ..self.with.config().clone() }
    }

    /// The number type that all tensors of both share, else f32, which holds the values of all.
    pub fn storage(&self) -> Result<Storage> {
        let of = |dir: &ModelDir| {
            let names = expected_tensors(dir.config()).into_iter();
            names.map(|(name, _)| Ok(dir.view(&name)?.storage)).collect::<Result<Vec<_>>>()
        };
        let all = [of(&self.base)?, of(&self.with)?].concat();
        let first = all[0];
        Ok(if all.iter().all(|&s| s == first) { first } else { Storage::F32 })
    }

    /// `(1 − weight)·base + weight·with` in f32, in the order of [`expected_tensors`] of [`Blend::config`]; two tensors are in
    /// memory at a time, and one where a model is taken whole.
    pub fn tensors(&self, weight: f64) -> impl Iterator<Item = Result<(String, Tensor)>> {
        let names = expected_tensors(&self.config(weight)).into_iter().map(|(name, _)| name);
        names.map(move |name| {
            let tensor = match weight {
                0.0 => view(&self.base, &name)?.to_tensor()?,
                1.0 => view(&self.with, &name)?.to_tensor()?,
                _ => mix(view(&self.base, &name)?, view(&self.with, &name)?, weight)?,
            };
            Ok((name, tensor))
        })
    }
}

/// That a model's own tokenizer, if it has one, means the same tokens by all ids as `theirs`, which is in the folder `with`.
///
/// # Errors
/// [`ModelError::NotAlike`].
pub fn check_tokens(base: &ModelDir, with: &Path, theirs: &TextTokenizer) -> Result<()> {
    if !base.tokenizer_files().has(TOKENIZER) {
        return Ok(());
    }
    let Some((id, tokens)) = base.tokenizer()?.difference(theirs) else { return Ok(()) };
    let [ours, theirs] = tokens.map(|token| format!("{:?} for the id {id}", token.unwrap_or_default()));
    Err(ModelError::NotAlike { base: base.path().into(), with: with.into(), field: TOKENIZER, ours, theirs }.into())
}

/// A tensor of a model; the output projection of a tied one is its embedding.
fn view<'a>(dir: &'a ModelDir, name: &str) -> Result<TensorView<'a>> {
    let shared = name == LM_HEAD && dir.config().tied;
    dir.view(if shared { EMBEDDING } else { name })
}

fn mix(base: TensorView, with: TensorView, weight: f64) -> Result<Tensor> {
    let (u, v) = ((1.0 - weight) as f32, weight as f32);
    let (mut mixed, with_values) = (base.to_f32()?, with.to_f32()?);
    // What is equal in both, such as what an adapter left alone, stays so to the last bit.
    let one = |a: f32, b: f32| if a == b { a } else { u * a + v * b };
    mixed.par_iter_mut().zip(&with_values).for_each(|(a, &b)| *a = one(*a, b));
    Ok(Tensor::f32(mixed, base.shape.to_vec()))
}

/// The first thing in which two models cannot differ, as `config.json` calls it, and its two values.
fn difference(a: &ModelConfig, b: &ModelConfig) -> Option<(&'static str, [String; 2])> {
    let of = |c: &ModelConfig| {
        [
            ("architectures", class_name(c.arch).to_owned()),
            ("vocab_size", c.vocab.to_string()),
            ("hidden_size", c.hidden.to_string()),
            ("intermediate_size", c.ffn.to_string()),
            ("num_hidden_layers", c.layers.to_string()),
            ("num_attention_heads", c.heads.to_string()),
            ("num_key_value_heads", c.kv_heads.to_string()),
            ("head_dim", c.head_dim.to_string()),
            ("rms_norm_eps", c.rms_eps.to_string()),
            ("attention_bias", format!("{} on q, k and v, {} on o", c.qkv_bias, c.o_bias)),
            ("mlp_bias", c.mlp_bias.to_string()),
        ]
    };
    let pairs = of(a).into_iter().zip(of(b));
    pairs.map(|((field, a), (_, b))| (field, [a, b])).find(|(_, [a, b])| a != b)
}
