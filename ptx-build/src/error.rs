//! What can go wrong while kernels are built.

use std::fmt;
use std::path::PathBuf;

use crate::signature::GrammarError;

/// Kernels that cannot be built.
#[derive(Debug)]
pub enum Error {
    /// A folder or file cannot be read.
    Read {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    Write {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A signature is outside the grammar.
    Grammar(GrammarError),
    /// Two kernels have one name.
    Twice {
        /// The name.
        kernel: String,
    },
    /// A compiler cannot be started.
    Start {
        /// The program.
        compiler: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A compiler does not like a file.
    Compile {
        /// The file.
        file: PathBuf,
        /// nvcc's `-arch`, or `the host`.
        arch: &'static str,
        /// Everything that the compiler said.
        output: String,
    },
    /// nvcc left a kernel out.
    Lost {
        /// The file.
        file: PathBuf,
        /// nvcc's `-arch`.
        arch: &'static str,
        /// The kernel.
        kernel: String,
    },
    /// nvcc does not say whether a kernel lives in registers that must.
    Untold {
        /// The file.
        file: PathBuf,
        /// nvcc's `-arch`.
        arch: &'static str,
        /// The kernel.
        kernel: String,
        /// Everything that nvcc said.
        output: String,
    },
    /// An nvcc that nobody asked for fails.
    Found {
        /// The program.
        nvcc: PathBuf,
        /// How it fails.
        source: Box<Error>,
    },
    /// A kernel that must live in registers does not.
    Spills {
        /// The file.
        file: PathBuf,
        /// nvcc's `-arch`.
        arch: &'static str,
        /// The kernel.
        kernel: String,
        /// Bytes of its stack frame.
        stack: u32,
        /// Bytes written to and read from memory for want of registers.
        spilled: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Self::Grammar(error) => error.fmt(f),
            Self::Twice { kernel } => write!(f, "two kernels are called {kernel}"),
            Self::Start { compiler, source } => write!(f, "cannot start {}: {source}", compiler.display()),
            Self::Compile { file, arch, output } => write!(f, "{} does not compile for {arch}:\n{output}", file.display()),
            Self::Lost { file, arch, kernel } => write!(f, "{}: nvcc made no {kernel} for {arch}", file.display()),
            Self::Untold { file, arch, kernel, output } => write!(
                f,
                "{}: nvcc does not say what stack and spills {kernel} has on {arch}, in words that ptx-build/src/compile.rs knows:\n\
                 {output}",
                file.display()
            ),
            Self::Found { nvcc, source } => write!(
                f,
                "{source}\n{} was found, not asked for: LTRAIN_NVCC names another, LTRAIN_NVCC=none builds without GPU kernels",
                nvcc.display()
            ),
            Self::Spills { file, arch, kernel, stack, spilled } => write!(
                f,
                "{}: {kernel} does not fit into the registers of {arch}: {stack} bytes of stack, {spilled} bytes spilled",
                file.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Start { source, .. } => Some(source),
            Self::Grammar(error) => Some(error),
            Self::Found { source, .. } => Some(source),
            Self::Twice { .. } | Self::Compile { .. } | Self::Lost { .. } | Self::Untold { .. } | Self::Spills { .. } => None,
        }
    }
}
