//! Matrix products against f64 sums.

use super::{Mat, gemm};

fn ramp(len: usize, phase: f32) -> Vec<f32> {
    (0..len).map(|i| (0.37 * i as f32 + phase).sin()).collect()
}

#[test]
fn every_orientation_gives_the_formula() {
    for (m, n, k) in [(1, 1, 1), (7, 5, 3), (64, 64, 64), (65, 172, 64), (130, 17, 700), (9, 2100, 33), (3, 40, 0), (31, 33, 321)]
    {
        for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
            for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0), (2.0, 0.25)] {
                let (a, b) = (ramp(m * k, 0.3), ramp(k * n, 1.1));
                let old = if beta == 0.0 { vec![f32::NAN; m * n] } else { ramp(m * n, 2.0) };
                let ma = if a_t { Mat::new(&a, k, m).t() } else { Mat::new(&a, m, k) };
                let mb = if b_t { Mat::new(&b, n, k).t() } else { Mat::new(&b, k, n) };
                let mut c = old.clone();
                gemm(alpha, ma, mb, beta, &mut c);
                for i in 0..m {
                    for j in 0..n {
                        let at = |r: usize, s: usize, t: bool, x: &[f32], rows: usize, cols: usize| {
                            x[if t { s * rows + r } else { r * cols + s }] as f64
                        };
                        let sum: f64 = (0..k).map(|p| at(i, p, a_t, &a, m, k) * at(p, j, b_t, &b, k, n)).sum();
                        let rest = if beta == 0.0 { 0.0 } else { beta as f64 * old[i * n + j] as f64 };
                        let want = alpha as f64 * sum + rest;
                        // eps * sqrt(k) * 8 of terms up to alpha
                        let tol = 1.2e-7 * (k as f64).sqrt().max(1.0) * 8.0 * 2.0;
                        let got = c[i * n + j] as f64;
                        let ok = (got - want).abs() <= tol * (1.0 + want.abs());
                        assert!(ok, "({m},{n},{k}) {a_t} {b_t} [{i},{j}]: expected {want}, got {got}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_pool_size_does_not_change_a_bit() {
    let (m, n, k) = (300, 512, 700);
    let (a, b) = (ramp(m * k, 0.3), ramp(k * n, 1.1));
    let run = |threads: usize| {
        let mut c = vec![f32::NAN; m * n];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gemm(1.0, Mat::new(&a, m, k), Mat::new(&b, k, n), 0.0, &mut c));
        c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(2), run(2));
    assert_eq!(run(3), run(2));
}
