//! Work on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `work` makes of each item, in the items' order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(n) else { break };
                    let result = work(item);
                    done.lock().expect("parallel: no worker panics").push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("parallel: no worker panics");
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let slow_first = |n: &u64| {
            (0..(100 - n) * 1000).fold(0u64, |sum, k| std::hint::black_box(sum ^ k));
            n * 2
        };
        assert_eq!(super::in_parallel(&items, slow_first), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!(super::in_parallel(&[], slow_first).is_empty());
    }
}
