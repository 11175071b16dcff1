//! Causal attention over visible key ranges, in tiles, never holding a (T,T) matrix.
//!
//! For query i of a row, with own token `own = Tk - Tq + i` and visible keys `start..=own`:
//! ```text
//! s_j = scale * q . k_j      p_j = exp(s_j - lse)      lse = ln sum_j exp(s_j)      o = sum_j p_j v_j
//! dv_j += p_j do             ds_j = p_j (do . v_j - do . o)
//! dq = scale * sum_j ds_j k_j                          dk_j += scale * ds_j q
//! ```
//! Shapes: q, o, do, dq (B,Tq,H,D); k, v, dk, dv (B,Tk,Hk,D); lse (B,H,Tq). H is a multiple of Hk, and query head h reads
//! key head `h / (H / Hk)`. `starts[half][b * Tq + i]` belongs to the heads of one half; it does not decrease with i inside
//! a row and is at most `own`.
//!
//! A tile is [`TILE`] queries of one head, and in the forward pass a query is a SIMD lane: scores are kept as
//! `S[key][lane]`, so the softmax is vertical, and every matrix product is one [`Panel`]. Scores are in base 2, with log2 e
//! in the scale. Memory beside the arguments is linear in T. Each sum runs in an order fixed by the shapes and, for dk and
//! dv, the thread count, so two runs are bit-equal.

mod backward;
mod tile;

use std::f32::consts::{LN_2, LOG2_E};

use rayon::prelude::*;

pub use backward::backward;

use self::tile::{Mask, QueryTile, Side, SoftmaxStep};
use crate::backend::cpu::panel::{Init, Order, Panel};
use crate::backend::cpu::scratch::Scratch;
use crate::ops::attention::Extents;

/// Queries per tile: four AVX-512 registers.
pub(super) const TILE: usize = 64;
/// Keys per step of the forward pass: with [`TILE`] lanes, scores fit the first-level cache.
const KEYS: usize = 64;
/// A score that loses against every real one and still has a finite difference to -inf.
const LOWEST: f32 = -1e30;

impl Extents {
    fn q_numel(&self) -> usize {
        self.batch * self.q_len * self.heads * self.head_dim
    }

    fn kv_numel(&self) -> usize {
        self.batch * self.kv_len * self.kv_heads * self.head_dim
    }

    /// (batch, key head) pairs.
    pub(super) fn units(&self) -> usize {
        self.batch * self.kv_heads
    }

    pub(super) fn tiles(&self) -> usize {
        self.q_len.div_ceil(TILE)
    }

    /// The half of the heads that `head` belongs to, which picks its visibility table.
    fn half(&self, head: usize) -> usize {
        usize::from(head * 2 >= self.heads)
    }

    pub(super) fn check(&self, q: &[f32], k: &[f32], v: &[f32], starts: [&[u32]; 2]) {
        assert!(self.q_len <= self.kv_len, "attention: {} queries but {} keys", self.q_len, self.kv_len);
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "attention: {} query heads do not share {} key heads evenly",
            self.heads,
            self.kv_heads
        );
        assert_eq!(q.len(), self.q_numel(), "attention: floats of q");
        assert_eq!(k.len(), self.kv_numel(), "attention: floats of k");
        assert_eq!(v.len(), self.kv_numel(), "attention: floats of v");
        for table in starts {
            assert_eq!(table.len(), self.batch * self.q_len, "attention: visibility starts");
        }
    }

    pub(super) fn tile(&self, starts: [&[u32]; 2], batch: usize, tile: usize, head: usize) -> QueryTile {
        let first = tile * TILE;
        let lanes = TILE.min(self.q_len - first);
        let row = &starts[self.half(head)][batch * self.q_len..][..self.q_len];
        QueryTile::new(&row[first..first + lanes], self.kv_len - self.q_len + first)
    }

    /// Where the rows of (batch, tile, head) start in q, and the floats from one to the next.
    pub(super) fn q_rows(&self, batch: usize, tile: usize, head: usize) -> (usize, usize) {
        let stride = self.heads * self.head_dim;
        ((batch * self.q_len + tile * TILE) * stride + head * self.head_dim, stride)
    }
}

