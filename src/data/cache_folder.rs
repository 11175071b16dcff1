//! Where the token cache lives.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders to try for the cache: the one `asked` for and no other, or else `$LTRAIN_CACHE`, the user's cache folder, and
/// the run's own folder.
pub fn cache_folders(asked: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>, run: &Path) -> Vec<PathBuf> {
    let var = |name| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = asked.map(Path::to_path_buf).or_else(|| var("LTRAIN_CACHE")) {
        return vec![folder];
    }
    let home = var("HOME").map(|home| home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }));
    // The XDG specification: a relative path is to be ignored.
    let user = var("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or(home);
    user.map(|folder| folder.join("ltrain")).into_iter().chain([run.join("cache")]).collect()
}
