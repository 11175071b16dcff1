//! The rows of .jsonl files: which of the known layouts a file has, and one row as an example.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::data::error::DataError;
use crate::data::source::Columns;

/// A parsed row.
type Row = Map<String, Value>;

choices! {
    /// `--format`: how the rows of a .jsonl file hold their text.
    #[derive(PartialOrd, Ord, Hash, Default)]
    Format {
        /// Decided per file by the fields of its first row.
        #[default]
        Auto = "auto",
        /// One text in one field.
        Text = "text",
        /// OpenAI's: `messages`, a list of objects with `role` and `content`; `tools` beside it is optional.
        Messages = "messages",
        /// ShareGPT's: `conversations`, a list of objects with `from` and `value`; `system` beside it is optional.
        ShareGpt = "sharegpt",
        /// Alpaca's: `instruction` and `output`; `input` and `system` are optional.
        Alpaca = "alpaca",
    }
}

impl Format {
    /// The format of a file whose first row is `row`; an error that lists its fields when it is none.
    pub(super) fn of_row(row: &Row, columns: &Columns, at: At) -> Result<Self, DataError> {
        let is_list = |field: &str| row.get(field).is_some_and(Value::is_array);
        let named = *columns != Columns::default() && row.contains_key(&columns.text);
        match () {
            () if named => Ok(Self::Text),
            () if is_list("messages") => Ok(Self::Messages),
            () if is_list("conversations") => Ok(Self::ShareGpt),
            () if row.contains_key("instruction") && row.contains_key("output") => Ok(Self::Alpaca),
            () if row.contains_key(&columns.text) => Ok(Self::Text),
            () => Err(no_text(row, &columns.text, at)),
        }
    }
}

/// A place in the data, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    /// The file.
    pub path: &'a Path,
    /// Line number, from 1.
    pub row: u64,
}

/// What a document is before it is tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// Plain text, all of which is learned.
    Text(String),
    /// Turns of people and of the model, whose answers are learned.
    Chat(Conversation),
}

/// Messages as chat templates want them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// Objects with `role` and mostly `content`, nulls left out; at least one.
    pub messages: Vec<Value>,
    /// Descriptions of the tools that the model may call.
    pub tools: Option<Value>,
    /// Messages that are not learned although the model says them, counted from 0.
    pub ignored: BTreeSet<usize>,
    /// The same as prompt and answer, for a model without a chat template; Alpaca rows alone have it.
    pub plain: Option<Plain>,
}

/// A prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// What is given.
    pub prompt: String,
    /// What is learned.
    pub answer: String,
}

/// The example that `row` holds; `None` for one without content.
pub(super) fn example(row: Row, format: Format, columns: &Columns, at: At) -> Result<Option<Example>, DataError> {
    match format {
        Format::Auto => unreachable!("format: decided by the file's first row"),
        Format::Text => Ok(text(row, &columns.text, at)?.filter(|text| !text.trim().is_empty()).map(Example::Text)),
        Format::Messages => messages(row, at).map(chat),
        Format::ShareGpt => share_gpt(row, at).map(chat),
        Format::Alpaca => alpaca(row, at).map(chat),
    }
}

fn chat(conversation: Conversation) -> Option<Example> {
    (!conversation.messages.is_empty()).then_some(Example::Chat(conversation))
}

fn text(mut row: Row, field: &str, at: At) -> Result<Option<String>, DataError> {
    match row.get_mut(field) {
        Some(Value::String(text)) => Ok(Some(std::mem::take(text))),
        Some(Value::Null) => Ok(None),
        Some(other) => Err(DataError::FieldType { path: at.path.into(), row: at.row, field: field.into(), got: name_of(other) }),
        None => Err(no_text(&row, field, at)),
    }
}

fn no_text(row: &Row, field: &str, at: At) -> DataError {
    DataError::NoField {
        path: at.path.into(),
        row: at.row,
        field: field.into(),
        suggestion: row.iter().find_map(|(key, v)| v.is_string().then(|| key.clone())),
        found: row.keys().cloned().collect(),
    }
}

/// A row that does not fit its file's format.
fn misfit(at: At, format: Format, what: String) -> DataError {
    DataError::Misfit { path: at.path.into(), row: at.row, format, what }
}

/// The list under `field`.
fn list(row: &mut Row, field: &str, format: Format, at: At) -> Result<Vec<Value>, DataError> {
    match row.get_mut(field) {
        Some(Value::Array(items)) => Ok(std::mem::take(items)),
        Some(other) => Err(misfit(at, format, format!("field {field:?} is {}, expected a list", name_of(other)))),
        None => {
            let found: Vec<_> = row.keys().map(String::as_str).collect();
            Err(misfit(at, format, format!("it has no field {field:?}; it has: {}", found.join(", "))))
        }
    }
}

/// The string under `field` of a row; empty where it may be missing and is, or is null.
fn string(row: &mut Row, field: &str, optional: bool, format: Format, at: At) -> Result<String, DataError> {
    match row.get_mut(field) {
        Some(Value::String(text)) => Ok(std::mem::take(text)),
        None | Some(Value::Null) if optional => Ok(String::new()),
        Some(other) => Err(misfit(at, format, format!("field {field:?} is {}, expected a string", name_of(other)))),
        None => {
            let found: Vec<_> = row.keys().map(String::as_str).collect();
            Err(misfit(at, format, format!("it has no field {field:?}; it has: {}", found.join(", "))))
        }
    }
}

fn message(role: &str, content: String) -> Value {
    serde_json::json!({"role": role, "content": content})
}

