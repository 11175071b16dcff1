//! From paths to documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde_json::Value;

use crate::data::error::{DataError, NotText};
use crate::data::format::{self, At, Example, Format, name_of};
use crate::data::skip::{SkipReason, SkipReport};
use crate::error::{IoContext, Result};

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is one document.
    Text,
    /// Every line is a JSON object that holds one document.
    JsonLines,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            ".txt" | ".md" => Some(Self::Text),
            ".jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

fn extension(path: &Path) -> String {
    match path.extension() {
        Some(e) => format!(".{}", e.to_string_lossy().to_ascii_lowercase()),
        None => "without an ending".into(),
    }
}

/// Which fields of a JSON row to read, from `--columns text=FIELD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The field that holds the document.
    pub text: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self { text: "text".into() }
    }
}

impl FromStr for Columns {
    type Err = DataError;

    fn from_str(text: &str) -> std::result::Result<Self, DataError> {
        match text.split_once('=') {
            Some((key, field)) if key.trim() == "text" && !field.trim().is_empty() => Ok(Self { text: field.trim().into() }),
            _ => Err(DataError::Columns { text: text.into() }),
        }
    }
}

/// One example, before tokenisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its content; not blank.
    pub example: Example,
    /// Bytes of the file that were read to get it.
    pub bytes: u64,
    /// The file.
    pub path: Arc<Path>,
    /// Line number in it, from 1.
    pub row: u64,
}

/// What one pass over all files found besides the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Documents left out.
    pub skipped: SkipReport,
    /// Hash of everything read; equals [`Sources::hash`] unless a file changed in between.
    pub hash: blake3::Hash,
    /// Formats of the files; all conversations or all text.
    pub formats: BTreeSet<Format>,
}

/// How rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Fields of rows of text.
    pub columns: Columns,
    /// What rows are.
    pub format: Format,
}

/// Files to read, in a fixed order.
#[derive(Debug, Clone)]
pub struct Sources {
    files: Vec<(PathBuf, Kind)>,
    bytes: u64,
}

impl Sources {
    /// Finds the files behind `paths`: files as given, folders recursively in the order of their names, hidden entries
    /// left out, each file once.
    ///
    /// # Errors
    /// [`DataError::NotFound`], [`DataError::NoFiles`] or [`DataError::UnknownKind`] for the first path that gives nothing.
    pub fn collect(paths: &[PathBuf]) -> Result<Self> {
        let mut sources = Self { files: Vec::new(), bytes: 0 };
        let mut seen = BTreeSet::new();
        for path in paths {
            if !path.try_exists().context("read", path)? {
                return Err(DataError::NotFound { path: path.clone() }.into());
            }
            if path.is_dir() {
                let mut found = Vec::new();
                walk(path, &mut BTreeSet::new(), &mut found)?;
                if !found.iter().any(|file| Kind::of(file).is_some()) {
                    return Err(no_files(path, &found).into());
                }
                for file in found {
                    sources.add(file, &mut seen)?;
                }
            } else if Kind::of(path).is_some() {
                sources.add(path.clone(), &mut seen)?;
            } else {
                return Err(DataError::UnknownKind { path: path.clone() }.into());
            }
        }
        Ok(sources)
    }

    /// The one file `path`, which is plain text unless its name ends otherwise.
    ///
    /// # Errors
    /// A path that is not there.
    pub fn file(path: &Path) -> Result<Self> {
        let bytes = fs::metadata(path).context("read", path)?.len();
        Ok(Self { files: vec![(path.into(), Kind::of(path).unwrap_or(Kind::Text))], bytes })
    }

    fn add(&mut self, path: PathBuf, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
        let Some(kind) = Kind::of(&path) else {
            return Ok(());
        };
        if seen.insert(path.canonicalize().context("read", &path)?) {
            self.bytes += fs::metadata(&path).context("read", &path)?.len();
            self.files.push((path, kind));
        }
        Ok(())
    }

    /// The files, in the order in which they are read.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Hash of every file's kind and content; names do not count.
    pub fn hash(&self) -> Result<blake3::Hash> {
        let mut all = blake3::Hasher::new();
        for (path, kind) in &self.files {
            let mut one = blake3::Hasher::new();
            let file = File::open(path).context("open", path)?;
            one.update_reader(file).context("read", path)?;
            add_file_hash(&mut all, *kind, &one);
        }
        Ok(all.finalize())
    }

