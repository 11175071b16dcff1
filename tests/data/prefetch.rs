//! Batches ahead of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ltrain::data::{Batch, DataError, Prefetch};

fn numbered(i: u64) -> Batch {
    Batch::contiguous(&[&[i as u32, 0]])
}

fn number(batch: &Batch) -> u32 {
    batch.ids.as_u32().unwrap()[0]
}

#[test]
fn batches_come_in_order_and_end() {
    let made = Prefetch::new(3..40, |i| Ok(numbered(i)));
    let numbers: Vec<_> = made.map(|b| number(&b.unwrap())).collect();
    assert_eq!(numbers, (3..40).collect::<Vec<_>>());
}

#[test]
fn dropping_early_stops_the_thread() {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let mut prefetch = Prefetch::new(0..u64::MAX, move |i| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(numbered(i))
    });
    prefetch.next().unwrap().unwrap();
    drop(prefetch);
    // The closure is gone with its thread.
    assert_eq!(Arc::strong_count(&made), 1);
    // One taken, two waiting, one in the making.
    assert!(made.load(Ordering::SeqCst) <= 4);
}

#[test]
fn the_first_error_is_the_last_item() {
    let mut prefetch = Prefetch::new(0..10, |i| match i {
        2 => Err(DataError::Changed.into()),
        i => Ok(numbered(i)),
    });
    assert!(prefetch.next().unwrap().is_ok());
    assert!(prefetch.next().unwrap().is_ok());
    assert!(prefetch.next().unwrap().is_err());
    assert!(prefetch.next().is_none());
    assert!(prefetch.next().is_none());
}

#[test]
#[should_panic(expected = "a bug")]
fn a_panic_of_the_thread_is_passed_on() {
    let prefetch = Prefetch::new(0..3, |i| if i == 1 { panic!("a bug") } else { Ok(numbered(i)) });
    prefetch.for_each(drop);
}
