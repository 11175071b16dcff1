//! Conversations as tokens, with a mask over everything that the model did not say.
//!
//! Which tokens are an answer's is found by rendering, never by looking for strings. Up to message `i` a conversation is rendered
//! with a generation prompt: this is where the model begins to write. The same conversation with message `i` is where it has
//! ended. Both must be beginnings of the whole. A template with `{% generation %}` blocks says itself what its answers are.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use crate::data::encode::{Encode, MASKED};
use crate::data::format::{Conversation, Plain};
use crate::error::{Error, Explain, Explanation, Result};
use crate::io::chat_template::NotRendered;
use crate::io::{ChatTemplate, TemplateError, TextTokenizer};

/// `--loss`: which tokens of a conversation are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    /// What the model says, and the token that ends it.
    #[default]
    Answers,
    /// Everything.
    All,
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "answers" => Ok(Self::Answers),
            "all" => Ok(Self::All),
            _ => Err(format!("expected answers or all, got {text:?}")),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answers => "answers",
            Self::All => "all",
        })
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
    #[error("where the answer in message {message} begins cannot be told: the chat template writes what precedes it differently")]
    Beginning {
        /// Number of the message, from 1.
        message: usize,
    },
    /// Rendered as the last one, an answer is another text than in the whole.
    #[error("where the answer in message {message} ends cannot be told: the chat template writes earlier turns differently")]
    End {
        /// Number of the message, from 1.
        message: usize,
    },
    /// The tokenizer failed.
    #[error("{0}")]
    Tokenizer(Box<Error>),
}

impl Explain for ChatError {
    fn explain(&self) -> Explanation {
        let marks = "with --loss all everything is learned; or give --chat-template FILE, whose template puts every answer, its end \
                     included, between {% generation %} and {% endgeneration %}, as Transformers' does";
        match self {
            Self::NoTemplate => Explanation::new("E343")
                .fact("looked for: chat_template.jinja, and chat_template in tokenizer_config.json")
                .help("give one with --chat-template FILE, or use the tokenizer of the model's chat version: --tokenizer DIR"),
            Self::Template(error) => error.explain(),
            Self::NotRendered(_) => {
                Explanation::new("E344").help("change or leave out this row, or give another template with --chat-template FILE")
            }
            Self::LeftOut { .. } => {
                Explanation::new("E345").help("leave out such rows, or give a template that knows it with --chat-template FILE")
            }
            Self::Beginning { .. } => Explanation::new("E346")
                .fact("compared: the messages before it with a generation prompt, and the messages up to it")
                .help(marks),
            Self::End { .. } => {
                Explanation::new("E346").fact("compared: the messages up to it, and the whole conversation").help(marks)
            }
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
        let Conversation { messages, tools, .. } = conversation;
        let tools = tools.as_ref();
        let mut answers = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if message["role"] != "assistant" {
                continue;
            }
            let before = template.render(&messages[..i], tools, true)?.text;
            let after = match i + 1 == messages.len() {
                true => whole.to_owned(),
                false => template.render(&messages[..=i], tools, false)?.text,
            };
            if !after.starts_with(&before) {
                return Err(ChatError::Beginning { message: i + 1 });
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

/// Whether the conversation is the same text whatever message `i` says.
fn is_unread(
    template: &ChatTemplate,
    conversation: &Conversation,
    i: usize,
    whole: &str,
) -> std::result::Result<bool, ChatError> {
    let mut messages = conversation.messages.clone();
    let content = messages[i]["content"].as_str().unwrap_or_default();
    messages[i]["content"] = format!("{content}.").into();
    Ok(template.render(&messages, conversation.tools.as_ref(), false)?.text == whole)
}

/// Refuses what a template does not write, as far as it can be told.
fn refuse_left_out(template: &ChatTemplate, conversation: &Conversation, whole: &str) -> std::result::Result<(), ChatError> {
    let unknown = |field: &str| !template.source().contains(field);
    if conversation.tools.is_some() && unknown("tools") {
        return Err(ChatError::LeftOut { what: "the tools".into() });
    }
    for (i, message) in conversation.messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let usual = matches!(role, "system" | "user" | "assistant");
        if !usual && is_unread(template, conversation, i, whole)? {
            return Err(ChatError::LeftOut { what: format!("message {} of the role {role:?}", i + 1) });
        }
        if message.get("tool_calls").is_some() && unknown("tool_calls") {
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
            Loss::Answers if template.marks_answers() => whole.answers,
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
        let template = self.template.iter().flatten().next().map_or("", ChatTemplate::source);
        format!("{} {} {}", self.tokenizer.hash().to_hex(), self.loss, blake3::hash(template.as_bytes()).to_hex())
    }
}
