//! The untrusted part: from bytes to entries that are known to fit.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::{Entry, Storage};
use crate::error::Result;
use crate::io::ModelError;
use crate::tensor::Shape;

/// The format's own limit on the JSON header.
const HEADER_LIMIT: u64 = 100_000_000;
/// The header length in front of the header.
const LENGTH_BYTES: usize = 8;
/// How a Git LFS pointer starts.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// What a header can get wrong.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFault {
    /// The first eight bytes are not a plausible header length.
    #[error("header length: expected at most {HEADER_LIMIT} bytes and a JSON object, got {0} bytes")]
    NotAHeader(u64),
    /// The header is not the JSON that the format asks for.
    #[error("header JSON: {0}")]
    Json(String),
    /// One name twice.
    #[error("tensor {0:?} is listed twice")]
    Duplicate(String),
    /// Tensors overlap or leave a gap.
    #[error("tensor {tensor:?}: expected to start at byte {expected}, got bytes {start} to {end}")]
    Offsets {
        /// Name.
        tensor: String,
        /// End of the tensor before.
        expected: u64,
        /// Start in the header.
        start: u64,
        /// End in the header.
        end: u64,
    },
    /// The bytes are not the shape's.
    #[error("tensor {tensor:?}: expected {shape} elements of {dtype}, got {bytes} bytes")]
    Size {
        /// Name.
        tensor: String,
        /// Number type in the header.
        dtype: String,
        /// Shape in the header.
        shape: Shape,
        /// Bytes between its offsets.
        bytes: u64,
    },
    /// More bytes than the header accounts for.
    #[error("{0} bytes after the last tensor")]
    Trailing(u64),
}

pub(super) struct Header {
    pub entries: Vec<Entry>,
    pub metadata: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, RawEntry)>,
    metadata: Vec<(String, String)>,
}

struct Metadata(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let map = serde_json::Map::deserialize(deserializer)?;
        let text = |v: serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
        Ok(Self(map.into_iter().map(|(k, v)| (k, text(v))).collect()))
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value::<Option<Metadata>>()?.map_or_else(Vec::new, |m| m.0);
                    } else {
                        header.tensors.push((name, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Checks everything about `all` that can be checked without reading a tensor.
pub(super) fn parse(path: &Path, all: &[u8]) -> Result<Header> {
    let actual = all.len() as u64;
    if all.starts_with(LFS_POINTER) {
        return Err(ModelError::LfsPointer { path: path.to_path_buf(), bytes: actual }.into());
    }
    let bad = |fault| ModelError::Header { path: path.to_path_buf(), fault };
    let short = |part, promised, actual| ModelError::Incomplete { path: path.to_path_buf(), part, promised, actual };

    let Some((length, rest)) = all.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(short("header", LENGTH_BYTES as u64, actual).into());
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT || rest.first().is_some_and(|&b| b != b'{') {
        return Err(bad(HeaderFault::NotAHeader(length)).into());
    }
    // `length` is at most HEADER_LIMIT, so it fits usize.
    let Some((json, tensors)) = rest.split_at_checked(length as usize) else {
        return Err(short("header", length, rest.len() as u64).into());
    };
    let raw: RawHeader = serde_json::from_slice(json).map_err(|e| bad(HeaderFault::Json(e.to_string())))?;

    let mut tensors_in_order = raw.tensors;
    tensors_in_order.sort_by(|(_, a), (_, b)| a.data_offsets.cmp(&b.data_offsets));
    let base = all.len() - tensors.len();
    let promised = tensors_in_order.iter().map(|(_, t)| t.data_offsets[1]).max().unwrap_or(0);
    let mut entries = Vec::with_capacity(tensors_in_order.len());
    let mut expected = 0;
    for (tensor, RawEntry { dtype, shape, data_offsets: [start, end] }) in tensors_in_order {
        if start != expected || end < start {
            return Err(bad(HeaderFault::Offsets { tensor, expected, start, end }).into());
        }
        expected = end;
        let dims: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
        let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        // The size of a type that is not read here is not known here; its bytes are still counted.
        let fits = match Storage::from_name(&dtype) {
            Some(s) => elements.and_then(|n| n.checked_mul(s.bytes())).is_some_and(|b| b as u64 == end - start),
            None => elements.is_some(),
        };
        if !fits {
            let shape = Shape::from(dims);
            return Err(bad(HeaderFault::Size { tensor, dtype, shape, bytes: end - start }).into());
        }
        entries.push((Entry { name: tensor, dtype, shape: dims, start: 0, end: 0 }, start, end));
    }
    let present = tensors.len() as u64;
    if promised > present {
        return Err(short("tensors", promised, present).into());
    }
    if promised < present {
        return Err(bad(HeaderFault::Trailing(present - promised)).into());
    }
    // All offsets are at most `present` here, so they fit usize.
    let entries: Vec<Entry> = entries
        .into_iter()
        .map(|(e, start, end)| Entry { start: base + start as usize, end: base + end as usize, ..e })
        .collect();
    let mut names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(bad(HeaderFault::Duplicate(pair[0].to_string())).into());
    }
    Ok(Header { entries, metadata: raw.metadata })
}
