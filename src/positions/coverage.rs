//! Which relative distances a run trains: the histogram of (query, key) pairs over distance.
//!
//! The pairs at distance `D` of one document are the autocorrelation of its positions' occupancy. Positions come in
//! runs of consecutive numbers, and two runs of `a` and `b` tokens contribute a trapezoid: the convolution of two
//! boxes. Its second difference is four unit impulses, so adding a document costs a handful of additions per pair of
//! runs and the counts are exact; two running sums recover them.
//!
//! Distances are raw positions. They are not divided by a row's `rope_scale`: what is counted is which integers a model
//! is asked to tell apart, and E²-LLM's rows differ in scale.

use std::ops::Range;

/// Pair counts of a run. Counts only pairs within one call of [`Coverage::add`], so one call is one document; causal by
/// construction, because positions increase.
#[derive(Debug, Clone)]
pub struct Coverage {
    /// Distances per bucket.
    width: usize,
    /// Second difference of the pair count, by distance; one run paired with itself has its diagonal at 0.
    impulses: Vec<i64>,
    /// Per bucket: documents with a pair in it.
    covered: Vec<u64>,
    /// Per bucket: the document that was counted last, so that each counts once.
    seen: Vec<u64>,
    /// Documents added.
    rows: u64,
    /// Pairs of runs added.
    work: u64,
    /// Runs of the document being added, reused: (first position, length).
    runs: Vec<(usize, usize)>,
}

/// One bar of the histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoverageBucket {
    /// Smallest distance in the bucket; at least 1.
    pub distance_lo: usize,
    /// One past the largest distance. The last bucket also holds everything beyond the target.
    pub distance_hi: usize,
    /// (query, key) pairs at these distances, summed over all documents.
    pub pairs: f64,
    /// Share of the documents with at least one such pair, 0 to 1.
    pub covered_rows: f64,
}

impl Coverage {
    /// An empty histogram over distances `1..target` in about `buckets` equal buckets (fewer when `target` is smaller;
    /// the width is rounded up). Both must be positive.
    pub fn new(target: usize, buckets: usize) -> Self {
        let width = target.div_ceil(buckets.max(1)).max(1);
        let count = target.div_ceil(width).max(1);
        Self {
            width,
            impulses: vec![0; target + 2],
            covered: vec![0; count],
            seen: vec![0; count],
            rows: 0,
            work: 0,
            runs: Vec::new(),
        }
    }

    /// Adds one document's strictly increasing positions. Costs `O(runs²)`.
    pub fn add(&mut self, positions: &[u32]) {
        self.rows += 1;
        self.split(positions);
        let Some(&(end, len)) = self.runs.last() else {
            return;
        };
        let needed = end + len + 2;
        if self.impulses.len() < needed {
            self.impulses.resize(needed, 0);
        }
        let runs = std::mem::take(&mut self.runs);
        self.work += (runs.len() * runs.len()) as u64;
        for (later, &(q, b)) in runs.iter().enumerate() {
            // Within a run: b − D pairs at D = 0..b, one side of the triangle.
            self.impulses[0] += b as i64;
            self.impulses[1] -= b as i64 + 1;
            self.impulses[b + 1] += 1;
            self.cover(1, b);
            for &(p, a) in &runs[..later] {
                let nearest = q + 1 - (p + a);
                for (distance, impulse) in [(0, 1), (a, -1), (b, -1), (a + b, 1)] {
                    self.impulses[nearest + distance] += impulse;
                }
                self.cover(nearest, nearest + a + b - 1);
            }
        }
        self.runs = runs;
    }

    /// Documents added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What counting has cost so far: the sum of `runs²`.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Share of the distances in `range` with at least one pair; `None` for an empty range.
    pub fn share_seen(&self, range: Range<usize>) -> Option<f64> {
        let seen = self.pairs().filter(|(d, pairs)| range.contains(d) && *pairs > 0).count();
        (!range.is_empty()).then(|| seen as f64 / range.len() as f64)
    }

    /// The histogram, nearest distances first.
    pub fn buckets(&self) -> Vec<CoverageBucket> {
        let count = self.covered.len();
        let end = self.impulses.len() - 2;
        let mut buckets: Vec<_> = (0..count)
            .map(|i| CoverageBucket {
                distance_lo: (i * self.width).max(1),
                distance_hi: if i + 1 == count { end } else { (i + 1) * self.width },
                pairs: 0.0,
                covered_rows: self.covered[i] as f64 / self.rows.max(1) as f64,
            })
            .collect();
        for (distance, pairs) in self.pairs() {
            buckets[self.bucket(distance)].pairs += pairs as f64;
        }
        buckets
    }

    /// Share of all pairs at distances of `distance` or more; 0 without pairs.
    pub fn share_beyond(&self, distance: usize) -> f64 {
        let (mut beyond, mut all) = (0, 0);
        for (d, pairs) in self.pairs() {
            all += pairs;
            if d >= distance {
                beyond += pairs;
            }
        }
        if all == 0 { 0.0 } else { beyond as f64 / all as f64 }
    }

    /// Pairs at every distance from 1.
    fn pairs(&self) -> impl Iterator<Item = (usize, i64)> {
        let (mut slope, mut pairs) = (0, 0);
        self.impulses
            .iter()
            .map(move |impulse| {
                slope += impulse;
                pairs += slope;
                pairs
            })
            .enumerate()
            .skip(1)
    }

    fn bucket(&self, distance: usize) -> usize {
        (distance / self.width).min(self.covered.len() - 1)
    }

    /// Notes that the current document has pairs at `from..to`.
    fn cover(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        for bucket in self.bucket(from)..=self.bucket(to - 1) {
            if self.seen[bucket] != self.rows {
                self.seen[bucket] = self.rows;
                self.covered[bucket] += 1;
            }
        }
    }

    fn split(&mut self, positions: &[u32]) {
        self.runs.clear();
        for &p in positions {
            let p = p as usize;
            match self.runs.last_mut() {
                Some((start, len)) if *start + *len == p => *len += 1,
                Some((start, len)) => {
                    debug_assert!(*start + *len < p, "coverage: positions must increase, got {p}");
                    self.runs.push((p, 1));
                }
                None => self.runs.push((p, 1)),
            }
        }
    }
}
