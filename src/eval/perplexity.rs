//! Loss by context length and by position.
//!
//! Windows never cross documents and nothing is prepended to them. A window's first token has no context and is not
//! scored. Two ways to choose windows (definitions differ between papers, so the numbers of one are not those of the
//! other): [`disjoint`], where a token has half a window of context on average, and [`sliding`], Hugging Face's recipe,
//! where all but the first window's tokens have at least `length - stride`.

use std::sync::atomic::AtomicBool;

use super::{EvalError, batches, stopped};
use crate::backend::Kernels;
use crate::data::Batch;
use crate::error::Result;
use crate::model::{Llama, Recompute};
use crate::report::record::{Bucket, LengthScore, WindowLoss, error_over_windows};
use crate::tape::Tape;

/// A stretch of one document, of which the last tokens are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// What the model sees.
    pub tokens: &'a [u32],
    /// How many of the last tokens count; fewer than there are tokens.
    pub scored: usize,
}

/// The first `count` windows of `length` tokens that share no token: the first of every document that is long enough,
/// then the second, and so on, so that a few windows come from many documents.
pub fn disjoint<'a>(docs: &[&'a [u32]], length: usize, count: usize) -> Vec<Window<'a>> {
    if length < 2 {
        return Vec::new();
    }
    let longest = docs.iter().map(|doc| doc.len()).max().unwrap_or(0);
    let nth = |n: usize| docs.iter().filter_map(move |doc| doc.get(n * length..(n + 1) * length));
    let all = (0..longest / length).flat_map(nth);
    all.take(count).map(|tokens| Window { tokens, scored: length - 1 }).collect()
}

/// Windows of at most `length` tokens, `stride` apart, that score every token but the first once: the first window
/// scores all of its tokens, each later one those that the windows before it have not reached.
///
/// Panics when `stride` is 0 or more than `length`.
pub fn sliding(tokens: &[u32], length: usize, stride: usize) -> Vec<Window<'_>> {
    assert!(0 < stride && stride <= length, "sliding: a stride of {stride} in windows of {length}");
    let mut windows = Vec::new();
    let mut reached = 0;
    for begin in (0..tokens.len()).step_by(stride) {
        let end = (begin + length).min(tokens.len());
        let scored = (end - reached).min(end - begin - 1);
        if scored > 0 {
            windows.push(Window { tokens: &tokens[begin..end], scored });
        }
        reached = end;
        if end == tokens.len() {
            break;
        }
    }
    windows
}

/// Sums of losses, in all and by position: bucket `k` holds the tokens at places `2^k..2^(k+1)` of their windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Losses {
    buckets: Vec<(f64, u64)>,
    windows: Vec<WindowLoss>,
}

impl Losses {
    /// Adds one window: `nll[i]` is the loss of predicting its token `first + i`; `first` is at least 1.
    pub fn add(&mut self, first: usize, nll: &[f32]) {
        let mean = nll.iter().map(|&nll| f64::from(nll)).sum::<f64>() / nll.len() as f64;
        self.windows.push(WindowLoss { nll: mean, tokens: nll.len() as u64 });
        for (place, &nll) in (first..).zip(nll) {
            let bucket = place.ilog2() as usize;
            if bucket >= self.buckets.len() {
                self.buckets.resize(bucket + 1, (0.0, 0));
            }
            let (sum, tokens) = &mut self.buckets[bucket];
            *sum += f64::from(nll);
            *tokens += 1;
        }
    }

    /// Tokens scored.
    pub fn tokens(&self) -> u64 {
        self.buckets.iter().map(|b| b.1).sum()
    }

    /// Mean loss in nats per token; NaN when there was none.
    pub fn mean(&self) -> f64 {
        self.buckets.iter().map(|b| b.0).sum::<f64>() / self.tokens() as f64
    }

    /// The result at one context length.
    pub fn score(&self, length: usize) -> LengthScore {
        let nll = self.mean();
        let by_window = self.windows.clone();
        let (error, windows) = (error_over_windows(&by_window), by_window.len() as u64);
        LengthScore { length, ppl: nll.exp(), nll, error, tokens: self.tokens(), windows, by_window }
    }

