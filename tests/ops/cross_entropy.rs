use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp, run};
use crate::parity::{BF16, parity, rounded};
use ltrain::backend::Cpu;
use ltrain::ops::cross_entropy::{CrossEntropyKernels, IGNORE, Targets, cross_entropy};
use ltrain::tensor::Tensor;

fn targets(shape: [usize; 2], vocab: usize, weighted: bool) -> Targets {
    let n = shape[0] * shape[1];
    let ids = (0..n).map(|i| if i % 4 == 2 { IGNORE } else { (i * 7 % vocab) as u32 }).collect();
    let weights = weighted.then(|| Tensor::f32((0..n).map(|i| 0.5 + 0.25 * (i % 3) as f32).collect(), shape));
    Targets { ids: Tensor::u32(ids, shape), weights }
}

/// What the op computes, in f64.
struct Formula {
    loss: f64,
    nll: Vec<f64>,
    /// Of h and w.
    grads: [Vec<f64>; 2],
    /// The largest sum of magnitudes that each of them is made of.
    magnitudes: [f64; 2],
}

fn formula(h: &Tensor, w: &Tensor, targets: &Targets, scale: f64) -> Formula {
    let ([rows, c], [vocab, _]) = (h.rows_cols("h").unwrap(), w.dims("w").unwrap());
    let (hs, ws, ids) = (floats(h), floats(w), targets.ids.as_u32().unwrap());
    let (mut loss, mut nll, mut dh, mut dw) = (0.0, vec![0.0; rows], vec![0.0; rows * c], vec![0.0; vocab * c]);
    let (mut dh_sum, mut dw_sum) = (dh.clone(), dw.clone());
    for n in (0..rows).filter(|&n| ids[n] != IGNORE) {
        let weight = targets.weights.as_ref().map_or(1.0, |w| f64::from(floats(w)[n]));
        let z: Vec<f64> = (0..vocab).map(|v| (0..c).map(|j| f64::from(hs[n * c + j]) * f64::from(ws[v * c + j])).sum()).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        nll[n] = sum.ln() - z[ids[n] as usize];
        loss += scale * weight * nll[n];
        for v in 0..vocab {
            let dz = scale * weight * (z[v].exp() / sum - f64::from(u8::from(v == ids[n] as usize)));
            for j in 0..c {
                let (to_h, to_w) = (dz * f64::from(ws[v * c + j]), dz * f64::from(hs[n * c + j]));
                dh[n * c + j] += to_h;
                dw[v * c + j] += to_w;
                dh_sum[n * c + j] += to_h.abs();
                dw_sum[v * c + j] += to_w.abs();
            }
        }
    }
    let magnitudes = [dh_sum, dw_sum].map(|sums| sums.into_iter().fold(0.0, f64::max));
    Formula { loss, nll, grads: [dh, dw], magnitudes }
}

#[test]
fn loss_and_gradients_match_the_formula() {
    // 700 counted rows of 3001 logits need several tiles.
    for (b, t, c, vocab) in [(2, 5, 7, 11), (1, 1, 3, 2), (3, 311, 5, 3001)] {
        let (h, w, targets) = (ramp([b, t, c], 0.2), ramp([vocab, c], 1.1), targets([b, t], vocab, b == 2));
        let Formula { loss, nll, grads, .. } = formula(&h, &w, &targets, 0.1);
        let out = Cpu.cross_entropy(&h, &w, &targets, 0.1, [true, true]).unwrap();
        // Sums of up to 3001 terms: eps·sqrt(3001)·8 is 5e-5.
        assert_close("loss", floats(&out.loss), &[loss], 5e-5);
        assert_close("nll", floats(&out.nll), &nll, 5e-5);
        assert_close("dh", floats(&out.dh.unwrap()), &grads[0], 5e-5);
        assert_close("dw", floats(&out.dw.unwrap()), &grads[1], 5e-5);
        let alone = Cpu.cross_entropy(&h, &w, &targets, 0.1, [false, false]).unwrap();
        assert!(alone.dh.is_none() && alone.dw.is_none());
        assert_eq!(alone.loss, out.loss);
    }
}

#[test]
fn gradients_match_differences_also_under_an_outer_factor() {
    for weighted in [false, true] {
        let targets = targets([2, 3], 5, weighted);
        // The probe of a scalar is not 1, so this also checks that the gradient formed in forward is scaled.
        gradcheck("cross_entropy", [ramp([2, 3, 4], 0.2), ramp([5, 4], 1.1)], 20, |t, [h, w]| {
            Ok(cross_entropy(t, &h, &w, &targets, 0.2)?.0)
        });
    }
}

