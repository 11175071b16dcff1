//! The next batches are made on a thread of their own while the current one trains.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::data::batch::Batch;
use crate::error::Result;

/// Batches that wait, besides the one in the making.
const AHEAD: usize = 2;

/// An iterator over `make(i)` for every `i` of a range. It ends after the range or after the first error.
///
/// Dropping it early waits for the batch in the making and for nothing else.
#[derive(Debug)]
pub struct Prefetch {
    ready: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts making batches.
    pub fn new(range: Range<u64>, make: impl Fn(u64) -> Result<Batch> + Send + 'static) -> Self {
        let (send, ready) = sync_channel(AHEAD);
        let thread = std::thread::spawn(move || {
            for i in range {
                let batch = make(i);
                let last = batch.is_err();
                // A send fails only when the iterator was dropped: nobody wants the rest.
                if send.send(batch).is_err() || last {
                    break;
                }
            }
        });
        Self { ready: Some(ready), thread: Some(thread) }
    }
}

impl Iterator for Prefetch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.ready.as_ref().and_then(|ready| ready.recv().ok());
        if next.is_none() {
            self.ready = None;
            if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                resume_unwind(panic);
            }
        }
        next
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // The channel closes first, so that a thread that waits for room in it wakes up.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, was of a batch that nobody asked for; a second panic while dropping would abort.
            let _ = thread.join();
        }
    }
}
