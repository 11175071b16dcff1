//! Which rotation a longer context gets: `--rope`, and what it does to the base model's configuration.

use std::fmt;
use std::str::FromStr;

use super::freqs::ntk_theta;
use super::{RopeConfig, RopeScaling};
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
    /// A base given by the user.
    Theta(f64),
}

/// What `--rope` accepts, for help and errors.
const CHOICES: &str = "keep, linear, ntk, yarn, llama3, theta:VALUE";

impl fmt::Display for RopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RopeKind::Keep => "keep",
            RopeKind::Linear => "linear",
            RopeKind::Ntk => "ntk",
            RopeKind::Yarn => "yarn",
            RopeKind::Llama3 => "llama3",
            RopeKind::Theta(theta) => return write!(f, "theta:{theta}"),
        })
    }
}

impl FromStr for RopeKind {
    type Err = RopeError;

    fn from_str(text: &str) -> Result<Self, RopeError> {
        if let Some(given) = text.strip_prefix("theta:") {
            return match given.parse::<f64>() {
                Ok(theta) if theta.is_finite() && theta > 1.0 => Ok(RopeKind::Theta(theta)),
                _ => Err(RopeError::Theta { given: given.to_owned() }),
            };
        }
        Ok(match text {
            "keep" => RopeKind::Keep,
            "linear" => RopeKind::Linear,
            "ntk" => RopeKind::Ntk,
            "yarn" => RopeKind::Yarn,
            "llama3" => RopeKind::Llama3,
            _ => {
                return Err(RopeError::Unknown { given: text.to_owned() });
            }
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
}

impl Explain for RopeError {
    fn explain(&self) -> Explanation {
        match self {
            RopeError::Unknown { .. } => Explanation::new("E201").help(format!("choose one of {CHOICES}")),
            RopeError::Theta { .. } => Explanation::new("E201").help("for example --rope theta:500000"),
            RopeError::NotLonger { .. } => {
                Explanation::new("E303").help("choose a larger --target, or train without extension: --rope keep")
            }
            RopeError::Incompatible { base, .. } => Explanation::new("E311").help(format!("use {}", base.scaling.extensions())),
        }
    }
}

impl RopeScaling {
    /// The kinds that can extend this scaling, as a sentence's end.
    fn extensions(&self) -> &'static str {
        match self {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => "--rope linear, ntk, yarn, llama3 or theta:VALUE",
            RopeScaling::Linear { .. } => "--rope linear (the factors multiply) or --rope keep",
            RopeScaling::Yarn { .. } => "--rope yarn (the factor grows) or --rope keep",
            RopeScaling::Llama3 { .. } => "--rope llama3 (the factor grows), --rope yarn (same original context) or --rope keep",
        }
    }
}

impl RopeConfig {
    /// What `--rope` is when nobody says: the base model's own scaling stretched further, YaRN for an unscaled one.
    pub fn natural_kind(&self) -> RopeKind {
        match self.scaling {
            RopeScaling::Linear { .. } => RopeKind::Linear,
            RopeScaling::Llama3 { .. } => RopeKind::Llama3,
            RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Yarn { .. } => RopeKind::Yarn,
        }
    }

    /// The rotation for `target` tokens on a model of `original_context` (`max_position_embeddings`) tokens, with
    /// `s = target / original_context`.
    ///
    /// - keep: unchanged, whatever the target
    /// - linear: factor `s`; over linear the factors multiply
    /// - ntk: `theta·s^(d/(d−2))`, no scaling
    /// - yarn: factor `target / original`; `original` is the base's own when it has one, else `original_context`
    /// - llama3: factor `s`, band 1 to 4; over llama3 its factor times `s`, band and `original` kept
    /// - theta:V: that base, no scaling
    ///
    /// Dynamic scaling counts as none: it leaves angles within the context alone. A base YaRN's explicit attention
    /// factor is kept only when it differs from what its factor implies, so that the usual redundant one follows the
    /// new factor.
    ///
    /// # Errors
    /// [`RopeError::NotLonger`] when `target <= original_context`, except for keep and theta;
    /// [`RopeError::Incompatible`] when the kind would discard the base's scaling.
    pub fn extended(
        &self,
        kind: RopeKind,
        original_context: usize,
        target: usize,
        head_dim: usize,
    ) -> Result<RopeConfig, RopeError> {
        if !matches!(kind, RopeKind::Keep | RopeKind::Theta(_)) && target <= original_context {
            return Err(RopeError::NotLonger { kind, context: original_context, target });
        }
        let s = target as f64 / original_context as f64;
        let unscaled = matches!(self.scaling, RopeScaling::Default | RopeScaling::Dynamic { .. });
        let mut extended = self.clone();
        match (kind, &mut extended.scaling) {
            (RopeKind::Keep, _) => {}
            (RopeKind::Linear, RopeScaling::Linear { factor }) | (RopeKind::Llama3, RopeScaling::Llama3 { factor, .. }) => {
                *factor *= s
            }
            (RopeKind::Yarn, RopeScaling::Yarn { factor, original, attention_factor, .. }) => {
                *factor = target as f64 / *original as f64;
                *attention_factor = self.scaling.unusual_attention_factor();
            }
            (RopeKind::Yarn, scaling @ &mut RopeScaling::Llama3 { original, .. }) => {
                *scaling = RopeScaling::yarn(target as f64 / original as f64, original);
            }
            (RopeKind::Linear, scaling) if unscaled => *scaling = RopeScaling::Linear { factor: s },
            (RopeKind::Yarn, scaling) if unscaled => {
                *scaling = RopeScaling::yarn(s, original_context);
            }
            (RopeKind::Llama3, scaling) if unscaled => {
                *scaling = RopeScaling::llama3(s, original_context);
            }
            (RopeKind::Ntk, scaling) if unscaled => {
                *scaling = RopeScaling::Default;
                extended.theta = ntk_theta(self.theta, s, head_dim);
            }
            (RopeKind::Theta(theta), scaling) if unscaled => {
                *scaling = RopeScaling::Default;
                extended.theta = theta;
            }
            _ => {
                return Err(RopeError::Incompatible { kind, base: self.clone() });
            }
        }
        Ok(extended)
    }
}

impl RopeScaling {
    /// YaRN's explicit attention factor when it is not just the derived one written out.
    fn unusual_attention_factor(&self) -> Option<f64> {
        let RopeScaling::Yarn { attention_factor: Some(given), .. } = *self else {
            return None;
        };
        let mut derived = self.clone();
        if let RopeScaling::Yarn { attention_factor, .. } = &mut derived {
            *attention_factor = None;
        }
        // Configurations print the factor with as few as seven digits.
        ((given - derived.attention_factor()).abs() > 1e-6).then_some(given)
    }
}
