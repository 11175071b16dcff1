//! RoPE variants: from a configuration to inverse frequencies.

mod extend;
mod freqs;
mod kind;

pub use kind::{FactorKind, RopeError, RopeKind};

/// Base and scaling of the rotation, as `config.json` states them.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// `rope_theta`, the base.
    pub theta: f64,
    /// How frequencies are rescaled.
    pub scaling: RopeScaling,
}

/// `rope_scaling` / `rope_parameters`, with Transformers' definitions.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// No rescaling.
    Default,
    /// Position interpolation: all frequencies divided by `factor`.
    Linear {
        /// Extension factor.
        factor: f64,
    },
    /// Dynamic NTK: the base grows with the length being processed. Evaluation only.
    Dynamic {
        /// Extension factor.
        factor: f64,
    },
    /// YaRN.
    Yarn {
        /// Extension factor.
        factor: f64,
        /// Context before extension.
        original: usize,
        /// Factor on cos and sin; derived from `factor` when absent.
        attention_factor: Option<f64>,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is interpolated.
        beta_slow: f64,
        /// Numerator of the derived attention factor, with `mscale_all_dim`.
        mscale: Option<f64>,
        /// Denominator of the derived attention factor.
        mscale_all_dim: Option<f64>,
        /// Whether the ramp's ends are rounded to whole dims.
        truncate: bool,
    },
    /// Llama 3.1's smoothed interpolation of low frequencies.
    Llama3 {
        /// Extension factor.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are interpolated.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context before extension.
        original: usize,
    },
}

impl RopeScaling {
    /// YaRN with the paper's constants (arXiv 2309.00071: α = 1, β = 32) and the derived attention factor.
    pub fn yarn(factor: f64, original: usize) -> Self {
        RopeScaling::Yarn {
            factor,
            original,
            attention_factor: None,
            beta_fast: 32.0,
            beta_slow: 1.0,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        }
    }

    /// Llama 3.1's interpolation with its published band: kept below `original / 4`, interpolated above `original`.
    pub fn llama3(factor: f64, original: usize) -> Self {
        RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original }
    }

    /// The extension factor; 1 without rescaling.
    pub fn factor(&self) -> f64 {
        match *self {
            RopeScaling::Default => 1.0,
            RopeScaling::Linear { factor }
            | RopeScaling::Dynamic { factor }
            | RopeScaling::Yarn { factor, .. }
            | RopeScaling::Llama3 { factor, .. } => factor,
        }
    }

    /// The `rope_type` of `config.json`.
    pub fn name(&self) -> &'static str {
        match self {
            RopeScaling::Default => "default",
            RopeScaling::Linear { .. } => "linear",
            RopeScaling::Dynamic { .. } => "dynamic",
            RopeScaling::Yarn { .. } => "yarn",
            RopeScaling::Llama3 { .. } => "llama3",
        }
    }
}

impl RopeConfig {
    /// The extension factor of the scaling; 1 without rescaling.
    pub fn factor(&self) -> f64 {
        self.scaling.factor()
    }
}

impl std::fmt::Display for RopeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let factor = short(self.factor());
        match self.scaling {
            RopeScaling::Default => write!(f, "theta {}", short(self.theta)),
            RopeScaling::Linear { .. } => write!(f, "linear ×{factor}"),
            RopeScaling::Dynamic { .. } => write!(f, "dynamic ×{factor}"),
            RopeScaling::Yarn { original, .. } => write!(f, "yarn ×{factor} (original {original})"),
            RopeScaling::Llama3 { original, .. } => {
                write!(f, "llama3 ×{factor} (original {original})")
            }
        }
    }
}

/// At most two decimals, none for whole numbers.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
