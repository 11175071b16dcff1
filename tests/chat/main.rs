//! Conversations: from rows through templates, masks and rows of training to gradients and whole runs.

#[path = "../common/mod.rs"]
mod common;

mod formats;
mod golden;
mod inspect;
mod refused;
mod rows;
mod runs;
mod train;

use std::fs;
use std::path::PathBuf;

use common::fixtures;
use ltrain::data::{ChatTokenizer, Conversation, Loss};
use ltrain::io::TextTokenizer;
use ltrain::io::hf_config::read_config;
use ltrain::model::ModelConfig;
use serde_json::{Value, json};

fn chat_folder() -> PathBuf {
    fixtures().join("chat")
}

/// A model whose vocabulary is large enough for any of them.
fn config() -> ModelConfig {
    ModelConfig { vocab: 512, ..read_config(&fixtures().join("models/llama/config.json")).unwrap() }
}

/// One of the tokenizers of `make_chat_fixtures.py`, bytes or metaspace.
fn tokenizer(name: &str) -> TextTokenizer {
    TextTokenizer::open(&chat_folder().join(name), &config()).unwrap()
}

/// One of our templates, as it is or without the tags that mark its answers.
fn template(name: &str, tags: bool) -> String {
    let source = fs::read_to_string(chat_folder().join(format!("{name}.jinja"))).unwrap();
    if tags { source } else { source.replace("{% generation %}", "").replace("{% endgeneration %}", "") }
}

/// `work` with a tokenizer that has this template.
fn with_template<T>(name: &str, source: &str, loss: Loss, work: impl FnOnce(&ChatTokenizer) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.jinja");
    fs::write(&file, source).unwrap();
    let tokenizer = tokenizer(name);
    work(&ChatTokenizer::new(&tokenizer, Some(&file), loss).unwrap())
}

/// Messages of users and the model in turn, a user first.
fn turns(contents: &[&str]) -> Vec<Value> {
    let roles = ["user", "assistant"].into_iter().cycle();
    roles.zip(contents).map(|(role, content)| json!({"role": role, "content": content})).collect()
}

fn conversation(messages: &[Value]) -> Conversation {
    Conversation { messages: messages.to_vec(), ..Conversation::default() }
}
