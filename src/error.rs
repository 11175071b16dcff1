//! One error type at the library's door, one enum per domain behind it.
//!
//! Every domain error says *what* happened in its message and explains itself through [`Explain`]: a stable code,
//! the facts that were compared, and what to do next. The binary prints the three parts and exits with the code's class.

use std::fmt;
use std::path::{Path, PathBuf};

/// The parts of an error that a user needs besides its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Stable code such as `E301`; its first digit is the process's exit code.
    pub code: &'static str,
    /// Facts, one per line: where it happened, which two values were compared.
    pub facts: Vec<String>,
    /// The next action, possibly several lines.
    pub help: Option<String>,
}

impl Explanation {
    /// An explanation with a code alone.
    pub fn new(code: &'static str) -> Self {
        Self { code, facts: Vec::new(), help: None }
    }

    /// Adds one fact.
    pub fn fact(mut self, fact: impl Into<String>) -> Self {
        self.facts.push(fact.into());
        self
    }

    /// Sets the next action.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The process exit code: the class of the error (2 usage, 3 data or config, 4 memory, 5 device, 6 file, 7 disk,
    /// 8 diverged, 9 resume).
    pub fn exit_code(&self) -> u8 {
        self.code.as_bytes().get(1).map_or(1, |digit| digit.saturating_sub(b'0'))
    }
}

/// Implemented by every domain error.
pub trait Explain: std::error::Error {
    /// Code, facts and help for this error.
    fn explain(&self) -> Explanation;
}

macro_rules! domains {
    ($($(#[$doc:meta])* $variant:ident($ty:ty),)*) => {
        /// Any error of the library.
        #[derive(Debug, thiserror::Error)]
        pub enum Error {
            $($(#[$doc])* #[error(transparent)] $variant(#[from] $ty),)*
        }

        impl Explain for Error {
            fn explain(&self) -> Explanation {
                match self { $(Error::$variant(e) => e.explain(),)* }
            }
        }
    };
}

domains! {
    /// A shape, rank or storage type that an op does not accept: a bug of ours, or a model file that lies.
    Tensor(crate::tensor::TensorError),
    /// A file that cannot be read or written.
    Io(IoError),
    /// A model, tokenizer or adapter folder that cannot be used.
    Model(crate::io::ModelError),
    /// A chat template that cannot be used.
    Template(crate::io::TemplateError),
    /// A setting or a combination of settings that makes no sense.
    Config(crate::config::ConfigError),
    /// Text that cannot be used.
    Data(crate::data::DataError),
    /// A selection of tokens that cannot be used.
    Selection(crate::data::selection::SelectionError),
    /// Synthetic text that was not asked for properly.
    Synthetic(crate::data::synthetic::SyntheticError),
    /// A device that was asked for and is not there.
    Device(crate::backend::DeviceError),
    /// A run that a device has no room for.
    Memory(crate::plan::DoesNotFit),
    /// A device that failed while it worked.
    Fault(crate::backend::device::Fault),
    /// A run that its device ends.
    Run(crate::run::RunError),
    /// A training run that cannot go on.
    Train(crate::train::TrainError),
    /// A checkpoint that cannot be written, read or continued.
    Checkpoint(crate::checkpoint::CheckpointError),
    /// Kernels that could not be measured.
    Bench(crate::bench::Unmeasured),
    /// A model that cannot be measured or asked.
    Eval(crate::eval::EvalError),
}

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

/// An operating-system error with the path it belongs to.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {path:?}: {source}")]
pub struct IoError {
    /// What was tried, as a verb: `read`, `create`, `rename`.
    pub action: &'static str,
    /// The path it was tried on.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

impl Explain for IoError {
    fn explain(&self) -> Explanation {
        use std::io::ErrorKind::*;
        match self.source.kind() {
            StorageFull | QuotaExceeded => Explanation::new("E701")
                .help("free some space and run the same command again: it continues from the last good checkpoint"),
            PermissionDenied | ReadOnlyFilesystem => {
                Explanation::new("E702").help("choose a folder you may write to with --out DIR, or change its permissions")
            }
            NotFound | NotADirectory | AlreadyExists if self.action == "create" => Explanation::new("E702")
                .help("no folder can be made there, perhaps because a file is in the way: choose another one with --out DIR"),
            NotFound | NotADirectory => {
                Explanation::new("E305").help("check the path; relative paths start at the current directory")
            }
            IsADirectory => Explanation::new("E305").help("this is a folder; give the path of a file"),
            _ => Explanation::new("E602"),
        }
    }
}

/// Attaches the path and the verb to an `std::io::Error`.
pub trait IoContext<T> {
    /// Turns the error into [`IoError`].
    fn context(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| IoError { action, path: path.to_path_buf(), source }.into())
    }
}

/// Prints an error the way the terminal shows it: sentence, facts, help.
pub struct Shown<'a>(pub &'a Error);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { code, facts, help } = self.0.explain();
        write!(f, "error[{code}]: {}", self.0)?;
        for fact in facts {
            write!(f, "\n  {}", fact.replace('\n', "\n  "))?;
        }
        if let Some(help) = help {
            write!(f, "\n  help: {}", help.replace('\n', "\n        "))?;
        }
        Ok(())
    }
}
