//! From `.cu` files to cubins and PTX.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Nvcc;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// nvcc's `-arch`.
    pub arch: &'static str,
    /// What comes out: `cubin` runs on that architecture, `ptx` on newer ones too.
    pub kind: &'static str,
}

/// Machine code for A100 and H100, and PTX that the driver translates for what comes after them.
pub const TARGETS: [Target; 3] = [
    Target { arch: "sm_80", kind: "cubin" },
    Target { arch: "sm_90a", kind: "cubin" },
    Target { arch: "compute_90", kind: "ptx" },
];

/// One kernel file compiled for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The `.cu` file.
    pub source: PathBuf,
    /// What it was compiled for.
    pub target: Target,
    /// `<name>.<arch>.<kind>`.
    pub output: PathBuf,
}

/// The kernels of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    folder: PathBuf,
    sources: Vec<PathBuf>,
}

/// Kernels that cannot be compiled.
#[derive(Debug)]
pub enum Error {
    /// The folder cannot be listed.
    Read {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// nvcc cannot be started.
    Start {
        /// The program.
        nvcc: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// nvcc does not like a kernel.
    Compile {
        /// The `.cu` file.
        kernel: PathBuf,
        /// nvcc's `-arch`.
        arch: &'static str,
        /// Everything that nvcc said.
        output: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { folder, source } => write!(f, "cannot list {}: {source}", folder.display()),
            Self::Start { nvcc, source } => write!(f, "cannot start {}: {source}", nvcc.display()),
            Self::Compile { kernel, arch, output } => write!(f, "{} does not compile for {arch}:\n{output}", kernel.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Start { source, .. } => Some(source),
            Self::Compile { .. } => None,
        }
    }
}

impl Kernels {
    /// The `.cu` files of `folder`, by name. Headers are found by the files that include them.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn in_dir(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let list = || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(&folder)?.map(|e| Ok(e?.path())).collect() };
        let mut sources = list().map_err(|source| Error::Read { folder: folder.clone(), source })?;
        sources.retain(|p| p.extension().is_some_and(|e| e == "cu"));
        sources.sort();
        Ok(Self { folder, sources })
    }

    /// Whether there is nothing to compile.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Compiles every kernel for every one of [`TARGETS`] into `out`, which exists.
    ///
    /// # Errors
    /// [`Error::Start`], or [`Error::Compile`] for the first kernel that does not compile.
    pub fn compile(&self, nvcc: &Nvcc, out: impl AsRef<Path>) -> Result<Vec<Compiled>, Error> {
        let pairs = self.sources.iter().flat_map(|source| TARGETS.map(|target| (source, target)));
        pairs.map(|(source, target)| self.compile_one(nvcc, source, target, out.as_ref())).collect()
    }

    fn compile_one(&self, nvcc: &Nvcc, source: &Path, target: Target, out: &Path) -> Result<Compiled, Error> {
        let Target { arch, kind } = target;
        let name = source.file_stem().unwrap_or_default().to_string_lossy();
        let output = out.join(format!("{name}.{arch}.{kind}"));
        // No fast-math: a kernel that wants an approximation says so where it uses it.
        let done = Command::new(&nvcc.path)
            .args(["-std=c++17", &format!("-{kind}"), &format!("-arch={arch}"), "-I"])
            .arg(&self.folder)
            .arg("-o")
            .args([&output, source])
            .output()
            .map_err(|source| Error::Start { nvcc: nvcc.path.clone(), source })?;
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            let output = String::from_utf8_lossy(&said).trim_end().to_string();
            return Err(Error::Compile { kernel: source.to_path_buf(), arch, output });
        }
        Ok(Compiled { source: source.to_path_buf(), target, output })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
    use crate::scratch::Scratch;

    /// A process that starts while another test still writes its program keeps that program busy for a moment.
    fn one_at_a_time() -> MutexGuard<'static, ()> {
        static LOCK: Mutex<()> = Mutex::new(());
        LOCK.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes its arguments where nvcc would write the code; refuses files that hold `bad`.
    const FAKE: &str = "#!/bin/sh
all=\"$*\"
while [ $# -gt 0 ]; do
    case $1 in -o) out=$2; shift;; *.cu) cu=$1;; esac
    shift
done
if grep -q bad \"$cu\"; then echo \"$cu(1): error: bad\" >&2; exit 2; fi
echo \"$all\" > \"$out\"
";

    fn nvcc(scratch: &Scratch) -> Nvcc {
        Nvcc { path: scratch.program("bin/nvcc", FAKE) }
    }

    #[test]
    fn every_kernel_is_compiled_for_every_target() {
        let _lock = one_at_a_time();
        let s = Scratch::new("compile");
        let (a, b) = (s.file("kernels/a.cu", ""), s.file("kernels/b.cu", ""));
        s.file("kernels/simt.cuh", "bad: a header is not compiled by itself");
        s.file("out/keep", "");
        let compiled = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), s.path("out")).unwrap();
        let names: Vec<_> = compiled.iter().map(|c| c.output.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["a.sm_80.cubin", "a.sm_90a.cubin", "a.compute_90.ptx", "b.sm_80.cubin", "b.sm_90a.cubin", "b.compute_90.ptx"]
        );
        assert_eq!(compiled.iter().map(|c| &c.source).collect::<Vec<_>>(), [&a, &a, &a, &b, &b, &b]);
        let said = std::fs::read_to_string(s.path("out/b.compute_90.ptx")).unwrap();
        assert!(said.starts_with("-std=c++17 -ptx -arch=compute_90 -I "), "{said}");
    }

    #[test]
    fn a_broken_kernel_is_named_with_all_that_nvcc_said() {
        let _lock = one_at_a_time();
        let s = Scratch::new("broken");
        let bad = s.file("kernels/x.cu", "bad");
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), s.path("")).unwrap_err();
        let expected = format!("{0} does not compile for sm_80:\n{0}(1): error: bad", bad.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_folder_without_kernels_is_empty_and_a_missing_one_an_error() {
        let s = Scratch::new("nothing");
        s.file("kernels/README.md", "");
        assert!(Kernels::in_dir(s.path("kernels")).unwrap().is_empty());
        assert!(matches!(Kernels::in_dir(s.path("gone")), Err(Error::Read { .. })));
    }

    #[test]
    fn an_nvcc_that_cannot_start_is_named() {
        let _lock = one_at_a_time();
        let s = Scratch::new("start");
        s.file("kernels/a.cu", "");
        let nvcc = Nvcc { path: s.path("gone") };
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc, s.path("")).unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{error}");
    }
}
