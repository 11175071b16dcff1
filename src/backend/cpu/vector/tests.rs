//! Vector functions against std in f64.

use super::{axpy, dot, exp_sum, max, swiglu_bwd, swiglu_fwd};

#[test]
fn exp_is_within_two_in_ten_million() {
    let x: Vec<f32> = (0..=1_370_000).map(|i| -50.0 + i as f32 * 1e-4).collect();
    let mut y = x.clone();
    exp_sum(&mut y, 0.0);
    let worst = x.iter().zip(&y).map(|(&x, &y)| (y as f64 / (x as f64).exp() - 1.0).abs()).fold(0.0, f64::max);
    assert!(worst <= 2e-7, "{worst:e}");
}

#[test]
fn exp_keeps_the_special_values() {
    let mut x = [0.0, -0.0, f32::NEG_INFINITY, -1e30, -52.0, f32::NAN, 88.0];
    exp_sum(&mut x, 0.0);
    assert_eq!(x[..5], [1.0, 1.0, 0.0, 0.0, 0.0]);
    assert!(x[5].is_nan());
    assert!(x[6].is_finite());
}

#[test]
fn slices_of_any_length_match_the_formula() {
    for n in [0, 1, 3, 15, 16, 17, 64, 65, 131] {
        let x: Vec<f32> = (0..n).map(|i| (0.37 * i as f32 + 0.2).sin() * 4.0).collect();
        let y: Vec<f32> = (0..n).map(|i| (0.53 * i as f32 + 0.9).sin() * 3.0).collect();
        let z: Vec<f32> = (0..n).map(|i| (0.11 * i as f32 + 0.4).cos()).collect();
        let close = |a: f32, b: f64| (a as f64 - b).abs() <= 2e-6 * (1.0 + b.abs());
        let want: f64 = x.iter().zip(&y).map(|(&x, &y)| x as f64 * y as f64).sum();
        assert!((dot(&x, &y) as f64 - want).abs() <= 1e-4, "n {n}");
        let mut a = y.clone();
        axpy(0.5, &x, &mut a);
        assert!((0..n).all(|i| close(a[i], 0.5 * x[i] as f64 + y[i] as f64)), "n {n}");
        let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(max(&x), largest, "n {n}");
        let mut e = x.clone();
        let sum: f64 = x.iter().map(|&x| (f64::from(x) - 1.5).exp()).sum();
        assert!(close(exp_sum(&mut e, 1.5), sum), "n {n}");
        assert!((0..n).all(|i| close(e[i], (f64::from(x[i]) - 1.5).exp())), "n {n}");
        let mut out = vec![f32::NAN; n];
        swiglu_fwd(&x, &y, &mut out);
        let (mut dgate, mut dup) = (vec![f32::NAN; n], vec![f32::NAN; n]);
        swiglu_bwd(&z, &x, &y, &mut dgate, &mut dup);
        for i in 0..n {
            let (g, u, d) = (x[i] as f64, y[i] as f64, z[i] as f64);
            let s = 1.0 / (1.0 + (-g).exp());
            assert!(close(out[i], g * s * u), "n {n}");
            assert!(close(dup[i], d * g * s), "n {n}");
            assert!(close(dgate[i], d * u * s * (1.0 + g * (1.0 - s))), "n {n}");
        }
    }
}
