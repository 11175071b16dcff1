//! A device without memory or threads: a training step on it costs nothing and tells how much memory a real one takes.
#![allow(unsafe_code, reason = "implements a launcher")]

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use super::device::{Kernel, Launcher, Memory, Purpose};
use crate::error::Result;

/// Launches nothing. What is read from it is zeros.
#[derive(Debug, Default)]
pub struct Meta {
    /// Addresses are numbers that nobody follows; each is given once.
    next: AtomicU64,
}

impl Memory for Meta {
    fn alloc(&self, bytes: usize, _: Purpose) -> Result<u64> {
        Ok(self.next.fetch_add(bytes as u64 + 1, Ordering::Relaxed))
    }

    unsafe fn free(&self, _: u64, _: usize, _: Purpose) {}

    unsafe fn upload(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    unsafe fn zero(&self, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    unsafe fn copy(&self, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }
}

impl Launcher for Meta {
    unsafe fn launch(&self, _: &'static Kernel, _: [u32; 3], _: &mut [*mut c_void]) -> Result<()> {
        Ok(())
    }
}
