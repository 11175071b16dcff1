//! The folder of a run: who it belongs to, and what it holds already.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RunError;
use crate::backend::gpu::{Gpus, Place};
use crate::checkpoint::{self, CheckpointError};
use crate::config::text::Resume;
use crate::config::{RunConfig, Settings, defaults};
use crate::error::{IoContext, Result};
use crate::io::atomic::{is_leftover, remove_leftovers, write_bytes_atomically};
use crate::units::format_bytes;

const IDENTITY: &str = "run.json";
const LOCK: &str = ".lock";
/// Tokens of the text, where the user has no cache folder; they are there before the run is.
const CACHE: &str = "cache";
/// Written when everything else is.
pub const REPORT: &str = "report.json";

type Pairs = Vec<(String, String)>;

/// `run.json`: what a run is, so that it is not taken for another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Identity {
    /// What a continued run must not change.
    settings: Pairs,
    /// What it may change, but not without doing its last part again.
    results: Pairs,
    /// Names of the devices that it was on, in their order.
    #[serde(default)]
    devices: Vec<String>,
}

impl Identity {
    /// The settings that differ.
    fn against(&self, now: &Self) -> Vec<(String, String, String)> {
        let mut differences = differences(&self.settings, &now.settings);
        // The usual warm-up follows the number of steps, which may change.
        differences.retain(|(key, ..)| key != "warmup" || !(self.warms_up_as_usual() && now.warms_up_as_usual()));
        differences
    }

    fn warms_up_as_usual(&self) -> bool {
        let usual = value(&self.results, "steps").parse().map(|steps| defaults::warmup(steps).to_string());
        usual.is_ok_and(|usual| value(&self.settings, "warmup") == usual)
    }
}

/// What is at the place where a run wants to be.
enum Content {
    Nothing,
    /// Somebody else's files.
    Strange,
    Run {
        identity: Identity,
        reported: bool,
    },
}

impl Content {
    fn of(path: &Path) -> Result<Self> {
        let file = path.join(IDENTITY);
        match fs::read_to_string(&file) {
            Ok(text) => {
                let identity = serde_json::from_str(&text).map_err(std::io::Error::from).context("parse", &file)?;
                return Ok(Self::Run { identity, reported: path.join(REPORT).exists() });
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(e).context("read", &file),
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(e) if e.kind() == ErrorKind::NotADirectory && path.exists() => return Ok(Self::Strange),
            Err(e) => return Err(e).context("create", path),
        };
        // A process that was killed while it began leaves no more than these.
        let ours = |name: &std::ffi::OsStr| name == LOCK || name == CACHE || is_leftover(name);
        let strange = entries.flatten().any(|entry| !ours(&entry.file_name()));
        Ok(if strange { Self::Strange } else { Self::Nothing })
    }
}

/// A run's folder, locked while this lives.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether everything asked for is there already.
    pub finished: bool,
    /// What to say about a run that changes its device.
    pub moved: Option<String>,
    identity: Identity,
    /// Whether what is there goes.
    anew: bool,
    /// What an earlier, shorter or otherwise measured run left and this one will write again.
    stale: &'static [&'static str],
    _lock: File,
}

