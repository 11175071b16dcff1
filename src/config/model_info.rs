//! What defaults and checks need to know of the base model, read without its weights.

use std::path::Path;

use crate::error::{IoContext, IoError, Result};
use crate::io::{ModelError, ModelFiles, hf_config};
use crate::model::ModelConfig;

use super::Settings;
use super::text::ModelSource;

/// Configuration of the model in the program.
const BUILTIN: &str = include_str!("../../assets/tiny/config.json");
const CONFIG: &str = "config.json";

/// The base model, as far as settings depend on it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Short name for folders and the first screen.
    pub name: String,
    /// Shape and constants.
    pub config: ModelConfig,
    /// Number of parameters.
    pub parameters: u64,
}

impl ModelInfo {
    /// A model of this shape.
    pub fn new(name: impl Into<String>, config: ModelConfig) -> Self {
        Self { name: name.into(), parameters: config.parameters(), config }
    }

    /// Reads the `config.json` that the settings name.
    ///
    /// # Errors
    /// A folder or file that is not there, and a model that is not supported.
    pub fn read(settings: &Settings) -> Result<Self> {
        if let Some(file) = &settings.init {
            let text = std::fs::read_to_string(file).context("read", file)?;
            // A file called config.json is named by its folder.
            let stem = file.file_stem().filter(|_| !file.ends_with(CONFIG));
            return Self::parse(
                stem.map_or_else(|| folder_name(file.parent()), |s| s.to_string_lossy().into_owned()),
                file,
                &text,
            );
        }
        match settings.model.clone().unwrap_or_default() {
            ModelSource::Builtin => Self::parse("tiny".into(), Path::new("builtin:tiny/config.json"), BUILTIN),
            ModelSource::Folder(folder) => {
                let files = ModelFiles::folder(&folder)?;
                let path = files.at(CONFIG);
                let missing = || IoError { action: "read", path: path.clone(), source: std::io::ErrorKind::NotFound.into() };
                let raw = files.json(CONFIG)?.ok_or_else(missing)?;
                Ok(Self::new(folder_name(Some(&folder)), hf_config::parse_config(&path, &raw)?))
            }
        }
    }

    fn parse(name: String, path: &Path, text: &str) -> Result<Self> {
        let raw = serde_json::from_str(text).map_err(|cause| ModelError::Json { path: path.to_path_buf(), cause })?;
        Ok(Self::new(name, hf_config::parse_config(path, &raw)?))
    }
}

/// The last part of a folder's path; `.` and `..` are looked up.
fn folder_name(folder: Option<&Path>) -> String {
    let named = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let looked_up = || named(&folder?.canonicalize().ok()?);
    folder.and_then(named).or_else(looked_up).unwrap_or_else(|| "model".into())
}
