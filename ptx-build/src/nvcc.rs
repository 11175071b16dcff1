//! Where nvcc is.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the toolkit is without being told.
const SYSTEM: &str = "/usr/local/cuda/bin/nvcc";
/// Where the `nvidia-cuda-nvcc` wheel puts it, below a Python environment's `lib/python*`.
const WHEEL: &str = "site-packages/nvidia/cu13/bin/nvcc";

/// An nvcc that is there and may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nvcc {
    /// The program.
    pub path: PathBuf,
}

/// A place where nvcc is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// A path, or the variable that would have named one.
    pub place: String,
    /// Why it gave nothing.
    pub reason: String,
}

/// No nvcc, and where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// Every place, in the order of the search.
    pub tried: Vec<Tried>,
    /// Whether `LTRAIN_NVCC` named the one to use.
    pub asked: bool,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried: Vec<_> = self.tried.iter().map(|t| format!("{} ({})", t.place, t.reason)).collect();
        write!(f, "nvcc not found: tried {}", tried.join(", "))
    }
}

impl std::error::Error for NotFound {}

/// Looks for nvcc: `LTRAIN_NVCC` and nothing else where it is set; otherwise `CUDA_HOME`, `PATH`, `/usr/local/cuda`, and the
/// wheel in the active Python environment, in this order. `env` is the environment.
///
/// # Errors
/// [`NotFound`], with the reason for every place.
pub fn find(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Nvcc, NotFound> {
    let mut tried = Vec::new();
    match search(env, Path::new(SYSTEM), &mut tried) {
        Found::Here(path) => Ok(Nvcc { path }),
        Found::Nowhere { asked } => Err(NotFound { tried, asked }),
    }
}

enum Found {
    Here(PathBuf),
    Nowhere { asked: bool },
}

fn search(env: &dyn Fn(&str) -> Option<OsString>, system: &Path, tried: &mut Vec<Tried>) -> Found {
    let var = |name: &str, tried: &mut Vec<Tried>| {
        let value = env(name).filter(|v| !v.is_empty());
        if value.is_none() {
            tried.push(Tried { place: format!("${name}"), reason: "not set".into() });
        }
        value
    };
    if let Some(path) = var("LTRAIN_NVCC", tried).map(PathBuf::from) {
        return match usable(&path, tried) {
            true => Found::Here(path),
            false => Found::Nowhere { asked: true },
        };
    }
    let home = var("CUDA_HOME", tried).map(|home| Path::new(&home).join("bin/nvcc"));
    if let Some(path) = home.filter(|p| usable(p, tried)) {
        return Found::Here(path);
    }
    if let Some(path) = var("PATH", tried) {
        // One line for the whole variable: nobody reads twenty folders.
        match std::env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|p| unusable(p).is_none()) {
            Some(path) => return Found::Here(path),
            None => tried.push(Tried { place: "$PATH".into(), reason: "no nvcc in its folders".into() }),
        }
    }
    if usable(system, tried) {
        return Found::Here(system.to_path_buf());
    }
    if let Some(python) = var("VIRTUAL_ENV", tried).map(PathBuf::from) {
        let lib = python.join("lib");
        let mut versions: Vec<PathBuf> = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|e| e.path()).collect();
        versions.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python")));
        versions.sort();
        if versions.is_empty() {
            tried.push(Tried { place: lib.join("python*").join(WHEEL).display().to_string(), reason: "missing".into() });
        }
        if let Some(path) = versions.into_iter().map(|v| v.join(WHEEL)).find(|p| usable(p, tried)) {
            return Found::Here(path);
        }
    }
    Found::Nowhere { asked: false }
}

fn usable(path: &Path, tried: &mut Vec<Tried>) -> bool {
    let reason = unusable(path);
    tried.extend(reason.map(|reason| Tried { place: path.display().to_string(), reason: reason.into() }));
    reason.is_none()
}

