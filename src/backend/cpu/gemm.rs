//! `C = alpha A B + beta C` in f32, for row-major matrices and their transposes.
//!
//! The product is `gemm-f32`'s (the `gemm` crate without its other number types): packed AVX-512, AVX2 or NEON kernels,
//! chosen at run time, over the rayon pool. Threads split the rows and columns of C, never the sum over k, so a result depends on the shapes alone.

use gemm_common::Parallelism;
use gemm_f32::gemm::f32::get_gemm_fn;

/// A view of a contiguous matrix or of its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `data` as a row-major `rows` x `cols` matrix.
    ///
    /// # Panics
    /// If `data` does not hold exactly `rows * cols` floats.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "gemm: floats of a {rows} x {cols} matrix");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// `c = alpha a b + beta c`, with `c` row-major `a.rows` x `b.cols`; at `beta == 0`, `c` is not read and may hold NaN.
///
/// # Panics
/// If the extents do not match.
pub fn gemm(alpha: f32, a: Mat, b: Mat, beta: f32, c: &mut [f32]) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(a.cols, b.rows, "gemm: columns of A and rows of B");
    assert_eq!(c.len(), m * n, "gemm: floats of C");
    if c.is_empty() {
        return;
    }
    // The kernels want C by columns, so they compute its transpose, `C^T = B^T A^T`. They call our beta alpha, our alpha beta,
    // and name column strides before row strides.
    // SAFETY: `Mat` keeps `(rows - 1) * row_stride + (cols - 1) * col_stride` inside its slice, the asserts tie the extents
    // of a, b and c together, and c is borrowed mutably, so it overlaps neither.
    unsafe {
        get_gemm_fn()(
            n,
            m,
            k,
            c.as_mut_ptr(),
            n as isize,
            1,
            beta != 0.0,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests;
