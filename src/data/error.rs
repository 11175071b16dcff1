//! What can be wrong with text, in the words the user reads.

use std::fmt;
use std::path::PathBuf;

use crate::data::chat::ChatError;
use crate::data::format::Format;
use crate::data::rows::{Long, Packing};
use crate::data::skip::SkipReport;
use crate::error::{Explain, Explanation, IoError};
use crate::units::{format_count, format_length};

/// Why bytes are not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotText {
    /// A NUL byte: a binary file.
    Binary,
    /// NUL bytes behind a byte-order mark: UTF-16 or UTF-32.
    Wide,
    /// A byte sequence that is not UTF-8.
    Encoding,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "a NUL byte, so this is a binary file",
            Self::Wide => "UTF-16 or UTF-32",
            Self::Encoding => "a byte that is not UTF-8",
        })
    }
}

/// Text that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A path given by the user is not there.
    #[error("no such file or folder: {path:?}")]
    NotFound {
        /// As given.
        path: PathBuf,
    },
    /// A folder without a single readable file.
    #[error("no text files found in {folder:?}")]
    NoFiles {
        /// The folder searched.
        folder: PathBuf,
        /// Extensions found instead, with their counts.
        found: Vec<(String, usize)>,
    },
    /// A file given by name whose kind is unknown.
    #[error("cannot tell how to read {path:?}: expected .txt, .md or .jsonl")]
    UnknownKind {
        /// As given.
        path: PathBuf,
    },
    /// Bytes that are not text.
    #[error("{path:?} is not plain text: {what} at byte {}", format_count(*offset))]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first offending byte.
        offset: u64,
        /// What is there.
        what: NotText,
    },
    /// A line of a .jsonl file that does not parse.
    #[error("line {row} of {} is not valid JSON (column {column}): {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// Column of the error, from 1.
        column: usize,
        /// The parser's reason, without its own position.
        reason: String,
    },
    /// A line of a .jsonl file that is JSON, but not an object.
    #[error("row {row} of {} is {got}, expected an object", path.display())]
    NotObject {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// What it is.
        got: &'static str,
    },
    /// A row without the text field.
    #[error("row {row} of {} has no field {field:?}; it has: {}", path.display(), list(found))]
    NoField {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// The field looked for.
        field: String,
        /// Fields that are there.
        found: Vec<String>,
        /// The first of them that holds a string.
        suggestion: Option<String>,
    },
    /// A text field that holds something else.
    #[error("row {row} of {}: field {field:?} is {got}, expected a string", path.display())]
    FieldType {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// The field.
        field: String,
        /// What it holds.
        got: &'static str,
    },
    /// A row that is not what its file's format says.
    #[error("row {row} of {} is not of the format {format}: {what}", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// The file's format.
        format: Format,
        /// What is wrong with it.
        what: String,
    },
    /// Text and conversations in one run.
    #[error("{} holds text and {} conversations ({format})", text.display(), chat.display())]
    Mixed {
        /// The first file of text.
        text: PathBuf,
        /// The first file of conversations.
        chat: PathBuf,
        /// Their format.
        format: Format,
    },
    /// A conversation that cannot be made into tokens.
    #[error("row {row} of {}: {error}", path.display())]
    Conversation {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        row: u64,
        /// What is wrong.
        error: ChatError,
    },
    /// Conversations of which no row can be made.
    #[error("no conversation fits into a row of {seq_len} tokens with something to learn; the longest has {longest}")]
    NoRow {
        /// Tokens of a training row.
        seq_len: usize,
        /// Tokens of the longest conversation that is trained on.
        longest: usize,
        /// What became of those that are longer than a row.
        long: Long,
        /// What was left out.
        skipped: SkipReport,
    },
    /// A `--columns` value that does not parse.
    #[error("--columns: expected text=FIELD, got {text:?}")]
    Columns {
        /// As given.
        text: String,
    },
    /// Files that hold no text.
    #[error("the data holds no text: {files} files read, no document with content")]
    Empty {
        /// Files read.
        files: usize,
        /// What was skipped.
        skipped: SkipReport,
    },
    /// A file whose content was different the second time.
    #[error("the data changed while it was being read")]
    Changed,
    /// No folder takes the token cache; why the first one does not.
    #[error(transparent)]
    NoCache(IoError),
    /// A cache file that is not what was written a moment ago.
    #[error("the token cache {path:?} was damaged while it was written")]
    Cache {
        /// The file.
        path: PathBuf,
    },
    /// Documents too short for a single training row.
    #[error("{}", too_short(*docs, *longest, *total, *seq_len, *packing))]
    TooShort {
        /// Documents available for training.
        docs: usize,
        /// Tokens of the longest one.
        longest: usize,
        /// Tokens of all.
        total: usize,
        /// Tokens of a training row.
        seq_len: usize,
        /// Whether documents share rows.
        packing: Packing,
    },
    /// More documents asked for validation than can be spared.
    #[error("--val {asked}: expected fewer than the {docs} different documents of the data")]
    Holdout {
        /// Documents asked for.
        asked: usize,
        /// Different documents there are.
        docs: usize,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn too_short(docs: usize, longest: usize, total: usize, row: usize, packing: Packing) -> String {
    let count = |n: usize| format_count(n as u64);
    let (docs, longest, total) = (count(docs), count(longest), count(total));
    match packing {
        Packing::Off => {
            format!("none of the {docs} documents has as many tokens as one training sequence ({row}); the longest has {longest}")
        }
        Packing::On | Packing::Whole(_) => format!(
            "all {docs} documents together have fewer tokens ({total}) than one training sequence ({row}); the longest has {longest}"
        ),
    }
}

/// How the rows of a format look.
fn layout(format: Format) -> &'static str {
    match format {
        Format::Auto | Format::Text => r#"a row of text: {"text": "…"}"#,
        Format::Messages => {
            r#"a row of messages: {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}"#
        }
        Format::ShareGpt => {
            r#"a row of sharegpt: {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}"#
        }
        Format::Alpaca => r#"a row of alpaca: {"instruction": "…", "input": "…", "output": "…"}"#,
    }
}

