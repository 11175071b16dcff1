//! A model folder in Hugging Face layout: configuration, weights and tokenizer, checked against each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::ModelError;
use super::files::ModelFiles;
use super::hf_config::fields::field_error;
use super::hf_config::parse_config;
use super::nearest::nearest;
use super::safetensors::{SafetensorsFile, Storage, TensorView};
use super::tokenizer::TextTokenizer;
use crate::error::{IoContext, Result};
use crate::model::ModelConfig;
use crate::model::llama::expected_tensors;
use crate::tensor::{Shape, Tensor};

/// The configuration's file.
pub const CONFIG: &str = "config.json";
/// Weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Weights in several files.
pub const INDEX: &str = "model.safetensors.index.json";
/// The embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output projection, absent when tied.
pub const LM_HEAD: &str = "lm_head.weight";

/// Buffers that old exports contain and that are computed here.
fn is_ignored(name: &str) -> bool {
    name.contains(".rotary_emb.")
}

/// An open model. Headers are checked against the configuration; no weight has been read.
#[derive(Debug)]
pub struct ModelDir {
    files: ModelFiles,
    tokenizer: ModelFiles,
    /// The chat template that was given, in place of the tokenizer's.
    chat_template: Option<Vec<u8>>,
    raw: Value,
    config: ModelConfig,
    shards: Vec<SafetensorsFile>,
    /// Tensor name to shard.
    place: HashMap<String, usize>,
}

