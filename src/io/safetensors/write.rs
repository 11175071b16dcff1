//! Streaming writer: the header first, then one tensor at a time, so that no second copy of a model is ever in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::Storage;
use crate::error::{IoContext, Result};
use crate::io::ModelError;
use crate::tensor::Tensor;

/// Elements converted before they are handed to the file.
const CHUNK: usize = 1 << 14;

/// Writes one file. Tensors are pushed in the order they were declared in.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    out: BufWriter<File>,
    storage: Storage,
    pending: VecDeque<(String, usize)>,
}

impl SafetensorsWriter {
    /// Creates `path` (mode 0644 less the umask) and writes the header for tensors of these names and shapes.
    pub fn create(path: &Path, storage: Storage, tensors: &[(String, Vec<usize>)]) -> Result<Self> {
        let mut header = Map::new();
        // Without it transformers and mlx refuse the file.
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut pending = VecDeque::with_capacity(tensors.len());
        let mut start = 0u64;
        for (name, shape) in tensors {
            let elements: usize = shape.iter().product();
            let end = start + (elements * storage.bytes()) as u64;
            let entry = json!({"dtype": storage.name(), "shape": shape, "data_offsets": [start, end]});
            header.insert(name.clone(), entry);
            pending.push_back((name.clone(), elements));
            start = end;
        }
        let mut json = Value::Object(header).to_string();
        // Tensors start at a multiple of eight bytes.
        json.extend(std::iter::repeat_n(' ', json.len().wrapping_neg() % 8));

        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).context("create", path)?);
        out.write_all(&(json.len() as u64).to_le_bytes()).and_then(|()| out.write_all(json.as_bytes())).context("write", path)?;
        Ok(Self { path: path.to_path_buf(), out, storage, pending })
    }

    /// Writes the next declared tensor. Panics when it is another one or has another size.
    ///
    /// # Errors    the disk, or [`ModelError::NotStorable`] when a value is not finite in the file's number type.
    pub fn push(&mut self, name: &str, data: &[f32]) -> Result<()> {
        let declared = self.pending.pop_front();
        assert_eq!(declared, Some((name.to_string(), data.len())), "safetensors: tensors are pushed as they were declared");
        let mut buffer = Vec::with_capacity(CHUNK * self.storage.bytes());
        for (i, chunk) in data.chunks(CHUNK).enumerate() {
            buffer.clear();
            let fits = |stored: f32| stored.is_finite();
            let bad = match self.storage {
                Storage::F32 => {
                    buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
                    chunk.iter().position(|&v| !fits(v))
                }
                Storage::F16 => {
                    buffer.extend(chunk.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
                    chunk.iter().position(|&v| !fits(f16::from_f32(v).to_f32()))
                }
                Storage::Bf16 => {
                    buffer.extend(chunk.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
                    chunk.iter().position(|&v| !fits(bf16::from_f32(v).to_f32()))
                }
            };
            if let Some(at) = bad {
                return Err(ModelError::NotStorable {
                    path: self.path.clone(),
                    tensor: name.to_string(),
                    index: i * CHUNK + at,
                    value: chunk[at],
                    storage: self.storage.name(),
                }
                .into());
            }
            self.out.write_all(&buffer).context("write", &self.path)?;
        }
        Ok(())
    }

    /// Flushes the file to the disk. Panics when a declared tensor was not pushed.
    pub fn finish(self) -> Result<()> {
        assert!(self.pending.is_empty(), "safetensors: {} declared tensors were not pushed", self.pending.len());
        let path = self.path;
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error).context("write", &path)?;
        file.sync_all().context("write", &path)
    }
}

/// Writes tensors that are all in memory, in the order given.
pub fn write_safetensors<'a>(
    path: &Path,
    storage: Storage,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let declared: Vec<_> = tensors.iter().map(|(name, t)| (name.to_string(), t.shape().dims().to_vec())).collect();
    let mut writer = SafetensorsWriter::create(path, storage, &declared)?;
    for (name, tensor) in tensors {
        writer.push(name, tensor.to_host_f32()?.as_f32()?)?;
    }
    writer.finish()
}
