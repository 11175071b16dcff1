//! Where nvcc is.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the toolkit is without being told.
const SYSTEM: &str = "/usr/local/cuda/bin/nvcc";
/// Where the `nvidia-cuda-nvcc` wheel puts it, below a Python environment's `lib/python*`.
const WHEEL: &str = "site-packages/nvidia/cu13/bin/nvcc";

/// The value of `LTRAIN_NVCC` that wants none.
const OFF: &str = "none";
/// The first CUDA that compiles for `sm_90a`.
const OLDEST: u32 = 12;

/// An nvcc that runs and is new enough.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nvcc {
    /// The program.
    pub path: PathBuf,
    /// What it says of its version.
    pub version: String,
    /// Whether `LTRAIN_NVCC` named it.
    pub asked: bool,
}

/// A place without an nvcc to use.
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
        write!(f, "no nvcc: tried {}", tried.join(", "))?;
        match self.asked {
            true => write!(f, "; LTRAIN_NVCC={OFF} builds without GPU kernels"),
            false => write!(f, "; LTRAIN_NVCC names one that is elsewhere or comes later"),
        }
    }
}

impl std::error::Error for NotFound {}

/// Looks for nvcc: `LTRAIN_NVCC` and nothing else where it is set; otherwise `CUDA_HOME`, `PATH`, `/usr/local/cuda`, and the
/// wheel in the active Python environment, in this order. What does not run, or cannot compile for every target, is passed
/// over. `env` is the environment; it is asked only for what matters. `None` is for `LTRAIN_NVCC=none`.
///
/// # Errors
/// [`NotFound`], with the reason for every place.
pub fn find(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Nvcc>, NotFound> {
    search(env, Path::new(SYSTEM))
}

fn search(env: &dyn Fn(&str) -> Option<OsString>, system: &Path) -> Result<Option<Nvcc>, NotFound> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let Some(asked) = set("LTRAIN_NVCC") else {
        return search_places(&set, system).map(Some);
    };
    if asked == OFF {
        return Ok(None);
    }
    let place = format!("LTRAIN_NVCC={}", asked.display());
    match version(Path::new(&asked)) {
        Ok(version) => Ok(Some(Nvcc { path: asked.into(), version, asked: true })),
        Err(reason) => Err(NotFound { tried: vec![Tried { place, reason }], asked: true }),
    }
}

/// Looks where nvcc may be when nobody says where.
fn search_places(set: &dyn Fn(&str) -> Option<OsString>, system: &Path) -> Result<Nvcc, NotFound> {
    let mut tried = vec![Tried { place: "$LTRAIN_NVCC".into(), reason: "not set".into() }];
    let var = |name: &str, tried: &mut Vec<Tried>| {
        let value = set(name);
        if value.is_none() {
            tried.push(Tried { place: format!("${name}"), reason: "not set".into() });
        }
        value
    };
    let usable = |path: PathBuf, tried: &mut Vec<Tried>| match version(&path) {
        Ok(version) => Some(Nvcc { path, version, asked: false }),
        Err(reason) => {
            tried.push(Tried { place: path.display().to_string(), reason });
            None
        }
    };
    let home = var("CUDA_HOME", &mut tried).map(|home| Path::new(&home).join("bin/nvcc"));
    if let Some(nvcc) = home.and_then(|path| usable(path, &mut tried)) {
        return Ok(nvcc);
    }
    if let Some(path) = var("PATH", &mut tried) {
        // One line for all folders without one: nobody reads twenty.
        let there: Vec<_> = std::env::split_paths(&path).map(|folder| folder.join("nvcc")).filter(|p| p.exists()).collect();
        if there.is_empty() {
            tried.push(Tried { place: "$PATH".into(), reason: "no nvcc in its folders".into() });
        }
        if let Some(nvcc) = there.into_iter().find_map(|path| usable(path, &mut tried)) {
            return Ok(nvcc);
        }
    }
    if let Some(nvcc) = usable(system.to_path_buf(), &mut tried) {
        return Ok(nvcc);
    }
    if let Some(python) = var("VIRTUAL_ENV", &mut tried).map(PathBuf::from) {
        let lib = python.join("lib");
        let mut versions: Vec<PathBuf> = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|e| e.path()).collect();
        versions.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python")));
        versions.sort();
        if versions.is_empty() {
            tried.push(Tried { place: lib.join("python*").join(WHEEL).display().to_string(), reason: "missing".into() });
        }
        if let Some(nvcc) = versions.into_iter().map(|v| v.join(WHEEL)).find_map(|path| usable(path, &mut tried)) {
            return Ok(nvcc);
        }
    }
    Err(NotFound { tried, asked: false })
}

