use std::sync::Arc;

use crate::check::{assert_close_f32, assert_refused, bits, floats, gradcheck, ramp, run};
use crate::common::Golden;
use ltrain::backend::Cpu;
use ltrain::data::Attend;
use ltrain::ops::attention::{AttentionKernels, AttentionSaved, Segments, attention};
use ltrain::tensor::Tensor;

const GROUP: usize = 16;

fn golden(file: &Golden, name: &str) -> Tensor {
    let (data, shape) = file.f32(name);
    Tensor::f32(data, shape)
}

/// Document starts of the fixture's rows, or one document per row.
fn documents(file: &Golden, packed: bool) -> Vec<Vec<usize>> {
    let (ids, shape) = file.i64("doc_ids");
    let begins = |row: &[i64]| (0..row.len()).filter(|&i| i == 0 || row[i] != row[i - 1]).collect();
    ids.chunks_exact(shape[1]).map(|row| if packed { begins(row) } else { vec![0] }).collect()
}

fn modes() -> [(&'static str, Attend, bool); 4] {
    let shifted = Attend::Shifted { group: GROUP };
    [("full", Attend::Full, false), ("packed", Attend::Full, true), ("s2", shifted, false), ("s2_packed", shifted, true)]
}

#[test]
fn every_pattern_matches_the_golden_forward_and_gradients() {
    let file = Golden::open("attention");
    let [q, k, v, dout] = ["q", "k", "v", "do"].map(|name| golden(&file, name));
    let scale = 1.0 / 32f32.sqrt();
    for (mode, attend, packed) in modes() {
        let segments = Arc::new(attend.segments(&documents(&file, packed), 64));
        let (o, lse) = Cpu.attention_fwd(&q, &k, &v, &segments, scale).unwrap();
        let check = |part: &str, got: &Tensor| {
            let name = format!("{mode}.{part}");
            // Stored as f32; ours differs by sums of at most 64 products. 1e-4 is what the product promises.
            assert_close_f32(&name, floats(got), &file.f32(&name).0, 1e-4);
        };
        check("o", &o);
        check("lse", &lse);
        let op = |t: &mut ltrain::tape::Tape, [q, k, v]: [_; 3]| attention(t, &q, &k, &v, &segments, scale);
        let (_, [dq, dk, dv]) = run(&[q.clone(), k.clone(), v.clone()], |_| dout.clone(), op);
        check("dq", &dq);
        check("dk", &dk);
        check("dv", &dv);
    }
}

/// Attention as LongLoRA's code does it: the second half of the heads rolled by half a group, so that the first and the
/// last half group end up together.
fn rolled(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Vec<f32> {
    let [batch, t, heads, d] = q.dims("q").unwrap();
    let [.., kv_heads, _] = k.dims::<4>("k").unwrap();
    let mut o = vec![0.0; q.shape().len()];
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        let place = |i: usize| if h < heads / 2 { i } else { (i + GROUP / 2) % t };
        let row = |x: &Tensor, i: usize, heads: usize, h: usize| -> Vec<f64> {
            floats(x)[((b * t + place(i)) * heads + h) * d..][..d].iter().map(|&v| f64::from(v)).collect()
        };
        let key_head = h / (heads / kv_heads);
        for i in 0..t {
            let query = row(q, i, heads, h);
            let scores: Vec<f64> = (i / GROUP * GROUP..=i)
                .map(|j| scale * query.iter().zip(row(k, j, kv_heads, key_head)).map(|(q, k)| q * k).sum::<f64>())
                .collect();
            let sum: f64 = scores.iter().map(|s| s.exp()).sum();
            for (j, s) in (i / GROUP * GROUP..).zip(&scores) {
                for (o, v) in o[((b * t + place(i)) * heads + h) * d..][..d].iter_mut().zip(row(v, j, kv_heads, key_head)) {
                    *o += (s.exp() / sum * v) as f32;
                }
            }
        }
    }
    o
}

/// Whether some output before a token changes with that token's query, key and value.
fn sees_the_future([q, k, v]: [&Tensor; 3], attend: impl Fn(&Tensor, &Tensor, &Tensor) -> Vec<f32>) -> bool {
    let [batch, t, heads, d] = q.dims("q").unwrap();
    let before = attend(q, k, v);
    [1, GROUP / 2, 31, t - 1].into_iter().any(|token| {
        let moved = [q, k, v].map(|x| {
            let mut x = x.clone();
            let row = x.shape().len() / (batch * t);
            for b in 0..batch {
                x.as_f32_mut().unwrap()[(b * t + token) * row..][..row].iter_mut().for_each(|v| *v += 3.0);
            }
            x
        });
        let after = attend(&moved[0], &moved[1], &moved[2]);
        let row = heads * d;
        (0..batch).any(|b| {
            let earlier = b * t * row..(b * t + token) * row;
            before[earlier.clone()] != after[earlier]
        })
    })
}

#[test]
fn no_pattern_sees_the_future_but_the_rolled_form_does() {
    let file = Golden::open("attention");
    let [q, k, v] = ["q", "k", "v"].map(|name| golden(&file, name));
    let scale = 1.0 / 32f32.sqrt();
    for (mode, attend, packed) in modes() {
        let segments = attend.segments(&documents(&file, packed), 64);
        let ours = |q: &Tensor, k: &Tensor, v: &Tensor| floats(&Cpu.attention_fwd(q, k, v, &segments, scale).unwrap().0).to_vec();
        assert!(!sees_the_future([&q, &k, &v], ours), "{mode}: an output changed with a later token");
    }
    let roll = |q: &Tensor, k: &Tensor, v: &Tensor| rolled(q, k, v, f64::from(scale));
    // That it is the released form: the fixture has it from PyTorch's roll.
    assert_close_f32("s2_roll.o", &roll(&q, &k, &v), &file.f32("s2_roll.o").0, 1e-5);
    assert!(sees_the_future([&q, &k, &v], roll), "the check cannot tell");
}

#[test]
fn the_shifted_pattern_is_not_the_rolled_form() {
    let file = Golden::open("attention");
    let [q, k, v] = ["q", "k", "v"].map(|name| golden(&file, name));
    let segments = Attend::Shifted { group: GROUP }.segments(&documents(&file, false), 64);
    let (o, _) = Cpu.attention_fwd(&q, &k, &v, &segments, 1.0 / 32f32.sqrt()).unwrap();
    let roll = file.f32("s2_roll.o").0;
    let off = |token: usize, head: usize| {
        let at = (token * 4 + head) * 32;
        (0..32).map(|d| (floats(&o)[at + d] - roll[at + d]).abs()).fold(0.0, f32::max)
    };
    // Only the shifted heads' last half group joins the first one when rolled; everything else agrees.
    for token in 0..64 {
        for head in 0..4 {
            let wrapped = head >= 2 && token < GROUP / 2;
            assert_eq!(off(token, head) > 1e-3, wrapped, "token {token}, head {head}: off {}", off(token, head));
        }
    }
}

#[test]
fn gradients_match_differences() {
    let (b, t, h, hk, d) = (2, 5, 6, 2, 4);
    let documents = [vec![0, 3], vec![0]];
    for attend in [Attend::Full, Attend::Shifted { group: 2 }] {
        let segments = Arc::new(attend.segments(&documents, t));
        let inputs = [ramp([b, t, h, d], 0.1), ramp([b, t, hk, d], 1.7), ramp([b, t, hk, d], 2.9)];
        gradcheck("attention", inputs, d + t, |tape, [q, k, v]| attention(tape, &q, &k, &v, &segments, 0.5));
    }
}

#[test]
fn two_runs_are_bit_equal() {
    let (b, t, h, hk, d) = (2, 130, 6, 2, 10);
    let segments = Arc::new(Attend::Shifted { group: 48 }.segments(&[vec![0, 70], vec![0]], t));
    let inputs = [ramp([b, t, h, d], 0.1), ramp([b, t, hk, d], 1.7), ramp([b, t, hk, d], 2.9)];
    let once = || {
        let op = |tape: &mut ltrain::tape::Tape, [q, k, v]: [_; 3]| attention(tape, &q, &k, &v, &segments, 0.3);
        let (o, grads) = run(&inputs, |o| o.clone(), op);
        (bits(&o), grads.map(|g| bits(&g)))
    };
    assert_eq!(once(), once());
}

#[test]
fn wrong_shapes_are_refused() {
    let table = |n: usize| Segments { starts: [vec![0; n], vec![0; n]] };
    let [q, k, v] = [ramp([2, 5, 6, 4], 0.1), ramp([2, 5, 2, 4], 0.2), ramp([2, 5, 2, 4], 0.3)];
    let forward = |q: &Tensor, k: &Tensor, v: &Tensor, n: usize| Cpu.attention_fwd(q, k, v, &table(n), 0.5);
    assert!(forward(&q, &k, &v, 10).is_ok());
    assert_refused("rank of q", forward(&ramp([2, 5, 24], 0.0), &k, &v, 10));
    assert_refused("rank of k", forward(&q, &ramp([2, 5, 8], 0.0), &v, 10));
    assert_refused("batch of k", forward(&q, &ramp([1, 5, 2, 4], 0.0), &v, 10));
    assert_refused("head_dim of k", forward(&q, &ramp([2, 5, 2, 3], 0.0), &v, 10));
    assert_refused("heads of k", forward(&q, &ramp([2, 5, 4, 4], 0.0), &ramp([2, 5, 4, 4], 0.0), 10));
    assert_refused("no heads in k", forward(&q, &ramp([2, 5, 0, 4], 0.0), &ramp([2, 5, 0, 4], 0.0), 10));
    assert_refused("fewer keys than queries", forward(&q, &ramp([2, 4, 2, 4], 0.0), &ramp([2, 4, 2, 4], 0.0), 10));
    assert_refused("v unlike k", forward(&q, &k, &ramp([2, 5, 3, 4], 0.0), 10));
    assert_refused("segment starts", forward(&q, &k, &v, 5));
    assert_refused("integers", forward(&Tensor::u32(vec![0; 240], [2, 5, 6, 4]), &k, &v, 10));

    let (o, lse) = forward(&q, &k, &v, 10).unwrap();
    let saved = |o: &Tensor, lse: &Tensor| AttentionSaved {
        qkv: [q.clone(), k.clone(), v.clone()],
        o: o.clone(),
        lse: lse.clone(),
        segments: Arc::new(table(10)),
        scale: 0.5,
    };
    assert!(Cpu.attention_bwd(&o, &saved(&o, &lse)).is_ok());
    assert_refused("do", Cpu.attention_bwd(&k, &saved(&o, &lse)));
    assert_refused("o", Cpu.attention_bwd(&o, &saved(&k, &lse)));
    assert_refused("lse", Cpu.attention_bwd(&o, &saved(&o, &ramp([2, 5, 6], 0.0))));
}
