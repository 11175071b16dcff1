//! The list of methods, and the checks that make their preconditions hold.

use std::sync::Arc;

use super::{E2Llm, Natural, Pose, PositionPlan, RandPos, Uniform};
use crate::error::{Explain, Explanation};

/// Every method, in the order of help. This is the one list a new method has to join.
pub const METHODS: &[MethodEntry] =
    &[entry::<Natural>(), entry::<Pose>(), entry::<RandPos>(), entry::<E2Llm>(), entry::<Uniform>()];

/// What methods are built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodArgs {
    /// Target context `T`: positions are below it.
    pub target: usize,
    /// The base model's context `L0`.
    pub context: usize,
    /// Longest row `R`: no plan wants more tokens.
    pub seq_len: usize,
    /// Chunks per document (PoSE).
    pub chunks: usize,
    /// Largest scale `G_max` (E²-LLM); `ceil(T / L0)` when absent.
    pub max_scale: Option<usize>,
}

impl MethodArgs {
    /// The papers' defaults for these three lengths: two chunks, scales up to `ceil(target / context)`.
    pub fn new(target: usize, context: usize, seq_len: usize) -> Self {
        Self { target, context, seq_len, chunks: 2, max_scale: None }
    }
}

/// A method that can be named on the command line.
pub trait Method: PositionPlan + Sized + 'static {
    /// The name in `--positions`.
    const NAME: &'static str;
    /// One line of help.
    const ABOUT: &'static str;

    /// The method for `args`, whose lengths are checked: `1 <= seq_len <= target`, `1 <= context`. Checks the rest.
    fn from_args(args: &MethodArgs) -> Result<Self, MethodError>;
}

/// One line of the registry.
#[derive(Debug, Clone, Copy)]
pub struct MethodEntry {
    /// The name in `--positions`.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    build: fn(&MethodArgs) -> Result<Arc<dyn PositionPlan>, MethodError>,
}

const fn entry<M: Method>() -> MethodEntry {
    MethodEntry { name: M::NAME, about: M::ABOUT, build: |args| Ok(Arc::new(M::from_args(args)?)) }
}

/// The names of all methods, in the order of help.
pub fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name)
}

/// Builds the method called `name`.
///
/// # Errors
/// [`MethodError::Unknown`] for a name that is not in [`names`]; the others for lengths that cannot work together.
pub fn build(name: &str, args: &MethodArgs) -> Result<Arc<dyn PositionPlan>, MethodError> {
    let method =
        METHODS.iter().find(|method| method.name == name).ok_or_else(|| MethodError::Unknown { given: name.to_owned() })?;
    for (what, value) in [("target", args.target), ("context", args.context), ("seq-len", args.seq_len)] {
        if value == 0 {
            return Err(MethodError::Zero { what });
        }
    }
    if args.seq_len > args.target {
        return Err(MethodError::RowTooLong { seq_len: args.seq_len, target: args.target });
    }
    check_positions(args.target)?;
    (method.build)(args)
}

/// Positions `0..end` must fit their storage.
pub(super) fn check_positions(end: usize) -> Result<(), MethodError> {
    match u32::try_from(end) {
        Ok(_) => Ok(()),
        Err(_) => Err(MethodError::TooFar { end }),
    }
}

/// Why a method cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// Not a method.
    #[error("--positions: expected one of {}, got {given:?}", names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// What was asked for.
        given: String,
    },
    /// A length or count of nothing.
    #[error("--{what}: expected at least 1, got 0")]
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// A row needs a position per token.
    #[error("--seq-len: expected at most the target of {target} tokens, got {seq_len}")]
    RowTooLong {
        /// The row asked for.
        seq_len: usize,
        /// The target asked for.
        target: usize,
    },
    /// Every chunk needs a token.
    #[error("--pose-chunks: expected at most the {seq_len} tokens of a row, got {chunks}")]
    TooManyChunks {
        /// The chunks asked for.
        chunks: usize,
        /// The row they share.
        seq_len: usize,
    },
    /// Positions are stored in 32 bits.
    #[error("positions: expected at most 4294967295, got {end}")]
    TooFar {
        /// One past the largest position.
        end: usize,
    },
}

impl Explain for MethodError {
    fn explain(&self) -> Explanation {
        match self {
            MethodError::Unknown { .. } => Explanation::new("E202")
                .help(METHODS.iter().map(|m| format!("{:<10}{}", m.name, m.about)).collect::<Vec<_>>().join("\n")),
            MethodError::Zero { .. } => Explanation::new("E203"),
            MethodError::RowTooLong { target, .. } => {
                Explanation::new("E203").help(format!("use --seq-len {target} or less, or a longer --target"))
            }
            MethodError::TooManyChunks { .. } => {
                Explanation::new("E203").help("2 is the paper's choice and --pose-chunks' default")
            }
            MethodError::TooFar { .. } => Explanation::new("E203").help("choose a shorter --target"),
        }
    }
}