/// What an nvcc says of its version, or why it is not to be used.
fn version(path: &Path) -> Result<String, String> {
    match path.metadata() {
        Err(_) => return Err("missing".into()),
        Ok(meta) if !meta.is_file() => return Err("not a file".into()),
        Ok(_) => {}
    }
    let done = Command::new(path).arg("--version").output().map_err(|error| format!("cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout).trim_end().to_string();
    let release = said.split_once(" release ").and_then(|(_, rest)| rest.split(',').next());
    match release.and_then(|r| Some((r, r.split('.').next()?.parse::<u32>().ok()?))) {
        None => Err("its --version names no release".into()),
        Some((release, major)) if major < OLDEST => Err(format!("CUDA {release}, older than {OLDEST}.0")),
        Some(_) => Ok(said),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// The search in an environment of `vars`, with the system's place inside the scratch folder.
    fn found(scratch: &Scratch, vars: &[(&str, PathBuf)]) -> Result<PathBuf, NotFound> {
        let env = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone().into_os_string());
        let found = search(&env, &scratch.path("usr/local/cuda/bin/nvcc"))?;
        Ok(found.expect("no test of places wants none").path)
    }

    /// [`find`] where nothing but `LTRAIN_NVCC` may be looked at.
    fn asked(value: &str) -> Result<Option<Nvcc>, NotFound> {
        find(&|name| {
            assert_eq!(name, "LTRAIN_NVCC");
            Some(value.into())
        })
    }

    /// A program that says it is nvcc of this release.
    fn release(scratch: &Scratch, file: &str, release: &str) -> PathBuf {
        let said = format!("Cuda compilation tools, release {release}, V{release}.88");
        scratch.program(file, &format!("#!/bin/sh\n[ $1 = --version ] && echo '{said}'\n"))
    }

    #[test]
    fn every_place_is_searched_in_its_order() {
        let s = Scratch::new("order");
        let places = [
            ("home/bin/nvcc", ("CUDA_HOME", "home")),
            ("path/nvcc", ("PATH", "path")),
            ("usr/local/cuda/bin/nvcc", ("LANG", "")),
            ("venv/lib/python3.12/site-packages/nvidia/cu13/bin/nvcc", ("VIRTUAL_ENV", "venv")),
        ];
        let vars: Vec<_> = places.iter().map(|(_, (name, value))| (*name, s.path(value))).collect();
        for (file, _) in places {
            release(&s, file, "13.0");
        }
        for (i, (file, _)) in places.iter().enumerate() {
            assert_eq!(found(&s, &vars), Ok(s.path(file)));
            assert_eq!(found(&s, &vars[i..]), Ok(s.path(file)));
            // Too old is passed over as if it were not there.
            release(&s, file, "11.8");
        }
        let error = found(&s, &vars).unwrap_err();
        let old = error.tried.iter().filter(|t| t.reason == "CUDA 11.8, older than 12.0");
        assert_eq!(old.map(|t| PathBuf::from(&t.place)).collect::<Vec<_>>(), places.map(|(file, _)| s.path(file)));
    }

    #[test]
    fn an_nvcc_that_was_asked_for_is_the_only_one_tried() {
        let s = Scratch::new("asked");
        let path = release(&s, "my-nvcc", "12.0").display().to_string();
        let nvcc = asked(&path).unwrap().unwrap();
        assert!(nvcc.asked && nvcc.path == s.path("my-nvcc") && nvcc.version.contains("release 12.0"), "{nvcc:?}");
        release(&s, "my-nvcc", "11.8");
        for (value, reason) in [(path, "CUDA 11.8, older than 12.0"), (s.path("gone").display().to_string(), "missing")] {
            let error = asked(&value).unwrap_err();
            assert!(error.asked);
            let expected = format!("no nvcc: tried LTRAIN_NVCC={value} ({reason}); LTRAIN_NVCC=none builds without GPU kernels");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn none_can_be_asked_for() {
        assert_eq!(asked("none"), Ok(None));
    }

    #[test]
    fn every_failure_has_its_reason() {
        let s = Scratch::new("reasons");
        s.file("home/bin/nvcc", "not executable");
        std::fs::create_dir_all(s.path("usr/local/cuda/bin/nvcc")).unwrap();
        std::fs::create_dir_all(s.path("venv/lib/python3.11")).unwrap();
        s.program("venv/lib/python3.12/site-packages/nvidia/cu13/bin/nvcc", "#!/bin/sh\necho hello\n");
        let vars = [("CUDA_HOME", s.path("home")), ("PATH", s.path("path")), ("VIRTUAL_ENV", s.path("venv"))];
        let error = found(&s, &vars).unwrap_err();
        let wheel = |python: &str| s.path(&format!("venv/lib/{python}/{WHEEL}")).display().to_string();
        let expected = [
            ("$LTRAIN_NVCC".to_string(), "not set"),
            (s.path("home/bin/nvcc").display().to_string(), "cannot be started: Permission denied (os error 13)"),
            ("$PATH".to_string(), "no nvcc in its folders"),
            (s.path("usr/local/cuda/bin/nvcc").display().to_string(), "not a file"),
            (wheel("python3.11"), "missing"),
            (wheel("python3.12"), "its --version names no release"),
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
