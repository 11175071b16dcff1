//! Defaults: the resolver's and the help's one source.

use crate::optim::AdamWConfig;
use crate::units::{format_count, format_length};

use super::ModelInfo;
use super::text::Warmup;

/// `--model`.
pub const MODEL: &str = "builtin:tiny";
/// `--data` of the built-in model at its default target and rows.
pub const BUILTIN_DATA: &str = "synthetic:mixed-2048";
/// `--columns`.
pub const COLUMN: &str = "text";
/// `--val`, in documents of a hundred.
pub const VAL_SHARE: f64 = 0.01;
/// `--target` over the model's context.
pub const EXTENSION: usize = 4;
/// The same for the built-in model.
pub const BUILTIN_EXTENSION: usize = 8;
/// Longest `--seq-len` that is chosen unasked because the model's context is as long.
pub const MAX_SEQ_LEN: usize = 8192;
/// Longest `--seq-len` that is chosen unasked as a share of the target, for large and small models: a small one's step has no more tokens.
pub const MAX_SHARE: [usize; 2] = [32_768, STEP_TOKENS[1]];
/// `--pose-chunks`.
pub const POSE_CHUNKS: usize = 2;
/// Groups per document that `--s2-group` makes.
pub const S2_GROUPS: usize = 4;
/// `--select-rest`.
pub const SELECT_REST: f64 = 0.5;
/// `--end-prompt`: the paper's EP_1.
pub const END_PROMPT: &str = "This is the end of text, please pay attention here";
/// `--end-prompt` of the built-in model, and whatever tokenizer: its end-of-text token (the paper's EP_2).
pub const EOS: &str = "eos";
/// `--end-prompt-weight`.
pub const END_PROMPT_WEIGHT: f64 = 0.1;
/// Models below this many parameters are small: full training is affordable on a CPU and wants higher rates.
pub const SMALL_MODEL: u64 = 50_000_000;
/// `--rank`.
pub const RANK: usize = 16;
/// `--alpha` over `--rank`.
pub const ALPHA_PER_RANK: f32 = 2.0;
/// `--lr` of adapters alone, for large and small models.
pub const LR_LORA: [f64; 2] = [1e-4, 1e-3];
/// `--lr` where base parameters move, for large and small models.
pub const LR_FULL: [f64; 2] = [2e-5, 1e-3];
/// `--lr` of the built-in model, which is trained to convergence.
pub const LR_BUILTIN: f64 = 5e-4;
/// `--lr-embed` over `--lr`, with lora+.
pub const LR_EMBED_RATIO: f64 = 0.1;
/// `--min-lr-ratio`.
pub const MIN_LR_RATIO: f64 = 0.1;
/// `--warmup`.
pub const WARMUP: u64 = 20;
/// The default warm-up is at most one step in this many.
pub const WARMUP_PART: u64 = 5;
/// `--warmup` of a run of so many steps.
pub fn warmup(steps: u64) -> Warmup {
    Warmup::Steps(WARMUP.min(steps / WARMUP_PART))
}
/// `--steps`, for large and small models.
pub const STEPS: [u64; 2] = [200, 600];
/// `--steps` of the built-in model.
pub const BUILTIN_STEPS: u64 = 150;
/// Tokens that `--micro-batch` gathers, for large and small models.
pub const MICRO_TOKENS: [usize; 2] = [1, 4096];
/// Tokens that a step gathers through `--accum`, for large and small models.
pub const STEP_TOKENS: [usize; 2] = [65_536, 4096];
/// `--seed`.
pub const SEED: u64 = 42;
/// Lengths of `--eval-at`, as the target divided by these, besides the model's context.
pub const EVAL_PARTS: [usize; 3] = [4, 2, 1];
/// `--passkey-samples`.
pub const PASSKEY_SAMPLES: usize = 10;
/// Samples per task of RULER and length.
pub const RULER_SAMPLES: usize = 20;
/// Needles of niah that are not asked for.
pub const DISTRACTORS: usize = 3;
/// Depths of passkey and niah.
pub const DEPTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Windows per length of a perplexity.
pub const WINDOWS: usize = 3;
/// `--save-every`.
pub const SAVE_EVERY: u64 = 100;
/// `--keep`.
pub const KEEP: usize = 2;

impl ModelInfo {
    /// The value for this model of a pair `[large, small]`.
    pub(super) fn by_size<T: Copy>(&self, [large, small]: [T; 2]) -> T {
        if self.is_small() { small } else { large }
    }

    /// Whether the defaults of small models apply.
    pub fn is_small(&self) -> bool {
        self.parameters < SMALL_MODEL
    }
}

