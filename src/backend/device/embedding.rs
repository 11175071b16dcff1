#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::{Device, In, Launcher, Out, Purpose, blocks, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::embedding::EmbeddingKernels;
use crate::tensor::Tensor;

/// Tokens of one id that one team adds at most: a frequent id is cut, so that nobody walks through thousands alone.
const SPAN: usize = 256;

/// Sums of rows: segment `i` adds the rows `order[begins[i]..begins[i + 1]]` and puts the sum into `rows[i]`.
struct Segments {
    order: Vec<u32>,
    begins: Vec<u32>,
    rows: Vec<u32>,
}

impl Segments {
    fn new() -> Self {
        Self { order: Vec::new(), begins: vec![0], rows: Vec::new() }
    }

    fn push(&mut self, members: impl IntoIterator<Item = u32>, row: u32) {
        self.order.extend(members);
        self.begins.push(self.order.len() as u32);
        self.rows.push(row);
    }
}

/// The sums that make the gradient: whole ids; pieces of frequent ids, each into a row of its own; and of those rows, the ids.
fn plan(ids: &[u32], vocab: usize) -> [Segments; 3] {
    let mut begins = vec![0usize; vocab + 1];
    ids.iter().for_each(|&id| begins[id as usize + 1] += 1);
    (0..vocab).for_each(|v| begins[v + 1] += begins[v]);
    let mut next = begins.clone();
    let mut order = vec![0u32; ids.len()];
    for (token, &id) in ids.iter().enumerate() {
        order[next[id as usize]] = token as u32;
        next[id as usize] += 1;
    }
    let [mut whole, mut pieces, mut joined] = [Segments::new(), Segments::new(), Segments::new()];
    for v in 0..vocab {
        match &order[begins[v]..begins[v + 1]] {
            [] => {}
            tokens if tokens.len() <= SPAN => whole.push(tokens.iter().copied(), v as u32),
            tokens => {
                let first = pieces.rows.len() as u32;
                tokens.chunks(SPAN).zip(first..).for_each(|(piece, row)| pieces.push(piece.iter().copied(), row));
                joined.push(first..pieces.rows.len() as u32, v as u32);
            }
        }
    }
    [whole, pieces, joined]
}

/// What the rows of a segment sum are made of.
enum Rows<'a> {
    Gradient(&'a Tensor),
    Sums(&'a Tensor),
}

impl<L: Launcher> Device<L> {
    /// `to[n] = from[index[n]]`, rows of `cols` elements, a multiple of 8.
    ///
    /// # Safety
    /// `to` and `index` have `rows` rows, and every entry of `index` names a row of `from`.
    pub(super) unsafe fn gather_rows(
        &self,
        to: Out<bf16>,
        from: In<bf16>,
        index: In<u32>,
        [rows, cols]: [usize; 2],
    ) -> Result<()> {
        let per_thread = 4 * k::embedding::VEC;
        let team = cols.div_ceil(per_thread).next_power_of_two().min(k::embedding::THREADS);
        let grid = [blocks(rows.div_ceil(k::embedding::THREADS / team)), 1, 1];
        // SAFETY: the caller's promise.
        unsafe { k::embedding_fwd(self.launcher(), grid, to, index, from, int(rows), int(cols), int(team)) }
    }

    fn add_segments(&self, out: Out<f32>, rows: &Rows, segments: &Segments, cols: usize) -> Result<()> {
        let n = segments.rows.len();
        if n * cols == 0 {
            return Ok(());
        }
        let team = (cols / k::embedding::VEC).next_power_of_two().min(k::embedding::THREADS);
        let grid = [blocks(n.div_ceil(k::embedding::THREADS / team)), blocks(cols.div_ceil(k::embedding::VEC * team)), 1];
        let (order, begins, to) =
            (self.integers(&segments.order)?, self.integers(&segments.begins)?, self.integers(&segments.rows)?);
        let (order, begins, to) = (input(&order)?, input(&begins)?, input(&to)?);
        let (l, n, cols, team) = (self.launcher(), int(n), int(cols), int(team));
        match rows {
            // SAFETY: `plan` names rows of the input and of the output only, and every row of the output once; begins has one
            // entry more than there are segments and ends with the length of order.
            Rows::Gradient(dy) => unsafe { k::embedding_bwd(l, grid, out, input(dy)?, order, begins, to, n, cols, team) },
            // SAFETY: as above.
            Rows::Sums(sums) => unsafe { k::embedding_bwd_parts(l, grid, out, input(sums)?, order, begins, to, n, cols, team) },
        }
    }
}

impl<L: Launcher> EmbeddingKernels for Device<L> {
    fn embedding_fwd(&self, ids: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [batch, seq_len] = ids.dims("embedding: ids (B,T)")?;
        let [vocab, cols] = w.dims("embedding: w (V,C)")?;
        vectors("the width of an embedding", cols)?;
        let ids = ids.as_u32()?;
        assert!(ids.iter().all(|&id| (id as usize) < vocab), "embedding: ids are below the vocabulary's size");
        let (y, out) = self.empty::<bf16>([batch, seq_len, cols])?;
        if ids.len() * cols > 0 {
            let placed = self.integers(ids)?;
            // SAFETY: y holds a row for every id, and every id names a row of w: checked or made above.
            unsafe { self.gather_rows(out, input(w)?, input(&placed)?, [ids.len(), cols])? };
        }
        Ok(y)
    }

    fn embedding_bwd(&self, dy: &Tensor, ids: &Tensor, vocab: usize) -> Result<Tensor> {
        let [_, cols] = dy.rows_cols("embedding_bwd: dy (B,T,C)")?;
        ids.expect("embedding_bwd: ids (B,T)", &dy.shape().dims()[..dy.shape().dims().len() - 1])?;
        vectors("the width of an embedding", cols)?;
        let [whole, pieces, joined] = plan(ids.as_u32()?, vocab);
        let (dw, out) = self.zeros_for::<f32>(Purpose::Gradients, [vocab, cols])?;
        self.add_segments(out, &Rows::Gradient(dy), &whole, cols)?;
        let (sums, sums_out) = self.empty_for::<f32>(Purpose::Gradients, [pieces.rows.len(), cols])?;
        self.add_segments(sums_out, &Rows::Gradient(dy), &pieces, cols)?;
        self.add_segments(out, &Rows::Sums(&sums), &joined, cols)?;
        Ok(dw)
    }
}
