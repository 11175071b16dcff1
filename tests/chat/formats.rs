//! Rows of every layout become the same messages.

use std::fs;

use ltrain::data::{Example, Format, Reading, SkipReason, SkipReport, Sources};
use ltrain::error::Result;
use serde_json::{Value, json};

/// What the rows of one file hold, what was skipped, and as which formats it was read.
fn read(rows: &str, reading: &Reading) -> Result<(Vec<Example>, SkipReport, Vec<Format>)> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.jsonl"), rows).unwrap();
    let mut examples = Vec::new();
    let pass = Sources::collect(&[dir.path().to_path_buf()])?.read(reading, &mut |document| {
        examples.push(document.example);
        Ok(())
    })?;
    Ok((examples, pass.skipped, pass.formats.into_iter().collect()))
}

/// The messages of the one row, and its format.
fn only(row: &Value) -> (Vec<Value>, Format) {
    let (examples, _, formats) = read(&row.to_string(), &Reading::default()).unwrap();
    match (&examples[..], &formats[..]) {
        ([Example::Chat(chat)], [format]) => (chat.messages.clone(), *format),
        other => panic!("{other:?}"),
    }
}

fn say(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn every_layout_is_recognised_by_its_fields() {
    let [system, user, assistant] = [say("system", "s"), say("user", "u"), say("assistant", "a")];
    let all = vec![system.clone(), user.clone(), assistant.clone()];
    let messages = json!({"id": 3, "messages": [system, user, assistant]});
    assert_eq!(only(&messages), (all.clone(), Format::Messages));
    let turns = json!([{"from": "human", "value": "u"}, {"from": "gpt", "value": "a", "weight": 1}]);
    assert_eq!(only(&json!({"system": "s", "conversations": turns})), (all.clone(), Format::ShareGpt));
    assert_eq!(only(&json!({"conversations": turns})).0, all[1..]);
    let turns = json!([{"from": "system", "value": "s"}, {"from": "user", "value": "u"}, {"from": "assistant", "value": "a"}]);
    assert_eq!(only(&json!({"conversations": turns})).0, all);
    let row = json!({"instruction": "u", "output": "a", "system": "s"});
    assert_eq!(only(&row), (all, Format::Alpaca));
}

#[test]
fn nulls_are_left_out_and_other_fields_kept() {
    let row = json!({"messages": [{"role": "user", "content": "u", "name": "Kim", "refusal": null}]});
    assert_eq!(only(&row).0, [json!({"role": "user", "content": "u", "name": "Kim"})]);
    let row = json!({"tools": [{"name": "f"}], "messages": [{"role": "assistant", "content": null, "tool_calls": [1]}]});
    let (examples, ..) = read(&row.to_string(), &Reading::default()).unwrap();
    let Example::Chat(chat) = &examples[0] else { panic!("{examples:?}") };
    assert_eq!(chat.messages, [json!({"role": "assistant", "tool_calls": [1]})]);
    assert_eq!(chat.tools, Some(json!([{"name": "f"}])));
}

#[test]
fn tools_are_a_list_of_objects() {
    let with = |tools: Value| json!({"tools": tools, "messages": [say("user", "u")]}).to_string();
    let tools = |tools| match &read(&with(tools), &Reading::default()).unwrap().0[..] {
        [Example::Chat(chat)] => chat.tools.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((tools(json!([])), tools(Value::Null)), (None, None));
    for (bad, what) in [
        (json!("[{\"name\": \"f\"}]"), "field \"tools\" is a string, expected a list of objects"),
        (json!({"name": "f"}), "field \"tools\" is an object, expected a list of objects"),
        (json!([{"name": "f"}, "g"]), "field \"tools\" has a string in it, expected a list of objects"),
    ] {
        let error = read(&with(bad), &Reading::default()).unwrap_err().to_string();
        assert!(error.starts_with("row 1 of ") && error.ends_with(what), "{error}");
    }
}

#[test]
fn a_weight_of_0_says_that_a_message_is_not_learned() {
    let ignored = |row: Value| match &read(&row.to_string(), &Reading::default()).unwrap().0[..] {
        [Example::Chat(chat)] => chat.ignored.iter().copied().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let answer = |weight: Value| json!({"role": "assistant", "content": "a", "weight": weight});
    let row = |weight| json!({"messages": [say("user", "u"), answer(weight), say("user", "u"), answer(json!(1))]});
    assert_eq!(ignored(row(json!(0))), [1]);
    assert_eq!(ignored(row(json!(1.0))), [0; 0]);
    let turns = json!([{"from": "human", "value": "u"}, {"from": "gpt", "value": "a", "weight": 0}]);
    assert_eq!(ignored(json!({"system": "s", "conversations": turns})), [2], "the system's message counts");
    let error = read(&row(json!(0.5)).to_string(), &Reading::default()).unwrap_err().to_string();
    assert!(error.ends_with("message 2 has a \"weight\" of 0.5, expected 0 or 1"), "{error}");
}

#[test]
fn an_alpaca_row_has_its_own_prompt_beside_messages() {
    let (examples, ..) =
        read(&json!({"instruction": "Add.", "input": "1 2", "output": "3"}).to_string(), &Reading::default()).unwrap();
    let Example::Chat(chat) = &examples[0] else { panic!("{examples:?}") };
    assert_eq!(chat.messages, [say("user", "Add.\n\n1 2"), say("assistant", "3")]);
    let plain = chat.plain.as_ref().unwrap();
    assert!(plain.prompt.ends_with("\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"), "{}", plain.prompt);
    assert!(plain.prompt.starts_with("Below is an instruction that describes a task, paired with an input"));
    assert_eq!(plain.answer, "3");
}

#[test]
fn a_named_column_and_a_named_format_win() {
    let row = json!({"text": "t", "prompt": "p", "messages": [say("user", "u")]}).to_string();
    let format = |reading: &Reading| read(&row, reading).unwrap().2;
    assert_eq!(format(&Reading::default()), [Format::Messages]);
    assert_eq!(format(&Reading { columns: "text=prompt".parse().unwrap(), ..Reading::default() }), [Format::Text]);
    assert_eq!(format(&Reading { format: Format::Text, ..Reading::default() }), [Format::Text]);
}

#[test]
fn conversations_without_messages_are_skipped_and_counted() {
    let (examples, skipped, _) =
        read("{\"messages\": []}\n{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}", &Reading::default()).unwrap();
    assert_eq!((examples.len(), skipped.count(SkipReason::Empty)), (1, 1));
}