/// What the help shows as the default of each option that takes a value.
pub fn shown(option: &str) -> Option<String> {
    let adamw = AdamWConfig::default();
    let small = format!("models below {} M parameters", SMALL_MODEL / 1_000_000);
    let text = |s: &str| s.to_owned();
    Some(match option {
        "model" => text(MODEL),
        "init" => text("the model's weights"),
        "tokenizer" => text("the model's"),
        "data" => format!("{BUILTIN_DATA} for {MODEL}, or documents that suit the rows and the target; needed for other models"),
        "eval_data" => text("documents held back, see --val"),
        "columns" => format!("text={COLUMN}"),
        "format" => text("auto"),
        "chat_template" => text("the tokenizer's"),
        "loss" => text("answers"),
        "long" => text("skip"),
        "cache" => text("$LTRAIN_CACHE, or ltrain in the user's cache folder"),
        "val" => format!("{}%", VAL_SHARE * 100.0),
        "target" => format!("{EXTENSION} x the model's context; {MODEL} {BUILTIN_EXTENSION} x; with --init the context"),
        "seq_len" => format!(
            "30% of the target, at most {} ({small}: {}), but at least the model's context up to {}, which is all with --method, e2-llm \
             or endprompt; --method full-length and longlora: the target, longrecipe: 30% of it",
            format_length(MAX_SHARE[0]),
            format_length(MAX_SHARE[1]),
            format_length(MAX_SEQ_LEN)
        ),
        "method" => text("pose, with longer rows than its paper's, where rows are shorter than the target, else full-length"),
        "positions" => text("as --method says"),
        "attention" => text("full"),
        "contiguous" | "retrieval" => text("none"),
        "pose_chunks" => POSE_CHUNKS.to_string(),
        "e2_max_scale" => text("target / context, rounded up"),
        "e2_scale_per" => text("row"),
        "select" => text("tokens with a digit"),
        "select_rest" => format!("{}%", SELECT_REST * 100.0),
        "end_prompt" => format!("{END_PROMPT:?}; {MODEL}: {EOS}"),
        "end_prompt_weight" => END_PROMPT_WEIGHT.to_string(),
        "s2_group" => format!("1/{S2_GROUPS}"),
        "rope" => text(
            "the model's own scaling stretched further; yarn where it has none; e2-llm: linear; --method longrecipe: longrecipe; with --init keep",
        ),
        "train" => format!("full for {small} and with --init, else lora"),
        "rank" => RANK.to_string(),
        "alpha" => format!("{ALPHA_PER_RANK} x rank"),
        "lora_targets" => text("all"),
        "lr" => format!("lora {:e}, lora+ and full {:e}; {small}: {:e} and {:e}", LR_LORA[0], LR_FULL[0], LR_LORA[1], LR_FULL[1]),
        "lr_embed" => format!("{LR_EMBED_RATIO} x lr with lora+, else lr"),
        "schedule" => format!("constant; {small}: cosine"),
        "min_lr_ratio" => MIN_LR_RATIO.to_string(),
        "warmup" => format!("{WARMUP}, at most a {WARMUP_PART}th of the steps"),
        "steps" => format!("{}; {small}: {}; {MODEL} {BUILTIN_STEPS}", STEPS[0], STEPS[1]),
        "micro_batch" => format!("1; {small}: {} tokens", format_count(MICRO_TOKENS[1] as u64)),
        "accum" => {
            format!("{} tokens per step; {small}: {}", format_count(STEP_TOKENS[0] as u64), format_count(STEP_TOKENS[1] as u64))
        }
        "betas" => format!("{},{}", adamw.beta1, adamw.beta2),
        "weight_decay" => adamw.weight_decay.to_string(),
        "clip" => adamw.max_grad_norm.to_string(),
        "recompute" => format!("layers; {small}: nothing"),
        "nan" => text("stop"),
        "seed" => SEED.to_string(),
        "gpus" => text("auto"),
        "mem_limit" => text("what is free at the start, less 1 GiB"),
        "threads" => text("the CPU's cores"),
        "eval_at" => text("the model's context, target/4, target/2, target"),
        "eval" => text("ppl,passkey"),
        "passkey_samples" => PASSKEY_SAMPLES.to_string(),
        "best" => text("last"),
        "eval_every" => text("before and after only"),
        "out" => text("runs/MODEL-METHOD-TARGET, with a number behind where that is taken"),
        "resume" => text("auto"),
        "save_every" => SAVE_EVERY.to_string(),
        "keep" => KEEP.to_string(),
        "export" => text("both with adapters, else merged"),
        "save_dtype" => text("the base model's"),
        "log_every" => text("1 where a step takes over 2 s, else 10"),
        "progress" => text("auto"),
        _ => return None,
    })
}
