//! Gradients of [`super::forward`]; the formulas are in the module's header.
//!
//! Here a key is a SIMD lane: dk and dv, which every later query adds to, stay columns `[d][lane]`, and only dq needs a
//! product with rows, whose head_dim is padded to whole vectors.
//!
//! A unit is one (batch, key head): it owns the rows of dk and dv that its query heads add to. Where there are fewer units
//! than threads can share, a unit is cut into parts, each with its own dk and dv, added up in order at the end.

use rayon::prelude::*;

use super::tile::{GradStep, Mask, Side};
use super::{LOG2_E, TILE, from_lanes, product, to_lanes};
use crate::backend::cpu::panel::{Init, LANE_STEP, Order};
use crate::backend::cpu::scratch::Scratch;
use crate::backend::cpu::vector::{axpy, dot};
use crate::ops::attention::Extents;

/// How the work and the scratch memory of one call are cut.
struct Plan {
    dims: Extents,
    /// Tiles of [`TILE`] keys per unit.
    key_tiles: usize,
    /// Floats per row of dq and of k in scratch: head_dim, padded to whole vectors.
    width: usize,
    /// Parts per unit.
    parts: usize,
    /// (query head of the group, tile) pairs per unit; part p does p, p + parts, p + 2 parts, ..., which balances the
    /// triangle.
    items: usize,
}

impl Plan {
    fn new(dims: Extents) -> Self {
        let items = dims.heads / dims.kv_heads * dims.tiles();
        // Two parts per thread: enough to even out, little enough to add up.
        let parts = (2 * rayon::current_num_threads()).div_ceil(dims.units()).min(items);
        Self { dims, key_tiles: dims.kv_len.div_ceil(TILE), width: dims.head_dim.next_multiple_of(LANE_STEP), parts, items }
    }

    /// Floats of the columns of one tile of keys.
    fn columns(&self) -> usize {
        self.dims.head_dim * TILE
    }

    /// Floats of dk, and of dv, in one part: columns of every tile of keys.
    fn kv_floats(&self) -> usize {
        self.key_tiles * self.columns()
    }

    /// Floats of one part: dk, dv, then the rows of dq of each item.
    fn part_floats(&self) -> usize {
        2 * self.kv_floats() + self.items.div_ceil(self.parts) * TILE * self.width
    }
}

/// Keys and values in the two layouts their products want, missing keys of the last tile as zeros.
struct Keys {
    /// `k * scale * log2 e` as columns, (B,Hk,tiles,D,TILE): scores come out in base 2.
    k_columns: Scratch,
    /// v as columns.
    v_columns: Scratch,
    /// k as rows, (B,Hk,tiles * TILE,width).
    k_rows: Scratch,
}

impl Keys {
    fn new(plan: &Plan, scale: f32, k: &[f32], v: &[f32]) -> Self {
        let Extents { kv_len, kv_heads, head_dim, .. } = plan.dims;
        let tiles = plan.dims.units() * plan.key_tiles;
        let (columns, rows) = (plan.columns(), TILE * plan.width);
        let mut keys = Self {
            k_columns: Scratch::dirty(tiles * columns),
            v_columns: Scratch::dirty(tiles * columns),
            k_rows: Scratch::zeros(tiles * rows),
        };
        let stride = kv_heads * head_dim;
        let columns = keys.k_columns.par_chunks_mut(columns).zip(keys.v_columns.par_chunks_mut(columns));
        columns.zip(keys.k_rows.par_chunks_mut(rows)).enumerate().for_each(|(n, ((k_columns, v_columns), k_rows))| {
            let (unit, tile) = (n / plan.key_tiles, n % plan.key_tiles);
            let (batch, head) = (unit / kv_heads, unit % kv_heads);
            let at = (batch * kv_len + tile * TILE) * stride + head * head_dim;
            let lanes = TILE.min(kv_len - tile * TILE);
            to_lanes(&k[at..], stride, lanes, head_dim, scale * LOG2_E, k_columns);
            to_lanes(&v[at..], stride, lanes, head_dim, 1.0, v_columns);
            for (to, from) in k_rows.chunks_exact_mut(plan.width).zip(k[at..].chunks(stride)).take(lanes) {
                to[..head_dim].copy_from_slice(&from[..head_dim]);
            }
        });
        keys
    }
}

