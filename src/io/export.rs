//! Writes a complete model folder that transformers, vLLM and llama.cpp's converter load without being told anything.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ModelError;
use super::atomic::{Existing, write_dir_atomically};
use super::chat_template::CHAT_TEMPLATE;
use super::files::ModelFiles;
use super::hf_config::{check_roundtrip, extended_config, set_dtype};
use super::model_dir::{CONFIG, INDEX, ModelDir, WEIGHTS};
use super::safetensors::{SafetensorsWriter, Storage};
use super::tokenizer::{TOKENIZER, TOKENIZER_CONFIG};
use crate::error::{IoContext, Result};
use crate::model::ModelConfig;
use crate::model::llama::expected_tensors;
use crate::tensor::Tensor;

/// The tokenizer's files that are copied as they are, where there are such.
const TOKENIZER_FILES: [&str; 7] =
    [TOKENIZER, "special_tokens_map.json", "added_tokens.json", CHAT_TEMPLATE, "tokenizer.model", "vocab.json", "merges.txt"];
const LICENSE: &str = "LICENSE";
const GENERATION_CONFIG: &str = "generation_config.json";
/// What the hub calls 5 GB.
pub const SHARD_LIMIT: u64 = 5_000_000_000;

/// What to write beside the weights.
#[derive(Debug)]
pub struct Export<'a> {
    /// Where the configuration and the tokenizer come from.
    pub base: &'a ModelDir,
    /// Configuration of the written model: its context, rotation and tying go to `config.json`.
    pub config: &'a ModelConfig,
    /// Number type of the written weights.
    pub storage: Storage,
    /// What to do when the folder is there already.
    pub existing: Existing,
    /// Largest file in bytes of tensors, [`SHARD_LIMIT`] outside tests.
    pub shard_limit: u64,
}

/// Writes the folder `out`. `tensors` yields those of [`expected_tensors`], in that order; one is in memory at a time.
///
/// # Errors    the disk, a tensor that is not finite, or a configuration that would not read back as it is; `out` is then
/// as it was before.
pub fn write_model_dir(
    out: &Path,
    export: &Export<'_>,
    tensors: impl IntoIterator<Item = Result<(String, Tensor)>>,
) -> Result<()> {
    write_dir_atomically(out, export.existing, |tmp| fill_model_dir(tmp, export, tensors))
}

/// [`write_model_dir`] into a folder that somebody else makes appear under its final name.
pub fn fill_model_dir(
    dir: &Path,
    export: &Export<'_>,
    tensors: impl IntoIterator<Item = Result<(String, Tensor)>>,
) -> Result<()> {
    write_settings(dir, export)?;
    write_weights(dir, export, tensors)?;
    check_written(dir, export)
}

/// [`fill_model_dir`] with the weights of the folder `twin`, which has the same tensors in the same number type. They are hard
/// links. Where the file system makes none they are copies; the system's reason is returned.
pub fn fill_twin(dir: &Path, export: &Export<'_>, twin: &Path) -> Result<Option<std::io::Error>> {
    write_settings(dir, export)?;
    let mut refused = None;
    for name in ModelFiles::folder(twin)?.names()? {
        if name == INDEX || name.ends_with(".safetensors") {
            refused = share(&twin.join(&name), &dir.join(&name), |from, to| fs::hard_link(from, to))?.or(refused);
        }
    }
    check_written(dir, export)?;
    Ok(refused)
}

/// Makes `from` appear as `to` by `link`, or by a copy; returns why it is a copy.
fn share(from: &Path, to: &Path, link: impl FnOnce(&Path, &Path) -> std::io::Result<()>) -> Result<Option<std::io::Error>> {
    let Err(refused) = link(from, to) else { return Ok(None) };
    fs::copy(from, to).context("copy", from)?;
    Ok(Some(refused))
}

fn write_settings(dir: &Path, export: &Export<'_>) -> Result<()> {
    let mut config = extended_config(export.base.raw(), export.config);
    set_dtype(&mut config, export.storage);
    check_roundtrip(&config, export.config)?;
    write_json(&dir.join(CONFIG), &config)?;
    write_companions(dir, export)
}

/// What was written is what will be loaded: configuration and headers once more, from the disk.
fn check_written(dir: &Path, export: &Export<'_>) -> Result<()> {
    check_roundtrip(ModelDir::open(dir)?.raw(), export.config)
}

