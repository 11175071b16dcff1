//! Work over columns: which block has which rows, and sums of partial results in a fixed order.
#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use super::{Device, Launcher, Purpose, blocks, input, int, kernels as k};
use crate::error::Result;
use crate::tensor::Tensor;

/// Rows that one block sums, and the most blocks: enough to fill a device twice. Beyond those a block sums more rows.
const ROWS_PER_PART: usize = 64;
const MOST_PARTS: usize = 256;

/// How `columns.cuh` shares out rows: a thread owns eight columns of a part's rows.
pub(super) struct Columns {
    /// Threads that span the columns.
    pub team: usize,
    /// Ranges of rows.
    pub parts: usize,
    cols: usize,
}

impl Columns {
    /// For sums: few enough parts that adding them is quick. `threads` is the kernel's block.
    pub fn summed(rows: usize, cols: usize, threads: usize) -> Self {
        Self { team: Self::team(cols, threads), parts: rows.div_ceil(ROWS_PER_PART).clamp(1, MOST_PARTS), cols }
    }

    /// For a map: as many parts as give every thread four rows.
    pub fn mapped(rows: usize, cols: usize, threads: usize) -> Self {
        let team = Self::team(cols, threads);
        Self { team, parts: rows.div_ceil(4 * (threads / team)).max(1), cols }
    }

    fn team(cols: usize, threads: usize) -> usize {
        (cols / k::bias::VEC).next_power_of_two().min(threads)
    }

    /// Parts by groups of columns.
    pub fn grid(&self) -> [u32; 3] {
        [blocks(self.parts), blocks(self.cols.div_ceil(k::bias::VEC * self.team)), 1]
    }
}

impl<L: Launcher> Device<L> {
    /// `(parts, n)` f32 to the sums over the parts, `(n)`: a parameter's gradient.
    pub(super) fn sum_rows(&self, partial: &Tensor) -> Result<Tensor> {
        let [parts, n] = partial.dims("sum_rows: partial (parts,n)")?;
        let (out, out_ptr) = self.empty_for::<f32>(Purpose::Gradients, [n])?;
        let grid = [blocks(n.div_ceil(k::elementwise::COLUMNS)), 1, 1];
        // SAFETY: partial holds parts·n floats and out n: the one is checked, the other made above.
        unsafe { k::sum_rows(self.launcher(), grid, out_ptr, input(partial)?, int(parts), n as i64)? };
        Ok(out)
    }
}
