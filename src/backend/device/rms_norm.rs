#![allow(unsafe_code, reason = "calls kernels through their generated signatures")]

use half::bf16;

use super::partial::Columns;
use super::{Device, Launcher, blocks, input, int, kernels as k, vectors};
use crate::error::Result;
use crate::ops::rms_norm::RmsNormKernels;
use crate::tensor::{Tensor, TensorError};

/// Elements that one thread of a row's team holds, and the widest row.
const PER_THREAD: usize = k::rms_norm::VECS * k::rms_norm::VEC;
const WIDEST: usize = PER_THREAD * k::rms_norm::THREADS;
const NEEDED: &str = "at most 8192";
const _: () = assert!(WIDEST == 8192, "NEEDED says what WIDEST is");

/// How rows are shared out among threads.
struct Rows {
    rows: usize,
    cols: usize,
    team: usize,
}

impl Rows {
    fn of(x: &Tensor, what: &'static str) -> Result<Self> {
        let [rows, cols] = x.rows_cols(what)?;
        vectors("the width of a normalised row", cols)?;
        if cols > WIDEST {
            return Err(TensorError::Extent { what: "the width of a normalised row", needed: NEEDED, got: cols }.into());
        }
        Ok(Self { rows, cols, team: cols.div_ceil(PER_THREAD).next_power_of_two().max(4) })
    }

    fn grid(&self) -> [u32; 3] {
        let per_block = k::rms_norm::THREADS / self.team;
        [blocks(self.rows.div_ceil(per_block)), 1, 1]
    }
}

impl<L: Launcher> RmsNormKernels for Device<L> {
    fn rms_norm_fwd(&self, x: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
        let r = Rows::of(x, "rms_norm: x (…,C)")?;
        w.expect("rms_norm: w (C)", [r.cols])?;
        let (y, y_out) = self.empty::<bf16>(x.shape())?;
        let (rstd, rstd_out) = self.empty::<f32>([r.rows])?;
        if r.rows > 0 {
            let (x, w) = (input(x)?, input(w)?);
            // SAFETY: x and y hold rows·cols elements, w holds cols and rstd rows: checked or made above.
            unsafe {
                k::rms_norm_fwd(self.launcher(), r.grid(), y_out, rstd_out, x, w, int(r.rows), int(r.cols), int(r.team), eps)?
            };
        }
        Ok((y, rstd))
    }

    fn add_rms_norm_fwd(&self, x: &Tensor, residual: &Tensor, w: &Tensor, eps: f32) -> Result<(Tensor, Tensor, Tensor)> {
        let r = Rows::of(x, "add_rms_norm: x (…,C)")?;
        residual.expect("add_rms_norm: residual (…,C)", x.shape())?;
        w.expect("add_rms_norm: w (C)", [r.cols])?;
        let (h, h_out) = self.empty::<bf16>(x.shape())?;
        let (y, y_out) = self.empty::<bf16>(x.shape())?;
        let (rstd, rstd_out) = self.empty::<f32>([r.rows])?;
        if r.rows > 0 {
            let (x, residual, w) = (input(x)?, input(residual)?, input(w)?);
            let (rows, cols, team) = (int(r.rows), int(r.cols), int(r.team));
            // SAFETY: x, residual, h and y hold rows·cols elements, w holds cols and rstd rows: checked or made above.
            unsafe {
                k::add_rms_norm_fwd(self.launcher(), r.grid(), h_out, y_out, rstd_out, x, residual, w, rows, cols, team, eps)?
            };
        }
        Ok((h, y, rstd))
    }

    fn rms_norm_bwd(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w: &Tensor,
        rstd: &Tensor,
        dh: Option<&Tensor>,
        wants_dw: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let r = Rows::of(x, "rms_norm_bwd: x (…,C)")?;
        dy.expect("rms_norm_bwd: dy (…,C)", x.shape())?;
        w.expect("rms_norm_bwd: w (C)", [r.cols])?;
        rstd.expect("rms_norm_bwd: rstd (rows)", [r.rows])?;
        let (dx, dx_out) = self.empty::<bf16>(x.shape())?;
        let (dys, xs, ws, rs) = (input(dy)?, input(x)?, input(w)?, input(rstd)?);
        let (rows, cols, team) = (int(r.rows), int(r.cols), int(r.team));
        if r.rows > 0 {
            match dh {
                None => {
                    // SAFETY: dy, x and dx hold rows·cols elements, w holds cols and rstd rows: checked or made above.
                    unsafe { k::rms_norm_bwd_x(self.launcher(), r.grid(), dx_out, dys, xs, ws, rs, rows, cols, team)? }
                }
                Some(dh) => {
                    dh.expect("rms_norm_bwd: dh (…,C)", x.shape())?;
                    let dh = input(dh)?;
                    // SAFETY: as above, and dh has x's shape.
                    unsafe { k::rms_norm_bwd_x_add(self.launcher(), r.grid(), dx_out, dys, xs, ws, rs, dh, rows, cols, team)? }
                }
            }
        }
        let dw = wants_dw.then(|| {
            let c = Columns::summed(r.rows, r.cols, k::rms_norm::THREADS);
            let (partial, out) = self.empty::<f32>([c.parts, r.cols])?;
            // SAFETY: dy and x hold rows·cols elements, rstd rows, partial parts·cols; parts is the grid's width.
            unsafe { k::rms_norm_bwd_w(self.launcher(), c.grid(), out, dys, xs, rs, rows, cols, int(c.team))? };
            self.sum_rows(&partial)
        });
        Ok((dx, dw.transpose()?))
    }
}
