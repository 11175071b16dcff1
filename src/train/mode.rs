//! What training moves.

use std::str::FromStr;

use crate::model::{Llama, LoraConfig};

/// `--train`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainMode {
    /// Low-rank adapters only.
    Lora,
    /// Adapters, embeddings and norms (LongLoRA §3.3); the output projection stays frozen unless it is tied.
    LoraPlus,
    /// Every parameter.
    Full,
}

impl TrainMode {
    /// Whether adapters are used.
    pub fn adapters(self) -> bool {
        self != Self::Full
    }

    /// Whether training moves the parameter of this name.
    pub fn moves(self, name: &str) -> bool {
        let adapter = name.contains(".lora_");
        match self {
            Self::Lora => adapter,
            Self::LoraPlus => adapter || is_embedding_or_norm(name),
            Self::Full => !adapter,
        }
    }
}

impl FromStr for TrainMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lora" => Ok(Self::Lora),
            "lora+" => Ok(Self::LoraPlus),
            "full" => Ok(Self::Full),
            _ => Err(format!("expected lora, lora+ or full, got {text:?}")),
        }
    }
}

impl std::fmt::Display for TrainMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lora => "lora",
            Self::LoraPlus => "lora+",
            Self::Full => "full",
        })
    }
}

/// Whether a parameter is an embedding or a norm: what `lora+` adds, and what `--lr-embed` applies to.
pub fn is_embedding_or_norm(name: &str) -> bool {
    name.contains("embed") || name.contains("norm")
}

/// Adds adapters where there are to be such, and marks what moves.
pub fn prepare(model: &mut Llama, mode: TrainMode, lora: Option<&LoraConfig>, seed: u64) -> crate::Result<()> {
    if let Some(lora) = lora.filter(|_| mode.adapters() && model.lora().is_none()) {
        model.add_lora(lora, seed)?;
    }
    model.params.iter_mut().for_each(|param| param.trainable = mode.moves(&param.name));
    Ok(())
}
