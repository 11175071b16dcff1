//! The committed files of `assets/tiny`.
//!
//! `LTRAIN_WRITE_ASSETS=1 cargo test --test synthetic` rewrites the tokenizer after a change of the vocabulary.

use std::path::PathBuf;

use anyhow::Result;
use ltrain::data::synthetic::vocabulary::{BOS, IS, KEY};
use ltrain::data::synthetic::{STAGES, text, tokenizer_config_json, tokenizer_json};
use tokenizers::Tokenizer;

use crate::CONTEXT;

fn asset(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/tiny").join(name)
}

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(asset("tokenizer.json")).expect("the committed tokenizer loads")
}

#[test]
fn the_committed_tokenizer_is_the_generated_one() -> Result<()> {
    let files = [("tokenizer.json", tokenizer_json()), ("tokenizer_config.json", tokenizer_config_json(CONTEXT))];
    for (name, contents) in files {
        if std::env::var_os("LTRAIN_WRITE_ASSETS").is_some() {
            std::fs::write(asset(name), &contents)?;
        }
        assert_eq!(std::fs::read_to_string(asset(name))?, contents, "{name}");
    }
    Ok(())
}

#[test]
fn text_encodes_to_the_tokens_it_was_written_from() -> Result<()> {
    let tokenizer = tokenizer();
    let encode = |words: &str| tokenizer.encode(words, true).map(|e| e.get_ids().to_vec());
    for stage in STAGES {
        for index in 0..8 {
            let document = stage.document(21, index)?;
            let words = document.text();
            assert_eq!(encode(&words).unwrap(), document.tokens, "{stage} {index}");
            assert_eq!(tokenizer.decode(&document.tokens, true).unwrap(), words);
        }
    }
    let foreign = encode("the zebra , the").unwrap();
    assert_eq!(foreign.iter().filter(|&&t| t == 2).count(), 2);
    assert_eq!(tokenizer.get_vocab_size(true), 256);
    Ok(())
}

#[test]
fn the_committed_config_agrees_with_the_language() -> Result<()> {
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(asset("config.json"))?)?;
    assert_eq!(config["vocab_size"], 256);
    assert_eq!(config["max_position_embeddings"], CONTEXT);
    assert_eq!((&config["bos_token_id"], &config["eos_token_id"]), (&0.into(), &1.into()));
    assert_eq!(text(&[BOS, KEY, IS]), "key is");
    Ok(())
}
