//! Conversations as tokens, with a mask over everything that the model did not say.
//!
//! Which tokens are an answer's is found by rendering, never by looking for strings. Up to message `i` a conversation is rendered
//! with a generation prompt: this is where the model begins to write. The same conversation with message `i` is where it has
//! ended. Both must be beginnings of the whole. A template with `{% generation %}` blocks says itself what its answers are.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::data::encode::{Encode, MASKED};
use crate::data::format::{Conversation, Plain};
use crate::error::{Error, Explain, Explanation, Result};
use crate::io::chat_template::{GIVEN, NotRendered};
use crate::io::{ChatTemplate, TemplateError, TextTokenizer};

choices! {
    /// `--loss`: which tokens of a conversation are predicted.
    #[derive(Default)]
    Loss {
        /// What the model says, and the token that ends it.
        #[default]
        Answers = "answers",
        /// Everything.
        All = "all",
    }
}

/// A conversation that cannot be made into tokens; the row that it is from is added outside.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// Nothing says how conversations are written.
    #[error("the tokenizer has no chat template")]
    NoTemplate,
    /// The tokenizer's template is of no use.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template raised an exception, or is wrong.
    #[error("the chat template does not take it: {0}")]
    NotRendered(#[from] NotRendered),
    /// A role or a field that the template has nothing for.
    #[error("the chat template leaves out {what}")]
    LeftOut {
        /// What would be lost.
        what: String,
    },
    /// Rendered without it, what precedes an answer is another text than with it.
    #[error("where the answer in message {message} begins cannot be told: the chat template {reason}")]
    Beginning {
        /// Number of the message, from 1.
        message: usize,
        /// What the template does with what precedes it.
        reason: String,
    },
    /// Rendered as the last one, an answer is another text than in the whole.
    #[error("where the answer in message {message} ends cannot be told: the chat template writes earlier turns differently")]
    End {
        /// Number of the message, from 1.
        message: usize,
    },
    /// A template with `{% generation %}` blocks of which none was written.
    #[error("none of the answers stands in a {{% generation %}} block of the chat template")]
    Unmarked,
    /// Messages that are not to be learned, in a template that does not say which block is whose.
    #[error(
        "which answers have the weight 0 cannot be told: the chat template has {blocks} {{% generation %}} blocks for {answers} answers"
    )]
    Weights {
        /// Blocks in the rendered text.
        blocks: usize,
        /// Messages of the assistant.
        answers: usize,
    },
    /// The tokenizer failed.
    #[error("{0}")]
    Tokenizer(Box<Error>),
}

impl Explain for ChatError {
    fn explain(&self) -> Explanation {
        let other = |what: &str| format!("{what} {GIVEN}");
        let marks = "with --loss all everything is learned; or give --chat-template FILE, whose template puts every answer, its end \
                     included, between {% generation %} and {% endgeneration %}, as Transformers' does";
        match self {
            Self::NoTemplate => Explanation::new("E343")
                .fact("looked for: chat_template.jinja, and chat_template in tokenizer_config.json")
                .help(other("use the tokenizer of the model's chat version (--tokenizer DIR), or give a template")),
            Self::Template(error) => error.explain(),
            Self::NotRendered(_) => {
                Explanation::new("E344").help(other("change or leave out this row, or give another template"))
            }
            Self::LeftOut { .. } => {
                Explanation::new("E345").help(other("leave out such rows, or give a template that knows it"))
            }
            Self::Beginning { .. } => Explanation::new("E346")
                .fact("compared: the messages before it with a generation prompt, and the messages up to it")
                .help(marks),
            Self::End { .. } => {
                Explanation::new("E346").fact("compared: the messages up to it, and the whole conversation").help(marks)
            }
            Self::Unmarked => Explanation::new("E349")
                .help("put every answer of the template, its end included, into such a block, or none; or --loss all, which learns everything"),
            Self::Weights { .. } => Explanation::new("E349")
                .help("give a template with one block for every message of the assistant, or with none; or leave out the weights"),
            Self::Tokenizer(error) => error.explain(),
        }
    }
}

/// A tokenizer that knows conversations.
#[derive(Debug)]
pub struct ChatTokenizer<'a> {
    tokenizer: &'a TextTokenizer,
    template: std::result::Result<Option<ChatTemplate>, TemplateError>,
    loss: Loss,
}

