//! Typed access to an untrusted JSON object.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::io::ModelError;

/// The fields of one object in one file.
#[derive(Clone, Copy)]
pub(in crate::io) struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
    /// `rope_scaling.` for a nested object.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// The fields of the file's outermost value.
    pub fn of(path: &'a Path, value: &'a Value) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { path, map, prefix: "" }),
            None => Err(field_error(path, "the file", "a JSON object", Some(value))),
        }
    }

    /// The object called `name`; absent and null are the same.
    pub fn object(&self, name: &str, prefix: &'static str) -> Result<Option<Self>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: self.path, map, prefix })),
            Some(_) => Err(self.bad(name, "an object or null")),
        }
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &'a Value> {
        self.map.values()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether the field is written down, be it as null.
    pub fn is_written(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The value, with null as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// What is wrong with `name`.
    pub fn bad(&self, name: &str, expected: impl Into<String>) -> Error {
        field_error(self.path, &format!("{}{name}", self.prefix), expected, self.map.get(name))
    }

    fn parsed<T>(
        &self,
        name: &str,
        expected: impl Into<String>,
        parse: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| self.bad(name, expected)),
        }
    }

    /// An integer in `range`; `32768.0` counts as one.
    pub fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.parsed(name, expected, |v| integer(v).filter(|n| range.contains(n)))
    }

    /// [`Self::size`], required.
    pub fn need_size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.size(name, range)?.ok_or_else(|| self.bad(name, expected))
    }

    /// A number in `range`.
    pub fn real(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let expected = format!("a number from {:?} to {:?}", range.start(), range.end());
        self.parsed(name, expected, |v| v.as_f64().filter(|n| range.contains(n)))
    }

    /// [`Self::real`], required.
    pub fn need_real(&self, name: &str, range: RangeInclusive<f64>) -> Result<f64> {
        let expected = format!("a number from {:?} to {:?}", range.start(), range.end());
        self.real(name, range)?.ok_or_else(|| self.bad(name, expected))
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.parsed(name, "true or false", Value::as_bool)
    }

    /// A string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.parsed(name, "a string", Value::as_str)
    }

    /// A list of strings.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.parsed(name, "a list of strings", |v| v.as_array()?.iter().map(|s| s.as_str().map(str::to_string)).collect())
    }

    /// A token id or a list of them, below `vocab`; `default` when the field is absent, none when it is null.
    pub fn ids(&self, name: &str, vocab: usize, default: &[u32]) -> Result<Vec<u32>> {
        let id = |v: &Value| {
            let n = integer(v).filter(|&n| n < vocab)?;
            u32::try_from(n).ok()
        };
        let expected = format!("a token id below vocab_size {vocab}, or a list of them");
        let ids = self.parsed(name, expected, |v| match v {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|n| vec![n]),
        })?;
        Ok(match ids {
            Some(ids) => ids,
            None if self.is_written(name) => vec![],
            None => default.to_vec(),
        })
    }
}

fn integer(value: &Value) -> Option<usize> {
    /// Integers up to here are exact in f64.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_u64() {
        Some(n) => usize::try_from(n).ok(),
        None => value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=EXACT).contains(f)).map(|f| f as usize),
    }
}

/// [`ModelError::Field`] with the value cut to a readable length.
pub(in crate::io) fn field_error(path: &Path, field: &str, expected: impl Into<String>, got: Option<&Value>) -> Error {
    ModelError::Field {
        path: path.to_path_buf(),
        field: field.to_string(),
        expected: expected.into(),
        got: got.map_or_else(|| "nothing".to_string(), brief),
    }
    .into()
}

/// A value on one line, at most 60 characters.
pub(in crate::io) fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}