fn write_companions(tmp: &Path, export: &Export<'_>) -> Result<()> {
    let (files, tokenizer) = (export.base.files(), export.base.tokenizer_files());
    for (from, name) in TOKENIZER_FILES.map(|name| (tokenizer, name)).into_iter().chain([(files, LICENSE)]) {
        if let Some(bytes) = from.read(name)? {
            let path = tmp.join(name);
            fs::write(&path, bytes).context("write", &path)?;
        }
    }
    // Transformers takes this file before any template in tokenizer_config.json.
    if let Some(template) = export.base.chat_template() {
        let path = tmp.join(CHAT_TEMPLATE);
        fs::write(&path, template).context("write", &path)?;
    }
    let tokenizer_config = match tokenizer.json(TOKENIZER_CONFIG)? {
        Some(settings) => Some(settings),
        None if tokenizer.has(TOKENIZER) => Some(json!({"tokenizer_class": "PreTrainedTokenizerFast"})),
        None => None,
    };
    if let Some(mut settings) = tokenizer_config {
        set(&tokenizer.at(TOKENIZER_CONFIG), &mut settings, "model_max_length", export.config.context)?;
        write_json(&tmp.join(TOKENIZER_CONFIG), &settings)?;
    }
    if let Some(mut settings) = files.json(GENERATION_CONFIG)? {
        // Llama 2 limits generation to its context here.
        if settings.get("max_length") == Some(&json!(export.base.config().context)) {
            set(&files.at(GENERATION_CONFIG), &mut settings, "max_length", export.config.context)?;
        }
        write_json(&tmp.join(GENERATION_CONFIG), &settings)?;
    }
    Ok(())
}

fn set(path: &Path, object: &mut Value, key: &str, value: usize) -> Result<()> {
    match object.as_object_mut() {
        Some(map) => {
            map.insert(key.to_string(), json!(value));
            Ok(())
        }
        None => Err(super::hf_config::fields::field_error(path, "the file", "a JSON object", Some(object))),
    }
}

/// Two-space JSON with a final newline, as transformers writes it.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).context("write", path)
}

fn write_weights(tmp: &Path, export: &Export<'_>, tensors: impl IntoIterator<Item = Result<(String, Tensor)>>) -> Result<()> {
    let shards = split(expected_tensors(export.config), export.storage, export.shard_limit);
    let count = shards.len();
    let mut tensors = tensors.into_iter();
    let mut weight_map = Map::new();
    let mut total = 0;
    for (i, declared) in shards.iter().enumerate() {
        let file = match count {
            1 => WEIGHTS.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let path = tmp.join(&file);
        let mut writer = SafetensorsWriter::create(&path, export.storage, declared)?;
        for (name, shape) in declared {
            let Some(next) = tensors.next() else {
                return Err(ModelError::missing_tensor(&path, name, [], 1).into());
            };
            let (given, tensor) = next?;
            assert_eq!(&given, name, "export: tensors come in the order of expected_tensors");
            tensor.expect("export: tensor", shape.clone())?;
            writer.push(name, tensor.to_host_f32()?.as_f32()?)?;
            total += bytes(shape, export.storage);
            weight_map.insert(given, json!(file));
        }
        writer.finish()?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&tmp.join(INDEX), &index)?;
    }
    Ok(())
}

fn bytes(shape: &[usize], storage: Storage) -> u64 {
    shape.iter().product::<usize>() as u64 * storage.bytes() as u64
}

/// Fills each file up to `limit`; a larger tensor gets a file of its own.
fn split(tensors: Vec<(String, Vec<usize>)>, storage: Storage, limit: u64) -> Vec<Vec<(String, Vec<usize>)>> {
    let mut shards: Vec<Vec<_>> = vec![Vec::new()];
    let mut filled = 0;
    for (name, shape) in tensors {
        let size = bytes(&shape, storage);
        if filled > 0 && filled + size > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(last) = shards.last_mut() {
            last.push((name, shape));
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_linked_is_copied_and_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("from"), "weights").unwrap();
        let refused = share(&at("from"), &at("to"), |_, _| Err(std::io::ErrorKind::Unsupported.into())).unwrap();
        assert_eq!(refused.unwrap().kind(), std::io::ErrorKind::Unsupported);
        assert_eq!(fs::read(at("to")).unwrap(), b"weights");
        assert!(share(&at("absent"), &at("other"), |_, _| Err(std::io::ErrorKind::NotFound.into())).is_err());
    }
}
