//! One instruction-set choice for the CPU kernels: vectors behind a token, dispatched once per call.
//!
//! A kernel is a [`Task`]: written once against [`Isa`], compiled three times (AVX-512, AVX2+FMA, portable), and run by
//! [`dispatch`] on the best set this CPU has. The token is the proof that the set exists, so only this file and the
//! micro kernel in `panel.rs` touch raw pointers.
//!
//! Results differ between instruction sets in the last bits (fused or separate multiply-add, length of partial sums); on
//! one machine they are a function of the inputs alone.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Vector operations of one instruction set. A value of an implementing type proves that this CPU has the set.
pub trait Isa: Copy {
    /// A register of [`Self::LANES`] floats.
    type F: Copy;
    /// Floats per register.
    const LANES: usize;
    /// Rows of the register block of `panel.rs`: with two registers per row, the accumulators, one row of B and one
    /// broadcast still fit the register file.
    const ROWS: usize;

    /// Reads [`Self::LANES`] floats, aligned or not.
    ///
    /// # Safety
    /// `from..from + LANES` is readable.
    unsafe fn read(self, from: *const f32) -> Self::F;
    /// Writes [`Self::LANES`] floats, aligned or not.
    ///
    /// # Safety
    /// `to..to + LANES` is writable.
    unsafe fn write(self, v: Self::F, to: *mut f32);
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, fused where the set can.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, fused where the set can.
    fn neg_mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, x: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, for `|x| < 2^22`.
    fn round(self, x: Self::F) -> Self::F;
    /// `x * 2^n` for an integer n in -126..=127; any value beyond.
    fn scale_by_power(self, x: Self::F, n: Self::F) -> Self::F;
    /// `x` where `y >= least` or y is NaN, 0 elsewhere, whatever x is there.
    fn zero_below(self, least: f32, y: Self::F, x: Self::F) -> Self::F;

    /// Reads the first [`Self::LANES`] floats of a slice.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        let from = &from[..Self::LANES];
        // SAFETY: the slice was just cut to LANES floats.
        unsafe { self.read(from.as_ptr()) }
    }

    /// Writes the first [`Self::LANES`] floats of a slice.
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice was just cut to LANES floats.
        unsafe { self.write(v, to.as_mut_ptr()) }
    }

    /// 2^x for x below 127: relative error below 2e-7, NaN stays NaN. What is below 2^-73, 1e-22, becomes 0: no sum of
    /// softmax weights in f32 sees it, and its products with gradients would be denormal, which costs a hundredfold.
    #[inline(always)]
    fn exp2(self, x: Self::F) -> Self::F {
        let n = self.round(x);
        self.exp2_of_sum(n, self.sub(x, n))
    }

    /// e^x, as [`Isa::exp2`]; x above 87 counts as 87.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        const LN_2_HI: f32 = 0.693_359_4; // ln 2 to 9 bits, so n * LN_2_HI is exact
        const LN_2_LO: f32 = -2.121_944_4e-4;
        let log2_e = self.splat(std::f32::consts::LOG2_E);
        // The operand order of min keeps a NaN.
        let x = self.min(self.splat(87.0), x);
        let n = self.round(self.mul(x, log2_e));
        let r = self.neg_mul_add(n, self.splat(LN_2_HI), x);
        let r = self.neg_mul_add(n, self.splat(LN_2_LO), r);
        self.exp2_of_sum(n, self.mul(r, log2_e))
    }

    /// 2^(n + f) for an integer n and |f| <= 1/2, 0 where n is below -73. 2^f is a polynomial that is exact at 0 and whose
    /// relative error is minimal.
    #[inline(always)]
    #[expect(clippy::approx_constant, reason = "a minimax coefficient, near ln 2 but not ln 2")]
    fn exp2_of_sum(self, n: Self::F, f: Self::F) -> Self::F {
        const C: [f32; 5] = [0.693_147, 0.240_222_42, 5.550_733_6e-2, 9.671_513e-3, 1.326_472_7e-3];
        let mut p = self.splat(C[4]);
        for c in [C[3], C[2], C[1], C[0], 1.0] {
            p = self.mul_add(p, f, self.splat(c));
        }
        self.zero_below(-73.0, n, self.scale_by_power(p, n))
    }
}

