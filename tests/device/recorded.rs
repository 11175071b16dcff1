//! An emulation that is looked at while it works.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ltrain::backend::device::{Kernel, Launcher, Memory, Purpose};
use ltrain::backend::{Emu, EmuMode};

/// What an emulation was asked for.
#[derive(Debug, Default)]
pub struct Seen {
    /// Names of kernels.
    pub launched: Mutex<BTreeSet<&'static str>>,
    used: AtomicU64,
    /// Most bytes that were allocated at once.
    pub peak: AtomicU64,
}

/// The emulation, which remembers what it was asked for.
#[derive(Debug)]
pub struct Recorded {
    emu: Emu,
    seen: Arc<Seen>,
}

impl Recorded {
    /// A new one, and what it will have seen.
    pub fn new() -> (Self, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        (Self { emu: Emu::new(EmuMode::Eager), seen: Arc::clone(&seen) }, seen)
    }
}

impl Memory for Recorded {
    fn alloc(&self, bytes: usize, purpose: Purpose) -> ltrain::Result<u64> {
        let used = self.seen.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.seen.peak.fetch_max(used, Ordering::Relaxed);
        self.emu.alloc(bytes, purpose)
    }
    unsafe fn free(&self, address: u64, bytes: usize, purpose: Purpose) {
        self.seen.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.free(address, bytes, purpose) };
    }
    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> ltrain::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.upload(address, bytes) }
    }
    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> ltrain::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.download(address, bytes) }
    }
    unsafe fn zero(&self, address: u64, bytes: usize) -> ltrain::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.zero(address, bytes) }
    }
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> ltrain::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.copy(to, from, bytes) }
    }
}

impl Launcher for Recorded {
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> ltrain::Result<()> {
        self.seen.launched.lock().unwrap().insert(kernel.name);
        // SAFETY: the caller's promise is passed on.
        unsafe { self.emu.launch(kernel, grid, args) }
    }
}
