//! How far a float may be from the exact value: bounds as NVIDIA documents them.

/// What happens to results below the smallest normal number.
#[derive(Clone, Copy, PartialEq)]
pub enum Tiny {
    /// They are kept as subnormal numbers.
    Kept,
    /// They become zeros of their sign.
    Zero,
}

/// Where the numbers of an f32 end.
const HUGE: f64 = (1u128 << 127) as f64 * 2.0;
/// Where its normal numbers begin.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// The distance of neighbouring floats around a value.
pub fn ulp(exact: f64) -> f64 {
    let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).clamp(-126, 127);
    2f64.powi(exponent - 23)
}

/// Whether `got` is `exact` but for `allowed`. Where the bound spans the end of the range or of the normal numbers, what lies on
/// the other side is right, too.
pub fn is_close(got: f32, exact: f64, allowed: f64, tiny: Tiny) -> bool {
    if exact.is_nan() || exact.is_infinite() {
        return got.is_nan() == exact.is_nan() && (exact.is_nan() || f64::from(got) == exact);
    }
    if got.is_nan() {
        return false;
    }
    if tiny == Tiny::Zero && exact.abs() < LEAST + allowed {
        let zero = got == 0.0 && got.is_sign_negative() == exact.is_sign_negative();
        if zero || got.is_subnormal() || exact.abs() < LEAST - allowed {
            return zero;
        }
    }
    if exact.abs() >= HUGE + allowed {
        return f64::from(got) == exact.signum() * f64::INFINITY;
    }
    let value = if got.is_infinite() { HUGE.copysign(f64::from(got)) } else { f64::from(got) };
    (value - exact).abs() <= allowed
}

#[test]
fn what_is_beyond_a_bound_is_found() {
    let one = 2f64.powi(-23);
    assert_eq!((ulp(1.0), ulp(1.99), ulp(2.0), ulp(0.0)), (one, one, 2.0 * one, 2f64.powi(-149)));
    let right = [
        (1.0f32, 1.0, 0.0, Tiny::Kept),
        (1.0, 1.0 + one, one, Tiny::Kept),
        (f32::INFINITY, 1e39, 0.0, Tiny::Kept),
        (f32::INFINITY, f64::from(f32::MAX), ulp(f64::from(f32::MAX)), Tiny::Kept),
        (f32::NAN, f64::NAN, 0.0, Tiny::Zero),
        (-0.0, -1e-40, 0.0, Tiny::Zero),
        (1e-40, f64::from(1e-40f32), 0.0, Tiny::Kept),
        (f32::MIN_POSITIVE, LEAST, 0.0, Tiny::Zero),
    ];
    for (got, exact, allowed, tiny) in right {
        assert!(is_close(got, exact, allowed, tiny), "{got} is {exact}");
    }
    let wrong = [
        (1.0f32, 1.0 + 2.0 * one, one, Tiny::Kept),
        (f32::NAN, 1.0, 9.0, Tiny::Kept),
        (1.0, f64::NAN, 9.0, Tiny::Kept),
        (f32::MAX, f64::INFINITY, 9.0, Tiny::Kept),
        (f32::INFINITY, 1e38, 1e30, Tiny::Kept),
        (f32::NEG_INFINITY, 1e39, 0.0, Tiny::Kept),
        (1e-40, f64::from(1e-40f32), 0.0, Tiny::Zero),
        (0.0, -1e-40, 0.0, Tiny::Zero),
    ];
    for (got, exact, allowed, tiny) in wrong {
        assert!(!is_close(got, exact, allowed, tiny), "{got} is not {exact}");
    }
}