/// A kernel body, generic over the instruction set. `run` must be `#[inline(always)]`: it has to be compiled inside the
/// function that enables the set.
pub trait Task {
    /// What the kernel returns.
    type Out;
    /// Runs with the instruction set proven by `isa`.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// Runs `task` on the best instruction set of this CPU.
#[inline]
pub fn dispatch<T: Task>(task: T) -> T::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<T: Task>(task: T) -> T::Out {
            task.run(Avx512(()))
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Task>(task: T) -> T::Out {
            task.run(Avx2(()))
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: avx512f was detected on this CPU.
            return unsafe { avx512(task) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: avx2 and fma were detected on this CPU.
            return unsafe { avx2(task) };
        }
    }
    task.run(Portable)
}

/// Runs plain loops compiled for the best instruction set of this CPU. Closures in `work` must be `#[inline(always)]`, or they
/// stay compiled for the oldest.
#[inline]
pub fn wide<T>(work: impl FnOnce() -> T) -> T {
    struct Plain<F>(F);
    impl<T, F: FnOnce() -> T> Task for Plain<F> {
        type Out = T;
        #[inline(always)]
        fn run<I: Isa>(self, _: I) -> T {
            (self.0)()
        }
    }
    dispatch(Plain(work))
}

/// 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits.
const ROUNDING: f32 = 12_582_912.0;
/// The bits of 1.0: of 2^n after n is added to the exponent.
const ONE: u32 = 0x3f80_0000;

/// Four lanes in plain Rust, one or two instructions each on SSE2 and NEON.
#[derive(Clone, Copy)]
pub struct Portable;

/// Each lane of `f(a, b)`.
#[inline(always)]
fn lanes(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Isa for Portable {
    type F = [f32; 4];
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for four readable floats; an array of f32 needs no more alignment than f32.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn write(self, v: [f32; 4], to: *mut f32) {
        // SAFETY: the caller vouches for four writable floats; an array of f32 needs no more alignment than f32.
        unsafe { to.cast::<[f32; 4]>().write(v) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, x: [f32; 4]) -> [f32; 4] {
        x.map(f32::sqrt)
    }
    #[inline(always)]
    fn round(self, x: [f32; 4]) -> [f32; 4] {
        x.map(|x| (x + ROUNDING) - ROUNDING)
    }
    #[inline(always)]
    fn scale_by_power(self, x: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        let power = n.map(|n| f32::from_bits(((n + ROUNDING).to_bits() << 23).wrapping_add(ONE)));
        self.mul(x, power)
    }
    #[inline(always)]
    fn zero_below(self, least: f32, y: [f32; 4], x: [f32; 4]) -> [f32; 4] {
        lanes(y, x, |y, x| if y < least { 0.0 } else { x })
    }
}

#[cfg(target_arch = "x86_64")]
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// The x86 sets differ in their type, their lane count and their intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($(#[$doc:meta])* $name:ident, $f:ty, $lanes:literal, $rows:literal:
     $load:ident $store:ident $splat:ident $add:ident $sub:ident $mul:ident $div:ident $fma:ident $fnma:ident $max:ident
     $min:ident $sqrt:ident,
     |$x:ident, $n:ident, $least:ident, $y:ident| $round:expr, $scale:expr, $zero:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(());

        impl Isa for $name {
            type F = $f;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;

            #[inline(always)]
            unsafe fn read(self, from: *const f32) -> $f {
                // SAFETY: the caller vouches for the range; the token proves the set.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn write(self, v: $f, to: *mut f32) {
                // SAFETY: the caller vouches for the range; the token proves the set.
                unsafe { $store(to, v) }
            }
            #[inline(always)]
            fn splat(self, x: f32) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $splat(x) }
            }
            x86!(@two $f, add $add, sub $sub, mul $mul, div $div, max $max, min $min);
            #[inline(always)]
            fn mul_add(self, a: $f, b: $f, c: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            fn neg_mul_add(self, a: $f, b: $f, c: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $fnma(a, b, c) }
            }
            #[inline(always)]
            fn sqrt(self, x: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $sqrt(x) }
            }
            #[inline(always)]
            fn round(self, $x: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $round }
            }
            #[inline(always)]
            fn scale_by_power(self, $x: $f, $n: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $scale }
            }
            #[inline(always)]
            fn zero_below(self, $least: f32, $y: $f, $x: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $zero }
            }
        }
    };
    (@two $f:ty, $($op:ident $intrinsic:ident),*) => {
        $(#[inline(always)]
        fn $op(self, a: $f, b: $f) -> $f {
            // SAFETY: the token proves the set.
            unsafe { $intrinsic(a, b) }
        })*
    };
}

#[cfg(target_arch = "x86_64")]
x86!(
    /// Sixteen lanes; made by [`dispatch`] only, after detection.
    Avx512, __m512, 16, 8:
    _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps
    _mm512_fmadd_ps _mm512_fnmadd_ps _mm512_max_ps _mm512_min_ps _mm512_sqrt_ps,
    |x, n, least, y| _mm512_roundscale_ps::<NEAREST>(x), _mm512_scalef_ps(x, n),
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(y, _mm512_set1_ps(least)), x)
);

#[cfg(target_arch = "x86_64")]
x86!(
    /// Eight lanes with fused multiply-add; made by [`dispatch`] only, after detection.
    Avx2, __m256, 8, 4:
    _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps
    _mm256_fmadd_ps _mm256_fnmadd_ps _mm256_max_ps _mm256_min_ps _mm256_sqrt_ps,
    |x, n, least, y| _mm256_round_ps::<NEAREST>(x),
    {
        let integer = _mm256_castps_si256(_mm256_add_ps(n, _mm256_set1_ps(ROUNDING)));
        let power = _mm256_add_epi32(_mm256_slli_epi32::<23>(integer), _mm256_set1_epi32(ONE.cast_signed()));
        _mm256_mul_ps(x, _mm256_castsi256_ps(power))
    },
    _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(y, _mm256_set1_ps(least)), x)
);
