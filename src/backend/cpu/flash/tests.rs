//! Tiled attention against the formula in f64.

use super::{backward, forward};
use crate::ops::attention::Extents;

fn ramp(len: usize, phase: f64) -> Vec<f32> {
    (0..len).map(|i| (0.37 * i as f64 + phase + (i as f64 * 0.011).cos()).sin() as f32 * 1.3).collect()
}

struct Case {
    dims: Extents,
    scale: f32,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    do_: Vec<f32>,
    starts: [Vec<u32>; 2],
}

/// Shifted group starts: half 0 at multiples of `group`, half 1 half a group later. `group` 0: everything is visible.
fn case(batch: usize, q_len: usize, kv_len: usize, heads: usize, kv_heads: usize, head_dim: usize, group: usize) -> Case {
    let dims = Extents { batch, q_len, kv_len, heads, kv_heads, head_dim };
    let table = |shift: usize| -> Vec<u32> {
        (0..batch)
            .flat_map(|b| {
                (0..q_len).map(move |i| {
                    let own = kv_len - q_len + i;
                    if group == 0 {
                        return 0;
                    }
                    let shift = shift + 3 * b;
                    (if own < shift { 0 } else { (own - shift) / group * group + shift }) as u32
                })
            })
            .collect()
    };
    let (nq, nk) = (batch * q_len * heads * head_dim, batch * kv_len * kv_heads * head_dim);
    Case {
        dims,
        scale: 1.0 / (head_dim as f32).sqrt(),
        q: ramp(nq, 0.1),
        k: ramp(nk, 1.7),
        v: ramp(nk, 2.9),
        do_: ramp(nq, 0.8),
        starts: [table(0), table(group / 2)],
    }
}

#[derive(Default)]
struct Out<T> {
    o: Vec<T>,
    lse: Vec<T>,
    dq: Vec<T>,
    dk: Vec<T>,
    dv: Vec<T>,
}

fn naive(c: &Case) -> Out<f64> {
    let Extents { batch, q_len, kv_len, heads, kv_heads, head_dim } = c.dims;
    let mut out = Out {
        o: vec![0.0; c.q.len()],
        lse: vec![0.0; batch * heads * q_len],
        dq: vec![0.0; c.q.len()],
        dk: vec![0.0; c.k.len()],
        dv: vec![0.0; c.k.len()],
    };
    let at = |x: &[f32], i: usize| x[i] as f64;
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..q_len {
                let own = kv_len - q_len + i;
                let start = c.starts[usize::from(h * 2 >= heads)][b * q_len + i] as usize;
                let qi = ((b * q_len + i) * heads + h) * head_dim;
                let ki = |j: usize| ((b * kv_len + j) * kv_heads + h / (heads / kv_heads)) * head_dim;
                let dot = |x: &[f32], xi: usize, y: &[f32], yi: usize| -> f64 {
                    (0..head_dim).map(|d| at(x, xi + d) * at(y, yi + d)).sum()
                };
                let s: Vec<f64> = (start..=own).map(|j| c.scale as f64 * dot(&c.q, qi, &c.k, ki(j))).collect();
                let max = s.iter().copied().fold(f64::MIN, f64::max);
                let lse = max + s.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
                out.lse[(b * heads + h) * q_len + i] = lse;
                let p: Vec<f64> = s.iter().map(|s| (s - lse).exp()).collect();
                for (n, p) in p.iter().enumerate() {
                    for d in 0..head_dim {
                        out.o[qi + d] += p * at(&c.v, ki(start + n) + d);
                    }
                }
                let delta: f64 = (0..head_dim).map(|d| out.o[qi + d] * at(&c.do_, qi + d)).sum();
                for (n, p) in p.iter().enumerate() {
                    let j = ki(start + n);
                    let ds = p * (dot(&c.do_, qi, &c.v, j) - delta) * c.scale as f64;
                    for d in 0..head_dim {
                        out.dv[j + d] += p * at(&c.do_, qi + d);
                        out.dq[qi + d] += ds * at(&c.k, j + d);
                        out.dk[j + d] += ds * at(&c.q, qi + d);
                    }
                }
            }
        }
    }
    out
}

