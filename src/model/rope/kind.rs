//! The choices of `--rope`.

use std::fmt;
use std::str::FromStr;

use super::RopeConfig;
use crate::error::{Explain, Explanation};

/// The choices of `--rope`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeKind {
    /// The base model's rotation, unchanged.
    Keep,
    /// Position interpolation.
    Linear,
    /// NTK-aware base change.
    Ntk,
    /// YaRN.
    Yarn,
    /// Llama 3.1's interpolation.
    Llama3,
    /// LongRecipe's base change, with the factor of its formula where one is given.
    LongRecipe(Option<f64>),
    /// A base given by the user.
    Theta(f64),
    /// A total factor over the model's original rotation, given by the user.
    Factor(FactorKind, f64),
}

/// The kinds that take a total factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorKind {
    /// Position interpolation.
    Linear,
    /// NTK-aware base change.
    Ntk,
    /// YaRN.
    Yarn,
    /// Llama 3.1's interpolation.
    Llama3,
}

/// What `--rope` accepts, for help and errors.
const CHOICES: &str = "keep, linear, ntk, yarn, llama3, longrecipe, theta:VALUE; a total factor, as in linear:4, for linear, ntk, \
                       yarn and llama3";
/// What `config.json` is read with.
const FACTORS: std::ops::RangeInclusive<f64> = 1.0..=1e6;

impl fmt::Display for FactorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FactorKind::Linear => "linear",
            FactorKind::Ntk => "ntk",
            FactorKind::Yarn => "yarn",
            FactorKind::Llama3 => "llama3",
        })
    }
}

impl fmt::Display for RopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RopeKind::Keep => "keep",
            RopeKind::Linear => "linear",
            RopeKind::Ntk => "ntk",
            RopeKind::Yarn => "yarn",
            RopeKind::Llama3 => "llama3",
            RopeKind::LongRecipe(None) => "longrecipe",
            RopeKind::LongRecipe(Some(factor)) => return write!(f, "longrecipe:{factor}"),
            RopeKind::Theta(theta) => return write!(f, "theta:{theta}"),
            RopeKind::Factor(kind, factor) => return write!(f, "{kind}:{factor}"),
        })
    }
}

impl FromStr for RopeKind {
    type Err = RopeError;

    fn from_str(text: &str) -> Result<Self, RopeError> {
        let unknown = || RopeError::Unknown { given: text.to_owned() };
        let Some((kind, given)) = text.split_once(':') else {
            return Ok(match text {
                "keep" => RopeKind::Keep,
                "linear" => RopeKind::Linear,
                "ntk" => RopeKind::Ntk,
                "yarn" => RopeKind::Yarn,
                "llama3" => RopeKind::Llama3,
                "longrecipe" => RopeKind::LongRecipe(None),
                _ => return Err(unknown()),
            });
        };
        let number = given.parse::<f64>().ok().filter(|n| n.is_finite());
        if kind == "theta" {
            let theta = number.filter(|theta| *theta > 1.0);
            return theta.map(RopeKind::Theta).ok_or_else(|| RopeError::Theta { given: given.to_owned() });
        }
        let factor = || {
            let factor = number.filter(|factor| FACTORS.contains(factor));
            factor.ok_or_else(|| RopeError::Factor { kind: kind.to_owned(), given: given.to_owned() })
        };
        Ok(match kind {
            "linear" => RopeKind::Factor(FactorKind::Linear, factor()?),
            "ntk" => RopeKind::Factor(FactorKind::Ntk, factor()?),
            "yarn" => RopeKind::Factor(FactorKind::Yarn, factor()?),
            "llama3" => RopeKind::Factor(FactorKind::Llama3, factor()?),
            "longrecipe" => RopeKind::LongRecipe(Some(factor()?)),
            _ => return Err(unknown()),
        })
    }
}

/// Why a rotation cannot be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RopeError {
    /// Not one of the choices.
    #[error("--rope: expected one of {CHOICES}, got {given:?}")]
    Unknown {
        /// What was asked for.
        given: String,
    },
    /// `theta:` without a usable number.
    #[error("--rope theta:VALUE: expected a number above 1, got {given:?}")]
    Theta {
        /// What followed the colon.
        given: String,
    },
    /// A kind with an unusable factor.
    #[error("--rope {kind}:FACTOR: expected a number from {} to {}, got {given:?}", FACTORS.start(), FACTORS.end())]
    Factor {
        /// What was asked for.
        kind: String,
        /// What followed the colon.
        given: String,
    },
    /// Nothing to extend.
    #[error("--rope {kind}: expected a target longer than the model's context of {context} tokens, got {target}")]
    NotLonger {
        /// What was asked for.
        kind: RopeKind,
        /// The base model's context.
        context: usize,
        /// The target asked for.
        target: usize,
    },
    /// Replacing the base model's scaling by an unrelated one would silently change every angle it was trained with.
    #[error("--rope {kind}: the base model is trained with {base}, which {kind} would discard")]
    Incompatible {
        /// What was asked for.
        kind: RopeKind,
        /// The base model's rotation.
        base: RopeConfig,
    },
    /// A linear factor that does not divide the context.
    #[error("the model's original context cannot be told: it has {base} and a context of {context} tokens")]
    Original {
        /// The base model's rotation.
        base: RopeConfig,
        /// The base model's context.
        context: usize,
    },
    /// A factor that reaches no possible context.
    #[error("a factor of {factor} over the model's original context of {original} tokens is no possible context")]
    Context {
        /// The total factor.
        factor: f64,
        /// The original context.
        original: usize,
    },
}

impl Explain for RopeError {
    fn explain(&self) -> Explanation {
        match self {
            RopeError::Unknown { .. } => Explanation::new("E201").help(format!("choose one of {CHOICES}")),
            RopeError::Theta { .. } => Explanation::new("E201").help("for example --rope theta:500000"),
            RopeError::Factor { kind, .. } => Explanation::new("E201").help(format!("for example --rope {kind}:4")),
            RopeError::NotLonger { .. } => {
                Explanation::new("E303").help("choose a larger --target, or train without extension: --rope keep")
            }
            RopeError::Incompatible { base, .. } => Explanation::new("E311").help(format!("use {}", base.scaling.extensions())),
            RopeError::Original { base, .. } => Explanation::new("E312")
                .fact(format!("the context divided by {} would be the original one, and is no whole number", base.factor()))
                .help("correct max_position_embeddings in config.json: the original context times the factor of its scaling"),
            RopeError::Context { .. } => {
                Explanation::new("E201").help("choose a factor that gives a whole number of tokens, up to 4294967295")
            }
        }
    }
}
