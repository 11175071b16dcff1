//! The language's tokenizer in Hugging Face's format: one word, one token, and nothing is normalised.

use serde_json::{Map, Value, json};

use super::vocabulary::{BOS, EOS, SIZE, UNK, WORDS};

fn word(id: u32) -> &'static str {
    WORDS[id as usize]
}

/// Contents of `tokenizer.json`. It splits at white space, puts [`BOS`] in front and decodes to words with spaces
/// between them (which is what a missing decoder does).
pub fn tokenizer_json() -> String {
    let vocab: Map<String, Value> = (0..SIZE as u32).map(|id| (word(id).into(), id.into())).collect();
    let added = [BOS, EOS, UNK].map(|id| {
        json!({
            "id": id, "content": word(id), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    let bos = json!({ "SpecialToken": { "id": word(BOS), "type_id": 0 } });
    let sequence = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence("A", 0)],
            "pair": [bos, sequence("A", 0), sequence("B", 1)],
            "special_tokens": {
                word(BOS): { "id": word(BOS), "ids": [BOS], "tokens": [word(BOS)] },
            },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": word(UNK) },
    });
    format!("{tokenizer:#}\n")
}

/// Contents of `tokenizer_config.json`. `context` is the model's.
pub fn tokenizer_config_json(context: usize) -> String {
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": word(BOS),
        "eos_token": word(EOS),
        "unk_token": word(UNK),
        "clean_up_tokenization_spaces": false,
        "model_max_length": context,
    });
    format!("{config:#}\n")
}

/// Hash of [`tokenizer_json`]: a model whose tokenizer has it speaks this language.
pub fn tokenizer_identity() -> String {
    blake3::hash(tokenizer_json().as_bytes()).to_hex().to_string()
}
