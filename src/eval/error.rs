//! What can keep a model from being measured or asked.

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
            Self::Prompt(e) => e.explain(),
            Self::Vocabulary { .. } => Explanation::new("E330").help("use the tokenizer that came with the model"),
            Self::EmptyPrompt => Explanation::new("E223").help("give some text with --prompt"),
            Self::NotFinite { .. } => {
                Explanation::new("E802").help("the weights or the RoPE settings are damaged; evaluate the base model to compare")
            }
        }
    }
}
