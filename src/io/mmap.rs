//! A file as memory, read-only.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::error::{IoContext, Result};

/// A read-only, private map of a whole file.
///
/// Nothing of the file is read until it is touched. Weights and token caches are replaced by rename, never edited in
/// place, so a mapped file keeps its bytes.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps `path`.
    ///
    /// # Errors    the file is missing, not a regular file, or not readable.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context("open", path)?;
        if !file.metadata().context("read", path)?.is_file() {
            let not_a_file = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file");
            return Err(not_a_file).context("read", path);
        }
        // SAFETY: the map is read-only and only ever seen as bytes, every bit pattern of which is valid. Another process
        // that truncates the file meanwhile ends this one by SIGBUS; ltrain's own writers rename and never truncate.
        let map = unsafe { memmap2::Mmap::map(&file) }.context("map", path)?;
        Ok(Self(map))
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
