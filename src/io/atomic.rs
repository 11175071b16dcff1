//! All or nothing: files and folders appear under their final name complete and on the disk, or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::ModelError;
use crate::error::{IoContext, Result};

/// What to do when the destination is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Stop before anything is written, unless it is an empty folder.
    Refuse,
    /// Put the new folder in the place of the old one, then delete the old one. A file is never replaced by a folder.
    Replace,
}

/// That nothing is at `path` but perhaps an empty folder: for asking before long work.
///
/// # Errors    [`ModelError::OutputExists`].
pub fn check_free(path: &Path) -> Result<()> {
    match path.exists() && !is_empty_dir(path) {
        true => Err(ModelError::OutputExists { path: path.to_path_buf() }.into()),
        false => Ok(()),
    }
}

/// Lets `write` fill a temporary folder beside `path`, then flushes it and renames it to `path`.
///
/// # Errors    whatever `write` says, with the temporary folder removed and `path` as it was.
pub fn write_dir_atomically(path: &Path, existing: Existing, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    match existing {
        Existing::Replace if path.is_dir() => {}
        _ => check_free(path)?,
    }
    let parent = create_parent(path)?;
    let temporary = beside(path, "tmp");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).context("remove", &temporary)?;
    }
    fs::create_dir(&temporary).context("create", &temporary)?;
    let written = write(&temporary).and_then(|()| sync_tree(&temporary)).and_then(|()| put_in_place(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover that cannot be removed is visible by its name.
        let _ = fs::remove_dir_all(&temporary);
    }
    written?;
    sync_dir(&parent)
}

/// Lets `write` create a temporary file beside `path`, then flushes it and renames it to `path`, replacing what is there.
pub fn write_file_atomically(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = create_parent(path)?;
    let temporary = beside(path, "tmp");
    let written = write(&temporary)
        .and_then(|()| sync_file(&temporary))
        .and_then(|()| fs::rename(&temporary, path).context("rename", &temporary));
    if written.is_err() {
        // As above.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(&parent)
}

/// [`write_file_atomically`] for bytes that are ready.
pub fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_file_atomically(path, |tmp| fs::write(tmp, bytes).context("write", tmp))
}

/// `runs/x` → `runs/x.tmp-4711`.
fn beside(path: &Path, tag: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{tag}-{}", std::process::id()));
    path.with_file_name(name)
}

/// Whether `name` is a temporary one of this module: left by a process that was killed, or in use by one that lives.
pub fn is_leftover(name: &OsStr) -> bool {
    let ends = |name: &str, tag: &str| {
        name.rsplit_once(tag).is_some_and(|(_, pid)| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
    };
    name.to_str().is_some_and(|name| ends(name, ".tmp-") || ends(name, ".old-"))
}

/// Deletes what killed processes left half-written anywhere below `dir`, which must be the caller's alone.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let entry = entry.context("list", dir)?;
        let path = entry.path();
        match (is_leftover(&entry.file_name()), entry.file_type().context("look at", &path)?.is_dir()) {
            (true, true) => fs::remove_dir_all(&path).context("remove", &path)?,
            (true, false) => fs::remove_file(&path).context("remove", &path)?,
            (false, true) => remove_leftovers(&path)?,
            (false, false) => {}
        }
    }
    Ok(())
}

fn create_parent(path: &Path) -> Result<PathBuf> {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).context("create", &parent)?;
    Ok(parent)
}

fn is_empty_dir(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn put_in_place(temporary: &Path, path: &Path) -> Result<()> {
    if !path.exists() || is_empty_dir(path) {
        return fs::rename(temporary, path).context("rename", temporary);
    }
    if exchange(temporary, path) {
        return fs::remove_dir_all(temporary).context("remove", temporary);
    }
    let old = beside(path, "old");
    fs::rename(path, &old).context("rename", path)?;
    fs::rename(temporary, path).context("rename", temporary)?;
    fs::remove_dir_all(&old).context("remove", &old)
}

/// Swaps two folders in one step, where the system and the file system can.
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> bool {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> bool {
    false
}

fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|f| f.sync_all()).context("write", path)
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).context("list", dir)? {
        let path = entry.context("list", dir)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sync_file(&path)?;
        }
    }
    sync_dir(dir)
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> Result<()> {
    sync_file(dir)
}

/// Folders cannot be opened for flushing here; the rename itself is what the system offers.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_folder_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("deep/model");
        let put = |text: &'static str, existing| {
            write_dir_atomically(&out, existing, |tmp| {
                fs::write(tmp.join("a"), text).context("write", tmp)?;
                match text {
                    "bad" => Err(ModelError::OutputExists { path: tmp.into() }.into()),
                    _ => Ok(()),
                }
            })
        };
        put("one", Existing::Refuse).unwrap();
        assert!(put("two", Existing::Refuse).is_err());
        assert!(put("bad", Existing::Replace).is_err());
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "one");
        put("three", Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "three");
        assert_eq!(fs::read_dir(root.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_replaced_in_one_step() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f.json");
        write_bytes_atomically(&path, b"1").unwrap();
        write_bytes_atomically(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
