//! Float buffers that outlive their tensors.
//!
//! A training step frees and asks for the same few lengths thousands of times. Going through the allocator, large ones
//! return to the kernel and come back as page faults, a fifth of a small model's step; here they wait for the next tensor
//! of their length. The pool raises a process's peak by a quarter at most: activations wait while gradients of other lengths
//! live, and the other way round.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Floats from which on a buffer is kept; the allocator recycles smaller ones well.
const SMALLEST: usize = 8 * 1024;

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
    /// Floats that wait.
    waiting: usize,
    /// Floats that were asked for and have not come back.
    in_use: usize,
    /// Most floats ever in use.
    peak: usize,
    /// Counts requests: the time of [`Shelf::asked`].
    now: u64,
}

impl Pool {
    /// A buffer of that length; without one, room for it.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.now += 1;
        self.in_use += len;
        self.peak = self.peak.max(self.in_use);
        let shelf = self.shelves.entry(len).or_default();
        shelf.asked = self.now;
        let buffer = shelf.buffers.pop();
        if buffer.is_some() {
            self.waiting -= len;
        }
        self.make_room();
        buffer
    }

    fn give(&mut self, buffer: Vec<f32>) {
        let len = buffer.len();
        // What was not asked for here, such as weights from a file, was not counted either.
        self.in_use = self.in_use.saturating_sub(len);
        self.waiting += len;
        self.shelves.entry(len).or_default().buffers.push(buffer);
        self.make_room();
    }

    /// Lets go of the buffers whose lengths nobody has asked for the longest.
    fn make_room(&mut self) {
        while self.waiting + self.in_use > self.peak + self.peak / 4 && self.waiting > 0 {
            let oldest = self.shelves.iter().min_by_key(|(len, shelf)| (shelf.asked, **len)).map(|(&len, _)| len);
            let len = oldest.expect("pool: what waits is on a shelf");
            match self.shelves.get_mut(&len).and_then(|shelf| shelf.buffers.pop()) {
                Some(_) => self.waiting -= len,
                None => drop(self.shelves.remove(&len)),
            }
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
    // A buffer larger than its content is not worth its memory.
    if len >= SMALLEST && buffer.capacity() == len {
        pool().give(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pool: &mut Pool, len: usize) -> Vec<f32> {
        pool.take(len).unwrap_or_else(|| vec![0.0; len])
    }

    #[test]
    fn the_pool_holds_a_quarter_more_than_was_once_in_use() {
        let mut pool = Pool::default();
        for round in 0..3 {
            let held: Vec<_> = (0..9).map(|n| ask(&mut pool, 10_000 * (1 + round) + n)).collect();
            held.into_iter().for_each(|b| pool.give(b));
            let waiting: usize = pool.shelves.values().flat_map(|s| &s.buffers).map(Vec::len).sum();
            assert_eq!(waiting, pool.waiting);
            assert_eq!(pool.in_use, 0);
            let most = 9 * 10_009 * (1 + round) * 5 / 4;
            assert!(waiting <= most, "round {round}: {waiting} floats wait, at most {most} may");
            assert!(waiting >= 9 * 10_000 * (1 + round), "round {round}: only {waiting} floats wait");
        }
    }

    #[test]
    fn a_buffer_comes_back_for_its_own_length_only() {
        let mut pool = Pool::default();
        let (mut first, second) = (ask(&mut pool, 9000), ask(&mut pool, 9001));
        first.fill(7.0);
        pool.give(first);
        pool.give(second);
        assert_eq!(pool.take(9000), Some(vec![7.0; 9000]));
        assert_eq!(pool.take(9000), None);
    }

    #[test]
    fn a_full_pool_lets_go_of_the_length_asked_for_longest_ago() {
        let mut pool = Pool::default();
        let (old, new) = (ask(&mut pool, 10_000), ask(&mut pool, 10_001));
        pool.give(old);
        pool.give(new);
        ask(&mut pool, 12_000);
        let left: Vec<usize> = pool.shelves.values().flat_map(|s| &s.buffers).map(Vec::len).collect();
        assert_eq!(left, [10_001]);
    }

    #[test]
    fn buffers_from_elsewhere_do_not_let_it_grow() {
        let mut pool = Pool::default();
        pool.give(vec![0.0; 10_000]);
        assert_eq!((pool.waiting, pool.peak), (0, 0));
    }
}
