//! Byte for byte what Transformers renders, and token for token what it masks.

use ltrain::data::{ChatError, Conversation, Encode, Loss, MASKED};
use ltrain::io::chat_template::Rendered;
use ltrain::io::tokenizer::SpecialTokens;
use ltrain::io::{ChatTemplate, TextTokenizer};
use serde::Deserialize;
use serde_json::Value;

use super::{chat_folder, template, tokenizer, with_template};

/// One conversation in one template, from `make_chat_fixtures.py`.
#[derive(Deserialize)]
struct Case {
    template: String,
    tokenizer: String,
    name: String,
    messages: Vec<Value>,
    tools: Option<Value>,
    text: Option<String>,
    prompt: Option<String>,
    error: Option<String>,
    ids: Option<Vec<u32>>,
    mask: Option<String>,
}

impl Case {
    fn title(&self) -> String {
        format!("{} in {} ({})", self.name, self.template, self.tokenizer)
    }

    /// As a row's parser leaves it: without nulls.
    fn conversation(&self) -> Conversation {
        let mut messages = self.messages.clone();
        for message in &mut messages {
            message.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        Conversation { messages, tools: self.tools.clone(), ..Conversation::default() }
    }
}

fn cases() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let text = std::fs::read_to_string(chat_folder().join("cases.json")).unwrap();
    let cases = serde_json::from_str::<File>(&text).unwrap().cases;
    assert!(cases.len() > 100, "{} cases", cases.len());
    cases
}

fn compiled(tokenizer: &TextTokenizer, source: &str) -> ChatTemplate {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.jinja");
    std::fs::write(&file, source).unwrap();
    tokenizer.chat_template(Some(&file)).unwrap().unwrap()
}

#[test]
fn templates_render_as_in_transformers() {
    for case in cases() {
        let tokenizer = tokenizer(&case.tokenizer);
        // Without its tags a template of `lines` has other white space.
        let kinds: &[bool] = if case.template == "lines" { &[true] } else { &[true, false] };
        for &tags in kinds {
            let template = compiled(&tokenizer, &template(&case.template, tags));
            let conversation = case.conversation();
            let render = |prompt| template.render(&conversation.messages, conversation.tools.as_ref(), prompt);
            match &case.error {
                Some(error) => assert_eq!(&render(false).unwrap_err().reason, error, "{}", case.title()),
                None => {
                    let [Rendered { text, answers }, prompt] = [false, true].map(|prompt| render(prompt).unwrap());
                    assert_eq!(Some(&text), case.text.as_ref(), "{}", case.title());
                    assert_eq!(Some(&prompt.text), case.prompt.as_ref(), "{}", case.title());
                    assert_eq!(answers.is_empty(), !tags, "{}", case.title());
                }
            }
        }
    }
}

/// `0` and `1` as in the fixture.
fn mask(ids: &[u32]) -> String {
    ids.iter().map(|id| if id & MASKED == 0 { '1' } else { '0' }).collect()
}

#[test]
fn answers_are_the_tokens_that_transformers_marks_with_and_without_tags() {
    for case in cases().iter().filter(|case| case.error.is_none()) {
        let kinds: &[bool] = if case.template == "lines" { &[true] } else { &[true, false] };
        for &tags in kinds {
            let ids = with_template(&case.tokenizer, &template(&case.template, tags), Loss::Answers, |chat| {
                chat.conversation(&case.conversation()).unwrap_or_else(|e| panic!("{}: {e}", case.title()))
            });
            let plain: Vec<u32> = ids.iter().map(|id| id & !MASKED).collect();
            assert_eq!(Some(&plain), case.ids.as_ref(), "{}", case.title());
            assert_eq!(Some(&mask(&ids)), case.mask.as_ref(), "{} tags {tags}", case.title());
        }
        let all = with_template(&case.tokenizer, &template(&case.template, kinds.len() == 1), Loss::All, |chat| {
            chat.conversation(&case.conversation()).unwrap()
        });
        assert_eq!(Some(&all), case.ids.as_ref(), "{}: all of it is learned", case.title());
    }
}

