//! The multiply-add every matrix-shaped CPU kernel is made of: `C[m][lane] += sum_k A(m, k) * B[k][lane]`.
//!
//! A is read one float at a time, by rows or by columns, and broadcast; B and C are read in whole vectors. A block of
//! `Isa::ROWS` rows by two vectors of C stays in registers while k runs, so each step of k costs `ROWS + 2` loads for
//! `2 * ROWS` multiply-adds. The sum over k runs in order, so the result does not depend on who calls.

use super::simd::{Isa, Task, dispatch};

/// Lane counts are multiples of this, the widest vector of [`Isa`], so that no instruction set has a ragged edge.
pub const LANE_STEP: usize = 16;

/// Where the sum over k starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// C is overwritten; its old content, NaN included, is not read.
    Zero,
    /// C is added to.
    Add,
}

/// How A lies in memory: the stride that is 1 becomes a constant of the micro kernel's addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A(m, k) is `a[m * a_stride + k]`.
    Rows,
    /// A(m, k) is `a[m + k * a_stride]`.
    Columns,
}

/// One product; [`Panel::run`] computes it.
pub struct Panel<'a> {
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of B and C, a multiple of [`LANE_STEP`].
    pub lanes: usize,
    /// Columns of A, rows of B.
    pub depth: usize,
    /// A, laid out by `order`.
    pub a: &'a [f32],
    /// Floats from one row (by rows) or column (by columns) of A to the next.
    pub a_stride: usize,
    /// How A lies in memory.
    pub order: Order,
    /// `B[k][lane]` is `b[k * b_row + lane]`.
    pub b: &'a [f32],
    /// Floats from one row of B to the next.
    pub b_row: usize,
    /// `C[m][lane]` is `c[m * c_row + lane]`.
    pub c: &'a mut [f32],
    /// Floats from one row of C to the next.
    pub c_row: usize,
    /// Overwrite or add.
    pub init: Init,
}

impl Panel<'_> {
    /// Computes the product.
    pub fn run(self) {
        if self.rows == 0 || self.lanes == 0 {
            return;
        }
        assert!(self.lanes.is_multiple_of(LANE_STEP), "panel: {} lanes are not a multiple of {LANE_STEP}", self.lanes);
        let last_row = self.rows - 1;
        assert!(last_row * self.c_row + self.lanes <= self.c.len(), "panel: C is too short");
        if let Some(last) = self.depth.checked_sub(1) {
            let (far, near) = if self.order == Order::Rows { (last_row, last) } else { (last, last_row) };
            assert!(far * self.a_stride + near < self.a.len(), "panel: A is too short");
            assert!(last * self.b_row + self.lanes <= self.b.len(), "panel: B is too short");
        }
        dispatch(self);
    }
}

impl Task for Panel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.order {
            Order::Rows => self.blocks::<I, true>(isa),
            Order::Columns => self.blocks::<I, false>(isa),
        }
    }
}

impl Panel<'_> {
    #[inline(always)]
    fn blocks<I: Isa, const BY_ROWS: bool>(mut self, isa: I) {
        let mut lane = 0;
        while lane < self.lanes {
            let wide = self.lanes - lane >= 2 * I::LANES;
            let mut row = 0;
            while row < self.rows {
                let rows = 1 << (self.rows - row).min(I::ROWS).ilog2();
                // SAFETY: `Panel::run` checked that every A(m, k), B[k][lane] and C[m][lane] of the product lies in its
                // slice, and `row + rows <= self.rows`, `lane + vectors * LANES <= self.lanes`.
                unsafe {
                    match (rows, wide) {
                        (8, true) => self.block::<I, BY_ROWS, 8, 2>(isa, row, lane),
                        (4, true) => self.block::<I, BY_ROWS, 4, 2>(isa, row, lane),
                        (2, true) => self.block::<I, BY_ROWS, 2, 2>(isa, row, lane),
                        (_, true) => self.block::<I, BY_ROWS, 1, 2>(isa, row, lane),
                        (8, false) => self.block::<I, BY_ROWS, 8, 1>(isa, row, lane),
                        (4, false) => self.block::<I, BY_ROWS, 4, 1>(isa, row, lane),
                        (2, false) => self.block::<I, BY_ROWS, 2, 1>(isa, row, lane),
                        (_, false) => self.block::<I, BY_ROWS, 1, 1>(isa, row, lane),
                    }
                }
                row += rows;
            }
            lane += if wide { 2 * I::LANES } else { I::LANES };
        }
    }

    /// The block of `M` rows and `V` vectors of C at (`row`, `lane`).
    ///
    /// # Safety
    /// The block lies inside the product that [`Panel::run`] checked against the slices.
    #[inline(always)]
    unsafe fn block<I: Isa, const BY_ROWS: bool, const M: usize, const V: usize>(&mut self, isa: I, row: usize, lane: usize) {
        // With A by rows, M row addresses advance in step; doing so once per UNROLL steps keeps that off the critical path.
        const UNROLL: usize = 4;
        let (a_row, a_col) = if BY_ROWS { (self.a_stride, 1) } else { (1, self.a_stride) };
        let mut sum = [[isa.splat(0.0); V]; M];
        let mut a = self.a.as_ptr().wrapping_add(row * a_row);
        let mut b = self.b.as_ptr().wrapping_add(lane);
        let mut left = self.depth;
        while left >= UNROLL {
            for k in 0..UNROLL {
                // SAFETY: step k of the `left` steps lies in A and B, by the caller's promise.
                unsafe { step::<I, M, V>(isa, &mut sum, a.add(k * a_col), a_row, b.add(k * self.b_row)) };
            }
            a = a.wrapping_add(UNROLL * a_col);
            b = b.wrapping_add(UNROLL * self.b_row);
            left -= UNROLL;
        }
        while left > 0 {
            // SAFETY: one of the `left` steps, in A and B by the caller's promise.
            unsafe { step::<I, M, V>(isa, &mut sum, a, a_row, b) };
            a = a.wrapping_add(a_col);
            b = b.wrapping_add(self.b_row);
            left -= 1;
        }
        for (m, sum) in sum.iter().enumerate() {
            let c = self.c.as_mut_ptr().wrapping_add((row + m) * self.c_row + lane);
            for (v, &sum) in sum.iter().enumerate() {
                // SAFETY: C[row + m][lane..lane + V * LANES] lies in `c`, by the caller's promise.
                unsafe {
                    let at = c.add(v * I::LANES);
                    let sum = if self.init == Init::Add { isa.add(isa.read(at), sum) } else { sum };
                    isa.write(sum, at);
                }
            }
        }
    }
}

/// One k: `sum[m][v] += a[m * a_row] * b[v]`.
///
/// # Safety
/// `a[m * a_row]` for m < M and `b[..V * LANES]` are readable.
#[inline(always)]
unsafe fn step<I: Isa, const M: usize, const V: usize>(
    isa: I,
    sum: &mut [[I::F; V]; M],
    a: *const f32,
    a_row: usize,
    b: *const f32,
) {
    let mut bv = [isa.splat(0.0); V];
    for (v, bv) in bv.iter_mut().enumerate() {
        // SAFETY: the caller vouches for V vectors at b.
        *bv = unsafe { isa.read(b.add(v * I::LANES)) };
    }
    for (m, sum) in sum.iter_mut().enumerate() {
        // SAFETY: the caller vouches for row m of a.
        let x = isa.splat(unsafe { *a.add(m * a_row) });
        for (sum, &b) in sum.iter_mut().zip(&bv) {
            *sum = isa.mul_add(x, b, *sum);
        }
    }
}