/// Gradients of [`super::forward`] for `do_`, the gradient of `o`; overwrites `dq`, `dk` and `dv`.
///
/// # Panics
/// If a length does not fit `dims`.
#[expect(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub fn backward(
    dims: Extents,
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
    let Extents { q_len, kv_len, heads, kv_heads, head_dim, .. } = dims;
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
    let saved = Saved { plan: &plan, q, o, lse, do_, starts, keys: Keys::new(&plan, scale, k, v) };

    let part_floats = plan.part_floats();
    let mut out = Scratch::dirty(dims.units() * plan.parts * part_floats);
    out.par_chunks_mut(part_floats).with_max_len(1).enumerate().for_each(|(n, out)| {
        out.fill(0.0);
        let mut space = Space::new(&plan);
        let (unit, part) = (n / plan.parts, n % plan.parts);
        let (dkv, dq) = out.split_at_mut(2 * plan.kv_floats());
        let (dk, dv) = dkv.split_at_mut(plan.kv_floats());
        for (item, dq) in (part..plan.items).step_by(plan.parts).zip(dq.chunks_exact_mut(TILE * plan.width)) {
            space.item(&saved, unit, item, [dq, dk, dv]);
        }
    });

    let group = heads / kv_heads;
    dq.par_chunks_mut(q_len * heads * head_dim).enumerate().for_each(|(batch, dq)| {
        dq.par_chunks_mut(TILE * heads * head_dim).enumerate().for_each(|(tile, dq)| {
            for head in 0..heads {
                let item = head % group * dims.tiles() + tile;
                let part = (batch * kv_heads + head / group) * plan.parts + item % plan.parts;
                let at = part * part_floats + 2 * plan.kv_floats() + item / plan.parts * TILE * plan.width;
                for (to, from) in dq.chunks_exact_mut(heads * head_dim).zip(out[at..].chunks_exact(plan.width)) {
                    for (to, from) in to[head * head_dim..][..head_dim].iter_mut().zip(from) {
                        *to = scale * from;
                    }
                }
            }
        });
    });
    for (dx, at, factor) in [(dk, 0, scale), (dv, plan.kv_floats(), 1.0)] {
        dx.par_chunks_mut(kv_len * kv_heads * head_dim).enumerate().for_each(|(batch, dx)| {
            dx.par_chunks_mut(TILE * kv_heads * head_dim).enumerate().for_each(|(tile, dx)| {
                let lanes = dx.len() / (kv_heads * head_dim);
                let mut sum = Scratch::dirty(plan.columns());
                for head in 0..kv_heads {
                    for part in 0..plan.parts {
                        let part_at = ((batch * kv_heads + head) * plan.parts + part) * part_floats;
                        let from = &out[part_at + at + tile * plan.columns()..][..plan.columns()];
                        if part == 0 {
                            sum.copy_from_slice(from);
                        } else {
                            axpy(1.0, from, &mut sum);
                        }
                    }
                    from_lanes(&sum, lanes, factor, &mut dx[head * head_dim..], kv_heads * head_dim, head_dim);
                }
            });
        });
    }
}

/// What the forward pass left, and the gradient that comes in.
struct Saved<'a> {
    plan: &'a Plan,
    q: &'a [f32],
    o: &'a [f32],
    lse: &'a [f32],
    do_: &'a [f32],
    starts: [&'a [u32]; 2],
    keys: Keys,
}

/// What one thread needs to work on a part.
struct Space {
    /// Queries and incoming gradients, (TILE,D): rows of one head without the others between them.
    rows: [Scratch; 2],
    scores: Scratch,
    grads: Scratch,
}

impl Space {
    fn new(plan: &Plan) -> Self {
        let rows = || Scratch::dirty(plan.columns());
        let tile = || Scratch::dirty(TILE * TILE);
        Self { rows: [rows(), rows()], scores: tile(), grads: tile() }
    }

    /// Adds one tile of queries of one head to the columns of dk (unscaled) and dv, and to its unscaled rows of dq.
    fn item(&mut self, saved: &Saved, unit: usize, item: usize, [dq, dk, dv]: [&mut [f32]; 3]) {
        let &Plan { dims, key_tiles, width, .. } = saved.plan;
        let Extents { q_len, heads, kv_heads, head_dim, .. } = dims;
        let (batch, key_head) = (unit / kv_heads, unit % kv_heads);
        let head = key_head * (heads / kv_heads) + item / dims.tiles();
        let tile = item % dims.tiles();
        let queries = dims.tile(saved.starts, batch, tile, head);
        let lanes = queries.lanes;

        let (at, stride) = dims.q_rows(batch, tile, head);
        for (to, from) in self.rows.iter_mut().zip([saved.q, saved.do_]) {
            for (to, from) in to.chunks_exact_mut(head_dim).zip(from[at..].chunks(stride)).take(lanes) {
                to.copy_from_slice(&from[..head_dim]);
            }
        }
        let (mut lse, mut delta) = ([0.0; TILE], [0.0; TILE]);
        let given = &saved.lse[(batch * heads + head) * q_len + tile * TILE..][..lanes];
        for (lse, given) in lse.iter_mut().zip(given) {
            *lse = LOG2_E * given;
        }
        for (lane, delta) in delta[..lanes].iter_mut().enumerate() {
            let o = &saved.o[at + lane * stride..][..head_dim];
            *delta = dot(o, &self.rows[1][lane * head_dim..][..head_dim]);
        }

        let columns = saved.plan.columns();
        let [q, do_] = &self.rows;
        for key_tile in queries.key_tiles() {
            let n = unit * key_tiles + key_tile;
            let (scores, grads) = (&mut self.scores[..lanes * TILE], &mut self.grads[..lanes * TILE]);
            let k = (&saved.keys.k_columns[n * columns..], TILE);
            let v = (&saved.keys.v_columns[n * columns..], TILE);
            let k_rows = (&saved.keys.k_rows[n * TILE * width..], width);
            let (dk, dv) = (&mut dk[key_tile * columns..], &mut dv[key_tile * columns..]);

            product([lanes, TILE, head_dim], (q, head_dim, Order::Rows), k, (scores, TILE), Init::Zero);
            if queries.is_ragged(key_tile * TILE, TILE) {
                Mask { queries: &queries, first: key_tile * TILE, scores, lanes: Side::Keys }.run();
            }
            product([lanes, TILE, head_dim], (do_, head_dim, Order::Rows), v, (grads, TILE), Init::Zero);
            GradStep { scores, grads, lse: &lse, delta: &delta }.run();
            product([head_dim, TILE, lanes], (do_, head_dim, Order::Columns), (scores, TILE), (dv, TILE), Init::Add);
            product([head_dim, TILE, lanes], (q, head_dim, Order::Columns), (grads, TILE), (dk, TILE), Init::Add);
            product([lanes, width, TILE], (grads, TILE, Order::Rows), k_rows, (dq, width), Init::Add);
        }
    }
}
