//! Conversions, functions and integers of single threads.

use std::f64::consts::PI;

use crate::close::{Tiny, is_close, ulp};
use crate::target::{Arg, Target, bits, noise, targets};

const GRID: [u32; 3] = [1, 1, 1];

/// Floats where functions and conversions have their corners, then floats of every size.
fn floats() -> Vec<f32> {
    let corners = [
        0.0,
        1.0,
        0.5,
        1.5,
        2.0,
        2.5,
        0.999_999_94,
        1.000_000_1,
        3.0,
        126.0,
        126.5,
        127.999_99,
        128.0,
        149.0,
        150.0,
        8_388_609.0,
        f32::MIN_POSITIVE,
        1e-40,
        f32::from_bits(1),
        8.5e37,
        1.701_411_8e38,
        1.8e38,
        f32::MAX,
        f32::INFINITY,
    ];
    let sizes = noise(3000, 1).into_iter().map(f32::from_bits);
    let near = (0..3000).map(|i| (i as f32 - 1500.0) * 0.1);
    let around_one = noise(500, 2).into_iter().map(|word| 0.5 + (word >> 8) as f32 / (1 << 23) as f32);
    corners.into_iter().flat_map(|v| [v, -v]).chain([f32::NAN]).chain(sizes).chain(near).chain(around_one).collect()
}

/// cvt.rn.bf16.f32: the nearer of the two neighbours, of two equally near ones the even one; the first number that bf16 lacks
/// counts as 2^128 and is infinity. NaN is the canonical NaN.
fn nearest_bf16(x: f32) -> u32 {
    if x.is_nan() {
        return 0x7fff;
    }
    let value = |code: u32| match code {
        0x7f80 => 2f64.powi(128),
        _ => f64::from(f32::from_bits(code << 16)),
    };
    let size = f64::from(x.abs());
    let below = (x.to_bits() & 0x7fff_ffff) >> 16;
    let code = match below {
        0x7f80 => below,
        _ => {
            let (down, up) = (size - value(below), value(below + 1) - size);
            if down < up || (down == up && below.is_multiple_of(2)) { below } else { below + 1 }
        }
    };
    code | (x.to_bits() >> 16 & 0x8000)
}

#[test]
fn bf16_is_the_nearest_even() {
    let uppers = (0..1 << 16).step_by(7).chain([0x7f7f, 0xff7f, 0x7f80, 0xff80, 0x7fff, 0xffff, 0x7f, 0x80, 0x8000, 0x8001]);
    let lowers = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let x: Vec<u32> = uppers.flat_map(|upper: u32| lowers.map(|lower| upper << 16 | lower)).collect();
    let narrow: Vec<u32> = x.iter().map(|&word| nearest_bf16(f32::from_bits(word))).collect();
    let next = |i: usize| narrow[(i + 1) % x.len()];
    let packed: Vec<u32> = (0..x.len()).map(|i| narrow[i] | next(i) << 16).collect();
    let wide: Vec<u32> = (0..x.len()).flat_map(|i| [narrow[i] << 16, next(i) << 16, narrow[i] << 16]).collect();
    for target in targets("conform_bf16") {
        let n = x.len();
        let args = [Arg::Out(n), Arg::Out(n), Arg::Out(3 * n), Arg::In(&x), Arg::Number(n as u32)];
        let [got_narrow, got_packed, got_wide] = target.run(GRID, &args);
        target.same("f2bf", &got_narrow, &narrow);
        target.same("pack_bf16", &got_packed, &packed);
        target.same("bf_lo, bf_hi, bf2f", &got_wide, &wide);
    }
}

