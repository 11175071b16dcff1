//! `selection.json`: the token ids that `ltrain analyze` found to matter most for a longer context.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::impact::{Class, Impact};
use crate::error::{Explain, Explanation, IoContext, Result};
use crate::io::atomic::write_bytes_atomically;

/// Chosen token ids and what they were chosen by. Only the first three fields are needed to use one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Hash of the tokenizer that the ids are of ([`crate::data::Encode::identity`]).
    pub tokenizer: String,
    /// The share of the analysed tokens that the ids were to cover, in `(0, 1]`.
    pub share: f64,
    /// The chosen ids, ascending.
    pub tokens: Vec<u32>,
    /// The share that they do cover.
    #[serde(default)]
    pub covered: f64,
    /// Where the analysis comes from.
    #[serde(default)]
    pub source: SelectionSource,
    /// Impact by class of token.
    #[serde(default)]
    pub classes: Vec<ClassImpact>,
    /// Impact of every id that was seen, the most impactful first.
    #[serde(default)]
    pub ids: Vec<TokenImpact>,
}

/// What was analysed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectionSource {
    /// The model before.
    pub base: String,
    /// The extended model.
    pub against: String,
    /// The text.
    pub data: String,
    /// Most tokens of a row.
    pub seq_len: usize,
    /// Tokens that were predicted.
    pub tokens: u64,
}

/// Impact of one class of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassImpact {
    /// The class.
    pub class: Class,
    /// Its impact.
    #[serde(flatten)]
    pub impact: Impact,
}

/// Impact of one id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenImpact {
    /// The id.
    pub id: u32,
    /// Its text, as it decodes alone.
    pub text: String,
    /// Its class.
    pub class: Class,
    /// Its impact.
    #[serde(flatten)]
    pub impact: Impact,
}

/// A selection that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// Not the JSON that it should be.
    #[error("{path:?} is not a selection: {cause}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        cause: serde_json::Error,
    },
    /// A field that makes no sense.
    #[error("{path:?}: {field}: expected {expected}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What would do.
        expected: &'static str,
    },
    /// Ids of another tokenizer.
    #[error("the token ids of {path:?} are of another tokenizer")]
    OtherTokenizer {
        /// The file.
        path: PathBuf,
        /// Hash of its tokenizer.
        theirs: String,
        /// Hash of the tokenizer in use.
        ours: String,
    },
}

impl Explain for SelectionError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Json { .. } | Self::Field { .. } => Explanation::new("E332").help("make it again: ltrain analyze"),
            Self::OtherTokenizer { theirs, ours, .. } => Explanation::new("E331")
                .fact(format!("its tokenizer: {theirs}"))
                .fact(format!("tokenizer in use: {ours}"))
                .help("make a selection with this model's tokenizer: ltrain analyze --model BASE --against EXTENDED"),
        }
    }
}

impl Selection {
    /// Reads a selection for the tokenizer with the hash `tokenizer`.
    ///
    /// # Errors
    /// A file that cannot be read or is no selection; [`SelectionError::OtherTokenizer`].
    pub fn read(path: &Path, tokenizer: &str) -> Result<Self> {
        let bytes = std::fs::read(path).context("read", path)?;
        let selection: Self =
            serde_json::from_slice(&bytes).map_err(|cause| SelectionError::Json { path: path.to_path_buf(), cause })?;
        let bad = |field, expected| SelectionError::Field { path: path.to_path_buf(), field, expected };
        if !(selection.share > 0.0 && selection.share <= 1.0) {
            return Err(bad("share", "a number above 0, at most 1").into());
        }
        if selection.tokens.is_empty() || !selection.tokens.is_sorted_by(|a, b| a < b) {
            return Err(bad("tokens", "at least one id, ascending, none twice").into());
        }
        if selection.tokenizer != tokenizer {
            let (theirs, ours) = (selection.tokenizer, tokenizer.to_owned());
            return Err(SelectionError::OtherTokenizer { path: path.to_path_buf(), theirs, ours }.into());
        }
        Ok(selection)
    }

    /// Writes it; what is there is replaced.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("selection: numbers and texts serialise");
        write_bytes_atomically(path, (text + "\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        let impact = Impact { count: 3, impactful: 2, logit: 0.5, log_prob: -0.25 };
        Selection {
            tokenizer: "abc".into(),
            share: 0.2,
            tokens: vec![3, 7],
            covered: 0.25,
            source: SelectionSource::default(),
            classes: vec![ClassImpact { class: Class::LowerCaseWord, impact }],
            ids: vec![TokenImpact { id: 7, text: "x".into(), class: Class::LowerCaseWord, impact }],
        }
    }

    fn read(text: &str) -> Result<Selection> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        std::fs::write(&path, text).unwrap();
        Selection::read(&path, "abc")
    }

    #[test]
    fn a_selection_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/selection.json");
        selection().write(&path).unwrap();
        assert_eq!(Selection::read(&path, "abc").unwrap(), selection());
        let error = Selection::read(&path, "other").unwrap_err();
        assert_eq!(error.explain().code, "E331");
        let by_hand = read(r#"{"tokenizer": "abc", "share": 1, "tokens": [0]}"#).unwrap();
        assert_eq!((by_hand.tokens, by_hand.ids), (vec![0], vec![]));
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        for bad in [
            "",
            "{",
            "[]",
            r#"{"tokenizer": "abc", "share": 0.2}"#,
            r#"{"tokenizer": "abc", "share": 0.2, "tokens": [-1]}"#,
            r#"{"tokenizer": "abc", "share": 0, "tokens": [1]}"#,
            r#"{"tokenizer": "abc", "share": 1.5, "tokens": [1]}"#,
            r#"{"tokenizer": "abc", "share": 0.2, "tokens": []}"#,
            r#"{"tokenizer": "abc", "share": 0.2, "tokens": [2, 1]}"#,
            r#"{"tokenizer": "abc", "share": 0.2, "tokens": [1, 1]}"#,
        ] {
            assert_eq!(read(bad).unwrap_err().explain().code, "E332", "{bad}");
        }
        let absent = Selection::read(Path::new("/nowhere/selection.json"), "abc").unwrap_err();
        assert_eq!(absent.explain().code, "E305");
    }
}