impl ModelDir {
    /// Opens a folder.
    ///
    /// # Errors    anything that would keep it from being loaded, except NaN: see [`ModelError`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_files(ModelFiles::folder(path)?)
    }

    /// Opens a model inside the program: file names and contents, as `include_bytes!` gives them.
    pub fn from_embedded(name: &'static str, files: &'static [(&'static str, &'static [u8])]) -> Result<Self> {
        Self::from_files(ModelFiles::Embedded { name, files })
    }

    fn from_files(files: ModelFiles) -> Result<Self> {
        let Some(raw) = files.json(CONFIG)? else {
            return Err(ModelError::MissingFile { dir: files.path().to_path_buf(), file: CONFIG, found: files.names()? }.into());
        };
        let config = parse_config(&files.at(CONFIG), &raw)?;
        let (shards, place) = open_weights(&files)?;
        let dir = Self { tokenizer: files.clone(), chat_template: None, files, raw, config, shards, place };
        dir.check_headers()?;
        Ok(dir)
    }

    /// The same model with the tokenizer of another folder; what is exported carries that one.
    pub fn with_tokenizer(self, folder: &Path) -> Result<Self> {
        Ok(Self { tokenizer: ModelFiles::folder(folder)?, ..self })
    }

    /// The same model with the chat template of this file; what is exported carries that one.
    pub fn with_chat_template(self, file: &Path) -> Result<Self> {
        Ok(Self { chat_template: Some(std::fs::read(file).context("read", file)?), ..self })
    }

    /// The folder, or the embedded model's name.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// The files beside the weights.
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// Where the tokenizer's files are.
    pub fn tokenizer_files(&self) -> &ModelFiles {
        &self.tokenizer
    }

    /// The chat template that was given, in place of the tokenizer's.
    pub fn chat_template(&self) -> Option<&[u8]> {
        self.chat_template.as_deref()
    }

    /// `config.json` as written.
    pub fn raw(&self) -> &Value {
        &self.raw
    }

    /// `config.json` as understood.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The number type of the embedding, which the matrices share.
    pub fn storage(&self) -> Result<Storage> {
        Ok(self.view(EMBEDDING)?.storage)
    }

    /// The model's tokenizer, checked against the vocabulary.
    pub fn tokenizer(&self) -> Result<TextTokenizer> {
        TextTokenizer::load(&self.tokenizer, &self.config)
    }

    /// One tensor as stored.
    pub fn view(&self, name: &str) -> Result<TensorView<'_>> {
        match self.place.get(name) {
            Some(&shard) => self.shards[shard].view(name),
            None => Err(ModelError::missing_tensor(self.path(), name, self.names(), 1).into()),
        }
    }

    /// All tensors as f32, in the order of [`expected_tensors`].
    ///
    /// # Errors    [`ModelError::NotFinite`]; [`ModelError::NotTied`].
    pub fn load(&self) -> Result<Vec<(String, Tensor)>> {
        self.load_with(|view| view.to_tensor())
    }

    /// All tensors as `read` makes them, one after the other, in the order of [`expected_tensors`].
    ///
    /// # Errors    [`ModelError::NotTied`], and those of `read`.
    pub fn load_with<T>(&self, mut read: impl FnMut(TensorView<'_>) -> Result<T>) -> Result<Vec<(String, T)>> {
        self.check_tying()?;
        let load = |(name, _): (String, Vec<usize>)| {
            let tensor = read(self.view(&name)?)?;
            Ok((name, tensor))
        };
        expected_tensors(&self.config).into_iter().map(load).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    fn check_headers(&self) -> Result<()> {
        let expected = expected_tensors(&self.config);
        let names: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let mut extra: Vec<&str> =
            self.names().filter(|n| !(names.contains(n) || is_ignored(n) || self.config.tied && *n == LM_HEAD)).collect();
        extra.sort_unstable();
        let missing: Vec<&str> =
            expected.iter().map(|(name, _)| name.as_str()).filter(|name| !self.place.contains_key(*name)).collect();
        if let Some(&first) = missing.first() {
            return Err(ModelError::missing_tensor(self.path(), first, extra, missing.len()).into());
        }
        if let Some(&tensor) = extra.first() {
            return Err(ModelError::UnexpectedTensor {
                path: self.path().to_path_buf(),
                tensor: tensor.to_string(),
                nearest: nearest(tensor, names).map(str::to_string),
            }
            .into());
        }
        for (name, shape) in &expected {
            let view = self.view(name)?;
            if view.shape != shape {
                return Err(ModelError::TensorShape {
                    path: self.shards[self.place[name]].path().to_path_buf(),
                    tensor: name.clone(),
                    expected: Shape::from(shape.clone()),
                    got: Shape::from(view.shape.to_vec()),
                }
                .into());
            }
        }
        Ok(())
    }

    /// A tied model may carry a copy of its embedding as lm_head, but not another matrix.
    ///
    /// # Errors    [`ModelError::NotTied`].
    pub fn check_tying(&self) -> Result<()> {
        if !self.config.tied || !self.place.contains_key(LM_HEAD) {
            return Ok(());
        }
        let (embedding, head) = (self.view(EMBEDDING)?, self.view(LM_HEAD)?);
        if embedding.shape == head.shape && embedding.storage == head.storage && embedding.bytes == head.bytes {
            return Ok(());
        }
        let (e, h) = (embedding.to_f32()?, head.to_f32()?);
        let differs = e.iter().zip(&h).position(|(a, b)| a != b);
        match differs {
            None if e.len() == h.len() => Ok(()),
            _ => {
                let index = differs.unwrap_or(0);
                Err(ModelError::NotTied {
                    path: self.path().to_path_buf(),
                    index,
                    embedding: e.get(index).copied().unwrap_or(f32::NAN),
                    head: h.get(index).copied().unwrap_or(f32::NAN),
                }
                .into())
            }
        }
    }
}

/// Weight files, and which of them holds each tensor.
type Weights = (Vec<SafetensorsFile>, HashMap<String, usize>);

fn open_weights(files: &ModelFiles) -> Result<Weights> {
    match (files.has(WEIGHTS), files.has(INDEX)) {
        (true, true) => Err(ModelError::TwoWeights { dir: files.path().to_path_buf() }.into()),
        (true, false) => {
            let file = files.weights(WEIGHTS)?;
            let place = file.names().map(|n| (n.to_string(), 0)).collect();
            Ok((vec![file], place))
        }
        (false, true) => open_shards(files),
        (false, false) => Err(ModelError::MissingWeights { dir: files.path().to_path_buf(), found: files.names()? }.into()),
    }
}

fn open_shards(files: &ModelFiles) -> Result<Weights> {
    let index = files.at(INDEX);
    let json = files.json(INDEX)?.unwrap_or_default();
    let map = match json.get("weight_map").and_then(Value::as_object) {
        Some(map) if !map.is_empty() => map,
        _ => {
            return Err(field_error(&index, "weight_map", "an object of tensor names and file names", json.get("weight_map")));
        }
    };
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in map {
        match shard.as_str() {
            // A shard is a neighbour of its index, never a path out of the folder.
            Some(file) if !file.contains(['/', '\\']) && file != ".." => by_shard.entry(file).or_default().push(tensor),
            _ => {
                return Err(field_error(&index, tensor, "the name of a file in the same folder", Some(shard)));
            }
        }
    }
    if let Some((shard, tensors)) = by_shard.iter().find(|(shard, _)| !files.has(shard)) {
        return Err(ModelError::MissingShard { index, shard: shard.to_string(), tensors: tensors.len() }.into());
    }
    let mut shards = Vec::with_capacity(by_shard.len());
    let mut place = HashMap::with_capacity(map.len());
    for (shard, tensors) in by_shard {
        let file = files.weights(shard)?;
        for tensor in tensors {
            if !file.has(tensor) {
                return Err(ModelError::Index { index, tensor: tensor.to_string(), shard: shard.to_string() }.into());
            }
            place.insert(tensor.to_string(), shards.len());
        }
        shards.push(file);
    }
    Ok((shards, place))
}