impl Folder {
    /// Takes the run's folder, and looks at what it holds; nothing is changed before [`Folder::begin`].
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`] when the run there has other settings; [`CheckpointError::Occupied`] when the folder
    /// holds something else; [`CheckpointError::Locked`]; [`RunError::NoGpu`].
    pub fn open(config: &RunConfig, place: &Place, data_hash: &str) -> Result<Self> {
        let settings = config.fingerprint(data_hash);
        let mut identity = Identity { settings, results: config.results(), devices: Vec::new() };
        let path = match &config.output.out {
            Some(path) => path.clone(),
            None => choose(config, &identity)?,
        };
        fs::create_dir_all(&path).context("create", &path)?;
        if matches!(Content::of(&path)?, Content::Strange) {
            return Err(CheckpointError::Occupied { path }.into());
        }
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).context("create", &lock_path)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(CheckpointError::Locked { path }.into()),
            // Some network file systems cannot lock; two runs in one folder are then the user's care.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let anew = config.output.overwrite || config.output.resume == Resume::Never;
        let (mut finished, mut stale): (_, &[&str]) = (false, &[]);
        if let (Content::Run { identity: then, reported }, false) = (Content::of(&path)?, anew) {
            continues(&path, &then, &identity)?;
            reaches(&path, config.train.steps)?;
            stale = stale_after(&then.results, &identity.results);
            finished = reported && stale.is_empty();
            identity.devices = then.devices;
        }
        if let Resume::From(named) = &config.output.resume {
            // A checkpoint by itself, away from its run, says nothing of its settings.
            for run in [Some(named.as_path()), named.parent()].into_iter().flatten() {
                if let Content::Run { identity: then, .. } = Content::of(run)? {
                    continues(run, &then, &identity)?;
                    if identity.devices.is_empty() {
                        identity.devices = then.devices;
                    }
                    break;
                }
            }
            reaches(named, config.train.steps)?;
        }
        let moved = if finished { None } else { moves(&path, &mut identity.devices, config, place)? };
        Ok(Self { path, finished, moved, identity, anew, stale, _lock: lock })
    }

    /// Names of the devices that the run was on before this one.
    pub fn earlier_devices(&self) -> &[String] {
        self.identity.devices.split_last().map_or(&[], |(_, earlier)| earlier)
    }

    /// Refuses to start what the disk cannot hold: `keep + 2` checkpoints of `bytes` each and the export.
    pub fn check_room(&self, bytes: u64, keep: usize) -> Result<()> {
        let needed = bytes.saturating_mul((keep as u64).saturating_add(2));
        let stat = rustix::fs::statvfs(&self.path).map_err(std::io::Error::from).context("look at the disk of", &self.path)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            let (needed, free) = (format_bytes(needed), format_bytes(free));
            return Err(CheckpointError::NoRoom { path: self.path.clone(), needed, free }.into());
        }
        Ok(())
    }

    /// Makes the folder this run's: away with what killed processes left and with what will be written again.
    pub fn begin(&self, config: &RunConfig, command: &str) -> Result<()> {
        remove_leftovers(&self.path)?;
        if self.anew {
            clear(&self.path)?;
        }
        for name in self.stale {
            remove(&self.path.join(name))?;
        }
        let out = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        // The same run again is to continue it, whatever began it.
        let settings = Settings { out: Some(out), overwrite: None, resume: None, ..config.settings() };
        let identity = serde_json::to_string_pretty(&self.identity).expect("run.json: plain structs serialise");
        write_bytes_atomically(&self.path.join(IDENTITY), format!("{identity}\n").as_bytes())?;
        write_bytes_atomically(&self.path.join("ltrain.toml"), format!("# {command}\n{}", settings.to_toml()).as_bytes())?;
        write_bytes_atomically(&self.path.join("command.txt"), format!("{command}\n").as_bytes())
    }
}

/// Refuses to continue a run under other settings.
fn continues(run: &Path, then: &Identity, now: &Identity) -> Result<()> {
    match then.against(now) {
        none if none.is_empty() => Ok(()),
        differences => Err(CheckpointError::Mismatch { run: run.to_path_buf(), differences }.into()),
    }
}

/// Adds this device, and what to say where the last one was another. Weights move with their full precision, so that a run may go
/// on anywhere; but a GPU that is missing today is not the wish to wait for a CPU, and the same command then says so.
fn moves(run: &Path, devices: &mut Vec<String>, config: &RunConfig, place: &Place) -> Result<Option<String>> {
    let here = place.name();
    let Some(then) = devices.last().filter(|last| *last != here).cloned() else {
        if devices.is_empty() {
            devices.push(here.to_owned());
        }
        return Ok(None);
    };
    if config.train.gpus == Gpus::Auto && matches!(place, Place::Cpu { .. }) {
        return Err(RunError::NoGpu { run: run.to_path_buf(), then, now: place.to_string() }.into());
    }
    devices.push(here.to_owned());
    Ok(Some(format!(
        "warning: this run was on {then} and goes on on {here}: it does not end with the bits of a run on one device, and what was \
         measured there is measured again"
    )))
}

/// Refuses fewer steps than were trained: the weights after them are gone.
fn reaches(from: &Path, steps: u64) -> Result<()> {
    let trained = match checkpoint::newest(from)? {
        (Some(path), _) => checkpoint::step_of(&path)?,
        (None, _) => 0,
    };
    if trained <= steps {
        return Ok(());
    }
    let differences = vec![("steps".to_string(), format!("{trained} trained"), steps.to_string())];
    Err(CheckpointError::Mismatch { run: from.to_path_buf(), differences }.into())
}

/// The folder of a run that was given none: the first that is free, or whose run this command continues.
fn choose(config: &RunConfig, now: &Identity) -> Result<PathBuf> {
    let output = &config.output;
    for path in config.usual_out() {
        let takes = match Content::of(&path)? {
            Content::Nothing => true,
            Content::Strange => false,
            Content::Run { identity, reported } => {
                identity.against(now).is_empty() && (output.overwrite || !reported && output.resume != Resume::Never)
            }
        };
        if takes {
            return Ok(path);
        }
    }
    unreachable!("usual_out: never ends")
}

/// What has to be written again when the results are to be other ones; the report always, as it ends a run.
fn stale_after(then: &Pairs, now: &Pairs) -> &'static [&'static str] {
    let changed: Vec<String> = differences(then, now).into_iter().map(|(key, ..)| key).collect();
    let any = |keys: &[&str]| changed.iter().any(|key| keys.contains(&key.as_str()));
    match () {
        () if any(&["eval", "eval_at", "eval_data", "passkey_samples"]) => &[REPORT, "eval"],
        () if any(&["steps"]) => &[REPORT, "eval/after.json", "eval/windows", "eval/control.json"],
        () if !changed.is_empty() => &[REPORT],
        () => &[],
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.context("remove", path),
    }
}

/// Empties the folder; what says whose it is goes last, so that nobody is locked out when this is interrupted.
fn clear(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).context("read", path)? {
        let entry = entry.context("read", path)?;
        let name = entry.file_name();
        if name != LOCK && name != CACHE && name != IDENTITY {
            remove(&entry.path())?;
        }
    }
    remove(&path.join(IDENTITY))
}

fn value(of: &Pairs, key: &str) -> String {
    of.iter().find(|(k, _)| k == key).map_or("-".to_string(), |(_, v)| v.clone())
}

fn differences(then: &Pairs, now: &Pairs) -> Vec<(String, String, String)> {
    let mut keys: Vec<&String> = then.iter().chain(now).map(|(k, _)| k).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|k| (k.clone(), value(then, k), value(now, k))).filter(|(_, a, b)| a != b).collect()
}
