#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::matmul::{SumTo, padded, term};
use super::{Device, In, Launcher, Out, Purpose, blocks, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::cross_entropy::{CrossEntropyKernels, CrossEntropyOut, IGNORE, Targets};
use crate::tensor::Tensor;

/// Floats of logits held at once (256 MiB).
const LOGITS: usize = 1 << 26;
/// Rows of logits held at once where the vocabulary is small, so that their copies stay small as well.
const MOST_ROWS: usize = 2048;

/// Rows of a chunk: whole tiles, as far as they fit.
fn chunk_rows(count: usize, vocab: usize) -> usize {
    let fit = (LOGITS / padded(vocab).max(1)).min(MOST_ROWS);
    let whole = if fit < k::matmul::LARGE_TILE { fit.max(1) } else { fit / k::matmul::LARGE_TILE * k::matmul::LARGE_TILE };
    whole.min(count)
}

/// The places that count, and what belongs to each of them.
struct Counted {
    index: Vec<u32>,
    ids: Vec<u32>,
    weights: Vec<f32>,
}

impl Counted {
    fn of(targets: &Targets, vocab: usize) -> Result<Self> {
        let ids = targets.ids.as_u32()?;
        let weights = targets.weights.as_ref().map(Tensor::as_f32).transpose()?;
        let places: Vec<usize> = (0..ids.len()).filter(|&n| ids[n] != IGNORE).collect();
        let id = |&n: &usize| {
            assert!((ids[n] as usize) < vocab, "cross_entropy: targets are below the vocabulary's {vocab}, got {}", ids[n]);
            ids[n]
        };
        Ok(Self {
            ids: places.iter().map(id).collect(),
            weights: places.iter().map(|&n| weights.map_or(1.0, |w| w[n])).collect(),
            index: places.iter().map(|&n| u32::try_from(n).expect("device: places are below 2^32")).collect(),
        })
    }
}

/// What belongs to the rows that count, in their order.
struct Rows {
    index: In<u32>,
    targets: In<u32>,
    weights: In<f32>,
    nll: Out<f32>,
}

impl Rows {
    /// The same without the first `n`.
    fn from(&self, n: usize) -> Self {
        let Self { index, targets, weights, nll } = self;
        Self { index: index.from(n), targets: targets.from(n), weights: weights.from(n), nll: nll.from(n) }
    }
}

/// One chunk's buffers, which all chunks use in turn.
#[derive(Clone, Copy)]
struct Tile {
    packed: Out<bf16>,
    z: Out<f32>,
    dz: Out<bf16>,
}

/// The op on chunks of the rows that count.
struct Chunks<'a, L> {
    device: &'a Device<L>,
    h: In<bf16>,
    w: In<bf16>,
    vocab: usize,
    width: usize,
    scale: f32,
    rows: Rows,
    tile: Tile,
}

impl<L: Launcher> Chunks<'_, L> {
    /// Losses of the rows from `at` on, and their `dz` where a gradient is wanted.
    ///
    /// # Safety
    /// The rows are there, and the chunk's buffers hold as many.
    unsafe fn losses(&self, at: usize, rows: usize, wants_grad: bool) -> Result<()> {
        let launcher = self.device.launcher();
        let (each, width, vocab) = ([blocks(rows), 1, 1], int(self.width), int(self.vocab));
        let Rows { index, targets, weights, nll } = self.rows.from(at);
        let Tile { packed, z, dz } = self.tile;
        let (packed_rows, logits) = (packed.as_input(), z.as_input());
        // SAFETY: the caller's promise; z and dz have padded rows, h, w and packed rows of width, a multiple of 8.
        unsafe {
            self.device.gather_rows(packed, self.h, index, [rows, self.width])?;
            k::matmul_nt_f32(launcher, large_tiles(rows, self.vocab), z, packed_rows, self.w, int(rows), vocab, width)?;
            match wants_grad {
                true => k::cross_entropy_rows(launcher, each, dz, nll, logits, targets, weights, vocab, self.scale),
                false => k::cross_entropy_nll(launcher, each, nll, logits, targets, vocab),
            }
        }
    }

    /// Their part of `dw`, which the first rows begin and the others add to.
    ///
    /// # Safety
    /// [`losses`](Self::losses) came just before, for the same rows, and `dw` holds vocab·width floats.
    unsafe fn grad_w(&self, at: usize, rows: usize, dw: Out<f32>) -> Result<()> {
        let kernel = if at == 0 { k::matmul_tn } else { k::matmul_tn_add };
        let (tiles, dz, packed) = (large_tiles(self.vocab, self.width), self.tile.dz.as_input(), self.tile.packed.as_input());
        // SAFETY: the caller's promise; dz has padded rows, packed and dw rows of width, a multiple of 8.
        unsafe { kernel(self.device.launcher(), tiles, dw, dz, packed, int(rows), int(self.vocab), int(self.width)) }
    }

    /// Their rows of `dh`, which take the place of the packed rows on their way.
    ///
    /// # Safety
    /// [`losses`](Self::losses) came before, for the same rows, nothing needs the packed rows any more, and `dh` is as large as h.
    unsafe fn grad_h(&self, at: usize, rows: usize, dh: Out<bf16>) -> Result<()> {
        let (packed, dz, index) = (self.tile.packed, self.tile.dz.as_input(), self.rows.index.from(at));
        let grad = SumTo { to: packed, width: self.width, scale: 1.0, terms: vec![term(dz, self.w, self.vocab)] };
        // SAFETY: the caller's promise; dz has padded rows, and no place occurs twice in the index.
        unsafe {
            self.device.nn(rows, &[grad])?;
            k::scatter_rows(self.device.launcher(), [blocks(rows), 1, 1], dh, packed.as_input(), index, int(self.width))
        }
    }
}

