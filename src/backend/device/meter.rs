//! Counts a device's memory: how much is in use, for what, how much at most, and whether more may be had.
#![allow(unsafe_code, reason = "passes calls on to the memory that is counted")]

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Fault, Kernel, Launcher, Memory};
use crate::error::{Error, Result};

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The model's parameters, in working precision.
    Weights,
    /// Master copies and moments of what trains.
    Optimizer,
    /// Gradients of parameters.
    Gradients,
    /// What the forward pass keeps and the backward pass makes.
    Activations,
    /// Logits and their gradients, a tile at a time.
    Loss,
}

impl Purpose {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Weights, Self::Optimizer, Self::Gradients, Self::Activations, Self::Loss];

    /// Its line in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights (bf16)",
            Self::Optimizer => "master weights and AdamW (f32)",
            Self::Gradients => "gradients of parameters (f32)",
            Self::Activations => "activations",
            Self::Loss => "loss, a tile of logits",
        }
    }
}

/// Bytes by purpose, indexed by [`Purpose`] as `usize`.
pub type Bytes = [u64; Purpose::ALL.len()];

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In use now.
    pub used: Bytes,
    /// In use when most was.
    pub at_peak: Bytes,
    /// What may be in use.
    pub limit: u64,
}

impl Usage {
    /// Most bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.at_peak.iter().sum()
    }
}

/// The driver hands memory out in pieces of this many bytes.
const GRAIN: u64 = 512;

fn rounded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(GRAIN)
}

/// A launcher whose memory is counted and capped.
#[derive(Debug)]
pub struct Metered<L> {
    inner: L,
    usage: Mutex<Usage>,
}

impl<L> Metered<L> {
    /// Counts `inner`, which may use `limit` bytes.
    pub fn new(inner: L, limit: u64) -> Self {
        Self { inner, usage: Mutex::new(Usage { limit, ..Usage::default() }) }
    }

    /// What was in use when most was, since the last call.
    pub fn take_peak(&self) -> Bytes {
        let mut usage = self.counters();
        let used = usage.used;
        std::mem::replace(&mut usage.at_peak, used)
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        *self.counters()
    }

    fn counters(&self) -> MutexGuard<'_, Usage> {
        // Counters change in one step each: a panic elsewhere leaves them true.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: usize, purpose: Purpose) {
        self.counters().used[purpose as usize] -= rounded(bytes);
    }
}

impl<L: Launcher> Memory for Metered<L> {
    fn alloc(&self, bytes: usize, purpose: Purpose) -> Result<u64> {
        {
            let mut usage = self.counters();
            let (wanted, used) = (rounded(bytes), usage.used.iter().sum::<u64>());
            if used + wanted > usage.limit {
                return Err(Fault::Memory { wanted, usage: *usage, refused: None }.into());
            }
            usage.used[purpose as usize] += wanted;
            if used + wanted > usage.peak() {
                usage.at_peak = usage.used;
            }
        }
        self.inner.alloc(bytes, purpose).map_err(|error| {
            self.give_back(bytes, purpose);
            match error {
                Error::Fault(Fault::Refused { bytes, reason }) => {
                    Fault::Memory { wanted: bytes, usage: self.usage(), refused: Some(reason) }.into()
                }
                other => other,
            }
        })
    }

    unsafe fn free(&self, address: u64, bytes: usize, purpose: Purpose) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.free(address, bytes, purpose) };
        self.give_back(bytes, purpose);
    }

    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.upload(address, bytes) }
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.download(address, bytes) }
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.zero(address, bytes) }
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.copy(to, from, bytes) }
    }
}

impl<L: Launcher> Launcher for Metered<L> {
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<()> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.inner.launch(kernel, grid, args) }
    }

    fn timed(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        self.inner.timed(runs, work)
    }
}
