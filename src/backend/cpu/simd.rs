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
    /// `2^n` for the integer n in -127..=127 that sits in the low bits of `magic = n + 1.5 * 2^23`; n = -127 gives 0.
    fn pow2(self, magic: Self::F) -> Self::F;

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

    /// e^x as a softmax weight: what is below 1e-22 becomes 0. No sum in f32 sees such a weight, and its products with
    /// gradients would be denormal, which costs a hundredfold.
    #[inline(always)]
    fn weight(self, x: Self::F) -> Self::F {
        // The operand order keeps a NaN.
        self.max(self.splat(0.0), self.sub(self.exp(x), self.splat(1e-22)))
    }

    /// e^x: relative error below 2e-7 over [-87, 88], 0 below -87.7, NaN stays NaN.
    ///
    /// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial whose relative error on that interval is minimal.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
        const LN_2_HI: f32 = 0.693_359_4; // ln 2 to 9 bits, so n * LN_2_HI is exact
        const LN_2_LO: f32 = -2.121_944_4e-4;
        const Q: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 8.368_745e-3, 1.381_454e-3];
        // The vector operand order of max and min keeps a NaN of x.
        let x = self.min(self.splat(88.0), self.max(self.splat(-88.0), x));
        let magic = self.mul_add(x, self.splat(std::f32::consts::LOG2_E), self.splat(MAGIC));
        let n = self.sub(magic, self.splat(MAGIC));
        let r = self.neg_mul_add(n, self.splat(LN_2_HI), x);
        let r = self.neg_mul_add(n, self.splat(LN_2_LO), r);
        let mut q = self.splat(Q[4]);
        for c in [Q[3], Q[2], Q[1], Q[0], 1.0, 1.0] {
            q = self.mul_add(q, r, self.splat(c));
        }
        self.mul(q, self.pow2(magic))
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
    fn pow2(self, magic: [f32; 4]) -> [f32; 4] {
        magic.map(|m| f32::from_bits((m.to_bits() << 23).wrapping_add(0x3f80_0000)))
    }
}

/// The x86 sets differ in their type, their lane count and the prefix of their intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($(#[$doc:meta])* $name:ident, $f:ty, $lanes:literal, $rows:literal:
     $load:ident $store:ident $splat:ident $add:ident $sub:ident $mul:ident $div:ident $fma:ident $fnma:ident $max:ident
     $min:ident $sqrt:ident, $to_bits:ident $shl:ident $iadd:ident $isplat:ident $from_bits:ident) => {
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
            fn pow2(self, magic: $f) -> $f {
                // SAFETY: the token proves the set.
                unsafe { $from_bits($iadd($shl::<23>($to_bits(magic)), $isplat(0x3f80_0000))) }
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
    _mm512_castps_si512 _mm512_slli_epi32 _mm512_add_epi32 _mm512_set1_epi32 _mm512_castsi512_ps
);

#[cfg(target_arch = "x86_64")]
x86!(
    /// Eight lanes with fused multiply-add; made by [`dispatch`] only, after detection.
    Avx2, __m256, 8, 4:
    _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps
    _mm256_fmadd_ps _mm256_fnmadd_ps _mm256_max_ps _mm256_min_ps _mm256_sqrt_ps,
    _mm256_castps_si256 _mm256_slli_epi32 _mm256_add_epi32 _mm256_set1_epi32 _mm256_castsi256_ps
);