    /// Loss by position in windows of `length` tokens, empty buckets left out.
    pub fn buckets(&self, length: usize) -> Vec<Bucket> {
        let filled = self.buckets.iter().enumerate().filter(|(_, (_, tokens))| *tokens > 0);
        let bucket = |(k, &(sum, tokens)): (usize, &(f64, u64))| Bucket {
            lo: 1 << k,
            hi: (2 << k).min(length),
            nll: sum / tokens as f64,
            tokens,
        };
        filled.map(bucket).collect()
    }
}

/// Scores windows, several short ones or one long one at a time. `None` when `stop` was raised in between; `advance`
/// hears how many tokens each forward pass took.
pub fn score(
    kernels: &dyn Kernels,
    model: &Llama,
    windows: &[Window],
    stop: &AtomicBool,
    advance: &mut dyn FnMut(u64),
) -> Result<Option<Losses>> {
    let mut losses = Losses::default();
    for batch in batches(windows, |w| w.tokens.len()) {
        if stopped(stop) {
            return Ok(None);
        }
        let rows: Vec<&[u32]> = batch.iter().map(|w| w.tokens).collect();
        let nll = nll(kernels, model, &rows)?;
        let length = rows[0].len();
        for (window, nll) in batch.iter().zip(nll.chunks_exact(length)) {
            let first = length - window.scored;
            // The loss at a place is that of the token after it.
            losses.add(first, &nll[first - 1..length - 1]);
        }
        advance((rows.len() * length) as u64);
    }
    Ok(Some(losses))
}

/// Loss at every place of rows of equal length, row after row; each row's last is 0.
fn nll(kernels: &dyn Kernels, model: &Llama, rows: &[&[u32]]) -> Result<Vec<f32>> {
    EvalError::check_tokens(model, rows)?;
    let batch = Batch::contiguous(rows);
    let mut tape = Tape::inference(kernels);
    let (_, nll) = model.loss(&mut tape, &batch, Recompute::Nothing, 1.0)?;
    Ok(nll.to_host_f32()?.as_f32()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_weighs_windows_as_the_mean_does() {
        let error = |windows: &[&[f32]]| {
            let mut losses = Losses::default();
            windows.iter().for_each(|nll| losses.add(1, nll));
            losses.score(8).error
        };
        // By Python: statistics.stdev([1.5, 3, 2]) / 3**0.5, and the weighted sum with numpy.
        assert!((error(&[&[1.0, 2.0], &[3.0, 3.0], &[2.0, 2.0]]) - 0.440_958_551_844_098_5).abs() < 1e-12);
        assert!((error(&[&[1.0, 2.0, 1.5, 1.5], &[3.0], &[2.0, 2.0]]) - 0.323_969_548_293_623_23).abs() < 1e-12);
        assert!(error(&[&[1.0, 2.0]]).is_nan());
    }

    #[test]
    fn a_difference_is_known_better_than_its_sides() {
        let score = |windows: &[&[f32]]| {
            let mut losses = Losses::default();
            windows.iter().for_each(|nll| losses.add(1, nll));
            losses.score(8)
        };
        let before = score(&[&[1.0, 2.0], &[3.0, 3.0], &[2.0, 2.0]]);
        let after = score(&[&[1.5, 2.5], &[3.25, 3.25], &[2.75, 2.75]]);
        // By Python: statistics.stdev([0.5, 0.25, 0.75]) / 3**0.5.
        assert!((after.error_of_difference(&before) - 0.144_337_567_297_406_43).abs() < 1e-12);
        assert!(after.error_of_difference(&before) < before.error / 2.0);
        assert!(after.error_of_difference(&score(&[&[1.0, 2.0], &[3.0, 3.0]])).is_nan(), "other windows");
        let old = || LengthScore { by_window: Vec::new(), ..before.clone() };
        assert!(old().error_of_difference(&old()).is_nan(), "records of before windows were kept");
        assert!(after.error_of_difference(&score(&[&[1.0], &[3.0, 3.0], &[2.0, 2.0]])).is_nan(), "of other sizes");
    }
}
