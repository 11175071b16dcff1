//! Float buffers that outlive their tensors.
//!
//! A training step frees and asks for the same few lengths thousands of times. Going through the allocator, large ones
//! return to the kernel and come back as page faults, a fifth of a small model's step; here they wait for the next tensor
//! of their length. What waits is bounded by [`MOST`].

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Floats from which on a buffer is kept; the allocator recycles smaller ones well.
const SMALLEST: usize = 8 * 1024;

/// Most floats that wait at a time: 256 MiB.
const MOST: usize = 64 << 20;

/// Waiting buffers of one length.
#[derive(Default)]
struct Shelf {
    buffers: Vec<Vec<f32>>,
    /// When one was last asked for.
    asked: u64,
}

#[derive(Default)]
struct Pool {
    shelves: HashMap<usize, Shelf>,
    floats: usize,
    /// Counts requests: the time of [`Shelf::asked`].
    now: u64,
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.now += 1;
        let shelf = self.shelves.get_mut(&len)?;
        shelf.asked = self.now;
        let buffer = shelf.buffers.pop()?;
        self.floats -= len;
        Some(buffer)
    }

    fn give(&mut self, buffer: Vec<f32>) {
        let len = buffer.len();
        while self.floats + len > MOST {
            self.drop_least_wanted();
        }
        self.floats += len;
        self.shelves.entry(len).or_insert_with(|| Shelf { asked: self.now, ..Shelf::default() }).buffers.push(buffer);
    }

    /// Lets go of a buffer whose length nobody has asked for the longest.
    fn drop_least_wanted(&mut self) {
        let oldest = self.shelves.iter().min_by_key(|(len, shelf)| (shelf.asked, **len)).map(|(&len, _)| len);
        let len = oldest.expect("pool: what waits is on a shelf");
        match self.shelves.get_mut(&len).and_then(|shelf| shelf.buffers.pop()) {
            Some(_) => self.floats -= len,
            None => drop(self.shelves.remove(&len)),
        }
    }
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

fn pool() -> MutexGuard<'static, Pool> {
    // A buffer is moved in or out in one piece: no panic can leave the pool half changed.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(len: usize) -> Option<Vec<f32>> {
    if len < SMALLEST { None } else { pool().take(len) }
}

/// `len` floats of any value, for code that overwrites every one. Debug builds fill them with NaN to prove that it does.
pub(crate) fn dirty(len: usize) -> Vec<f32> {
    let mut buffer = take(len).unwrap_or_else(|| vec![0.0; len]);
    if cfg!(debug_assertions) {
        buffer.fill(f32::NAN);
    }
    buffer
}

/// `len` zeros.
pub(crate) fn zeroed(len: usize) -> Vec<f32> {
    match take(len) {
        Some(mut buffer) => {
            buffer.fill(0.0);
            buffer
        }
        None => vec![0.0; len],
    }
}

/// A copy of `floats`.
pub(crate) fn copied(floats: &[f32]) -> Vec<f32> {
    match take(floats.len()) {
        Some(mut buffer) => {
            buffer.copy_from_slice(floats);
            buffer
        }
        None => floats.to_vec(),
    }
}

/// Takes a buffer back.
pub(crate) fn give(buffer: Vec<f32>) {
    let len = buffer.len();
    // A buffer larger than its content, or half the pool by itself, is not worth its memory.
    if (SMALLEST..=MOST / 2).contains(&len) && buffer.capacity() == len {
        pool().give(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_stays_below_the_limit() {
        let mut pool = Pool::default();
        let len = MOST / 4;
        for n in 0..9 {
            pool.give(Vec::from_iter(std::iter::repeat_n(0.0, len + n)));
            let waiting: usize = pool.shelves.values().flat_map(|s| &s.buffers).map(Vec::len).sum();
            assert_eq!(waiting, pool.floats);
            assert!(waiting <= MOST, "{waiting} floats wait");
        }
    }

    #[test]
    fn a_buffer_comes_back_for_its_own_length_only() {
        let mut pool = Pool::default();
        pool.give(vec![7.0; 9000]);
        assert_eq!(pool.take(9001), None);
        assert_eq!(pool.take(9000), Some(vec![7.0; 9000]));
        assert_eq!(pool.take(9000), None);
    }

    #[test]
    fn a_full_pool_lets_go_of_the_length_asked_for_longest_ago() {
        let mut pool = Pool::default();
        let len = MOST / 4;
        pool.give(vec![0.0; len]);
        pool.give(vec![0.0; len + 1]);
        pool.take(len + 1).map(|b| pool.give(b)).expect("it was given");
        pool.give(vec![0.0; MOST / 2]);
        assert_eq!(pool.take(len), None);
        assert!(pool.take(len + 1).is_some());
        assert!(pool.take(MOST / 2).is_some());
    }
}