/// Where [`KeyRows`] reads.
enum Rows<'a> {
    Given(&'a [f32]),
    ByHead(Scratch),
}

/// Keys or values with the rows of one head reachable as (offset, stride).
struct KeyRows<'a> {
    rows: Rows<'a>,
    head: usize,
    row: usize,
}

impl<'a> KeyRows<'a> {
    /// Copies to (B,Hk,Tk,D), unless so few queries will read the rows that the copy would cost more than it saves: rows a
    /// power of two apart share a few cache sets.
    fn new(dims: &Extents, x: &'a [f32]) -> Self {
        let Extents { kv_len, kv_heads, head_dim, .. } = *dims;
        if kv_heads == 1 || dims.q_len < TILE {
            return Self { rows: Rows::Given(x), head: head_dim, row: kv_heads * head_dim };
        }
        let mut by_head = Scratch::dirty(x.len());
        by_head.par_chunks_mut(kv_len * head_dim).enumerate().for_each(|(unit, out)| {
            let (batch, head) = (unit / kv_heads, unit % kv_heads);
            let rows = x[batch * kv_len * kv_heads * head_dim..].chunks_exact(kv_heads * head_dim);
            for (out, row) in out.chunks_exact_mut(head_dim).zip(rows) {
                out.copy_from_slice(&row[head * head_dim..][..head_dim]);
            }
        });
        Self { rows: Rows::ByHead(by_head), head: kv_len * head_dim, row: head_dim }
    }

    /// The rows from key `first` on, of one head; consecutive rows are `self.row` apart.
    fn from(&self, dims: &Extents, batch: usize, head: usize, first: usize) -> &[f32] {
        let floats: &[f32] = match &self.rows {
            Rows::Given(floats) => floats,
            Rows::ByHead(floats) => floats,
        };
        &floats[batch * dims.kv_len * dims.kv_heads * dims.head_dim + head * self.head + first * self.row..]
    }
}

/// Writes `factor` times the rows, `stride` floats apart, as columns: `out[d * TILE + lane]`. Missing lanes become zero.
pub(super) fn to_lanes(rows: &[f32], stride: usize, lanes: usize, head_dim: usize, factor: f32, out: &mut [f32]) {
    for (d, out) in out.chunks_exact_mut(TILE).take(head_dim).enumerate() {
        for (lane, out) in out[..lanes].iter_mut().enumerate() {
            *out = factor * rows[lane * stride + d];
        }
        out[lanes..].fill(0.0);
    }
}

/// Writes `factor` times the columns `x[d * TILE + lane]` as rows, `stride` floats apart.
pub(super) fn from_lanes(x: &[f32], lanes: usize, factor: f32, rows: &mut [f32], stride: usize, head_dim: usize) {
    for lane in 0..lanes {
        for (d, out) in rows[lane * stride..][..head_dim].iter_mut().enumerate() {
            *out = factor * x[d * TILE + lane];
        }
    }
}

