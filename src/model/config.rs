//! What a Llama-style model is: the part of `config.json` that the forward pass needs.

use super::rope::RopeConfig;

/// Supported architectures. They share one forward pass and differ in biases, qk-norm and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `LlamaForCausalLM`.
    Llama,
    /// `MistralForCausalLM` without sliding window.
    Mistral,
    /// `Qwen2ForCausalLM`: biases on q, k and v.
    Qwen2,
    /// `Qwen3ForCausalLM`: RMSNorm on every query and key head.
    Qwen3,
}

/// Shape and constants of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub arch: Arch,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub ffn: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Added to the mean square in every norm.
    pub rms_eps: f32,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub o_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// RMSNorm on query and key heads.
    pub qk_norm: bool,
    /// `max_position_embeddings`: the context the model is declared for.
    pub context: usize,
    /// Rotation.
    pub rope: RopeConfig,
    /// Beginning-of-text token.
    pub bos: Option<u32>,
    /// End-of-text tokens; may be empty.
    pub eos: Vec<u32>,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f32,
}

impl ModelConfig {
    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        let [c, f, v] = [self.hidden, self.ffn, self.vocab].map(|n| n as u64);
        let (q, kv) = ((self.heads * self.head_dim) as u64, (self.kv_heads * self.head_dim) as u64);
        let biases =
            u64::from(self.qkv_bias) * (q + 2 * kv) + u64::from(self.o_bias) * c + u64::from(self.mlp_bias) * (2 * f + c);
        let qk_norm = u64::from(self.qk_norm) * 2 * self.head_dim as u64;
        let layer = 2 * c * q + 2 * c * kv + 3 * c * f + 2 * c + biases + qk_norm;
        v * c * (2 - u64::from(self.tied)) + self.layers as u64 * layer + c
    }
}
