//! Pinned memory on the way to the device: what is uploaded is copied here, so that its owner may drop it at once.
#![allow(unsafe_code, reason = "copies through pinned memory")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicPtr;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice, result};

/// Bytes of pinned memory.
const BYTES: usize = 64 << 20;
/// Most bytes of one copy: while one is under way the next is filled.
const PIECE: usize = 16 << 20;
/// Most copies under way.
const COPIES: usize = 1024;
/// Copies begin at multiples of this.
const ALIGN: u64 = 256;

/// A ring of pinned memory with the copies that read from it.
#[derive(Debug)]
pub struct Staging {
    /// The memory's beginning. Asking the owner for it would wait for an event each time; this pointer type can change threads.
    base: AtomicPtr<u8>,
    _memory: PinnedHostSlice<u8>,
    ring: Ring<CudaEvent>,
    /// Events that nobody waits for, to be used again.
    spare: Vec<CudaEvent>,
}

impl Staging {
    /// Pins the memory.
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        // SAFETY: the memory is written before it is read: by `upload`, piece by piece. Ordinary pages, not write-combined ones:
        // those pay on some buses only and are slow to fill on others.
        let mut memory = unsafe { context.alloc_pinned_with_flags(BYTES, 0)? };
        let base = AtomicPtr::new(memory.as_mut_ptr()?);
        Ok(Self { base, _memory: memory, ring: Ring::new(BYTES as u64), spare: Vec::new() })
    }

    /// Queues a copy to the device; `bytes` are taken before this returns.
    ///
    /// # Safety
    /// `bytes.len()` bytes from `address` on belong to the caller.
    pub unsafe fn upload(&mut self, stream: &CudaStream, mut address: u64, bytes: &[u8]) -> Result<(), DriverError> {
        for piece in bytes.chunks(PIECE) {
            let start = self.ring.room(piece.len() as u64, |event: CudaEvent| {
                event.synchronize()?;
                self.spare.push(event);
                Ok(())
            })?;
            // SAFETY: the ring gives places inside the memory that no copy reads from any more, and `address` belongs to the caller.
            unsafe {
                let place = self.base.get_mut().add((start % BYTES as u64) as usize);
                std::ptr::copy_nonoverlapping(piece.as_ptr(), place, piece.len());
                let staged: &[u8] = std::slice::from_raw_parts(place, piece.len());
                result::memcpy_htod_async(address, staged, stream.cu_stream())?;
            }
            let event = self.spare.pop().map_or_else(|| stream.context().new_event(None), Ok)?;
            event.record(stream)?;
            self.ring.push(start, event);
            address += piece.len() as u64;
        }
        Ok(())
    }
}

/// Places in a ring, given out in order and taken back in order. They are counted on without end: place `n` is at `n % size`.
#[derive(Debug)]
struct Ring<E> {
    size: u64,
    next: u64,
    /// Where each piece under way begins, and what tells that it is done.
    pieces: VecDeque<(u64, E)>,
}

impl<E> Ring<E> {
    fn new(size: u64) -> Self {
        Self { size, next: 0, pieces: VecDeque::new() }
    }

    /// Room for `len` bytes in one piece; `wait`s for the oldest pieces as long as they are in the way.
    fn room<X>(&mut self, len: u64, mut wait: impl FnMut(E) -> Result<(), X>) -> Result<u64, X> {
        assert!(len <= self.size, "staging: a piece fits into the ring");
        let mut start = self.next.next_multiple_of(ALIGN);
        if start % self.size + len > self.size {
            start = start.next_multiple_of(self.size);
        }
        while let Some((oldest, _)) = self.pieces.front()
            && (start + len > oldest + self.size || self.pieces.len() == COPIES)
            && let Some((_, done)) = self.pieces.pop_front()
        {
            wait(done)?;
        }
        self.next = start + len;
        Ok(start)
    }

    /// The piece that was given room last is under way.
    fn push(&mut self, start: u64, done: E) {
        self.pieces.push_back((start, done));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for pieces of these lengths in turn and returns where each lay and which pieces were waited for before it.
    fn places(size: u64, lengths: &[u64]) -> Vec<(u64, Vec<usize>)> {
        let mut ring = Ring::new(size);
        let place = |(i, &len): (usize, &u64)| {
            let mut waited = Vec::new();
            let wait = |piece| {
                waited.push(piece);
                Ok::<_, ()>(())
            };
            let start = ring.room(len, wait).unwrap();
            ring.push(start, i);
            (start % size, waited)
        };
        lengths.iter().enumerate().map(place).collect()
    }

    #[test]
    fn pieces_wait_for_those_whose_place_they_take() {
        let a = ALIGN;
        let expected = [
            (0, vec![]),
            (a, vec![]),
            (3 * a, vec![]),
            // Does not fit behind the third: from the beginning again, where the first two lie.
            (0, vec![0, 1]),
            (2 * a, vec![]),
            (0, vec![2, 3]),
        ];
        assert_eq!(places(4 * a, &[1, 2 * a, 5, 2 * a, a, 2 * a]), expected);
    }

    #[test]
    fn no_piece_ever_overlaps_one_under_way() {
        let (size, mut lengths, mut x) = (16 * ALIGN, Vec::new(), 7u64);
        for _ in 0..2000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            lengths.push(1 + (x >> 33) % (size / 3));
        }
        let mut under_way: Vec<(usize, u64, u64)> = Vec::new();
        for (i, (at, waited)) in places(size, &lengths).into_iter().enumerate() {
            under_way.retain(|(piece, ..)| !waited.contains(piece));
            let end = at + lengths[i];
            assert!(end <= size);
            assert!(under_way.iter().all(|(_, from, to)| end <= *from || *to <= at), "piece {i} at {at}..{end}: {under_way:?}");
            under_way.push((i, at, end));
        }
    }

    #[test]
    fn the_number_of_copies_under_way_is_bounded() {
        let waits = places(1 << 30, &vec![1; COPIES + 3]);
        assert!(waits[..COPIES].iter().all(|(_, waited)| waited.is_empty()));
        assert_eq!(waits[COPIES + 2].1, [2]);
    }
}