fn large_tiles(rows: usize, cols: usize) -> [u32; 3] {
    [blocks(rows.div_ceil(k::matmul::LARGE_TILE) * cols.div_ceil(k::matmul::LARGE_TILE)), 1, 1]
}

impl<L: Launcher> CrossEntropyKernels for Device<L> {
    fn cross_entropy(&self, h: &Tensor, w: &Tensor, targets: &Targets, scale: f32, wants: [bool; 2]) -> Result<CrossEntropyOut> {
        let [_, width] = h.rows_cols("cross_entropy: h (…,C)")?;
        let [vocab, _] = w.dims("cross_entropy: w (V,C)")?;
        w.expect("cross_entropy: w (V,C)", [vocab, width])?;
        vectors("the width of the output projection", width)?;
        let lead = &h.shape().dims()[..h.shape().dims().len() - 1];
        targets.ids.expect("cross_entropy: targets (B,T)", lead)?;
        if let Some(weights) = &targets.weights {
            weights.expect("cross_entropy: weights (B,T)", lead)?;
        }
        let Counted { index, ids, weights } = Counted::of(targets, vocab)?;
        let count = index.len();
        let (index, ids) = (self.integers(&index)?, self.integers(&ids)?);
        let weights = self.uploaded_for(Purpose::Loss, &Tensor::f32(weights, [count]))?;

        let (nll, nll_out) = self.zeros_for::<f32>(Purpose::Loss, targets.ids.shape())?;
        let (loss, loss_out) = self.empty_for::<f32>(Purpose::Loss, [])?;
        let (_nll_packed, nll_packed) = self.empty_for::<f32>(Purpose::Loss, [count])?;
        let dh = wants[0].then(|| self.zeros_for::<bf16>(Purpose::Activations, h.shape())).transpose()?;
        let dw = match (wants[1], count) {
            (false, _) => None,
            (true, 0) => Some(self.zeros_for(Purpose::Gradients, [vocab, width])?),
            (true, _) => Some(self.empty_for(Purpose::Gradients, [vocab, width])?),
        };
        let wants_grad = wants[0] || wants[1];

        let chunk = chunk_rows(count, vocab);
        let (_packed, packed) = self.empty_for(Purpose::Loss, [chunk, width])?;
        let (_z, z) = self.empty_for(Purpose::Loss, [chunk, padded(vocab)])?;
        let (_dz, dz) = self.empty_for(Purpose::Loss, [if wants_grad { chunk } else { 0 }, padded(vocab)])?;
        let chunks = Chunks {
            device: self,
            h: input(h)?,
            w: input(w)?,
            vocab,
            width,
            scale,
            rows: Rows { index: input(&index)?, targets: input(&ids)?, weights: input(&weights)?, nll: nll_packed },
            tile: Tile { packed, z, dz },
        };
        for at in (0..count).step_by(chunk.max(1)) {
            let rows = chunk.min(count - at);
            // SAFETY: index, ids, weights and nll have count entries, the buffers chunk rows, dh and dw the shapes of h and w;
            // index names places of h, ids tokens below vocab.
            unsafe {
                chunks.losses(at, rows, wants_grad)?;
                if let Some((_, dw)) = &dw {
                    chunks.grad_w(at, rows, *dw)?;
                }
                if let Some((_, dh)) = &dh {
                    chunks.grad_h(at, rows, *dh)?;
                }
            }
        }
        let each = [blocks(count.div_ceil(k::cross_entropy::THREADS)), 1, 1];
        let Rows { index, weights, nll: losses, .. } = chunks.rows;
        // SAFETY: index, weights and the packed losses have count entries, and index names places of nll.
        unsafe {
            k::weighted_sum(self.launcher(), [1, 1, 1], loss_out, losses.as_input(), weights, int(count), scale)?;
            if count > 0 {
                k::scatter_values(self.launcher(), each, nll_out, losses.as_input(), index, int(count))?;
            }
        }
        Ok(CrossEntropyOut { nll, loss, dh: dh.map(|(t, _)| t), dw: dw.map(|(t, _)| t) })
    }
}
