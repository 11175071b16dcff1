//! Tokenizers: only `tokenizer.json`, and only one that fits.

use std::fs;
use std::path::Path;

use ltrain::io::tokenizer::{SpecialTokens, TextTokenizer};
use ltrain::io::{ModelDir, ModelFiles};
use serde_json::json;

use crate::{assert_error, copy, model};

/// A word-level tokenizer of `words` words, with the limits that a training run may have left in the file.
fn write_tokenizer(dir: &Path, words: usize) {
    let mut vocab = json!({"[UNK]": 0, "<s>": 1, "</s>": 2});
    for i in 3..words {
        vocab[format!("w{i}")] = json!(i);
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"},
        "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

#[test]
fn a_text_is_encoded_whole_and_without_special_tokens() {
    let dir = copy(&model("llama"));
    write_tokenizer(dir.path(), 128);
    let tokenizer = ModelDir::open(dir.path()).unwrap().tokenizer().unwrap();
    let ids = tokenizer.encode("w3 w5 w7 w9 w11 nothing").unwrap();
    assert_eq!(ids, [3, 5, 7, 9, 11, 0], "no truncation to 4, no padding to 8, no <s>");
    assert_eq!(tokenizer.decode(&[1, 3, 5, 2], SpecialTokens::Skip).unwrap(), "w3 w5");
    assert_eq!(tokenizer.decode(&[1, 3, 2], SpecialTokens::Keep).unwrap(), "<s> w3 </s>");
    assert_eq!(tokenizer.hash(), blake3::hash(&fs::read(dir.path().join("tokenizer.json")).unwrap()));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.stops()), (Some(1), Some(2), &[2][..]));
}

#[test]
fn the_tokenizers_own_special_tokens_come_first() {
    let dir = copy(&model("llama"));
    write_tokenizer(dir.path(), 128);
    let settings = json!({"bos_token": null, "eos_token": {"content": "w9", "special": true}});
    fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let tokenizer = ModelDir::open(dir.path()).unwrap().tokenizer().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(9)));
    assert_eq!(tokenizer.stops(), [2, 9], "both end a generated text");
}

#[test]
fn a_missing_tokenizer_is_explained_with_what_is_there() {
    let dir = copy(&model("llama"));
    fs::write(dir.path().join("tokenizer.model"), "").unwrap();
    let found = ModelDir::open(dir.path()).unwrap().tokenizer();
    let shown = dir.path().display();
    assert_error(
        found,
        "E301",
        &[
            &format!("no tokenizer found in \"{shown}\""),
            "\n  looked for: tokenizer.json (needed); found instead: tokenizer.model\n",
            "help: ltrain reads the fast-tokenizer file only. Write it once with:",
            &format!(
                "python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{shown}').save_pretrained('{shown}')\""
            ),
            "or point to another one: --tokenizer DIR",
        ],
    );
}

#[test]
fn a_tokenizer_larger_than_the_model_is_the_wrong_one() {
    let dir = copy(&model("llama"));
    write_tokenizer(dir.path(), 129);
    let found = ModelDir::open(dir.path()).unwrap().tokenizer();
    assert_error(found, "E306", &["token ids up to 128, the model 128 embeddings", "--tokenizer DIR"]);
}

#[test]
fn a_smaller_tokenizer_from_another_folder_is_fine_and_a_broken_one_is_not() {
    let config = ModelDir::open(&model("llama")).unwrap().config().clone();
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer(dir.path(), 60);
    assert!(TextTokenizer::open(dir.path(), &config).is_ok());
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let files = ModelFiles::folder(dir.path()).unwrap();
    assert_error(TextTokenizer::load(&files, &config), "E301", &["is not a tokenizer"]);
}
