//! Settings: raw in ([`Settings`]), validated out ([`RunConfig`]), and only the validated travels.

pub mod choices;
pub mod defaults;
pub mod file;
mod model_info;
mod presets;
mod resolve;
pub mod run;
mod settings;
pub mod text;

use std::fmt;
use std::path::PathBuf;

pub use model_info::ModelInfo;
pub use run::RunConfig;
pub use settings::Settings;

use crate::error::{Explain, Explanation};
use crate::units::format_length;

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's key, if it is one setting's fault.
    pub key: Option<String>,
    /// `expected X, got Y`.
    pub what: String,
    /// Where it comes from, such as file and line; absent when the key says it all.
    pub at: Option<String>,
    /// The way out.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with one setting.
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: Some(key.into()), what: what.into(), at: None, help: None }
    }

    /// What another module's check says, with its facts and its way out.
    pub fn from_error(error: &impl Explain) -> Self {
        let Explanation { facts, help, .. } = error.explain();
        Self { key: None, what: error.to_string(), at: (!facts.is_empty()).then(|| facts.join("; ")), help }
    }

    /// Adds the way out.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.what)?;
        self.at.iter().try_for_each(|at| write!(f, " ({at})"))
    }
}

/// A setting or a combination of settings that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A configuration file that is not TOML.
    #[error("{path:?} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// `--set` that is not an assignment.
    #[error("--set: expected KEY=VALUE, got {got:?}")]
    Assignment {
        /// As given.
        got: String,
    },
    /// Nothing to extend.
    #[error("--target {} is not longer than this model's context ({context} tokens)", format_length(*target))]
    NotLonger {
        /// As asked for.
        target: usize,
        /// The model's.
        context: usize,
        /// Where the context comes from.
        from: String,
    },
    /// Every setting that cannot be used.
    #[error("{}", summary(.0))]
    Problems(Vec<Problem>),
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => format!("{} settings cannot be used", many.len()),
    }
}

impl Explain for ConfigError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Syntax { path, line, .. } => Explanation::new("E310").fact(format!("at {}:{line}", path.display())),
            Self::Assignment { .. } => Explanation::new("E201").help("for example --set target=128k"),
            Self::NotLonger { context, from, .. } => Explanation::new("E303").fact(format!("from: {from}")).help(format!(
                "choose a larger --target (for example {}), or fine-tune without extension: --rope keep --target {}",
                format_length(2 * context),
                format_length(*context),
            )),
            Self::Problems(problems) => {
                let mut e = Explanation::new("E307");
                if problems.len() > 1 {
                    e.facts = problems.iter().map(Problem::to_string).collect();
                }
                let helps: Vec<_> = problems.iter().filter_map(|p| p.help.as_deref()).collect();
                match helps.is_empty() {
                    true => e,
                    false => e.help(helps.join("\n")),
                }
            }
        }
    }
}
