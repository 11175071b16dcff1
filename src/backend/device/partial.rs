//! Sums of partial results, in a fixed order.
#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use super::{Device, Launcher, Purpose, blocks, input, int, kernels as k};
use crate::error::Result;
use crate::tensor::Tensor;

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