/// Panics unless every result is within its bound of the exact one. `want` of an input names a function, its exact value and
/// what may be missing.
fn within<const N: usize>(
    target: &Target,
    got: &[u32],
    x: &[f32],
    tiny: Tiny,
    want: impl Fn(f32) -> [(&'static str, f64, f64); N],
) {
    assert_eq!(got.len(), x.len() * N);
    for (&x, got) in x.iter().zip(got.chunks_exact(N)) {
        for (got, (name, exact, allowed)) in got.iter().map(|&word| f32::from_bits(word)).zip(want(x)) {
            let off = (f64::from(got) - exact).abs() / ulp(exact);
            assert!(
                is_close(got, exact, allowed, tiny),
                "{target}: {name} of {x:e} is {got:e}, exactly {exact:e}: {off:.2} units in the last place"
            );
        }
    }
}

/// What .ftz makes of an operand.
fn flushed(x: f32) -> f64 {
    if x.is_subnormal() { 0f64.copysign(f64::from(x)) } else { f64::from(x) }
}

/// The PTX ISA: ex2 within 2 units in the last place, rcp within 1. Subnormal operands and results are zeros.
#[test]
fn approximate_functions_are_within_their_bounds_and_flush() {
    let x = floats();
    let want = |x: f32| {
        let v = flushed(x);
        [("ex2", v.exp2(), 2.0 * ulp(v.exp2())), ("rcp", 1.0 / v, ulp(1.0 / v))]
    };
    for target in targets("conform_approximate") {
        let [y] = target.run(GRID, &[Arg::Out(2 * x.len()), Arg::In(&bits(&x)), Arg::Number(x.len() as u32)]);
        within(&target, &y, &x, Tiny::Zero, want);
    }
}

/// CUDA's guide: within 2 units for divisors from 2^-126 to 2^126; zero for larger ones, where infinity gives NaN.
#[test]
fn fast_division_is_within_its_bound_and_ends_at_2_to_the_126() {
    let numerators = [1.0, -3.0, 0.1, 12345.678, 1e30, 1e-30, f32::INFINITY, f32::NAN];
    let divisors = floats().into_iter().filter(|v| v.is_nan() || v.abs() >= f32::MIN_POSITIVE);
    let pairs: Vec<[f32; 2]> = divisors.flat_map(|b| numerators.map(|a| [a, b])).collect();
    for target in targets("conform_division") {
        let args = [Arg::Out(pairs.len()), Arg::In(&bits(pairs.as_flattened())), Arg::Number(pairs.len() as u32)];
        let [y] = target.run(GRID, &args);
        for ([a, b], got) in pairs.iter().zip(y).map(|(pair, word)| (*pair, f32::from_bits(word))) {
            let exact = f64::from(a) / if b.abs() > 2f32.powi(126) { f64::INFINITY } else { f64::from(b) };
            assert!(is_close(got, exact, 2.0 * ulp(exact), Tiny::Kept), "{target}: {a:e} / {b:e} is {got:e}, not {exact:e}");
        }
    }
}

/// sin and cos of πx, whose turns are taken off exactly.
fn of_half_turns(x: f64) -> (f64, f64) {
    let r = x % 2.0;
    let r = if r.abs() > 1.0 { r - 2f64.copysign(r) } else { r };
    // Near its zeros a function is that of the distance from them.
    let sine = if r.abs() > 0.5 { (PI * (1f64.copysign(r) - r)).sin() } else { (PI * r).sin() };
    let cosine = if r.abs() > 0.25 { (PI * (0.5 - r.abs())).sin() } else { (PI * r).cos() };
    (sine, cosine)
}

/// CUDA's guide has the units in the last place by which a result differs from the correctly rounded one, which is half a unit
/// from the exact one.
#[test]
fn functions_are_within_their_bounds() {
    let x = floats();
    let want = |x: f32| {
        let v = f64::from(x);
        let positive = f64::from(x.abs() + 0.125);
        let (sine, cosine) = of_half_turns(v);
        let near = |name, exact, units: f64| (name, exact, (units + 0.5) * ulp(exact));
        let exactly = |name, exact: f32| (name, f64::from(exact), 0.0);
        [
            near("expf", v.exp(), 2.0),
            near("logf", positive.ln(), 1.0),
            near("exp2f", v.exp2(), 2.0),
            near("log2f", positive.log2(), 1.0),
            near("rsqrtf", 1.0 / positive.sqrt(), 2.0),
            exactly("sqrtf", (x.abs() + 0.125).sqrt()),
            near("sinf", v.sin(), 2.0),
            near("cosf", v.cos(), 2.0),
            near("sincospif, sine", sine, 2.0),
            near("sincospif, cosine", cosine, 2.0),
            exactly("fmaf", x.mul_add(x, -1.0)),
            exactly("fminf", x.min(0.5)),
            exactly("fmaxf", x.max(0.5)),
            near("tanhf", v.tanh(), 2.0),
            exactly("rintf", x.round_ties_even()),
            exactly("the bits of a float", -x),
        ]
    };
    for target in targets("conform_functions") {
        let [y] = target.run(GRID, &[Arg::Out(16 * x.len()), Arg::In(&bits(&x)), Arg::Number(x.len() as u32)]);
        within(&target, &y, &x, Tiny::Kept, want);
        let negated: Vec<u32> = bits(&x).iter().map(|word| word ^ 1 << 31).collect();
        target.same("the bits of a float", &y.chunks_exact(16).map(|of| of[15]).collect::<Vec<_>>(), &negated);
    }
}

#[test]
fn integers_are_exact() {
    let corners = [0, 1, 2, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 1 << 32, 0xffff_ffff, 0xffff_ffff << 32];
    let drawn = noise(400, 3);
    let drawn = drawn.chunks_exact(2).map(|pair| u64::from(pair[0]) << 32 | u64::from(pair[1]));
    let all: Vec<u64> = corners.into_iter().chain(drawn).collect();
    let pairs: Vec<[u64; 2]> = all.iter().enumerate().map(|(i, &a)| [a, all[i * 7 % all.len()]]).collect();
    let lowest_set = |word: u64| if word == 0 { 0 } else { u64::from(word.trailing_zeros()) + 1 };
    let signed = |word: u32| i64::from(word.cast_signed());
    let want = |[a, b]: [u64; 2]| {
        let (p, q) = (a as u32, b as u32);
        let byte = |word: u32, n: u32| u64::from(word >> (8 * n) & 0xff);
        let (both, shift) = (u64::from(q) << 32 | u64::from(p), b >> 32 & 31);
        [
            u64::from(p.count_ones()),
            u64::from(a.count_ones()),
            u64::from(p.leading_zeros()),
            u64::from(a.leading_zeros()),
            lowest_set(u64::from(p)),
            lowest_set(a),
            ((u128::from(a) * u128::from(b)) >> 64) as u64,
            ((signed(p) * signed(q)) >> 32).cast_unsigned(),
            (u64::from(p) * u64::from(q)) >> 32,
            u64::from(p.reverse_bits()),
            // Selector 0x5140: bytes 0 and 1 of p are 0 and 1, those of q are 4 and 5.
            byte(p, 0) | byte(q, 0) << 8 | byte(p, 1) << 16 | byte(q, 1) << 24,
            (both << shift) >> 32,
            u64::from((both >> shift) as u32),
            u64::from(p.min(q)),
            a.cast_signed().max(b.cast_signed()).cast_unsigned(),
            signed(p).min(signed(q)).cast_unsigned(),
        ]
    };
    let split = |word: u64| [word as u32, (word >> 32) as u32];
    let x: Vec<u32> = pairs.iter().flatten().flat_map(|&word| split(word)).collect();
    let expected: Vec<u32> = pairs.iter().flat_map(|&pair| want(pair)).flat_map(split).collect();
    for target in targets("conform_integers") {
        let [y] = target.run(GRID, &[Arg::Out(expected.len()), Arg::In(&x), Arg::Number(pairs.len() as u32)]);
        target.same("integers", &y, &expected);
    }
}