#[test]
fn ignored_rows_neither_count_nor_move() {
    let none = Targets { ids: Tensor::u32(vec![IGNORE; 6], [2, 3]), weights: None };
    let op = |t: &mut ltrain::tape::Tape, [h, w]: [ltrain::tape::Var; 2]| Ok(cross_entropy(t, &h, &w, &none, 1.0)?.0);
    let (loss, grads) = run(&[ramp([2, 3, 4], 0.2), ramp([5, 4], 1.1)], |_| Tensor::scalar(1.0), op);
    assert_eq!(floats(&loss), [0.0]);
    assert!(grads.iter().all(|g| floats(g).iter().all(|&v| v == 0.0)));
}

#[test]
fn large_logits_stay_finite() {
    let h = Tensor::f32(vec![1e3, -1e3], [1, 1, 2]);
    let w = Tensor::f32(vec![1.0, 0.0, 0.0, 1.0, -1.0, 1.0], [3, 2]);
    let targets = Targets { ids: Tensor::u32(vec![2], [1, 1]), weights: None };
    let out = Cpu.cross_entropy(&h, &w, &targets, 1.0, [true, true]).unwrap();
    assert_eq!(floats(&out.loss), [3000.0]);
}

#[test]
fn every_backend_agrees() {
    // Vocabularies below and above a tile, of whole vectors and not, and longer than one pass of a block; more rows than a chunk.
    for [b, t, c, vocab] in
        [[1, 1, 8, 2], [2, 5, 8, 11], [1, 67, 24, 129], [3, 43, 40, 264], [2, 3, 72, 2049], [1, 2801, 8, 19], [1, 129, 136, 128]]
    {
        let (inputs, targets, scale) = ([ramp([b, t, c], 0.2), ramp([vocab, c], 1.1)], targets([b, t], vocab, b == 2), 0.1);
        let [h, w] = inputs.each_ref().map(rounded);
        let Formula { nll, grads, magnitudes, .. } = formula(&h, &w, &targets, f64::from(scale));
        let top = |v: &[f64]| v.iter().fold(0f64, |m, v| m.max(v.abs()));
        let f32_sum = |terms: usize| f64::from(f32::EPSILON) * (terms as f64).sqrt() * 8.0;
        // A logit is a sum of c products below 1.7, an exponential of it as wrong as it is, nll the difference of two of them.
        let logit = f32_sum(c) * 1.7 * c as f64;
        let loss = 2.0 * logit / top(&nll) + f32_sum(vocab);
        // dz is rounded to bf16 before it is multiplied, and dh afterwards.
        let [dh, dw] = [0, 1].map(|i| (BF16 + 2.0 * logit + f32_sum(vocab.max(b * t))) * magnitudes[i] / top(&grads[i]));
        parity("cross_entropy", inputs, [loss, loss, BF16 + dh, dw], |k, [h, w]| {
            let out = k.cross_entropy(h, w, &targets, scale, [true, true])?;
            let alone = k.cross_entropy(h, w, &targets, scale, [false, false])?;
            assert!(alone.dh.is_none() && alone.dw.is_none());
            assert_eq!(alone.loss.to_host_f32()?, out.loss.to_host_f32()?);
            Ok([out.loss, alone.nll, out.dh.unwrap(), out.dw.unwrap()])
        });
    }
}

#[test]
fn no_backend_moves_where_nothing_counts() {
    let none = Targets { ids: Tensor::u32(vec![IGNORE; 6], [2, 3]), weights: None };
    parity("cross_entropy of nothing", [ramp([2, 3, 8], 0.2), ramp([5, 8], 1.1)], [0.0; 4], |k, [h, w]| {
        let out = k.cross_entropy(h, w, &none, 1.0, [true, true])?;
        Ok([out.loss, out.nll, out.dh.unwrap(), out.dw.unwrap()])
    });
}

#[test]
fn wrong_shapes_are_refused() {
    let (h, w, good) = (ramp([2, 3, 4], 0.0), ramp([5, 4], 0.0), targets([2, 3], 5, true));
    let loss = |h: &Tensor, w: &Tensor, t: &Targets| Cpu.cross_entropy(h, w, t, 1.0, [true, true]);
    assert!(loss(&h, &w, &good).is_ok());
    assert_refused("width of w", loss(&h, &ramp([5, 3], 0.0), &good));
    assert_refused("rank of w", loss(&h, &ramp([5, 4, 1], 0.0), &good));
    assert_refused("scalar h", loss(&ramp([], 0.0), &w, &good));
    assert_refused("number of targets", loss(&h, &w, &targets([2, 2], 5, false)));
    assert_refused("order of targets", loss(&h, &w, &targets([3, 2], 5, false)));
    let short = Targets { weights: Some(ramp([2, 2], 0.0)), ..good.clone() };
    assert_refused("number of weights", loss(&h, &w, &short));
    let floating = Targets { ids: ramp([2, 3], 0.0), weights: None };
    assert_refused("storage of targets", loss(&h, &w, &floating));
}
