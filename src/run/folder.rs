//! The folder of a run: who it belongs to, and what it holds already.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::config::RunConfig;
use crate::config::text::Resume;
use crate::error::{IoContext, Result};
use crate::io::atomic::write_bytes_atomically;
use crate::units::format_bytes;

const FINGERPRINT: &str = "run.json";
const LOCK: &str = ".lock";
/// Random weights of a run with `--init`: written before the run is known by its text.
pub const INIT: &str = "init";
/// Written when everything else is.
pub const REPORT: &str = "report.json";

/// A run's folder, locked while this lives.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the run ended here before with all its steps.
    pub finished: bool,
    _lock: File,
}

impl Folder {
    /// Creates the folder or takes up the run in it.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] when the run there has other settings; [`CheckpointError::Occupied`] when the folder
    /// holds something else; [`CheckpointError::Locked`].
    pub fn open(config: &RunConfig, data_hash: &str, command: &str) -> Result<Self> {
        let path = config.output.out.clone();
        fs::create_dir_all(&path).context("create", &path)?;
        let lock_path = path.join(LOCK);
        let known = path.join(FINGERPRINT).exists();
        let occupied = fs::read_dir(&path).context("read", &path)?.flatten().any(|e| e.file_name() != LOCK && e.file_name() != INIT);
        if occupied && !known {
            return Err(CheckpointError::Occupied { path }.into());
        }
        let lock = File::create(&lock_path).context("create", &lock_path)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(CheckpointError::Locked { path }.into()),
            // Some network file systems cannot lock; two runs in one folder are then the user's care.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let anew = config.output.overwrite || config.output.resume == Resume::Never;
        if known && anew {
            clear(&path)?;
        }
        let now = config.fingerprint(data_hash);
        let steps = config.train.steps;
        let mut finished = false;
        if known && !anew {
            let (then, steps_then) = read(&path)?;
            let differences = differences(&then, &now);
            if !differences.is_empty() {
                return Err(CheckpointError::Mismatch { run: path, differences }.into());
            }
            finished = steps_then == steps && path.join(REPORT).exists();
        }
        let value = serde_json::json!({ "steps": steps, "settings": now });
        write_bytes_atomically(&path.join(FINGERPRINT), format!("{value:#}\n").as_bytes())?;
        write_bytes_atomically(&path.join("ltrain.toml"), format!("# {command}\n{}", config.to_toml()).as_bytes())?;
        write_bytes_atomically(&path.join("command.txt"), format!("{command}\n").as_bytes())?;
        Ok(Self { path, finished, _lock: lock })
    }

    /// Refuses to start what the disk cannot hold: `keep + 2` checkpoints of `bytes` each and the export.
    pub fn check_room(&self, bytes: u64, keep: usize) -> Result<()> {
        let needed = bytes * (keep as u64 + 2);
        let stat = rustix::fs::statvfs(&self.path).map_err(std::io::Error::from).context("look at the disk of", &self.path)?;
        let free = stat.f_bavail * stat.f_frsize;
        if free < needed {
            let (needed, free) = (format_bytes(needed), format_bytes(free));
            return Err(CheckpointError::NoRoom { path: self.path.clone(), needed, free }.into());
        }
        Ok(())
    }
}

fn clear(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).context("read", path)? {
        let entry = entry.context("read", path)?.path();
        if entry.file_name().is_some_and(|n| n == LOCK || n == INIT) {
            continue;
        }
        let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
        removed.context("remove", &entry)?;
    }
    Ok(())
}

type Settings = Vec<(String, String)>;

fn read(path: &Path) -> Result<(Settings, u64)> {
    let file = path.join(FINGERPRINT);
    let text = fs::read_to_string(&file).context("read", &file)?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(std::io::Error::from).context("parse", &file)?;
    let settings = serde_json::from_value(value["settings"].clone()).map_err(std::io::Error::from).context("parse", &file)?;
    Ok((settings, value["steps"].as_u64().unwrap_or(0)))
}

fn differences(then: &Settings, now: &Settings) -> Vec<(String, String, String)> {
    let value = |of: &Settings, key: &str| of.iter().find(|(k, _)| k == key).map_or("-".to_string(), |(_, v)| v.clone());
    let mut keys: Vec<&String> = then.iter().chain(now).map(|(k, _)| k).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|k| (k.clone(), value(then, k), value(now, k))).filter(|(_, a, b)| a != b).collect()
}