impl<'a> ChatTokenizer<'a> {
    /// With the template in the file `given`, or else the tokenizer's own.
    ///
    /// # Errors    A file that cannot be read or does not parse. That the tokenizer has none, or one of no use, shows at the first
    /// conversation: text needs none.
    pub fn new(tokenizer: &'a TextTokenizer, given: Option<&Path>, loss: Loss) -> Result<Self> {
        let template = match tokenizer.chat_template(given) {
            Ok(template) => Ok(template),
            Err(Error::Template(error)) if given.is_none() => Err(error),
            Err(error) => return Err(error),
        };
        Ok(Self { tokenizer, template, loss })
    }

    /// Ids of `text`; those that stand outside of `answers` are masked.
    fn masked(&self, text: &str, answers: &[Range<usize>]) -> std::result::Result<Vec<u32>, ChatError> {
        let spans = self.tokenizer.encode_spans(text).map_err(|e| ChatError::Tokenizer(Box::new(e)))?;
        let mut ids = spans.ids;
        if self.loss == Loss::All {
            return Ok(ids);
        }
        let mut answers = answers.iter().peekable();
        for (id, bytes) in ids.iter_mut().zip(&spans.bytes) {
            // A token of no bytes, as some tokenizers put in front of a text, belongs to what follows.
            let (start, end) = (bytes.start, bytes.end.max(bytes.start + 1));
            while answers.next_if(|answer| answer.end <= start).is_some() {}
            if answers.peek().is_none_or(|answer| end <= answer.start) {
                *id |= MASKED;
            }
        }
        Ok(ids)
    }

    /// A prompt and its answer between the first and the last token of a text.
    fn plain(&self, Plain { prompt, answer }: &Plain) -> std::result::Result<Vec<u32>, ChatError> {
        let text = format!("{prompt}{answer}");
        let learned = prompt.len()..text.len();
        let ids = self.masked(&text, std::slice::from_ref(&learned))?;
        let masks = if self.loss == Loss::Answers { MASKED } else { 0 };
        let bos = self.tokenizer.bos().map(|id| id | masks);
        Ok(bos.into_iter().chain(ids).chain(self.tokenizer.eos()).collect())
    }

    /// The bytes of every answer in `whole`, by rendering the conversation up to each.
    fn answers(
        &self,
        template: &ChatTemplate,
        conversation: &Conversation,
        whole: &str,
    ) -> std::result::Result<Vec<Range<usize>>, ChatError> {
        let Conversation { messages, tools, ignored, .. } = conversation;
        let tools = tools.as_ref();
        let mut answers = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message["role"] != "assistant" || ignored.contains(&i) {
                continue;
            }
            let unclear = |reason| ChatError::Beginning { message: i + 1, reason };
            // Many a template raises an exception, or asks for the first message, where there is none.
            let alone = |e: NotRendered| unclear(format!("does not take what precedes it alone: {e}"));
            let before = template.render(&messages[..i], tools, true).map_err(alone)?.text;
            let after = match i + 1 == messages.len() {
                true => whole.to_owned(),
                false => template.render(&messages[..=i], tools, false)?.text,
            };
            if !after.starts_with(&before) {
                return Err(unclear("writes what precedes it differently".into()));
            }
            if !whole.starts_with(&after) {
                return Err(ChatError::End { message: i + 1 });
            }
            answers.push(before.len()..self.end_of_turn(&after, before.len())?);
        }
        Ok(answers)
    }

    /// Where the answer that begins at `start` and is the last of `text` ends: behind its last token that has a name, if only white
    /// space follows, which is the template's and which a model never gets to write.
    fn end_of_turn(&self, text: &str, start: usize) -> std::result::Result<usize, ChatError> {
        let answer = &text[start..];
        if answer.trim_end().len() == answer.len() {
            return Ok(text.len());
        }
        let spans = self.tokenizer.encode_spans(answer).map_err(|e| ChatError::Tokenizer(Box::new(e)))?;
        let named = |(id, bytes): (&u32, &Range<usize>)| {
            let inked = answer.get(bytes.clone()).is_some_and(|token| !token.trim().is_empty());
            (inked && self.tokenizer.is_added(*id)).then_some(bytes.end)
        };
        let last = spans.ids.iter().zip(&spans.bytes).rev().find_map(named);
        let ends = last.filter(|&end| answer[end..].trim().is_empty());
        Ok(ends.map_or(text.len(), |end| start + end))
    }
}

