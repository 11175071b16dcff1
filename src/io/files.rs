//! Where a model's files are: a folder, or bytes inside the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ModelError;
use super::safetensors::SafetensorsFile;
use crate::error::{IoContext, Result};

/// The files of a model or tokenizer folder.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// Files compiled into the program with `include_bytes!`.
    Embedded {
        /// What messages call it.
        name: &'static str,
        /// File names and contents.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl ModelFiles {
    /// The files of an existing folder.
    ///
    /// # Errors    [`ModelError::MissingFolder`] with a download line when `path` looks like a hub name.
    pub fn folder(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        let missing = ModelError::MissingFolder { path: path.to_path_buf(), is_file: path.is_file() };
        Err(missing.into())
    }

    /// The folder, or the embedded model's name.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Embedded { name, .. } => Path::new(name),
        }
    }

    /// The path of one file, for reading or for a message.
    pub fn at(&self, file: &str) -> PathBuf {
        self.path().join(file)
    }

    /// Whether `file` is there.
    pub fn has(&self, file: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(file).is_file(),
            Self::Embedded { files, .. } => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// All file names, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Self::Folder(path) => {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(path).context("list", path)? {
                    let entry = entry.context("list", path)?;
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
                names
            }
            Self::Embedded { files, .. } => files.iter().map(|(n, _)| n.to_string()).collect(),
        };
        names.sort();
        Ok(names)
    }

    /// The contents of `file`, or `None` when it is not there.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            Self::Folder(_) => {
                let path = self.at(file);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(e).context("read", &path),
                }
            }
            Self::Embedded { files, .. } => {
                Ok(files.iter().find(|(name, _)| *name == file).map(|&(_, bytes)| Cow::Borrowed(bytes)))
            }
        }
    }

    /// `file` as JSON, or `None` when it is not there.
    pub fn json(&self, file: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.read(file)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(cause) => Err(ModelError::Json { path: self.at(file), cause }.into()),
        }
    }

    /// Opens a weights file: mapped from a folder, borrowed from the program.
    pub fn weights(&self, file: &str) -> Result<SafetensorsFile> {
        match self {
            Self::Folder(path) => SafetensorsFile::open(&path.join(file)),
            Self::Embedded { .. } => SafetensorsFile::from_bytes(self.at(file), self.read(file)?.unwrap_or_default()),
        }
    }
}
