//! Runs that cannot begin or go on.

use std::path::PathBuf;

use crate::backend::device::Fault;
use crate::error::{Explain, Explanation};

/// A run that cannot go on, or not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The device failed while it trained.
    #[error("{fault}")]
    Interrupted {
        /// What it did.
        fault: Box<Fault>,
        /// The newest checkpoint.
        saved: Option<PathBuf>,
    },
    /// `--gpus auto` finds no GPU for a run that was begun on one.
    #[error("{run:?} was begun on {then}, and --gpus auto finds no GPU to continue on")]
    NoGpu {
        /// The run's folder.
        run: PathBuf,
        /// The GPU it was on.
        then: String,
        /// Where it would be, and why.
        now: String,
    },
    /// EndPrompt without a token to put at the end.
    #[error("--end-prompt eos: the tokenizer has no end-of-text token")]
    NoEndOfText,
    /// A prompt that is not in the tokenizer's language.
    #[error("--end-prompt: the tokenizer has no tokens for {text:?}")]
    EndPrompt {
        /// The prompt.
        text: String,
    },
    /// Facts that are not in the tokenizer's language.
    #[error("retrieval rows: the tokenizer has no tokens for {text:?}")]
    Facts {
        /// Such a fact.
        text: String,
    },
}

impl Explain for RunError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Interrupted { fault, saved } => {
                let e = fault.explain();
                if let Fault::Unfit { .. } = **fault {
                    return e;
                }
                let e = match saved {
                    Some(path) => e.fact(format!("checkpoints are intact, {} is the newest", path.display())),
                    None => e.fact("there was no checkpoint yet"),
                };
                match **fault {
                    Fault::Memory { .. } | Fault::Refused { .. } => {
                        e.help("train on shorter rows (--seq-len), on fewer at once (--micro-batch), or with --recompute layers")
                    }
                    _ => e,
                }
            }
            Self::NoEndOfText => Explanation::new("E333").help("give a text: --end-prompt 'The end.'"),
            Self::Facts { .. } => Explanation::new("E336").help("train without retrieval rows: they are in plain English"),
            Self::EndPrompt { .. } => Explanation::new("E334").help("use words that the model knows, or --end-prompt eos"),
            Self::NoGpu { now, .. } => Explanation::new("E904")
                .fact(format!("now: {now}"))
                .help("use --gpus 1 to hear what is wrong with the GPU, or --gpus 0 to go on on the CPU, in f32 and much slower"),
        }
    }
}
