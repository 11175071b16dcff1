//! Rows, templates and settings that cannot be used: one test per way, each with its code, place and way out.

use std::fs;

use ltrain::data::{ChatTokenizer, Corpus, CorpusOptions, Encode, Loss, Reading, Sources, Specials};
use ltrain::error::{Error, Explain, Explanation};
use ltrain::io::TextTokenizer;
use serde_json::{Value, json};

use super::{chat_folder, config, conversation, template, tokenizer, turns, with_template};

fn told(error: Error) -> (String, Explanation) {
    (error.to_string(), error.explain())
}

/// What is wrong with files of these rows, in a template.
fn refused(files: &[(&str, &[Value])], source: &str) -> (String, Explanation) {
    let dir = tempfile::tempdir().unwrap();
    for (name, rows) in files {
        let lines: Vec<_> = rows.iter().map(Value::to_string).collect();
        fs::write(dir.path().join(name), lines.join("\n")).unwrap();
    }
    let options =
        CorpusOptions { reading: Reading::default(), specials: Specials::default(), cache: vec![dir.path().join("cache")] };
    let sources = Sources::collect(&[dir.path().to_path_buf()]).unwrap();
    let error =
        with_template("bytes", source, Loss::Answers, |chat| Corpus::open(&sources, chat, &options, &|_| {}).unwrap_err());
    assert!(
        !dir.path().join("cache").exists() || fs::read_dir(dir.path().join("cache")).unwrap().next().is_none(),
        "half a cache"
    );
    told(error)
}

fn row(contents: &[&str]) -> Value {
    json!({"messages": turns(contents)})
}

#[test]
fn a_row_that_does_not_fit_is_named_with_its_fields() {
    let good = row(&["q", "a"]);
    let chatml = template("chatml", true);
    for (bad, what) in [
        (json!({"prompt": "q", "n": 1}), "it has no field \"messages\"; it has: prompt, n"),
        (json!({"messages": "q"}), "field \"messages\" is a string, expected a list"),
        (json!({"messages": ["q"]}), "message 1 is a string, expected an object"),
        (json!({"messages": [{"role": "user", "text": "q"}]}), "message 1 has no \"content\"; it has: role, text"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "message 1 has a \"content\" that is a list, expected a string",
        ),
        (json!({"messages": [{"content": "q"}]}), "message 1 has no \"role\"; it has: content"),
    ] {
        let (said, e) = refused(&[("a.jsonl", &[good.clone(), bad])], &chatml);
        assert!(said.starts_with("row 2 of ") && said.contains("a.jsonl is not of the format messages"), "{said}");
        assert!(said.ends_with(what), "{said}");
        assert_eq!(e.code, "E340");
    }
    let turn = |from: &str| json!({"conversations": [{"from": from, "value": "x"}]});
    let (said, _) = refused(&[("a.jsonl", &[turn("human"), turn("observation")])], &chatml);
    assert!(said.ends_with("turn 1 is from \"observation\", expected human, gpt or system"), "{said}");
    let (said, _) = refused(&[("a.jsonl", &[json!({"instruction": "i", "output": 3})])], &chatml);
    assert!(said.ends_with("field \"output\" is a number, expected a string"), "{said}");
}

#[test]
fn a_row_of_no_known_layout_lists_its_fields() {
    let (said, e) = refused(&[("a.jsonl", &[json!({"question": "q", "answer": "a"})])], &template("chatml", true));
    assert!(said.contains("has no field \"text\"; it has: question, answer"), "{said}");
    assert_eq!(e.code, "E323");
}

#[test]
fn text_beside_conversations_is_refused() {
    let (said, e) = refused(&[("a.jsonl", &[row(&["q", "a"])]), ("b.jsonl", &[json!({"text": "t"})])], &template("chatml", true));
    assert!(said.contains("b.jsonl holds text and") && said.contains("a.jsonl conversations (messages)"), "{said}");
    assert_eq!((e.code, e.exit_code()), ("E347", 3));
}

#[test]
fn without_a_template_the_flag_is_named() {
    let tokenizer = tokenizer("bytes");
    let chat = ChatTokenizer::new(&tokenizer, None, Loss::Answers).unwrap();
    let error = chat.conversation(&conversation(&turns(&["q", "a"]))).unwrap_err();
    assert_eq!(error.to_string(), "the tokenizer has no chat template");
    let e = error.explain();
    assert_eq!(e.code, "E343");
    let help = e.help.unwrap();
    // Not every command that reads conversations has the flag.
    assert!(help.contains("--chat-template FILE") && help.contains("chat_template.jinja beside the tokenizer"), "{help}");
}

