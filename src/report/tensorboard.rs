//! TensorBoard event files.
//!
//! A file is a sequence of records: length (u64), masked CRC-32C of the length, bytes, masked CRC-32C of the bytes, all
//! little-endian. The bytes are a protobuf `Event`; scalars need seven of its fields, so they are encoded by hand.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock;
use crate::error::{IoContext, Result};

/// Files opened by this process, so that two in one second get different names.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Appends scalars to one event file. A resumed run opens a new file beside the old one.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Opens `dir/events.out.tfevents.<unix>.<host>.<pid>.<n>`, creating `dir`.
    ///
    /// # Errors
    /// The folder or the file cannot be created.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).context("create", dir)?;
        let (now, host, pid) = (clock::now(), clock::host(), std::process::id());
        let n = OPENED.fetch_add(1, Ordering::Relaxed);
        // TensorBoard reads the files of a folder in the order of their names.
        let path = dir.join(format!("events.out.tfevents.{:010}.{host}.{pid}.{n}", now as u64));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).context("create", &path)?;
        let mut writer = Self { file, path };
        writer.append(&Event::new(now).version().bytes)?;
        Ok(writer)
    }

    /// Like [`EventWriter::create`], for a run that goes on after `step`: TensorBoard then forgets what an earlier file
    /// says about later steps.
    pub fn resume(dir: &Path, step: u64) -> Result<Self> {
        let mut writer = Self::create(dir)?;
        writer.append(&Event::new(clock::now()).step(step.saturating_add(1)).session_start().bytes)?;
        Ok(writer)
    }

    /// Writes one value and hands it to the system, so that a watching TensorBoard sees it now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.append(&Event::new(clock::now()).step(step).scalar(tag, value as f32).bytes)
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        // One write call per record: a killed process leaves a torn record only if the system does.
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc(event).to_le_bytes());
        self.file.write_all(&record).context("write", &self.path)
    }
}

/// TFRecord's checksum: CRCs of data that contains CRCs are weak, so they are rotated and shifted.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf `tensorflow.Event` under construction.
struct Event {
    bytes: Vec<u8>,
}

impl Event {
    /// `wall_time = 1`
    fn new(unix: f64) -> Self {
        let mut bytes = vec![1 << 3 | FIXED64];
        bytes.extend(unix.to_le_bytes());
        Self { bytes }
    }

    /// `step = 2`
    fn step(mut self, step: u64) -> Self {
        self.bytes.push(2 << 3 | VARINT);
        varint(&mut self.bytes, step);
        self
    }

    /// `file_version = 3`
    fn version(mut self) -> Self {
        message(&mut self.bytes, 3, b"brain.Event:2");
        self
    }

    /// `summary = 5 { value = 1 { tag = 1, simple_value = 2 } }`
    fn scalar(mut self, tag: &str, value: f32) -> Self {
        let (mut entry, mut summary) = (Vec::new(), Vec::new());
        message(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | FIXED32);
        entry.extend(value.to_le_bytes());
        message(&mut summary, 1, &entry);
        message(&mut self.bytes, 5, &summary);
        self
    }

    /// `session_log = 7 { status = 1: START }`
    fn session_start(mut self) -> Self {
        message(&mut self.bytes, 7, &[1 << 3 | VARINT, 1]);
        self
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn message(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
