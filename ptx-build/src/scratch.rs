//! A folder that lives as long as a test.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time has one: a process that starts while another test writes a program keeps that program busy for a moment.
pub struct Scratch(PathBuf, #[expect(dead_code, reason = "it is there to be dropped")] MutexGuard<'static, ()>);

impl Scratch {
    /// An empty folder for the test called `name`.
    pub fn new(name: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = std::env::temp_dir().join(format!("ptx-build-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self(root, turn)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[cfg(unix)]
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is in the system's temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}