#[test]
fn what_the_template_raises_has_its_row() {
    let twice = json!({"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": "q"}]});
    let (said, e) = refused(&[("a.jsonl", &[row(&["q", "a"]), twice])], &template("mistral", true));
    assert!(said.starts_with("row 2 of ") && said.contains("user and assistant take turns, got user as turn 2"), "{said}");
    assert_eq!(e.code, "E344");
}

/// A template that leaves thoughts out of all answers but the last.
const FORGETS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}\
                       {{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}\
                       {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn a_template_that_writes_earlier_turns_differently_is_refused_with_the_row() {
    let plain = row(&["q", "a", "q", "a"]);
    let thinks = row(&["q", "<think>so</think>a", "q", "a"]);
    let (said, e) = refused(&[("a.jsonl", &[plain, thinks])], FORGETS);
    assert!(said.starts_with("row 2 of ") && said.contains("where the answer in message 2 ends cannot be told"), "{said}");
    assert_eq!(e.code, "E346");
    assert!(e.help.unwrap().contains("{% generation %}"));
}

#[test]
fn a_generation_prompt_that_no_answer_begins_with_is_refused() {
    let source = template("chatml", false).replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>' }}");
    let (said, e) = refused(&[("a.jsonl", &[row(&["q", "a"])])], &source);
    assert!(said.contains("where the answer in message 2 begins cannot be told"), "{said}");
    assert_eq!(e.code, "E346");
}

#[test]
fn roles_and_tools_that_the_template_leaves_out_are_refused() {
    let tool = json!({"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "42"}, {"role": "assistant", "content": "a"}]});
    let ignores = "{% for m in messages if m.role != 'tool' %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}\
                   {% if add_generation_prompt %}assistant: {% endif %}";
    let (said, e) = refused(&[("a.jsonl", std::slice::from_ref(&tool))], ignores);
    assert!(said.ends_with("the chat template leaves out message 2 of the role \"tool\""), "{said}");
    assert_eq!(e.code, "E345");
    let late = "{% for m in messages %}{% if loop.index != 3 %}{{ m.role }}: {{ m.content }}<|im_end|>{% endif %}{% endfor %}\
                {% if add_generation_prompt %}assistant: {% endif %}";
    // That the same was said before does not hide it.
    let (said, _) = refused(&[("a.jsonl", &[row(&["no", "then", "no", "b"])])], late);
    assert!(said.ends_with("the chat template leaves out message 3 of the role \"user\""), "{said}");
    let mut with_tools = row(&["q", "a"]);
    with_tools["tools"] = json!([{"name": "f"}]);
    let (said, _) = refused(&[("a.jsonl", &[with_tools])], &template("chatml", true));
    assert!(said.ends_with("the chat template leaves out the tools"), "{said}");
    let calls = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [1]}]});
    let (said, _) = refused(&[("a.jsonl", &[calls])], &template("chatml", true));
    assert!(said.ends_with("the chat template leaves out the tool calls of message 2"), "{said}");
    let none = [json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": "a", "tool_calls": []})];
    // No calls are no loss.
    with_template("bytes", &template("qwen2", true), Loss::Answers, |chat| {
        chat.conversation(&conversation(&none)).unwrap();
    });
    // ChatML writes every role, so this one is no loss.
    with_template("bytes", &template("chatml", true), Loss::Answers, |chat| {
        let messages = tool["messages"].as_array().unwrap();
        chat.conversation(&conversation(messages)).unwrap();
    });
}

#[test]
fn a_system_message_and_tools_that_are_only_spoken_of_are_refused() {
    let system = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    let ignores = "{# no tools, no tool_calls #}{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}\
                   {% if add_generation_prompt %}assistant: {% endif %}";
    let (said, e) = refused(&[("a.jsonl", &[system])], ignores);
    assert!(said.ends_with("the chat template leaves out message 1 of the role \"system\""), "{said}");
    assert_eq!(e.code, "E345");
    let mut tools = row(&["q", "a"]);
    tools["tools"] = json!([{"name": "f"}]);
    let (said, _) = refused(&[("a.jsonl", &[tools])], ignores);
    assert!(said.ends_with("the chat template leaves out the tools"), "{said}");
    let calls = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [1]}]});
    let (said, _) = refused(&[("a.jsonl", &[calls])], ignores);
    assert!(said.ends_with("the chat template leaves out the tool calls of message 2"), "{said}");
}

#[test]
fn an_answer_with_nothing_before_it_names_its_message_and_the_ways_out() {
    let source =
        format!("{{% if not messages %}}{{{{ raise_exception('nobody speaks') }}}}{{% endif %}}{}", template("chatml", false));
    let opens = json!({"messages": [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "q"}]});
    let (said, e) = refused(&[("a.jsonl", &[opens])], &source);
    assert!(said.contains("where the answer in message 1 begins cannot be told") && said.contains("nobody speaks"), "{said}");
    assert_eq!(e.code, "E346");
    assert!(e.help.unwrap().contains("--loss all"));
}