fn messages(mut row: Row, at: At) -> Result<Conversation, DataError> {
    let wrong = |n: usize, what: String| misfit(at, Format::Messages, format!("message {} {what}", n + 1));
    let mut messages = list(&mut row, "messages", Format::Messages, at)?;
    let mut ignored = BTreeSet::new();
    for (n, message) in messages.iter_mut().enumerate() {
        let Value::Object(fields) = message else {
            return Err(wrong(n, format!("is {}, expected an object", name_of(message))));
        };
        // Templates ask whether a field is there, not whether it is null; Transformers leaves nulls out as well.
        fields.retain(|_, value| !value.is_null());
        if !is_learned(fields).map_err(|what| wrong(n, what))? {
            ignored.insert(n);
        }
        let speaks = fields.contains_key("tool_calls");
        for (field, needed) in [("role", true), ("content", !speaks)] {
            match fields.get(field) {
                Some(Value::String(_)) => {}
                None if !needed => {}
                None => {
                    let found: Vec<_> = fields.keys().map(String::as_str).collect();
                    return Err(wrong(n, format!("has no {field:?}; it has: {}", found.join(", "))));
                }
                Some(other) => return Err(wrong(n, format!("has a {field:?} that is {}, expected a string", name_of(other)))),
            }
        }
    }
    Ok(Conversation { messages, tools: tools(&mut row, at)?, ignored, plain: None })
}

/// Descriptions of tools. A string of JSON, as some data sets have it, would be read letter by letter by a template.
fn tools(row: &mut Row, at: At) -> Result<Option<Value>, DataError> {
    let wrong = |what: String| Err(misfit(at, Format::Messages, format!("field \"tools\" {what}, expected a list of objects")));
    match row.remove("tools") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(tools)) => match tools.iter().find(|tool| !tool.is_object()) {
            Some(other) => wrong(format!("has {} in it", name_of(other))),
            None => Ok((!tools.is_empty()).then_some(Value::Array(tools))),
        },
        Some(other) => wrong(format!("is {}", name_of(&other))),
    }
}

/// Whether a message is to be learned: OpenAI's `weight`, which is 0 or 1; in words what else it is.
fn is_learned(fields: &Row) -> Result<bool, String> {
    match fields.get("weight") {
        None | Some(Value::Null) => Ok(true),
        Some(weight) => match weight.as_f64() {
            Some(0.0) => Ok(false),
            Some(1.0) => Ok(true),
            _ => Err(format!("has a \"weight\" of {weight}, expected 0 or 1")),
        },
    }
}

/// ShareGPT's names of who speaks, and everybody else's.
const SPEAKERS: [(&str, &str); 5] =
    [("human", "user"), ("user", "user"), ("gpt", "assistant"), ("assistant", "assistant"), ("system", "system")];

fn share_gpt(mut row: Row, at: At) -> Result<Conversation, DataError> {
    let format = Format::ShareGpt;
    let wrong = |n: usize, what: String| misfit(at, format, format!("turn {} {what}", n + 1));
    let turns = list(&mut row, "conversations", format, at)?;
    let system = string(&mut row, "system", true, format, at)?;
    let mut messages: Vec<Value> = Vec::with_capacity(turns.len() + 1);
    let mut ignored = BTreeSet::new();
    messages.extend((!system.is_empty()).then(|| message("system", system)));
    for (n, turn) in turns.into_iter().enumerate() {
        let Value::Object(mut fields) = turn else {
            return Err(wrong(n, format!("is {}, expected an object", name_of(&turn))));
        };
        let mut take = |field: &str| match fields.get_mut(field) {
            Some(Value::String(text)) => Ok(std::mem::take(text)),
            Some(other) => Err(wrong(n, format!("has a {field:?} that is {}, expected a string", name_of(other)))),
            None => {
                let found: Vec<_> = fields.keys().map(String::as_str).collect();
                Err(wrong(n, format!("has no {field:?}; it has: {}", found.join(", "))))
            }
        };
        let (from, value) = (take("from")?, take("value")?);
        let Some((_, role)) = SPEAKERS.iter().find(|(name, _)| *name == from) else {
            return Err(wrong(n, format!("is from {from:?}, expected human, gpt or system")));
        };
        if !is_learned(&fields).map_err(|what| wrong(n, what))? {
            ignored.insert(messages.len());
        }
        messages.push(message(role, value));
    }
    Ok(Conversation { messages, ignored, ..Conversation::default() })
}

/// What stands above the sections of a prompt that has no input, and of one that has.
const ALPACA: [&str; 2] = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task, paired with an input that provides further context. \
     Write a response that appropriately completes the request.",
];

fn alpaca(mut row: Row, at: At) -> Result<Conversation, DataError> {
    let mut field = |name, optional| string(&mut row, name, optional, Format::Alpaca, at);
    let (instruction, answer) = (field("instruction", false)?, field("output", false)?);
    let (input, system) = (field("input", true)?, field("system", true)?);
    let above = if system.is_empty() { ALPACA[usize::from(!input.is_empty())] } else { &system };
    let given = if input.is_empty() { String::new() } else { format!("### Input:\n{input}\n\n") };
    let prompt = format!("{above}\n\n### Instruction:\n{instruction}\n\n{given}### Response:");
    let question = if input.is_empty() { instruction } else { format!("{instruction}\n\n{input}") };
    let mut messages = Vec::with_capacity(3);
    messages.extend((!system.is_empty()).then(|| message("system", system)));
    messages.extend([message("user", question), message("assistant", answer.clone())]);
    Ok(Conversation { messages, plain: Some(Plain { prompt, answer }), ..Conversation::default() })
}

/// What a JSON value is, in words.
pub(super) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