#[test]
fn tags_in_comments_and_raw_text_are_no_tags() {
    let tokenizer = tokenizer("bytes");
    let plain = template("chatml", false);
    let quotes = "{# {% generation %} #}{% raw %}{% generation %}{% endraw %}{{ '{#' }}";
    let messages = super::turns(&["q", "a"]);
    let render = |source: &str| compiled(&tokenizer, source).render(&messages, None, false).unwrap();
    let before = "{% generation %}{#";
    let rendered = render(&format!("{quotes}{plain}"));
    assert_eq!((rendered.text, rendered.answers), (format!("{before}{}", render(&plain).text), vec![]));
    assert!(!compiled(&tokenizer, &format!("{quotes}{plain}")).marks_answers());
    let rendered = render(&format!("{quotes}{}", template("chatml", true)));
    assert_eq!(rendered.answers.iter().map(|bytes| &rendered.text[bytes.clone()]).collect::<Vec<_>>(), ["a<|im_end|>"]);
}

#[test]
fn a_date_in_the_template_is_part_of_the_identity() {
    let identity = |source: &str| with_template("bytes", source, Loss::Answers, |chat| chat.identity());
    let plain = template("chatml", true);
    assert!(!identity(&plain).contains("T00:00:00Z"));
    let dated = identity(&format!("{{{{ strftime_now('%d %b %Y') }}}}{plain}"));
    assert!(dated.ends_with("T00:00:00Z"), "{dated}");
}

#[test]
fn answers_of_the_weight_0_are_masked_with_and_without_tags() {
    for tags in [true, false] {
        let ids = |ignored: &[usize]| {
            let messages = super::turns(&["q", "first", "q", "second"]);
            let conversation = Conversation { messages, ignored: ignored.iter().copied().collect(), ..Conversation::default() };
            with_template("bytes", &template("chatml", tags), Loss::Answers, |chat| chat.conversation(&conversation).unwrap())
        };
        let learned = |ids: &[u32]| {
            let ids: Vec<u32> = ids.iter().copied().filter(|id| id & MASKED == 0).collect();
            tokenizer("bytes").decode(&ids, SpecialTokens::Keep).unwrap()
        };
        assert_eq!(learned(&ids(&[])), "first<|im_end|>second<|im_end|>", "tags {tags}");
        assert_eq!(learned(&ids(&[1])), "second<|im_end|>", "tags {tags}");
        assert_eq!(learned(&ids(&[1, 3])), "", "tags {tags}");
    }
}

#[test]
fn a_piece_is_shown_as_the_vocabulary_has_it_where_its_text_is_less() {
    let pieces = |name: &str, text: &str| {
        let tokenizer = tokenizer(name);
        tokenizer.encode(text).unwrap().iter().map(|&id| tokenizer.piece(id).unwrap()).collect::<Vec<_>>()
    };
    let metaspace = pieces("metaspace", "the town is");
    assert_eq!(metaspace.concat(), "▁the▁town▁is", "{metaspace:?}");
    assert_eq!(pieces("bytes", "the town is").concat(), "the town is");
    let half = pieces("bytes", "\u{1F600}");
    assert!(half.len() > 1 && half.iter().all(|piece| !piece.contains('\u{FFFD}')), "{half:?}");
}

#[test]
fn what_a_template_raises_is_said() {
    let case = cases().into_iter().find(|case| case.error.is_some()).unwrap();
    let error = with_template(&case.tokenizer, &template(&case.template, true), Loss::Answers, |chat| {
        chat.conversation(&case.conversation()).unwrap_err()
    });
    assert!(matches!(error, ChatError::NotRendered(_)), "{error}");
    assert!(error.to_string().contains(&case.error.unwrap()), "{error}");
}