fn tiled(c: &Case) -> Out<f32> {
    let Extents { batch, q_len, heads, .. } = c.dims;
    let nan = |n: usize| vec![f32::NAN; n];
    let mut out =
        Out { o: nan(c.q.len()), lse: nan(batch * heads * q_len), dq: nan(c.q.len()), dk: nan(c.k.len()), dv: nan(c.k.len()) };
    let starts = [&c.starts[0][..], &c.starts[1][..]];
    forward(c.dims, c.scale, &c.q, &c.k, &c.v, starts, &mut out.o, &mut out.lse);
    backward(c.dims, c.scale, &c.q, &c.k, &c.v, &out.o, &out.lse, &c.do_, starts, &mut out.dq, &mut out.dk, &mut out.dv);
    out
}

/// Largest difference over the largest value, NaN failing.
fn assert_close(what: &str, c: &Case, got: &[f32], want: &[f64]) {
    let top = want.iter().fold(0f64, |m, x| m.max(x.abs())).max(0.5); // below that, sums of order-1 terms have cancelled
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let ok = (g as f64 - w).abs() <= 1e-5 * top;
        assert!(ok, "{what}[{i}]: expected {w}, got {g} for {:?}", c.dims);
    }
}

#[test]
fn tiles_give_the_formula() {
    let mut cases = Vec::new();
    for t in [1, 7, 63, 64, 65, 130, 200] {
        for d in [8, 10, 16, 48, 64] {
            for (h, hk) in [(4, 2), (3, 1)] {
                for group in [0, 5, 48, 100] {
                    cases.push(case(2, t, t, h, hk, d, group));
                }
            }
        }
        cases.push(case(1, t, t, 2, 2, 128, 0));
        cases.push(case(3, t, t, 1, 1, 1, 9));
    }
    for (tq, tk) in [(1, 1), (1, 100), (7, 65), (65, 130), (64, 200)] {
        for group in [0, 48] {
            cases.push(case(2, tq, tk, 4, 2, 10, group));
            cases.push(case(2, tq, tk, 3, 1, 16, group));
        }
    }
    for c in &cases {
        let (got, want) = (tiled(c), naive(c));
        assert_close("o", c, &got.o, &want.o);
        assert_close("lse", c, &got.lse, &want.lse);
        assert_close("dq", c, &got.dq, &want.dq);
        assert_close("dk", c, &got.dk, &want.dk);
        assert_close("dv", c, &got.dv, &want.dv);
    }
}

#[test]
fn far_apart_scores_do_not_overflow() {
    let mut c = case(1, 130, 130, 2, 1, 8, 48);
    c.scale = 60.0;
    let (got, want) = (tiled(&c), naive(&c));
    assert!(got.dk.iter().chain(&got.o).all(|x| x.is_finite()));
    // Scores reach 800; their rounding, about 1e-4, turns into a relative error of p.
    for (g, w) in got.o.iter().zip(&want.o) {
        assert!((*g as f64 - w).abs() <= 5e-4, "expected {w}, got {g}");
    }
}

#[test]
fn two_runs_are_bit_equal() {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for c in [case(1, 300, 300, 4, 2, 8, 0), case(1, 300, 300, 3, 1, 48, 70), case(3, 130, 130, 4, 4, 16, 33)] {
        let (a, b) = (tiled(&c), tiled(&c));
        for (a, b) in [(a.o, b.o), (a.lse, b.lse), (a.dq, b.dq), (a.dk, b.dk), (a.dv, b.dv)] {
            assert_eq!(bits(&a), bits(&b), "{:?}", c.dims);
        }
    }
}
