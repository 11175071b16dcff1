//! Safetensors files: eight bytes of header length, a JSON header, then the tensors, end to end.
//!
//! The header is untrusted: every length is checked against the file before anything is allocated or sliced. The
//! `safetensors` crate adds the promised offsets without overflow checks, so it serves as the tests' second opinion only.

mod header;
mod write;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;

pub use header::HeaderFault;
pub use write::{SafetensorsWriter, write_safetensors};

use super::ModelError;
use super::mmap::Mapping;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Number types that weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Storage {
    /// All of them with their names in a header and in `config.json`.
    const NAMES: [(Storage, &'static str, &'static str); 3] =
        [(Storage::F32, "F32", "float32"), (Storage::F16, "F16", "float16"), (Storage::Bf16, "BF16", "bfloat16")];

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The name in `config.json`.
    pub fn torch_name(self) -> &'static str {
        Self::NAMES[self as usize].2
    }

    /// The type a header calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find_map(|(storage, header, _)| (header == name).then_some(storage))
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::F16 | Storage::Bf16 => 2,
        }
    }

    /// Rounds values to what this type holds.
    pub fn round(self, values: &mut [f32]) {
        match self {
            Storage::F32 => {}
            Storage::F16 => values.par_iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
            Storage::Bf16 => values.par_iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        }
    }

    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let halves = bytes.as_chunks::<2>().0;
        match self {
            Storage::F32 => {
                for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *o = f32::from_le_bytes(*b);
                }
            }
            Storage::F16 => {
                for (o, b) in out.iter_mut().zip(halves) {
                    *o = f16::from_le_bytes(*b).to_f32();
                }
            }
            Storage::Bf16 => {
                for (o, b) in out.iter_mut().zip(halves) {
                    *o = bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }
}

/// One tensor of a file, not yet converted.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Number type in the file.
    pub storage: Storage,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Little-endian elements, row-major.
    pub bytes: &'a [u8],
    path: &'a Path,
}

/// Elements converted by one thread at a time: 256 KiB of output.
const CHUNK: usize = 1 << 16;

impl TensorView<'_> {
    /// The elements as f32.
    ///
    /// # Errors    [`ModelError::NotFinite`] on NaN or infinity.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let size = self.storage.bytes();
        let mut out = vec![0.0; self.bytes.len() / size];
        out.par_chunks_mut(CHUNK)
            .zip(self.bytes.par_chunks(CHUNK * size))
            .for_each(|(out, bytes)| self.storage.decode(bytes, out));
        match out.par_iter().position_first(|v| !v.is_finite()) {
            None => Ok(out),
            Some(at) => Err(self.not_finite(at, out[at])),
        }
    }

    fn not_finite(&self, index: usize, value: f32) -> Error {
        ModelError::NotFinite { path: self.path.to_path_buf(), tensor: self.name.to_string(), index, value }.into()
    }

    /// The elements as a float tensor.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f32(self.to_f32()?, self.shape.to_vec()))
    }

    /// As [`to_tensor`](Self::to_tensor), but halves stay halves where the file holds bf16: on their way to a device.
    pub fn to_tensor_as_stored(&self) -> Result<Tensor> {
        if self.storage != Storage::Bf16 {
            return self.to_tensor();
        }
        let halves: Vec<bf16> = self.bytes.as_chunks::<2>().0.par_iter().map(|b| bf16::from_le_bytes(*b)).collect();
        match halves.par_iter().position_first(|v| !v.is_finite()) {
            None => Ok(Tensor::bf16(halves, self.shape.to_vec())),
            Some(at) => Err(self.not_finite(at, halves[at].to_f32())),
        }
    }
}

/// Header entry, checked: `start..end` lies inside the file and holds exactly `shape` elements.
#[derive(Debug)]
struct Entry {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mapping),
    Memory(Cow<'static, [u8]>),
}

/// An open, checked safetensors file.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: Bytes,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    metadata: Vec<(String, String)>,
}

impl SafetensorsFile {
    /// Maps and checks a file. No tensor is read.
    ///
    /// # Errors    the file is missing, incomplete, a Git LFS pointer, or its header contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(path.to_path_buf(), Bytes::Mapped(Mapping::open(path)?))
    }

    /// Checks bytes in memory; `path` is what messages call them.
    pub fn from_bytes(path: PathBuf, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        Self::new(path, Bytes::Memory(bytes.into()))
    }

    fn new(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let all: &[u8] = match &bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        };
        let header::Header { entries, metadata } = header::parse(&path, all)?;
        let by_name = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Ok(Self { path, bytes, entries, by_name, metadata })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tensor names in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// `__metadata__`, in file order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// Whether there is a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The tensor called `name`.
    ///
    /// # Errors    [`ModelError::MissingTensor`], or [`ModelError::NumberType`] for integers and 8-bit floats.
    pub fn view(&self, name: &str) -> Result<TensorView<'_>> {
        let Some(&at) = self.by_name.get(name) else {
            return Err(ModelError::missing_tensor(&self.path, name, self.names(), 1).into());
        };
        let entry = &self.entries[at];
        let Some(storage) = Storage::from_name(&entry.dtype) else {
            return Err(self.number_type(entry));
        };
        let all: &[u8] = match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Memory(bytes) => bytes,
        };
        Ok(TensorView { name: &entry.name, storage, shape: &entry.shape, bytes: &all[entry.start..entry.end], path: &self.path })
    }

    /// Every tensor, in file order.
    pub fn views(&self) -> impl Iterator<Item = Result<TensorView<'_>>> {
        self.names().map(|name| self.view(name))
    }

    fn number_type(&self, entry: &Entry) -> Error {
        ModelError::NumberType { path: self.path.clone(), tensor: entry.name.clone(), dtype: entry.dtype.clone() }.into()
    }
}
