//! Low-rank adapters on the linear layers (LoRA, Hu et al. 2021).

use std::fmt;
use std::str::FromStr;

use crate::rng::{Rng, Stream};
use crate::tensor::Tensor;

/// A linear layer that can carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoraTarget {
    /// `q_proj`
    Q,
    /// `k_proj`
    K,
    /// `v_proj`
    V,
    /// `o_proj`
    O,
    /// `gate_proj`
    Gate,
    /// `up_proj`
    Up,
    /// `down_proj`
    Down,
}

impl LoraTarget {
    /// Every target, in the order of the forward pass.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Hugging Face's module name.
    pub fn module(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }
}

impl fmt::Display for LoraTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.module().trim_end_matches("_proj"))
    }
}

impl FromStr for LoraTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|t| t.module() == text || t.to_string() == text)
            .ok_or_else(|| format!("expected one of q, k, v, o, gate, up, down, got {text:?}"))
    }
}

/// Shape of the adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank `r` of the factors.
    pub rank: usize,
    /// `lora_alpha`; the product is scaled by [`LoraConfig::scale`].
    pub alpha: f32,
    /// Divide by `sqrt(rank)` instead of `rank` (rsLoRA).
    pub rslora: bool,
    /// Which linear layers.
    pub targets: Vec<LoraTarget>,
}

impl LoraConfig {
    /// `lora_alpha / r`, or `lora_alpha / sqrt(r)` with rsLoRA.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Fresh factors for a `(out, in)` weight: `A` uniform in ±1/sqrt(in) (PEFT's Kaiming init with a = √5), `B` zero, so
    /// that training starts at the base model.
    pub(super) fn init(&self, out: usize, inp: usize, seed: u64, index: u64) -> [Tensor; 2] {
        let mut rng = Rng::at(seed, Stream::Init, index);
        let bound = 1.0 / (inp as f64).sqrt();
        let a = (0..self.rank * inp).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
        [Tensor::f32(a, [self.rank, inp]), Tensor::zeros([out, self.rank])]
    }
}