/// The longest round length that `tokens` can fill.
fn round_length(tokens: usize) -> String {
    let unit = if tokens >= 1024 { 1024 } else { 1 };
    format_length((tokens / unit * unit).max(1))
}

impl Explain for DataError {
    fn explain(&self) -> Explanation {
        match self {
            Self::NotFound { .. } => Explanation::new("E305")
                .help("check the path; relative paths start at the current directory"),
            Self::NoFiles { found, .. } => {
                let found: Vec<_> = found.iter().map(|(ext, n)| format!("{n} {ext}")).collect();
                Explanation::new("E320")
                    .fact(format!(
                        "looked for: .txt, .md, .jsonl; found instead: {}",
                        list(&found)
                    ))
                    .help("give --data a folder or a file with one of these endings")
            }
            Self::UnknownKind { .. } => Explanation::new("E320")
                .help("rename the file to what it is: .txt or .md (one document), .jsonl (one JSON object per line)"),
            Self::NotText { path, what, .. } => Explanation::new("E321").help(match what {
                NotText::Binary => "leave this file out, or convert it to plain text first".to_string(),
                NotText::Wide => format!("convert it: iconv -f UTF-16 -t UTF-8 {path:?} > utf8.txt"),
                NotText::Encoding => format!("convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 {path:?} > utf8.txt"),
            }),
            Self::Json { .. } => Explanation::new("E322")
                .help("every line of a .jsonl file is one whole JSON object; this one may have been cut in two"),
            Self::NotObject { .. } => Explanation::new("E322")
                .help(r#"every row of a .jsonl file is one JSON object, such as {"text": "…"}"#),
            Self::NoField { suggestion, .. } => {
                let e = Explanation::new("E323");
                match suggestion {
                    Some(field) => e.help(format!("--columns text={field}")),
                    None => e.help("none of these fields holds a string; --columns text=FIELD names the one to read"),
                }
            }
            Self::FieldType { .. } => {
                Explanation::new("E323").help("--columns text=FIELD names the field to read")
            }
            Self::Misfit { format, .. } => Explanation::new("E340").fact(layout(*format)).help(
                "correct or leave out the row; files of different formats need no flag, --format NAME takes all of them for one",
            ),
            Self::Mixed { .. } => Explanation::new("E347")
                .help("train on one kind after the other: the second run with --model RUN/merged"),
            Self::Conversation { error, .. } => error.explain(),
            Self::NoRow { seq_len, longest, long, skipped } => {
                let e = Explanation::new("E304").fact(format!("skipped: {skipped}"));
                match long {
                    Long::Skip => e.help(format!("--seq-len {longest} for this data, or --long cut to train on their beginnings")),
                    Long::Cut => e.help(format!("--seq-len {longest} for this data: none has an answer in its first {seq_len} tokens")),
                }
            }
            Self::Columns { .. } => Explanation::new("E324")
                .help("for example --columns text=content reads the field \"content\" of every row"),
            Self::Empty { skipped, .. } => {
                let e = Explanation::new("E325").help("add text to the files, or give others");
                if skipped.total() == 0 { e } else { e.fact(format!("skipped: {skipped}")) }
            }
            Self::Changed => Explanation::new("E327")
                .help("run the same command again once nothing writes to the files any more"),
            Self::NoCache(source) => source.explain().help("the tokens of the text need a folder that you may write to: --cache DIR"),
            Self::Cache { .. } => Explanation::new("E620")
                .help("another program may be writing to the cache folder; choose another one with --cache DIR"),
            Self::TooShort { longest, total, packing, .. } => Explanation::new("E304").help(match packing {
                Packing::Off => format!(
                    "--seq-len {} for this data, or leave out --no-pack to put several documents into one sequence, or add longer text",
                    round_length(*longest)
                ),
                Packing::On | Packing::Whole(_) => {
                    format!("--seq-len {} for this data, or add more text", round_length(*total))
                }
            }),
            Self::Holdout { .. } => {
                Explanation::new("E326").help("ask for fewer, for a share such as --val 5%, or for --val none")
            }
        }
    }
}
