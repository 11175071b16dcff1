//! The file behind a tokenised corpus: a header, the tokens, a table of documents, some JSON.
//!
//! ```text
//! header  8 × u64   magic, version, documents, tokens, bytes of meta, crc of the body, crc of the header, 0
//! tokens  u32 each, `MASKED` set where it is not predicted; padded to 8 bytes
//! table   2 × u64 per document: end (in tokens), hash of its text
//! meta    JSON
//! ```
//! Numbers are in the machine's own byte order; a file from the other kind of machine has the wrong magic.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytemuck::{cast_slice, try_cast_slice};

use crate::error::{IoContext, Result};
use crate::io::mmap::Mapping;

const MAGIC: u64 = u64::from_le_bytes(*b"ltraintk");
/// Part of the cache key and of the header; raised when the layout or the meaning of its content changes.
pub(super) const VERSION: u64 = 3;
const HEADER: usize = 64;
/// A writer writes all the time, so that a file this old has none.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// One line of the document table: where the document ends, and the hash of its text.
pub(super) type Entry = [u64; 2];

/// A file being written under a name of its own; only [`TokenWriter::finish`] makes it visible.
pub(super) struct TokenWriter {
    temp: PathBuf,
    out: BufWriter<File>,
    table: Vec<Entry>,
    tokens: u64,
    crc: u32,
}

impl TokenWriter {
    /// Begins a file next to `target`.
    pub fn create(target: &Path) -> Result<Self> {
        remove_abandoned(target);
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Two runs on the same data must not write into one file, and in containers every process has the same number.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        let temp = target.with_extension(format!("{}-{time}-{n}.tmp", std::process::id()));
        let file = File::create_new(&temp).context("create", &temp)?;
        let mut writer = Self { out: BufWriter::with_capacity(1 << 20, file), table: Vec::new(), tokens: 0, crc: 0, temp };
        let placeholder = [0; HEADER];
        writer.out.write_all(&placeholder).context("write", &writer.temp)?;
        Ok(writer)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.out.write_all(bytes).context("write", &self.temp)
    }

    /// Adds one document.
    pub fn push(&mut self, ids: &[u32], hash: u64) -> Result<()> {
        self.tokens += ids.len() as u64;
        self.table.push([self.tokens, hash]);
        self.body(cast_slice(ids))
    }

    /// Documents so far.
    pub fn docs(&self) -> usize {
        self.table.len()
    }

    /// Completes the file and moves it to `target` in one step.
    pub fn finish(mut self, target: &Path, meta: &[u8]) -> Result<()> {
        if self.tokens % 2 == 1 {
            self.body(&[0; 4])?;
        }
        let table = std::mem::take(&mut self.table);
        self.body(cast_slice(&table))?;
        self.body(meta)?;
        let header = header([table.len() as u64, self.tokens, meta.len() as u64, self.crc.into()]);
        self.out
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.out.write_all(cast_slice(&header)))
            .and_then(|()| self.out.flush())
            .context("write", &self.temp)?;
        fs::rename(&self.temp, target).context("rename", &self.temp)
    }
}

impl Drop for TokenWriter {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove, and an unfinished file that stays does no harm.
        let _ = fs::remove_file(&self.temp);
    }
}

/// Removes what killed processes left beside `target`: temporaries, of any text, that nobody has written to for a day.
fn remove_abandoned(target: &Path) {
    let Some(Ok(entries)) = target.parent().map(fs::read_dir) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if is_temporary(&entry.file_name().to_string_lossy()) && age.is_some_and(|age| age > ABANDONED) {
            // One that stays, perhaps because another process was faster, does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether [`TokenWriter::create`] made this name; the folder may be one that others write to.
fn is_temporary(name: &str) -> bool {
    let is_key = |key: &str| key.len() == 2 * blake3::OUT_LEN && key.bytes().all(|b| b.is_ascii_hexdigit());
    let is_tag = |tag: &str| tag.split('-').count() == 3 && tag.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    let mut parts = name.split('.');
    parts.next().is_some_and(is_key) && parts.next().is_some_and(is_tag) && parts.eq(["tmp"])
}

fn header([docs, tokens, meta, crc]: [u64; 4]) -> [u64; 8] {
    let mut words = [MAGIC, VERSION, docs, tokens, meta, crc, 0, 0];
    words[6] = crc32c::crc32c(cast_slice(&words[..6])).into();
    words
}

/// What is at a path.
pub(super) enum Opened {
    /// A whole file.
    Good(TokenFile),
    /// Nothing that can be read.
    Missing,
    /// A file that is not what its header says, and in which way.
    Damaged(&'static str),
}

/// A finished file, mapped into memory.
#[derive(Debug)]
pub(super) struct TokenFile {
    map: Mapping,
    docs: usize,
    tokens: usize,
    table_at: usize,
}

impl TokenFile {
    /// Opens and checks the file at `path`, every byte of it.
    pub fn open(path: &Path) -> Result<Opened> {
        match File::open(path) {
            // What may not be read is of no use, and another folder may serve.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied) => {
                return Ok(Opened::Missing);
            }
            found => found.context("read", path)?,
        };
        let map = Mapping::open(path)?;
        Ok(match check(&map) {
            Ok((docs, tokens, table_at)) => Opened::Good(Self { docs, tokens, table_at, map }),
            Err(why) => Opened::Damaged(why),
        })
    }

    /// All tokens of all documents.
    pub fn tokens(&self) -> &[u32] {
        cast_slice(&self.map[HEADER..HEADER + self.tokens * 4])
    }

    /// The document table.
    pub fn table(&self) -> &[Entry] {
        cast_slice(&self.map[self.table_at..self.table_at + self.docs * 16])
    }

    /// The JSON at the end.
    pub fn meta(&self) -> &[u8] {
        &self.map[self.table_at + self.docs * 16..]
    }
}

/// `(documents, tokens, offset of the table)` of a file that is whole.
fn check(file: &[u8]) -> std::result::Result<(usize, usize, usize), &'static str> {
    let words = file.get(..HEADER).ok_or("shorter than its header")?;
    let words: &[u64] = try_cast_slice(words).map_err(|_| "misaligned")?;
    let [magic, version, docs, tokens, meta, crc, own, _] = *words else {
        return Err("shorter than its header");
    };
    if magic != MAGIC || version != VERSION {
        return Err("not a token file of this version");
    }
    if header([docs, tokens, meta, crc])[6] != own {
        return Err("damaged header");
    }
    let table_at = HEADER + (tokens as usize * 4).next_multiple_of(8);
    if file.len() != table_at + docs as usize * 16 + meta as usize {
        return Err("not as long as its header says");
    }
    if u64::from(crc32c::crc32c(&file[HEADER..])) != crc {
        return Err("damaged content");
    }
    Ok((docs as usize, tokens as usize, table_at))
}
