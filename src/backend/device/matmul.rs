//! Products of matrices, for the ops that consist of them: tiles, slabs and padded rows.
//!
//! The kernels read and write rows of [`padded`] width, so that sixteen bytes never cross the end of a row. Widths of a model
//! are multiples of 8; ranks and vocabularies may not be, and those matrices are copied into padded rows and back.
#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::kernels::matmul::{PARTS, Part, Products, TERMS, Term};
use super::{Device, In, Launcher, Out, Purpose, blocks, input, int, kernels as k};
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// Large tiles that a product must have to be cut into them; fewer would leave multiprocessors without work.
const ENOUGH_TILES: usize = 96;
/// Blocks that a reduction over rows is spread over by cutting the rows into slabs, and the fewest rows of a slab.
const MANY_BLOCKS: usize = 256;
const ROWS_PER_SLAB: usize = 256;

/// A row's length in memory.
pub(super) fn padded(width: usize) -> usize {
    width.next_multiple_of(k::matmul::VEC)
}

/// Where a sum of products goes, and what it is: one of a launch's results.
pub(super) struct SumTo {
    pub to: Out<bf16>,
    pub width: usize,
    pub scale: f32,
    pub terms: Vec<Term>,
}

/// A product along `extent`.
pub(super) fn term(left: In<bf16>, right: In<bf16>, extent: usize) -> Term {
    Term { left, right, extent: int(extent) }
}

type Kernel = unsafe fn(&dyn Launcher, [u32; 3], Products) -> Result<()>;

/// The entries of a kernel's table; what comes after them is never read.
fn filled<T: Copy, const N: usize>(entries: &[T]) -> [T; N] {
    assert!((1..=N).contains(&entries.len()), "matmul: a launch has room for {N} of these, got {}", entries.len());
    std::array::from_fn(|i| entries[i.min(entries.len() - 1)])
}

enum Tile {
    Large,
    Small,
}

impl Tile {
    /// The tile for results side by side, and how many there are. Half of a large tile would lie beyond a result as narrow as a
    /// LoRA rank.
    fn of(rows: usize, widths: &[usize]) -> (Self, usize) {
        let narrow = widths.iter().all(|&cols| rows.min(cols) <= k::matmul::SMALL_TILE);
        let tile = if !narrow && Self::Large.count(rows, widths) >= ENOUGH_TILES { Self::Large } else { Self::Small };
        let tiles = tile.count(rows, widths);
        (tile, tiles)
    }

    fn count(&self, rows: usize, widths: &[usize]) -> usize {
        let side = match self {
            Self::Large => k::matmul::LARGE_TILE,
            Self::Small => k::matmul::SMALL_TILE,
        };
        rows.div_ceil(side) * widths.iter().map(|cols| cols.div_ceil(side)).sum::<usize>()
    }
}

