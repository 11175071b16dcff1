//! Float buffers that start on a cache line, so that no vector load of a tile straddles two.

use std::ops::{Deref, DerefMut};

use crate::tensor::pool;

const LINE: usize = 16; // floats per 64-byte cache line

/// A cache-line-aligned `[f32]`.
pub struct Scratch {
    floats: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self::aligned(pool::zeroed(len + LINE - 1), len)
    }

    /// `len` floats of any value, for code that overwrites every one it reads.
    pub fn dirty(len: usize) -> Self {
        Self::aligned(pool::dirty(len + LINE - 1), len)
    }

    fn aligned(floats: Vec<f32>, len: usize) -> Self {
        let start = floats.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE - 1);
        Self { floats, start, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.floats));
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.floats[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..self.start + self.len]
    }
}