/// Marks nothing but answers that begin with an exclamation mark.
const SHY: &str = "{% for m in messages %}{% if m.content.startswith('!') %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\
                   {% else %}{{ m.role }}: {{ m.content }}<|im_end|>{% endif %}{% endfor %}";

#[test]
fn blocks_that_were_not_written_are_no_reason_to_skip_a_row() {
    let (said, e) = refused(&[("a.jsonl", &[row(&["q", "!a"]), row(&["q", "a"])])], SHY);
    assert!(said.starts_with("row 2 of ") && said.contains("none of the answers stands in a {% generation %} block"), "{said}");
    assert_eq!(e.code, "E349");
    let ignored = json!({"messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "!a"},
    ]});
    let (said, _) = refused(&[("a.jsonl", &[ignored])], SHY);
    assert!(said.ends_with("the chat template has 1 {% generation %} blocks for 2 answers"), "{said}");
}

#[test]
fn a_template_that_is_not_text_is_refused_where_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(chat_folder().join("bytes/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let file = dir.path().join("chat_template.jinja");
    fs::write(&file, b"{{ messages }}\xff").unwrap();
    let tokenizer = TextTokenizer::open(dir.path(), &config()).unwrap();
    let chat = ChatTokenizer::new(&tokenizer, None, Loss::Answers).unwrap();
    assert!(!chat.encode("town").unwrap().is_empty(), "text needs no template");
    let found = chat.conversation(&conversation(&turns(&["q", "a"]))).unwrap_err();
    let given = ChatTokenizer::new(&tokenizer, Some(&file), Loss::Answers).unwrap_err();
    for (said, e) in [(found.to_string(), found.explain()), told(given)] {
        assert!(said.contains("chat_template.jinja\" is not UTF-8"), "{said}");
        assert_eq!(e.code, "E348");
    }
}

#[test]
fn a_template_that_does_not_parse_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.jinja");
    fs::write(&file, "{% for m in messages %}\n{{ m.content }\n{% endfor %}").unwrap();
    let tokenizer = tokenizer("bytes");
    let (said, e) = told(ChatTokenizer::new(&tokenizer, Some(&file), Loss::Answers).unwrap_err());
    assert!(said.contains("chat.jinja cannot be used, line 2"), "{said}");
    assert_eq!(e.code, "E341");
    let (said, e) = told(ChatTokenizer::new(&tokenizer, Some(&dir.path().join("none")), Loss::Answers).unwrap_err());
    assert!(said.starts_with("could not read"), "{said}");
    assert_eq!(e.code, "E305");
}

/// A tokenizer's folder with this `chat_template` in its settings, and this file beside it.
fn with_settings(field: Value, file: Option<&str>) -> Result<String, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(chat_folder().join("bytes/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let settings = json!({"bos_token": {"content": "<|begin_of_text|>"}, "pad_token": null, "chat_template": field});
    fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    if let Some(file) = file {
        fs::write(dir.path().join("chat_template.jinja"), file).unwrap();
    }
    let tokenizer = TextTokenizer::open(dir.path(), &config())?;
    let template = tokenizer.chat_template(None)?.expect("there is one");
    Ok(template.render(&turns(&["q"]), None, false).unwrap().text)
}

#[test]
fn text_needs_no_good_template() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(chat_folder().join("bytes/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{% for %}").unwrap();
    let tokenizer = TextTokenizer::open(dir.path(), &config()).unwrap();
    let chat = ChatTokenizer::new(&tokenizer, None, Loss::Answers).unwrap();
    assert!(!chat.encode("town").unwrap().is_empty());
    assert_eq!(chat.conversation(&conversation(&turns(&["q", "a"]))).unwrap_err().explain().code, "E341");
}

#[test]
fn templates_are_found_beside_the_tokenizer() {
    let named = json!([{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ bos_token }}yes{{ pad_token }}"}]);
    assert_eq!(with_settings(json!("{{ bos_token }}one"), None).unwrap(), "<|begin_of_text|>one");
    assert_eq!(with_settings(named.clone(), None).unwrap(), "<|begin_of_text|>yes");
    assert_eq!(with_settings(named, Some("the file")).unwrap(), "the file");
    let (said, e) = told(with_settings(json!([{"name": "rag", "template": "x"}]), None).unwrap_err());
    assert!(said.ends_with("with one called default, got templates called rag"), "{said}");
    assert_eq!(e.code, "E342");
    assert_eq!(told(with_settings(json!(7), None).unwrap_err()).1.code, "E342");
}
