//! The list of methods, and the checks that make their preconditions hold.

use std::sync::Arc;

use super::{E2Llm, EndPrompt, LongRecipe, Mix, Natural, Pose, PositionPlan, RandPos, Retrieval, Share, Spec, Uniform, Words};
use crate::error::{Explain, Explanation};

/// Every method, in the order of help. This is the one list a new method has to join.
pub const METHODS: &[MethodEntry] = &[
    entry::<Natural>(),
    entry::<Pose>(),
    entry::<RandPos>(),
    entry::<E2Llm>(),
    entry::<LongRecipe>(),
    entry::<EndPrompt>(),
    entry::<Uniform>(),
    entry::<Retrieval>(),
];

/// What methods are built from.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Consecutive rows that share a drawn scale (E²-LLM): 1, or the rows of a step.
    pub rows_per_scale: u64,
    /// Share of the sentences without a marked token that is kept (LongRecipe).
    pub select_rest: f64,
    /// Loss weight of the prompt (EndPrompt).
    pub end_prompt_weight: f32,
}

impl MethodArgs {
    /// The usual numbers for these three lengths: two chunks, scales up to `ceil(target / context)`, one per row.
    pub fn new(target: usize, context: usize, seq_len: usize) -> Self {
        Self { target, context, seq_len, chunks: 2, max_scale: None, rows_per_scale: 1, select_rest: 0.5, end_prompt_weight: 0.1 }
    }
}

/// A method that can be named on the command line.
pub trait Method: PositionPlan + Sized + 'static {
    /// The name in `--positions`.
    const NAME: &'static str;
    /// One line of help.
    const ABOUT: &'static str;

    /// The method for `args`, whose lengths are checked: `1 <= seq_len <= target`, `1 <= context`. Checks the rest.
    fn new(args: &MethodArgs, words: &Words) -> Result<Self, MethodError>;
}

/// Makes a method.
type Build = fn(&MethodArgs, &Words) -> Result<Arc<dyn PositionPlan>, MethodError>;

/// One line of the registry.
#[derive(Debug, Clone, Copy)]
pub struct MethodEntry {
    /// The name in `--positions`.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    build: Build,
}

const fn entry<M: Method>() -> MethodEntry {
    MethodEntry { name: M::NAME, about: M::ABOUT, build: |args, words| Ok(Arc::new(M::new(args, words)?)) }
}

/// The names of all methods, in the order of help.
pub fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name)
}

/// The method called `name`, one of [`names`].
///
/// # Errors
/// [`MethodError::Unknown`], and those for lengths that cannot work together.
pub fn method(name: &str, args: &MethodArgs, words: &Words) -> Result<Arc<dyn PositionPlan>, MethodError> {
    let known = METHODS.iter().find(|entry| entry.name == name);
    let entry = known.ok_or_else(|| MethodError::Unknown { given: name.to_owned() })?;
    for (what, value) in [("target", args.target), ("context", args.context), ("seq-len", args.seq_len)] {
        if value == 0 {
            return Err(MethodError::Zero { what });
        }
    }
    if args.seq_len > args.target {
        return Err(MethodError::RowTooLong { seq_len: args.seq_len, target: args.target });
    }
    check_positions(args.target)?;
    (entry.build)(args, words)
}

/// The methods of `spec`. Where one of them draws scales of its own, as E²-LLM does on the base model's rotation, the rows of all others
/// are divided by `target / context`, which is that rotation interpolated to the target.
///
/// # Errors
/// As [`method`].
pub fn build(spec: &Spec, args: &MethodArgs, words: &Words) -> Result<Mix, MethodError> {
    let one = |share: &Share| Ok((share.weight, method(share.method, args, words)?));
    let methods = spec.shares().iter().map(one).collect::<Result<_, _>>()?;
    let scale = if spec.has(E2Llm::NAME) { (args.target as f64 / args.context as f64).max(1.0) as f32 } else { 1.0 };
    Ok(Mix::new(methods, scale, args.rows_per_scale))
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
    /// Not a list of methods with their shares.
    #[error("--positions: expected mix:NAME=WEIGHT,… with each method once and weights above 0, got {given:?}")]
    Mix {
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
                .help(METHODS.iter().map(|m| format!("{:<12}{}", m.name, m.about)).collect::<Vec<_>>().join("\n")),
            MethodError::Mix { .. } => Explanation::new("E202").help("for example --positions mix:natural=15,pose=60,uniform=25"),
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
