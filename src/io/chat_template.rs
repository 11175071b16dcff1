//! Chat templates: Jinja, in the environment that Transformers gives them.

mod json;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::Utf8Error;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value as Json;

use super::files::ModelFiles;
use super::tokenizer::TOKENIZER_CONFIG;
use crate::error::{Explain, Explanation, IoContext, Result};
use crate::report::clock;

/// The template as a file of its own, which wins over [`TOKENIZER_CONFIG`]'s.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// What stands in a rendered text where a `{% generation %}` block begins and ends: two of the code points that Unicode keeps for
/// such uses.
const MARKS: [char; 2] = ['\u{FDD0}', '\u{FDD1}'];
/// How a user gives a template: every command reads the file, those that train have the flag.
pub const GIVEN: &str = "with --chat-template FILE, or to commands without this flag as chat_template.jinja beside the tokenizer";
/// The template's name in its environment.
const NAME: &str = "chat";

/// A template that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // The messages name every field.
pub enum TemplateError {
    /// Jinja that does not parse.
    #[error("the chat template of {from} cannot be used, line {line}: {reason}")]
    Syntax { from: String, line: usize, reason: String },
    /// A file that is not text.
    #[error("the chat template {path:?} is not UTF-8: {cause}")]
    Encoding { path: PathBuf, cause: Utf8Error },
    /// `chat_template` that is neither a template nor a list of them.
    #[error("{path:?}: chat_template: expected a string or a list of named templates with one called default, got {got}")]
    Field { path: PathBuf, got: String },
}

impl Explain for TemplateError {
    fn explain(&self) -> Explanation {
        Explanation::new(match self {
            Self::Syntax { .. } => "E341",
            Self::Field { .. } => "E342",
            Self::Encoding { .. } => "E348",
        })
        .help(format!("give another one {GIVEN}"))
    }
}

/// Why a template did not render a conversation: its own objection or a mistake in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (line {line} of the template)")]
pub struct NotRendered {
    /// The template's own words, or what it did wrong.
    pub reason: String,
    /// Line in the template, from 1.
    pub line: usize,
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// The bytes of it that stand in `{% generation %}` blocks.
    pub answers: Vec<Range<usize>>,
}

/// The template of a tokenizer, as found: a run on text does not care what it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Source {
    /// Jinja, or several of it, and where it was found; a file that is not text is an error for those who need it.
    template: Option<(std::result::Result<Json, Utf8Error>, PathBuf)>,
    /// `bos_token`, `eos_token` and the like.
    tokens: Vec<(String, String)>,
}

impl Source {
    /// Looks beside a tokenizer whose settings are `config`.
    ///
    /// # Errors    An unreadable file; the template itself is not looked at.
    pub fn find(files: &ModelFiles, config: Option<&Json>) -> Result<Self> {
        let token = |(key, value): (&String, &Json)| {
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            key.ends_with("_token").then(|| (key.clone(), token.to_owned()))
        };
        let tokens = config.and_then(Json::as_object).map(|c| c.iter().filter_map(token).collect()).unwrap_or_default();
        let template = match files.read(CHAT_TEMPLATE)? {
            Some(bytes) => Some((std::str::from_utf8(&bytes).map(Json::from), files.at(CHAT_TEMPLATE))),
            None => {
                let field = config.and_then(|config| config.get("chat_template")).filter(|field| !field.is_null());
                field.map(|field| (Ok(field.clone()), files.at(TOKENIZER_CONFIG)))
            }
        };
        Ok(Self { template, tokens })
    }
}

/// A template, or the one called `default` of several.
fn default_of<'a>(field: &'a Json, path: &Path) -> std::result::Result<&'a str, TemplateError> {
    let refused = |got: String| TemplateError::Field { path: path.into(), got };
    match field {
        Json::String(template) => Ok(template),
        Json::Array(items) => {
            let name = |item: &'a Json| item["name"].as_str();
            let default = items.iter().find(|item| name(item) == Some("default")).and_then(|item| item["template"].as_str());
            default.ok_or_else(|| {
                let names: Vec<_> = items.iter().filter_map(name).collect();
                refused(format!("templates called {}", names.join(", ")))
            })
        }
        other => Err(refused(other.to_string())),
    }
}