impl<L: Launcher> Device<L> {
    /// `y[m,n] = scale·Σ x[m,k]·w[n,k]ᵀ` for every part, in one launch.
    ///
    /// # Safety
    /// Every matrix is there with all its rows, padded.
    pub(super) unsafe fn nt(&self, rows: usize, parts: &[SumTo]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.products(rows, parts, k::matmul_nt, k::matmul_nt_small) }
    }

    /// `dx[m,k] = scale·Σ dy[m,n]·w[n,k]` for every part, in one launch.
    ///
    /// # Safety
    /// Every matrix is there with all its rows, padded.
    pub(super) unsafe fn nn(&self, rows: usize, parts: &[SumTo]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.products(rows, parts, k::matmul_nn, k::matmul_nn_small) }
    }

    unsafe fn products(&self, rows: usize, sums: &[SumTo], large: Kernel, small: Kernel) -> Result<()> {
        let widths: Vec<usize> = sums.iter().map(|s| s.width).collect();
        let (tile, tiles) = Tile::of(rows, &widths);
        if tiles == 0 {
            return Ok(());
        }
        let kernel = match tile {
            Tile::Large => large,
            Tile::Small => small,
        };
        let mut terms = Vec::new();
        let part = |sum: &SumTo| {
            let first = int(terms.len());
            terms.extend_from_slice(&sum.terms);
            Part { c: sum.to, width: int(sum.width), first, count: int(sum.terms.len()), alpha: sum.scale }
        };
        let parts: Vec<Part> = sums.iter().map(part).collect();
        let products = Products { parts: filled::<_, PARTS>(&parts), terms: filled::<_, TERMS>(&terms), m: int(rows) };
        // SAFETY: the caller's promise.
        unsafe { kernel(self.launcher(), [blocks(tiles), 1, 1], products) }
    }

    /// `dw[n,k] = dy[m,n]ᵀ·x[m,k]`, a dense f32 tensor. The number of slabs, and so every rounding, depends on the shape only.
    ///
    /// # Safety
    /// Both matrices are there with all their rows, padded.
    pub(super) unsafe fn tn(&self, [dy, x]: [In<bf16>; 2], [m, n, k]: [usize; 3]) -> Result<Tensor> {
        let (tile, tiles) = Tile::of(n, &[k]);
        let (dw, dw_out) = self.empty_for::<f32>(Purpose::Gradients, [n, k])?;
        if tiles == 0 {
            return Ok(dw);
        }
        let slabs = (MANY_BLOCKS / tiles).min(m / ROWS_PER_SLAB).max(1);
        let kernel = match tile {
            Tile::Large => k::matmul_tn,
            Tile::Small => k::matmul_tn_small,
        };
        let grid = [blocks(tiles), 1, blocks(slabs)];
        if slabs == 1 && k == padded(k) {
            // SAFETY: the caller's promise, and dw holds n·k floats.
            unsafe { kernel(self.launcher(), grid, dw_out, dy, x, int(m), int(n), int(k))? };
            return Ok(dw);
        }
        let (_partials, partials) = self.empty::<f32>([slabs, n, padded(k)])?;
        let quads = n * padded(k) / 4;
        let sums = [blocks(quads.div_ceil(k::matmul::REDUCE_THREADS)), 1, 1];
        // SAFETY: the caller's promise; the partials hold slabs padded results, and dw holds n·k floats.
        unsafe {
            kernel(self.launcher(), grid, partials, dy, x, int(m), int(n), int(k))?;
            k::matmul_reduce(self.launcher(), sums, dw_out, partials.as_input(), int(slabs), int(n), int(k))?;
        }
        Ok(dw)
    }

    /// A bf16 matrix with padded rows: `x` itself where its rows are.
    pub(super) fn padded_rows(&self, x: &Tensor, what: &'static str) -> Result<Tensor> {
        let [rows, width] = x.rows_cols(what)?;
        match padded(width) {
            same if same == width => Ok(x.clone()),
            wider => self.copied_rows(x, width, [rows, wider].into()),
        }
    }

    /// Closes padded rows up to `shape`; the matrix itself where there is nothing to close.
    pub(super) fn dense_rows(&self, y: &Tensor, shape: Shape) -> Result<Tensor> {
        let width = *shape.dims().last().expect("matmul: results have a width");
        match padded(width) {
            same if same == width => Ok(y.reshape("matmul: rows", shape)?),
            wider => self.copied_rows(y, wider, shape),
        }
    }

    /// Rows of another width: cut off, or filled up with zeros.
    fn copied_rows(&self, from: &Tensor, from_width: usize, shape: Shape) -> Result<Tensor> {
        let [elements, width] = [shape.len(), *shape.dims().last().expect("matmul: rows have a width")];
        let (to, out) = self.empty::<bf16>(shape)?;
        if elements > 0 {
            let (grid, from) = ([blocks(elements.div_ceil(k::matmul::REDUCE_THREADS)), 1, 1], input(from)?);
            let rows = elements / width;
            // SAFETY: `from` has rows of from_width elements and `to` as many of width.
            unsafe { k::matmul_copy_rows(self.launcher(), grid, out, from, int(rows), int(width), int(from_width))? };
        }
        Ok(to)
    }
}
