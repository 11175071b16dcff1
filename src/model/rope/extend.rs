//! What `--rope` does to the base model's configuration.

use super::freqs::ntk_theta;
use super::{FactorKind, RopeConfig, RopeError, RopeKind, RopeScaling};

impl RopeScaling {
    /// The kinds that can extend this scaling, as a sentence's end.
    pub(super) fn extensions(&self) -> &'static str {
        match self {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => "--rope linear, ntk, yarn, llama3, longrecipe or theta:VALUE",
            RopeScaling::Linear { .. } => {
                "--rope linear (the factors multiply), a kind with a total factor such as --rope yarn:8, or --rope keep"
            }
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
    /// - longrecipe: `theta·(f·s − (f−1))^(d/(d−2))`, no scaling, with `f = s` unless it is given (LongRecipe, arXiv 2409.00509,
    ///   appendix A: dynamic NTK evaluated once, at the target)
    /// - theta:V: that base, no scaling
    /// - with a factor: [`RopeConfig::with_factor`], whatever the target
    ///
    /// Dynamic scaling counts as none: it leaves angles within the context alone. A base YaRN's explicit attention
    /// factor is kept only when it differs from what its factor implies, so that the usual redundant one follows the
    /// new factor.
    ///
    /// # Errors
    /// [`RopeError::NotLonger`] when `target <= original_context`, except for keep, theta and a factor;
    /// [`RopeError::Incompatible`] when the kind would discard the base's scaling.
    pub fn extended(
        &self,
        kind: RopeKind,
        original_context: usize,
        target: usize,
        head_dim: usize,
    ) -> Result<RopeConfig, RopeError> {
        if let RopeKind::Factor(kind, factor) = kind {
            return self.with_factor(kind, factor, original_context, head_dim);
        }
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
            (RopeKind::LongRecipe(f), scaling) if unscaled => {
                let f = f.unwrap_or(s);
                *scaling = RopeScaling::Default;
                extended.theta = ntk_theta(self.theta, f * s - (f - 1.0), head_dim);
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

    /// The rotation with the total factor `factor` over the original one, that is over plain `theta`; the base's scaling is
    /// replaced. `context` is the base's `max_position_embeddings`.
    ///
    /// An unscaled base and one with linear scaling take every kind: linear scaling leaves `theta` as it was, and weights that
    /// were trained at several linear scales (E2-LLM) are no one scale's. YaRN and llama3 take their own kind, with band and
    /// original context kept, and llama3 takes YaRN.
    ///
    /// A larger `theta`, as ntk and longrecipe write it, is what later factors count from: a configuration does not say
    /// whether a base was born with it.
    ///
    /// # Errors
    /// [`RopeError::Incompatible`]; [`RopeError::Original`] where yarn and llama3 need an original context that the base does
    /// not tell.
    pub fn with_factor(&self, kind: FactorKind, factor: f64, context: usize, head_dim: usize) -> Result<RopeConfig, RopeError> {
        let (theta, original) = (self.theta, || self.original_context(context));
        let free = matches!(self.scaling, RopeScaling::Default | RopeScaling::Dynamic { .. } | RopeScaling::Linear { .. });
        let mut scaling = self.scaling.clone();
        match (kind, &mut scaling) {
            (FactorKind::Linear, scaling) if free => *scaling = RopeScaling::Linear { factor },
            (FactorKind::Yarn, scaling) if free => *scaling = RopeScaling::yarn(factor, original()?),
            (FactorKind::Llama3, scaling) if free => *scaling = RopeScaling::llama3(factor, original()?),
            (FactorKind::Ntk, _) if free => {
                return Ok(RopeConfig { theta: ntk_theta(theta, factor, head_dim), scaling: RopeScaling::Default });
            }
            (FactorKind::Yarn, RopeScaling::Yarn { factor: total, attention_factor, .. }) => {
                *total = factor;
                *attention_factor = self.scaling.unusual_attention_factor();
            }
            (FactorKind::Llama3, RopeScaling::Llama3 { factor: total, .. }) => *total = factor,
            (FactorKind::Yarn, scaling @ &mut RopeScaling::Llama3 { original, .. }) => {
                *scaling = RopeScaling::yarn(factor, original);
            }
            _ => return Err(RopeError::Incompatible { kind: RopeKind::Factor(kind, factor), base: self.clone() }),
        }
        Ok(RopeConfig { theta, scaling })
    }

    /// The context in tokens that a factor counts from: what the scaling states; else `context` (`max_position_embeddings`),
    /// over linear scaling divided by its factor.
    ///
    /// # Errors
    /// [`RopeError::Original`] when that division leaves a rest.
    pub fn original_context(&self, context: usize) -> Result<usize, RopeError> {
        match self.scaling {
            RopeScaling::Default | RopeScaling::Dynamic { .. } => Ok(context),
            RopeScaling::Yarn { original, .. } | RopeScaling::Llama3 { original, .. } => Ok(original),
            RopeScaling::Linear { factor } => {
                whole(context as f64 / factor).ok_or_else(|| RopeError::Original { base: self.clone(), context })
            }
        }
    }

    /// The context in tokens that a total factor reaches.
    ///
    /// # Errors
    /// [`RopeError::Original`]; [`RopeError::Context`] when it is no whole number of tokens or beyond all positions.
    pub fn context_at(&self, factor: f64, context: usize) -> Result<usize, RopeError> {
        let original = self.original_context(context)?;
        whole(factor * original as f64).ok_or(RopeError::Context { factor, original })
    }
}

/// A count of tokens from a quotient or product that may be off by rounding.
fn whole(tokens: f64) -> Option<usize> {
    let rounded = tokens.round();
    let fits = (1.0..=f64::from(u32::MAX)).contains(&rounded) && (tokens - rounded).abs() <= 1e-9 * rounded;
    fits.then_some(rounded as usize)
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
