//! The CPU backend: plain Rust in f32, the definition of correct and the fast path where no GPU is.
//!
//! Work is split over rayon's global pool by index, never by who is free, and reductions add fixed chunks in a fixed
//! order: two runs on one machine are bit-equal.

mod attention;
mod bias;
mod cross_entropy;
mod elementwise;
mod embedding;
mod flash;
#[allow(unsafe_code)]
mod gemm;
mod linear;
mod optim;
#[allow(unsafe_code)]
mod panel;
mod place;
mod rms_norm;
mod rope;
mod scratch;
#[allow(unsafe_code)]
mod simd;
mod swiglu;
mod vector;

use rayon::prelude::*;

use self::simd::wide;
use crate::tensor::pool;

/// Runs every op on the host's cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

/// Floats one task works on: enough to hide the cost of a task, few enough to stay in a core's cache.
const CHUNK: usize = 16 * 1024;

/// Rows per task for rows of `cols` floats.
fn rows_per_task(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

/// A new vector of `rows · cols` floats, filled by `fill(first_row, rows)` in parallel and in [`wide`] code.
fn fill_rows(rows: usize, cols: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = pool::dirty(rows * cols);
    let step = rows_per_task(cols);
    out.par_chunks_mut((step * cols).max(1)).enumerate().for_each(|(task, chunk)| {
        wide(
            #[inline(always)]
            || fill(task * step, chunk),
        )
    });
    out
}

/// Column sums over all rows, in [`wide`] code: `row(n, sums)` adds row `n`. Fixed chunks, added in order,
/// in f64: large terms of a norm's gradient cancel.
fn sum_rows(rows: usize, cols: usize, row: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f32> {
    let step = rows_per_task(cols);
    let partial: Vec<Vec<f64>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|task| {
            let mut sums = vec![0.0; cols];
            wide(
                #[inline(always)]
                || (task * step..(task * step + step).min(rows)).for_each(|n| row(n, &mut sums)),
            );
            sums
        })
        .collect();
    let mut total = vec![0.0; cols];
    for sums in partial {
        for (t, s) in total.iter_mut().zip(sums) {
            *t += s;
        }
    }
    total.into_iter().map(|t| t as f32).collect()
}