/// The bytes of the answers that a template marked, without those that are not to be learned.
fn marked(conversation: &Conversation, blocks: Vec<Range<usize>>) -> std::result::Result<Vec<Range<usize>>, ChatError> {
    let said = conversation.messages.iter().enumerate().filter(|(_, message)| message["role"] == "assistant");
    let learned: Vec<bool> = said.map(|(i, _)| !conversation.ignored.contains(&i)).collect();
    match (learned.iter().all(|&learned| learned), blocks.len() == learned.len()) {
        (true, _) if blocks.is_empty() && !learned.is_empty() => Err(ChatError::Unmarked),
        (true, _) => Ok(blocks),
        (false, true) => Ok(blocks.into_iter().zip(learned).filter_map(|(block, learned)| learned.then_some(block)).collect()),
        (false, false) => Err(ChatError::Weights { blocks: blocks.len(), answers: learned.len() }),
    }
}

/// Refuses what a template does not write: what can be changed, or taken away, and the text stays the same. That a template does not
/// take the change says that it reads it.
fn refuse_left_out(template: &ChatTemplate, conversation: &Conversation, whole: &str) -> std::result::Result<(), ChatError> {
    let Conversation { messages, tools, .. } = conversation;
    let is_same = |messages: &[Value], tools| template.render(messages, tools, false).is_ok_and(|other| other.text == whole);
    let same_with = |i: usize, change: &dyn Fn(&mut Value)| {
        let mut messages = messages.clone();
        change(&mut messages[i]);
        is_same(&messages, tools.as_ref())
    };
    if tools.is_some() && is_same(messages, None) {
        return Err(ChatError::LeftOut { what: "the tools".into() });
    }
    let mut behind = 0;
    for (i, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let content = message["content"].as_str().unwrap_or_default();
        let longer = |message: &mut Value| message["content"] = format!("{content}.").into();
        // To render once more for each of many turns would be slow, and templates write these two roles as they are, one behind the other.
        let spoken = content.trim();
        let place = matches!(role, "user" | "assistant").then(|| whole[behind..].find(spoken)).flatten();
        behind += place.map_or(0, |at| at + spoken.len());
        if place.is_none() && same_with(i, &longer) {
            return Err(ChatError::LeftOut { what: format!("message {} of the role {role:?}", i + 1) });
        }
        let without_calls = |message: &mut Value| {
            message.as_object_mut().map(|fields| fields.remove("tool_calls"));
        };
        let calls = message.get("tool_calls").filter(|calls| **calls != Value::Array(Vec::new()));
        if calls.is_some() && same_with(i, &without_calls) {
            return Err(ChatError::LeftOut { what: format!("the tool calls of message {}", i + 1) });
        }
    }
    Ok(())
}

impl Encode for ChatTokenizer<'_> {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn conversation(&self, conversation: &Conversation) -> std::result::Result<Vec<u32>, ChatError> {
        let template = match (&self.template, &conversation.plain) {
            (Err(error), _) => return Err(error.clone().into()),
            (Ok(Some(template)), _) => template,
            (Ok(None), Some(plain)) => return self.plain(plain),
            (Ok(None), None) => return Err(ChatError::NoTemplate),
        };
        let whole = template.render(&conversation.messages, conversation.tools.as_ref(), false)?;
        refuse_left_out(template, conversation, &whole.text)?;
        let answers = match self.loss {
            Loss::All => Vec::new(),
            Loss::Answers if template.marks_answers() => marked(conversation, whole.answers)?,
            Loss::Answers => self.answers(template, conversation, &whole.text)?,
        };
        self.masked(&whole.text, &answers)
    }

    fn bos(&self) -> Option<u32> {
        self.tokenizer.bos()
    }

    fn eos(&self) -> Option<u32> {
        self.tokenizer.eos()
    }

    fn identity(&self) -> String {
        let template = self.template.iter().flatten().next().map(ChatTemplate::identity).unwrap_or_default();
        format!("{} {} {template}", self.tokenizer.hash().to_hex(), self.loss)
    }
}