/// Attention output and log-sum-exp.
///
/// `o` takes the shape of `q`; `lse` (B,H,Tq) is the natural log of the softmax denominator, scale included.
///
/// # Panics
/// If a length does not fit `dims`.
#[expect(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub fn forward(dims: Extents, scale: f32, q: &[f32], k: &[f32], v: &[f32], starts: [&[u32]; 2], o: &mut [f32], lse: &mut [f32]) {
    dims.check(q, k, v, starts);
    let Extents { q_len, heads, head_dim, .. } = dims;
    assert_eq!(o.len(), q.len(), "attention: floats of o");
    assert_eq!(lse.len(), dims.batch * heads * q_len, "attention: floats of lse");
    if q.is_empty() {
        return;
    }
    let (keys, values) = (KeyRows::new(&dims, k), KeyRows::new(&dims, v));
    let tiles = dims.tiles();

    // One chunk per (batch, tile, head): the columns of o, then lse.
    let unit = (head_dim + 1) * TILE;
    let mut out = Scratch::dirty(dims.batch * tiles * heads * unit);
    out.par_chunks_mut(unit).enumerate().for_each_init(
        || ForwardSpace { q: Scratch::zeros(head_dim * TILE), scores: Scratch::zeros(KEYS * TILE) },
        |space, (n, out)| {
            let (batch, tile, head) = (n / heads / tiles, n / heads % tiles, n % heads);
            let key_head = head / (heads / dims.kv_heads);
            let queries = dims.tile(starts, batch, tile, head);
            let (at, stride) = dims.q_rows(batch, tile, head);
            to_lanes(&q[at..], stride, queries.lanes, head_dim, scale * LOG2_E, &mut space.q);
            let (o, lse) = out.split_at_mut(head_dim * TILE);
            space.tile(&dims, &queries, (&keys, &values), (batch, key_head), o, lse);
        },
    );

    o.par_chunks_mut(q_len * heads * head_dim).enumerate().for_each(|(batch, o)| {
        o.par_chunks_mut(TILE * heads * head_dim).enumerate().for_each(|(tile, o)| {
            let lanes = o.len() / (heads * head_dim);
            for head in 0..heads {
                let columns = &out[((batch * tiles + tile) * heads + head) * unit..];
                from_lanes(columns, lanes, 1.0, &mut o[head * head_dim..], heads * head_dim, head_dim);
            }
        });
    });
    for (n, lse) in lse.chunks_exact_mut(q_len).enumerate() {
        let (batch, head) = (n / heads, n % heads);
        for (tile, lse) in lse.chunks_mut(TILE).enumerate() {
            let at = ((batch * tiles + tile) * heads + head) * unit + head_dim * TILE;
            lse.copy_from_slice(&out[at..at + lse.len()]);
        }
    }
}

/// What one thread needs to work on forward tiles.
struct ForwardSpace {
    q: Scratch,
    scores: Scratch,
}

impl ForwardSpace {
    /// The tile whose scaled queries are in `self.q`: `o` as columns, and `lse`.
    fn tile(
        &mut self,
        dims: &Extents,
        queries: &QueryTile,
        (keys, values): (&KeyRows, &KeyRows),
        (batch, key_head): (usize, usize),
        o: &mut [f32],
        lse: &mut [f32],
    ) {
        let head_dim = dims.head_dim;
        let (mut max, mut sum) = ([LOWEST; TILE], [0.0; TILE]);
        o.fill(0.0);
        for (first, len) in queries.key_steps(KEYS) {
            let scores = &mut self.scores[..len * TILE];
            product(
                [len, TILE, head_dim],
                (keys.from(dims, batch, key_head, first), keys.row, Order::Rows),
                (&self.q, TILE),
                (scores, TILE),
                Init::Zero,
            );
            if queries.is_ragged(first, len) {
                Mask { queries, first, scores, lanes: Side::Queries }.run();
            }
            SoftmaxStep { scores, max: &mut max, sum: &mut sum, o }.run();
            product(
                [head_dim, TILE, len],
                (values.from(dims, batch, key_head, first), values.row, Order::Columns),
                (scores, TILE),
                (o, TILE),
                Init::Add,
            );
        }
        for lane in 0..TILE {
            lse[lane] = LN_2 * (max[lane] + sum[lane].log2());
            sum[lane] = 1.0 / sum[lane];
        }
        for o in o.chunks_exact_mut(TILE) {
            for (o, inverse) in o.iter_mut().zip(&sum) {
                *o *= inverse;
            }
        }
    }
}

/// [`Panel`] with its operands as (floats, stride), A's order last.
pub(super) fn product(
    [rows, lanes, depth]: [usize; 3],
    (a, a_stride, order): (&[f32], usize, Order),
    (b, b_row): (&[f32], usize),
    (c, c_row): (&mut [f32], usize),
    init: Init,
) {
    Panel { rows, lanes, depth, a, a_stride, order, b, b_row, c, c_row, init }.run();
}

#[cfg(test)]
mod tests;
