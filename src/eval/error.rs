//! What can keep a model from being measured or asked.

use std::path::PathBuf;

use crate::data::synthetic::SyntheticError;
use crate::error::{Explain, Explanation};

/// A measurement or a generation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A setting of the plan that makes no sense.
    #[error("evaluation: {key} must be {expected}, got {got}")]
    Plan {
        /// Which setting.
        key: &'static str,
        /// What would do.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// A question longer than its length.
    #[error("evaluation: a passkey prompt takes at least {needs} tokens, got a length of {length}")]
    TooShort {
        /// Tokens it takes.
        needs: usize,
        /// Tokens there are.
        length: usize,
    },
    /// A task that does not fit into its length.
    #[error("evaluation: {task} takes at least {needs} tokens, got a length of {length}")]
    NoRoom {
        /// The task.
        task: &'static str,
        /// Tokens it takes, its answer included.
        needs: usize,
        /// Tokens there are.
        length: usize,
    },
    /// A task without the file its questions come from.
    #[error("evaluation: {task} needs a file of questions")]
    NoQuestions {
        /// The task.
        task: &'static str,
    },
    /// English for a model that knows none.
    #[error("evaluation: {what} is in English, and this model's tokenizer knows the built-in language only")]
    NotEnglish {
        /// What was asked for.
        what: &'static str,
    },
    /// A dataset in Chinese.
    #[error("evaluation: {dataset} is in Chinese, and its score needs a word segmentation that ltrain does not have")]
    Chinese {
        /// Its name.
        dataset: String,
    },
    /// A file of questions or text that is none.
    #[error("could not read {path:?} as {expected}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why it does not.
        cause: String,
    },
    /// A question of the built-in language that cannot be written.
    #[error(transparent)]
    Prompt(#[from] SyntheticError),
    /// A token the model has no embedding for.
    #[error("token {token} is not in the model's vocabulary of {vocab}")]
    Vocabulary {
        /// The token.
        token: u32,
        /// Tokens the model knows.
        vocab: usize,
    },
    /// Nothing to continue.
    #[error("generation needs at least one token to start from")]
    EmptyPrompt,
    /// Logits that are not numbers.
    #[error("the model's output after {tokens} tokens is not finite")]
    NotFinite {
        /// Tokens of prompt and text so far.
        tokens: usize,
    },
}

impl Explain for EvalError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Plan { .. } => Explanation::new("E221"),
            Self::TooShort { .. } => Explanation::new("E222").help("ask for longer prompts"),
            Self::NoRoom { .. } => Explanation::new("E224").help("ask for longer prompts with --at, or leave out this task"),
            Self::NoQuestions { task } => Explanation::new("E225").help(match *task {
                "qa_2" => "give HotpotQA's file with --hotpotqa FILE",
                _ => "give SQuAD's file with --squad FILE",
            }),
            Self::NotEnglish { .. } => {
                Explanation::new("E226").help("measure --tasks ppl,passkey,niah on this model, or take one that reads English")
            }
            Self::Chinese { .. } => {
                Explanation::new("E335").help("leave this file out; the English sets and those of code are known")
            }
            Self::File { .. } => Explanation::new("E607").help("check that this is the file you meant, and that it is complete"),
            Self::Prompt(e) => e.explain(),
            Self::Vocabulary { .. } => Explanation::new("E330").help("use the tokenizer that came with the model"),
            Self::EmptyPrompt => Explanation::new("E223").help("give some text with --prompt"),
            Self::NotFinite { .. } => {
                Explanation::new("E802").help("the weights or the RoPE settings are damaged; evaluate the base model to compare")
            }
        }
    }
}