    /// Hands every document that is not empty to `sink`, in order. At most one file, or one line of a .jsonl file, is in
    /// memory at a time.
    ///
    /// # Errors
    /// Files and rows that are not what [`Reading`] says, text beside conversations, and those of `sink`.
    pub fn read(&self, reading: &Reading, sink: &mut dyn FnMut(Document) -> Result<()>) -> Result<Pass> {
        let mut skipped = SkipReport::default();
        let mut all = blake3::Hasher::new();
        let mut firsts = BTreeMap::<Format, &Path>::new();
        for (path, kind) in &self.files {
            let mut one = blake3::Hasher::new();
            let shared: Arc<Path> = path.as_path().into();
            let mut take = |row: u64, example: Option<Example>, bytes: u64| match example {
                Some(example) => sink(Document { example, bytes, path: Arc::clone(&shared), row }),
                None => {
                    skipped.add(SkipReason::Empty);
                    Ok(())
                }
            };
            let mut file_is = |format: Format| {
                firsts.entry(format).or_insert(path);
                unmixed(&firsts)
            };
            match kind {
                Kind::Text => {
                    file_is(Format::Text)?;
                    let raw = fs::read(path).context("read", path)?;
                    one.update(&raw);
                    let bytes = raw.len() as u64;
                    let text = text(path, raw, 0)?;
                    take(1, (!text.trim().is_empty()).then_some(Example::Text(text)), bytes)?;
                }
                Kind::JsonLines => read_rows(path, reading, &mut one, &mut file_is, &mut take)?,
            }
            add_file_hash(&mut all, *kind, &one);
        }
        Ok(Pass { skipped, hash: all.finalize(), formats: firsts.into_keys().collect() })
    }
}

/// Conversations stay whole and text is cut: a run has rows of one kind.
fn unmixed(firsts: &BTreeMap<Format, &Path>) -> Result<()> {
    let chat = firsts.iter().find(|(format, _)| **format != Format::Text);
    match (firsts.get(&Format::Text), chat) {
        (Some(text), Some((format, chat))) => {
            Err(DataError::Mixed { text: text.into(), chat: chat.into(), format: *format }.into())
        }
        _ => Ok(()),
    }
}

fn add_file_hash(all: &mut blake3::Hasher, kind: Kind, file: &blake3::Hasher) {
    all.update(&[kind as u8]);
    all.update(file.finalize().as_bytes());
}

/// Files below `folder`, sorted by path. `above` holds the folders being walked, so that a link to one of them ends.
fn walk(folder: &Path, above: &mut BTreeSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let real = folder.canonicalize().context("read", folder)?;
    if !above.insert(real.clone()) {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).context("read", folder)? {
        let entry = entry.context("read", folder)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.push(entry.path());
        }
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, above, found)?;
        } else {
            found.push(path);
        }
    }
    above.remove(&real);
    Ok(())
}

fn no_files(folder: &Path, found: &[PathBuf]) -> DataError {
    let mut counts = BTreeMap::<String, usize>::new();
    for file in found {
        *counts.entry(extension(file)).or_default() += 1;
    }
    let mut found: Vec<_> = counts.into_iter().collect();
    found.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    DataError::NoFiles { folder: folder.into(), found }
}

/// Checks that `raw`, which begins at `offset` of its file, is text; drops a UTF-8 byte-order mark at the file's start and, as
/// every tool that opens files in text mode, the carriage returns before line breaks.
fn text(path: &Path, mut raw: Vec<u8>, offset: u64) -> Result<String> {
    let not_text = |at: usize, what| DataError::NotText { path: path.into(), offset: offset + at as u64, what };
    if offset == 0 && (raw.starts_with(b"\xFF\xFE") || raw.starts_with(b"\xFE\xFF")) {
        return Err(not_text(0, NotText::Wide).into());
    }
    if let Some(at) = raw.iter().position(|&b| b == 0) {
        return Err(not_text(at, NotText::Binary).into());
    }
    if offset == 0 && raw.starts_with(b"\xEF\xBB\xBF") {
        raw.drain(..3);
    }
    let text = String::from_utf8(raw).map_err(|e| not_text(e.utf8_error().valid_up_to(), NotText::Encoding))?;
    Ok(if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text })
}

fn read_rows(
    path: &Path,
    reading: &Reading,
    hash: &mut blake3::Hasher,
    file_is: &mut dyn FnMut(Format) -> Result<()>,
    take: &mut dyn FnMut(u64, Option<Example>, u64) -> Result<()>,
) -> Result<()> {
    let mut file = BufReader::new(File::open(path).context("open", path)?);
    let mut offset = 0;
    let mut known = None;
    for row in 1.. {
        let mut raw = Vec::new();
        let bytes = file.read_until(b'\n', &mut raw).context("read", path)? as u64;
        if bytes == 0 {
            break;
        }
        hash.update(&raw);
        let line = text(path, raw, offset)?;
        offset += bytes;
        if line.trim().is_empty() {
            continue;
        }
        let at = At { path, row };
        let fields = object(at, &line)?;
        let format = match (known, reading.format) {
            (Some(format), _) => format,
            (None, Format::Auto) => Format::of_row(&fields, &reading.columns, at)?,
            (None, format) => format,
        };
        if known.replace(format).is_none() {
            file_is(format)?;
        }
        take(row, format::example(fields, format, &reading.columns, at)?, bytes)?;
    }
    Ok(())
}

/// One row, parsed.
fn object(At { path, row }: At, line: &str) -> Result<serde_json::Map<String, Value>> {
    let value: Value = serde_json::from_str(line).map_err(|e| DataError::Json {
        path: path.into(),
        row,
        column: e.column(),
        reason: e.to_string().split(" at line ").next().unwrap_or_default().into(),
    })?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(DataError::NotObject { path: path.into(), row, got: name_of(&other) }.into()),
    }
}
