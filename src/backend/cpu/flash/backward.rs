//! Gradients of [`super::attention`]; the formulas are in its header.
//!
//! A unit is one (batch, key head): it owns the rows of dk and dv that its query heads add to. Where there are fewer units
//! than threads can share, a unit is cut into parts, each with its own dk and dv, added up in order at the end.

use rayon::prelude::*;

use super::tile::{GradStep, Mask};
use super::{Dims, KEYS, KeyRows, TILE, from_lanes, product, to_lanes};
use crate::backend::cpu::panel::{Init, LANE_STEP, Order};
use crate::backend::cpu::scratch::Scratch;
use crate::backend::cpu::vector::{axpy, dot};

/// How the work and the scratch memory of one call are cut.
struct Plan {
    dims: Dims,
    /// Floats per row of dk and dv in scratch: head_dim, padded to whole vectors.
    width: usize,
    /// Parts per unit.
    parts: usize,
    /// (query head of the group, tile) pairs per unit; part p does p, p + parts, p + 2 parts, ..., which balances the
    /// triangle.
    items: usize,
}

impl Plan {
    fn new(dims: Dims) -> Self {
        let items = dims.heads / dims.kv_heads * dims.tiles();
        // Two parts per thread: enough to even out, little enough to add up.
        let parts = (2 * rayon::current_num_threads()).div_ceil(dims.batch * dims.kv_heads).min(items);
        Self { dims, width: dims.head_dim.next_multiple_of(LANE_STEP), parts, items }
    }

    /// Floats of dk, and of dv, in one part.
    fn kv_floats(&self) -> usize {
        self.dims.kv_len * self.width
    }

    /// Floats of one part: dk, dv, then the columns of dq of each item.
    fn part_floats(&self) -> usize {
        2 * self.kv_floats() + self.items.div_ceil(self.parts) * self.dims.head_dim * TILE
    }
}

/// Gradients of [`super::attention::forward`] for `do_`, the gradient of `o`; overwrites `dq`, `dk` and `dv`.
///
/// # Panics
/// If a length does not fit `dims`.
#[expect(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub fn backward(
    dims: Dims,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &[f32],
    lse: &[f32],
    do_: &[f32],
    starts: [&[u32]; 2],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    dims.check(q, k, v, starts);
    let Dims { q_len, kv_len, heads, kv_heads, head_dim, .. } = dims;
    assert_eq!(lse.len(), dims.batch * heads * q_len, "attention: floats of lse");
    for (name, x) in [("o", o), ("do", do_), ("dq", dq)] {
        assert_eq!(x.len(), q.len(), "attention: floats of {name}");
    }
    for (name, x) in [("dk", &*dk), ("dv", &*dv)] {
        assert_eq!(x.len(), k.len(), "attention: floats of {name}");
    }
    if q.is_empty() {
        dk.fill(0.0);
        dv.fill(0.0);
        return;
    }
    let plan = Plan::new(dims);
    let saved =
        Saved { plan: &plan, scale, q, o, lse, do_, starts, keys: KeyRows::new(&dims, k), values: KeyRows::new(&dims, v) };

    let part_floats = plan.part_floats();
    let mut out = Scratch::dirty(dims.batch * kv_heads * plan.parts * part_floats);
    out.par_chunks_mut(part_floats).with_max_len(1).enumerate().for_each(|(n, out)| {
        out.fill(0.0);
        let mut space = Space::new(&plan);
        let (unit, part) = (n / plan.parts, n % plan.parts);
        let (dkv, dq) = out.split_at_mut(2 * plan.kv_floats());
        for (item, dq) in (part..plan.items).step_by(plan.parts).zip(dq.chunks_exact_mut(head_dim * TILE)) {
            space.item(&saved, unit, item, dkv, dq);
        }
    });

    let group = heads / kv_heads;
    dq.par_chunks_mut(q_len * heads * head_dim).enumerate().for_each(|(batch, dq)| {
        dq.par_chunks_mut(TILE * heads * head_dim).enumerate().for_each(|(tile, dq)| {
            let lanes = dq.len() / (heads * head_dim);
            for head in 0..heads {
                let item = head % group * dims.tiles() + tile;
                let part = (batch * kv_heads + head / group) * plan.parts + item % plan.parts;
                let at = part * part_floats + 2 * plan.kv_floats() + item / plan.parts * head_dim * TILE;
                from_lanes(&out[at..], lanes, scale, &mut dq[head * head_dim..], heads * head_dim, head_dim);
            }
        });
    });
    for (dx, at) in [(dk, 0), (dv, plan.kv_floats())] {
        dx.par_chunks_mut(kv_heads * head_dim).enumerate().for_each(|(token, row)| {
            let (batch, token) = (token / kv_len, token % kv_len);
            for (head, row) in row.chunks_exact_mut(head_dim).enumerate() {
                let unit = (batch * kv_heads + head) * plan.parts;
                for part in 0..plan.parts {
                    let from = &out[(unit + part) * part_floats + at + token * plan.width..][..head_dim];
                    if part == 0 {
                        row.copy_from_slice(from);
                    } else {
                        axpy(1.0, from, row);
                    }
                }
            }
        });
    }
}

