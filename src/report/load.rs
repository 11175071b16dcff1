//! How others load the result: the same snippets for the page and the model card.

use super::record::RunRecord;

/// Code for one consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Who it is for.
    pub tool: &'static str,
    /// `python` or `sh`.
    pub language: &'static str,
    /// The code.
    pub code: String,
    /// What to know about it.
    pub note: Option<&'static str>,
}

/// Snippets for everything that was exported, in the order people ask for them.
pub fn snippets(run: &RunRecord) -> Vec<Snippet> {
    let mut all = Vec::new();
    if let Some(merged) = &run.export.merged {
        all.extend(merged_snippets(merged, run.method.target));
    }
    if let Some(adapter) = &run.export.adapter {
        all.extend(adapter_snippets(adapter, run));
    }
    all
}

fn merged_snippets(merged: &str, target: usize) -> [Snippet; 3] {
    let python = format!(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         model = AutoModelForCausalLM.from_pretrained({path}, torch_dtype=\"auto\")\n\
         tokenizer = AutoTokenizer.from_pretrained({path})",
        path = python(merged)
    );
    [
        Snippet { tool: "transformers", language: "python", code: python, note: None },
        Snippet {
            tool: "vLLM",
            language: "sh",
            code: format!("vllm serve {} --max-model-len {target}", shell(merged)),
            note: None,
        },
        Snippet {
            tool: "llama.cpp",
            language: "sh",
            code: format!(
                "python convert_hf_to_gguf.py {} --outfile model.gguf\nllama-cli -m model.gguf -c {target} -p \"…\"",
                shell(merged)
            ),
            note: Some("the converter reads the RoPE settings from config.json"),
        },
    ]
}

fn adapter_snippets(adapter: &str, run: &RunRecord) -> Vec<Snippet> {
    let export = &run.export;
    let (base, patched) = (&export.base, export.patched_config.as_ref());
    let config = patched.map_or_else(String::new, |dir| format!("config = AutoConfig.from_pretrained({})\n", python(dir)));
    let (import, argument) = if patched.is_some() { ("AutoConfig, ", ", config=config") } else { ("", "") };
    let peft = format!(
        "from peft import PeftModel\nfrom transformers import {import}AutoModelForCausalLM\n\n{config}\
         model = AutoModelForCausalLM.from_pretrained({}{argument}, torch_dtype=\"auto\")\n\
         model = PeftModel.from_pretrained(model, {})",
        python(base),
        python(adapter)
    );
    let overrides = export.overrides.as_ref().map_or_else(String::new, |json| format!(" \\\n  --hf-overrides {}", shell(json)));
    let vllm = format!(
        "vllm serve {} --max-model-len {} \\\n  --enable-lora --max-lora-rank {} --lora-modules long={}{overrides}",
        shell(base),
        run.method.target,
        vllm_rank(export.rank.unwrap_or(16)),
        shell(adapter)
    );
    vec![
        Snippet {
            tool: "PEFT",
            language: "python",
            code: peft,
            note: patched
                .map(|_| "an adapter cannot carry RoPE settings: on the unchanged base configuration the output is garbage"),
        },
        Snippet {
            tool: "vLLM, with the adapter",
            language: "sh",
            code: vllm,
            note: export.overrides.as_ref().map(|_| "without the overrides vLLM uses the base's RoPE"),
        },
    ]
}

/// vLLM accepts only these ranks.
fn vllm_rank(rank: usize) -> usize {
    [8, 16, 32, 64, 128, 256, 320, 512].into_iter().find(|&r| r >= rank).unwrap_or(rank)
}

/// A Python string literal.
fn python(text: &str) -> String {
    // JSON strings are Python literals; Python reads \uXXXX the same way.
    serde_json::Value::from(text).to_string()
}

/// A POSIX shell word, quoted only when it has to be.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '@' | '+');
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