/// A compiled template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// What `strftime_now` takes for now, in seconds since 1970.
    now: f64,
    marks: bool,
    tokens: Vec<(String, String)>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// The template of `given`, or else the tokenizer's; `None` where there is neither.
    ///
    /// # Errors    An unreadable file, [`TemplateError`].
    pub(super) fn open(found: &Source, given: Option<&Path>) -> Result<Option<Self>> {
        let not_text = |path: &Path, cause| TemplateError::Encoding { path: path.into(), cause };
        let (text, from) = match (given, &found.template) {
            (Some(path), _) => {
                let text = String::from_utf8(std::fs::read(path).context("read", path)?);
                (text.map_err(|e| not_text(path, e.utf8_error()))?, path)
            }
            (None, Some((Ok(field), path))) => (default_of(field, path)?.to_owned(), path.as_path()),
            (None, Some((Err(cause), path))) => return Err(not_text(path, *cause).into()),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self::compile(text, &from.display().to_string(), found.tokens.clone())?))
    }

    fn compile(source: String, from: &str, tokens: Vec<(String, String)>) -> std::result::Result<Self, TemplateError> {
        let (marked, marks) = with_marks(&source);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("chat template: the usual delimiters"));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        // To MiniJinja nothing is iterable, and empty; templates ask this before they ask for a length.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let now = today();
        environment.add_function("strftime_now", move |format: String| {
            let unknown = |what| Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{what}"));
            clock::strftime(&format, now).map_err(unknown)
        });
        environment.add_template_owned(NAME, marked).map_err(|e| {
            let NotRendered { reason, line } = not_rendered(&e);
            TemplateError::Syntax { from: from.into(), line, reason }
        })?;
        Ok(Self { environment, source, now, marks, tokens })
    }

    /// Changes whenever conversations may render differently: the template, and the day where it writes a date.
    pub fn identity(&self) -> String {
        let hash = blake3::hash(self.source.as_bytes()).to_hex();
        if self.source.contains("strftime_now") { format!("{hash} {}", clock::iso(self.now)) } else { hash.to_string() }
    }

    /// Whether answers are in `{% generation %}` blocks.
    pub fn marks_answers(&self) -> bool {
        self.marks
    }

    /// Renders `messages`, objects with `role` and `content`; with `prompt`, up to where the model begins its answer
    /// (`add_generation_prompt`).
    ///
    /// # Errors    [`NotRendered`] with the template's own words when it raises an exception.
    pub fn render(&self, messages: &[Json], tools: Option<&Json>, prompt: bool) -> std::result::Result<Rendered, NotRendered> {
        if self.marks && messages.iter().any(|m| m.to_string().contains(MARKS)) {
            let reason = "a message contains U+FDD0 or U+FDD1, which stand for no character".to_owned();
            return Err(NotRendered { reason, line: 1 });
        }
        let own = [
            ("messages", Value::from(Serde(messages))),
            ("tools", Value::from(Serde(tools))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(prompt)),
        ];
        let tokens = self.tokens.iter().map(|(key, token)| (key.as_str(), Value::from(token.as_str())));
        let context: BTreeMap<&str, Value> = tokens.chain(own).collect();
        let template = self.environment.get_template(NAME).expect("chat template: it was added");
        let text = template.render(Value::from(context)).map_err(|e| not_rendered(&e))?;
        Ok(if self.marks { without_marks(&text) } else { Rendered { text, answers: Vec::new() } })
    }
}

/// The first second of this day: rows made on the same day are the same.
fn today() -> f64 {
    const DAY: f64 = 86400.0;
    (clock::now() / DAY).floor() * DAY
}

fn not_rendered(error: &Error) -> NotRendered {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    NotRendered { reason, line: error.line().unwrap_or(1) }
}

/// The template with marks in place of its `{% generation %}` tags, and whether it had any.
///
/// Comments and raw text are left as they are. A block stays a block, so that what is set inside is not seen outside, and white
/// space around its tags goes as before.
fn with_marks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let (mut rest, mut found, mut raw) = (source, false, false);
    while let Some(at) = if raw { rest.find("{%") } else { first_of(rest, ["{%", "{{", "{#"]) } {
        let close = match &rest[at..at + 2] {
            "{%" => "%}",
            "{{" => "}}",
            _ => "#}",
        };
        let Some(length) = rest[at + 2..].find(close) else { break };
        let (tag, after) = (&rest[at + 2..at + 2 + length], at + length + 4);
        let name = if close == "%}" { tag.trim_matches(strips).trim() } else { "" };
        let left = tag.chars().next().filter(|c| strips(*c)).map(String::from).unwrap_or_default();
        let right = tag.chars().last().filter(|c| strips(*c)).map(String::from).unwrap_or_default();
        let [begin, end] = MARKS;
        out.push_str(&rest[..at]);
        match name {
            "generation" if !raw => out.push_str(&format!("{{%{left} with %}}{begin}{{% if true %}}{{% endif {right}%}}")),
            "endgeneration" if !raw => {
                out.push_str(&format!("{{%{left} if true %}}{{% endif %}}{end}{{% endwith {right}%}}"));
            }
            _ => out.push_str(&rest[at..after]),
        }
        found |= name == "generation" && !raw;
        raw = name == "raw" || raw && name != "endraw";
        rest = &rest[after..];
    }
    out.push_str(rest);
    (out, found)
}

/// Signs at the ends of a tag that say what becomes of the white space around it.
fn strips(c: char) -> bool {
    matches!(c, '-' | '+')
}

/// Where the first of these begins.
fn first_of(text: &str, wanted: [&str; 3]) -> Option<usize> {
    wanted.iter().filter_map(|wanted| text.find(wanted)).min()
}

/// Takes the marks out of a rendered text.
fn without_marks(marked: &str) -> Rendered {
    let [begin, end] = MARKS;
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), answers: Vec::new() };
    for piece in marked.split_inclusive(MARKS) {
        let plain = piece.trim_end_matches(MARKS);
        rendered.text.push_str(plain);
        let at = rendered.text.len();
        if piece.ends_with(begin) {
            rendered.answers.push(at..at);
        } else if piece.ends_with(end)
            && let Some(open) = rendered.answers.last_mut()
        {
            open.end = at;
        }
    }
    rendered
}
