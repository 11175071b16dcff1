//! The inverse frequencies of every variant, as Transformers computes them.
//!
//! Formulas run in f64 and are stored in f32. Transformers evaluates some of them in f32, so its last bit or two can
//! differ; a checkpoint carries the configuration, never the frequencies, so nothing accumulates.

use std::f64::consts::TAU;

use super::{RopeConfig, RopeScaling};
use crate::ops::rope::RopeFreqs;

impl RopeConfig {
    /// Inverse frequencies `θ_j`, `j = 0..head_dim/2`, and the factor on cos and sin.
    ///
    /// - default: `θ_j = theta^(−2j/d)` (RoFormer, arXiv 2104.09864, section 3)
    /// - linear: `θ_j / factor` (position interpolation, arXiv 2306.15595)
    /// - dynamic: the default at `theta·(factor·n/L0 − (factor−1))^(d/(d−2))` with `n = max(seq_len, context)`
    /// - yarn: NTK-by-parts, a blend of kept and divided frequencies (arXiv 2309.00071, section 3)
    /// - llama3: the same idea over wavelengths (Llama 3.1's reference code; no paper states it)
    ///
    /// `context` is `max_position_embeddings` and `seq_len` the length in use (largest position + 1); only dynamic
    /// looks at either.
    pub fn freqs(&self, head_dim: usize, context: usize, seq_len: usize) -> RopeFreqs {
        debug_assert!(head_dim >= 2 && head_dim.is_multiple_of(2), "head_dim {head_dim}");
        let mut attention_factor = 1.0;
        let inv_freq = match self.scaling {
            RopeScaling::Default => plain(self.theta, head_dim),
            RopeScaling::Linear { factor } => plain(self.theta, head_dim).into_iter().map(|f| f / factor).collect(),
            RopeScaling::Dynamic { factor } => {
                let length = seq_len.max(context) as f64 / context as f64;
                plain(ntk_theta(self.theta, factor * length - (factor - 1.0), head_dim), head_dim)
            }
            RopeScaling::Yarn { .. } => {
                attention_factor = self.scaling.attention_factor();
                yarn(self, head_dim)
            }
            RopeScaling::Llama3 { .. } => llama3(self, head_dim),
        };
        RopeFreqs { inv_freq: inv_freq.into_iter().map(|f| f as f32).collect(), attention_factor: attention_factor as f32 }
    }
}

impl RopeScaling {
    /// The factor on cos and sin. YaRN (section 3, with DeepSeek's `mscale` generalisation): the stated one, else
    /// `m(mscale) / m(mscale_all_dim)` when both are given and not zero, else `m(1)`, with `m(k) = 0.1·k·ln(factor) + 1`
    /// for factors above 1. Every other variant: 1.
    pub fn attention_factor(&self) -> f64 {
        let &RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } = self else {
            return 1.0;
        };
        let m = |k: f64| {
            if factor <= 1.0 { 1.0 } else { 0.1 * k * factor.ln() + 1.0 }
        };
        let given = |k: Option<f64>| k.filter(|&k| k != 0.0);
        attention_factor.unwrap_or_else(|| match (given(mscale), given(mscale_all_dim)) {
            (Some(top), Some(bottom)) => m(top) / m(bottom),
            _ => m(1.0),
        })
    }
}

/// `theta^(−2j/d)`.
fn plain(theta: f64, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2).map(|j| theta.powf(-((2 * j) as f64) / head_dim as f64)).collect()
}

/// The NTK-aware base `theta·s^(d/(d−2))`: the fastest pair keeps its frequency, the slowest is divided by `s`.
pub(super) fn ntk_theta(theta: f64, s: f64, head_dim: usize) -> f64 {
    let d = head_dim as f64;
    theta * s.powf(d / (d - 2.0))
}

/// NTK-by-parts: `θ_j·m_j + θ_j/factor·(1 − m_j)`, where `m` falls from 1 (fast pairs, kept) to 0 (slow pairs,
/// interpolated), linearly in `j` between the dims that make `beta_fast` and `beta_slow` rotations over the original
/// context. The paper's ramp is linear in rotations; the released code and Transformers' are linear in `j`.
fn yarn(config: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } = config.scaling else {
        return plain(config.theta, head_dim);
    };
    let d = head_dim as f64;
    let dim_of = |rotations: f64| d * (original as f64 / (rotations * TAU)).ln() / (2.0 * config.theta.ln());
    let (mut low, mut high) = (dim_of(beta_fast), dim_of(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(d - 1.0));
    if low == high {
        high += 0.001; // Transformers' guard against a ramp of width zero
    }
    let blend = |(j, f): (usize, f64)| {
        let kept = 1.0 - ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f * kept + f / factor * (1.0 - kept)
    };
    plain(config.theta, head_dim).into_iter().enumerate().map(blend).collect()
}

/// With wavelength `λ = 2π/θ`: kept below `original/high_freq_factor`, divided by `factor` above
/// `original/low_freq_factor`, and between them blended by
/// `s = (original/λ − low_freq_factor) / (high_freq_factor − low_freq_factor)`.
fn llama3(config: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original } = config.scaling else {
        return plain(config.theta, head_dim);
    };
    let original = original as f64;
    let rescale = |f: f64| {
        let wavelength = TAU / f;
        if wavelength < original / high {
            f
        } else if wavelength > original / low {
            f / factor
        } else {
            let s = (original / wavelength - low) / (high - low);
            (1.0 - s) * f / factor + s * f
        }
    };
    plain(config.theta, head_dim).into_iter().map(rescale).collect()
}