/// Why a file cannot be run; `None` when it can.
fn unusable(path: &Path) -> Option<&'static str> {
    match path.metadata() {
        Err(_) => Some("missing"),
        Ok(meta) if !meta.is_file() => Some("not a file"),
        Ok(meta) if !executable(&meta) => Some("not executable"),
        Ok(_) => None,
    }
}

#[cfg(unix)]
fn executable(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn executable(_: &std::fs::Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// The search in an environment of `vars`, with the system's place inside the scratch folder.
    fn found(scratch: &Scratch, vars: &[(&str, PathBuf)]) -> Result<PathBuf, NotFound> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone().into_os_string());
        let mut tried = Vec::new();
        match search(&env, &scratch.path("usr/local/cuda/bin/nvcc"), &mut tried) {
            Found::Here(path) => Ok(path),
            Found::Nowhere { asked } => Err(NotFound { tried, asked }),
        }
    }

    #[test]
    fn every_place_is_searched_in_its_order() {
        let s = Scratch::new("order");
        let places = [
            ("asked/my-nvcc", ("LTRAIN_NVCC", "asked/my-nvcc")),
            ("home/bin/nvcc", ("CUDA_HOME", "home")),
            ("path/nvcc", ("PATH", "path")),
            ("usr/local/cuda/bin/nvcc", ("LANG", "")),
            ("venv/lib/python3.12/site-packages/nvidia/cu13/bin/nvcc", ("VIRTUAL_ENV", "venv")),
        ];
        let vars: Vec<_> = places.iter().map(|(_, (name, value))| (*name, s.path(value))).collect();
        for (file, _) in places {
            s.program(file, "#!/bin/sh\n");
        }
        for (i, (file, _)) in places.iter().enumerate() {
            assert_eq!(found(&s, &vars[i..]), Ok(s.path(file)));
            std::fs::remove_file(s.path(file)).unwrap();
        }
    }

    #[test]
    fn an_nvcc_that_was_asked_for_is_the_only_one_tried() {
        let s = Scratch::new("asked");
        s.program("usr/local/cuda/bin/nvcc", "#!/bin/sh\n");
        let error = found(&s, &[("LTRAIN_NVCC", s.path("gone"))]).unwrap_err();
        assert!(error.asked);
        assert_eq!(error.to_string(), format!("nvcc not found: tried {} (missing)", s.path("gone").display()));
    }

    #[test]
    fn every_failure_has_its_reason() {
        let s = Scratch::new("reasons");
        s.file("home/bin/nvcc", "not executable");
        std::fs::create_dir_all(s.path("usr/local/cuda/bin/nvcc")).unwrap();
        std::fs::create_dir_all(s.path("venv/lib/python3.11")).unwrap();
        let vars = [("CUDA_HOME", s.path("home")), ("PATH", s.path("path")), ("VIRTUAL_ENV", s.path("venv"))];
        let error = found(&s, &vars).unwrap_err();
        let wheel = "venv/lib/python3.11/site-packages/nvidia/cu13/bin/nvcc";
        let expected = [
            ("$LTRAIN_NVCC".to_string(), "not set"),
            (s.path("home/bin/nvcc").display().to_string(), "not executable"),
            ("$PATH".to_string(), "no nvcc in its folders"),
            (s.path("usr/local/cuda/bin/nvcc").display().to_string(), "not a file"),
            (s.path(wheel).display().to_string(), "missing"),
        ];
        let tried: Vec<_> = error.tried.iter().map(|t| (t.place.clone(), t.reason.as_str())).collect();
        assert_eq!(tried, expected);
        assert!(!error.asked);
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let s = Scratch::new("empty");
        let vars = ["LTRAIN_NVCC", "CUDA_HOME", "PATH", "VIRTUAL_ENV"].map(|name| (name, PathBuf::new()));
        let error = found(&s, &vars).unwrap_err();
        assert_eq!(error.tried.iter().filter(|t| t.reason == "not set").count(), 4);
    }
}