/// What the forward pass left, and the gradient that comes in.
struct Saved<'a> {
    plan: &'a Plan,
    scale: f32,
    q: &'a [f32],
    o: &'a [f32],
    lse: &'a [f32],
    do_: &'a [f32],
    starts: [&'a [u32]; 2],
    keys: KeyRows<'a>,
    values: KeyRows<'a>,
}

/// What one thread needs to work on a part.
struct Space {
    /// Scaled queries and incoming gradients, as columns `[d][lane]`.
    columns: [Scratch; 2],
    /// The same as rows `[lane][d]`, `Plan::width` apart.
    rows: [Scratch; 2],
    scores: Scratch,
    grads: Scratch,
}

impl Space {
    fn new(plan: &Plan) -> Self {
        let columns = || Scratch::zeros(plan.dims.head_dim * TILE);
        let rows = || Scratch::zeros(TILE * plan.width);
        let tile = || Scratch::zeros(KEYS * TILE);
        Self { columns: [columns(), columns()], rows: [rows(), rows()], scores: tile(), grads: tile() }
    }

    /// Adds one tile of queries of one head to `dkv`, (2,Tk,width), and writes its unscaled dq as columns.
    fn item(&mut self, saved: &Saved, unit: usize, item: usize, dkv: &mut [f32], dq: &mut [f32]) {
        let Plan { dims, width, .. } = *saved.plan;
        let Dims { q_len, heads, kv_heads, head_dim, .. } = dims;
        let (batch, key_head) = (unit / kv_heads, unit % kv_heads);
        let head = key_head * (heads / kv_heads) + item / dims.tiles();
        let tile = item % dims.tiles();
        let queries = dims.tile(saved.starts, batch, tile, head);
        let lanes = queries.lanes;

        let (at, stride) = dims.q_rows(batch, tile, head);
        for (n, (x, factor)) in [(saved.q, saved.scale), (saved.do_, 1.0)].into_iter().enumerate() {
            to_lanes(&x[at..], stride, lanes, head_dim, factor, &mut self.columns[n]);
            for (to, from) in self.rows[n].chunks_exact_mut(width).zip(x[at..].chunks(stride)).take(lanes) {
                for (to, from) in to[..head_dim].iter_mut().zip(from) {
                    *to = factor * from;
                }
            }
        }
        // Unused lanes keep zeros in the columns, so their scores stay finite; they are left out of the sums over lanes.
        let (mut lse, mut delta) = ([0.0; TILE], [0.0; TILE]);
        lse[..lanes].copy_from_slice(&saved.lse[(batch * heads + head) * q_len + tile * TILE..][..lanes]);
        for (lane, delta) in delta[..lanes].iter_mut().enumerate() {
            let at = at + lane * stride;
            *delta = dot(&saved.o[at..at + head_dim], &saved.do_[at..at + head_dim]);
        }

        let (dk, dv) = dkv.split_at_mut(saved.plan.kv_floats());
        for (first, len) in queries.key_steps(KEYS) {
            let scores = &mut self.scores[..len * TILE];
            let grads = &mut self.grads[..len * TILE];
            let (k, k_row) = (saved.keys.from(&dims, batch, key_head, first), saved.keys.row);
            let (v, v_row) = (saved.values.from(&dims, batch, key_head, first), saved.values.row);
            product([len, TILE, head_dim], (k, k_row, Order::Rows), (&self.columns[0], TILE), (scores, TILE), Init::Zero);
            if queries.is_ragged(first, len) {
                Mask { queries: &queries, first, scores }.run();
            }
            product([len, TILE, head_dim], (v, v_row, Order::Rows), (&self.columns[1], TILE), (grads, TILE), Init::Zero);
            GradStep { scores, grads, lse: &lse, delta: &delta }.run();
            let at = first * width;
            product([len, width, lanes], (scores, TILE, Order::Rows), (&self.rows[1], width), (&mut dv[at..], width), Init::Add);
            product([len, width, lanes], (grads, TILE, Order::Rows), (&self.rows[0], width), (&mut dk[at..], width), Init::Add);
            product([head_dim, TILE, len], (k, k_row, Order::Columns), (grads, TILE), (dq, TILE), Init::Add);
        }
    }
}
