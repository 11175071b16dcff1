use crate::check::{assert_close, assert_refused, floats, gradcheck, ramp, run};
use ltrain::backend::Cpu;
use ltrain::ops::cross_entropy::{CrossEntropyKernels, IGNORE, Targets, cross_entropy};
use ltrain::tensor::Tensor;

fn targets(shape: [usize; 2], vocab: usize, weighted: bool) -> Targets {
    let n = shape[0] * shape[1];
    let ids = (0..n).map(|i| if i % 4 == 2 { IGNORE } else { (i * 7 % vocab) as u32 }).collect();
    let weights = weighted.then(|| Tensor::f32((0..n).map(|i| 0.5 + 0.25 * (i % 3) as f32).collect(), shape));
    Targets { ids: Tensor::u32(ids, shape), weights }
}

/// Loss, nll, and the gradients of h and w in f64.
fn formula(h: &Tensor, w: &Tensor, targets: &Targets, scale: f64) -> (f64, Vec<f64>, [Vec<f64>; 2]) {
    let ([rows, c], [vocab, _]) = (h.rows_cols("h").unwrap(), w.dims("w").unwrap());
    let (hs, ws, ids) = (floats(h), floats(w), targets.ids.as_u32().unwrap());
    let (mut loss, mut nll, mut dh, mut dw) = (0.0, vec![0.0; rows], vec![0.0; rows * c], vec![0.0; vocab * c]);
    for n in (0..rows).filter(|&n| ids[n] != IGNORE) {
        let weight = targets.weights.as_ref().map_or(1.0, |w| f64::from(floats(w)[n]));
        let z: Vec<f64> = (0..vocab).map(|v| (0..c).map(|j| f64::from(hs[n * c + j]) * f64::from(ws[v * c + j])).sum()).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        nll[n] = sum.ln() - z[ids[n] as usize];
        loss += scale * weight * nll[n];
        for v in 0..vocab {
            let dz = scale * weight * (z[v].exp() / sum - f64::from(u8::from(v == ids[n] as usize)));
            for j in 0..c {
                dh[n * c + j] += dz * f64::from(ws[v * c + j]);
                dw[v * c + j] += dz * f64::from(hs[n * c + j]);
            }
        }
    }
    (loss, nll, [dh, dw])
}

#[test]
fn loss_and_gradients_match_the_formula() {
    // 700 counted rows of 3001 logits need several tiles.
    for (b, t, c, vocab) in [(2, 5, 7, 11), (1, 1, 3, 2), (3, 311, 5, 3001)] {
        let (h, w, targets) = (ramp([b, t, c], 0.2), ramp([vocab, c], 1.1), targets([b, t], vocab, b == 2));
        let (loss, nll, grads) = formula(&h, &w, &targets, 0.1);
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
