//! RoPE variants: from a configuration to inverse frequencies.

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
