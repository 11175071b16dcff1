//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use crate::eval::ruler::RulerTask;
use crate::io::Storage;
use crate::model::Recompute;

choices! {
    /// `--shapes` of `ltrain bench`.
    Shapes {
        /// Llama 3 8B.
        Llama8b = "8b",
        /// Llama 3.2 1B.
        Llama1b = "1b",
        /// A small model, for CPUs and tests.
        Tiny = "tiny",
    }

    /// `--method`, without `:paper`.
    Preset {
        /// Chunks of a document with random skips between them (PoSE).
        Pose = "pose",
        /// A random scale and offset per row (E²-LLM).
        E2Llm = "e2-llm",
        /// Impactful sentences of long documents with gaps between them (LongRecipe, stage 1).
        LongRecipe = "longrecipe",
        /// Instruction data at true positions (LongRecipe, stage 2).
        Replay = "replay",
        /// Rows as long as the target under shifted groups, adapters with embeddings and norms (LongLoRA).
        LongLora = "longlora",
        /// A prompt at the end of the target (EndPrompt).
        EndPrompt = "endprompt",
        /// PoSE with evenly trained distances.
        Uniform = "uniform",
        /// Random positions: a baseline.
        Random = "random",
        /// Rows as long as the target at their true positions: a baseline.
        FullLength = "full-length",
    }

    /// `--best`: which state of the training is the result.
    Best {
        /// The last.
        Last = "last",
        /// That of the least loss on held-out text.
        Loss = "loss",
        /// That which finds most at the target.
        Retrieval = "retrieval",
    }

    /// `--e2-scale-per`: how often E²-LLM draws a scale.
    ScalePer {
        /// For every row.
        Row = "row",
        /// Once for all rows of an optimizer step.
        Step = "step",
    }

    /// `--attention`, without the group's size.
    Attention {
        /// Every token sees all tokens before it.
        Full = "full",
        /// LongLoRA's shifted groups.
        S2 = "s2",
    }

    /// `--export`.
    Export {
        /// A PEFT adapter.
        Adapter = "adapter",
        /// A complete model folder.
        Merged = "merged",
        /// Both.
        Both = "both",
        /// Nothing.
        None = "none",
    }

    /// `--progress`.
    Progress {
        /// A bar on a terminal, one line per logged step elsewhere.
        Auto = "auto",
        /// A bar.
        Bar = "bar",
        /// One line per logged step.
        Plain = "plain",
        /// Results and errors only.
        Quiet = "quiet",
    }

    /// `--nan`: what a step with a non-finite loss or gradient does.
    NanPolicy {
        /// It is skipped and counted; three in a row end the run.
        Stop = "stop",
        /// It is skipped and counted.
        Skip = "skip",
    }
}

/// `--eval` of a run and `--tasks` of `ltrain eval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Perplexity on held-out text.
    Ppl,
    /// Finding a number in long text.
    Passkey,
    /// Finding one of several.
    Niah,
    /// RULER's tasks, as far as they have what they need.
    Ruler,
    /// Files in LongBench's format.
    LongBench,
    /// One of RULER's tasks.
    One(RulerTask),
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "ppl" => Self::Ppl,
            "passkey" => Self::Passkey,
            "niah" => Self::Niah,
            "ruler" => Self::Ruler,
            "longbench" => Self::LongBench,
            _ => Self::One(text.parse().map_err(|()| {
                let tasks: Vec<_> = RulerTask::ALL.iter().map(|task| task.name()).collect();
                format!(
                    "expected ppl, passkey, niah, ruler, longbench or one of RULER's tasks ({}), got {text:?}",
                    tasks.join(", ")
                )
            })?),
        })
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ppl => "ppl",
            Self::Passkey => "passkey",
            Self::Niah => "niah",
            Self::Ruler => "ruler",
            Self::LongBench => "longbench",
            Self::One(task) => task.name(),
        })
    }
}

impl FromStr for Recompute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nothing" => Ok(Self::Nothing),
            "layers" => Ok(Self::Layers),
            _ => Err(format!("expected nothing or layers, got {text:?}")),
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Layers => "layers",
        })
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(format!("expected f32, bf16 or f16, got {text:?}")),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}
