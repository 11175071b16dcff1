use super::Cpu;
use super::gemm::{Mat, gemm};
use super::scratch::Scratch;
use super::vector;
use crate::error::Result;
use crate::ops::cross_entropy::{CrossEntropyKernels, CrossEntropyOut, IGNORE, Targets};
use crate::tensor::{Tensor, pool};
use rayon::prelude::*;

/// Floats of logits held at once (4 MiB): large enough for the GEMM to run at full speed, far from `rows · vocab`.
const LOGITS: usize = 1 << 20;

/// Rows of logits held all the same, up to [`MOST_LOGITS`]: every tile reads `w`, and reads and writes `dw`, once.
const GOOD_ROWS: usize = 512;

/// Floats of logits held at most (64 MiB), whatever the vocabulary.
const MOST_LOGITS: usize = 1 << 24;

/// Turns one row of logits into its negative log-likelihood and, in place, into `factor·(softmax − onehot)`.
fn row_loss(z: &mut [f32], target: usize, factor: Option<f32>) -> f32 {
    let max = vector::max(z);
    let at_target = z[target];
    let sum = vector::exp_sum(z, max);
    if let Some(factor) = factor {
        let over = factor / sum;
        vector::scale(over, z);
        z[target] -= factor;
    }
    sum.ln() + max - at_target
}

impl CrossEntropyKernels for Cpu {
    fn cross_entropy(&self, h: &Tensor, w: &Tensor, targets: &Targets, scale: f32, wants: [bool; 2]) -> Result<CrossEntropyOut> {
        let [rows, c] = h.rows_cols("cross_entropy: h (…,C)")?;
        let [vocab, _] = w.dims("cross_entropy: w (V,C)")?;
        w.expect("cross_entropy: w (V,C)", [vocab, c])?;
        let lead = &h.shape().dims()[..h.shape().dims().len() - 1];
        targets.ids.expect("cross_entropy: targets (B,T)", lead)?;
        if let Some(weights) = &targets.weights {
            weights.expect("cross_entropy: weights (B,T)", lead)?;
        }
        let (hs, ws, ids) = (h.as_f32()?, w.as_f32()?, targets.ids.as_u32()?);
        let weights = targets.weights.as_ref().map(Tensor::as_f32).transpose()?;
        let counted: Vec<usize> = (0..rows).filter(|&n| ids[n] != IGNORE).collect();

        let mut nll = vec![0.0; rows];
        let mut loss = 0.0f64;
        let mut dh = wants[0].then(|| pool::zeroed(rows * c));
        let mut dw = wants[1].then(|| pool::zeroed(vocab * c));
        let any = wants[0] || wants[1];
        let rows_of = |floats: usize| floats / vocab.max(1);
        let tile = rows_of(LOGITS).max(GOOD_ROWS.min(rows_of(MOST_LOGITS))).min(counted.len()).max(1);
        let mut z = Scratch::dirty(tile * vocab);
        let mut packed = Scratch::dirty(tile * c);
        let mut dpacked = Scratch::dirty(if wants[0] { tile * c } else { 0 });
        for places in counted.chunks(tile) {
            let n = places.len();
            for (row, &place) in packed.chunks_exact_mut(c).zip(places) {
                row.copy_from_slice(&hs[place * c..][..c]);
            }
            let (z, packed) = (&mut z[..n * vocab], &packed[..n * c]);
            gemm(1.0, Mat::new(packed, n, c), Mat::new(ws, vocab, c).t(), 0.0, z);
            let losses: Vec<f32> = z
                .par_chunks_exact_mut(vocab)
                .zip(places)
                .map(|(z, &place)| {
                    let weight = weights.map_or(1.0, |w| w[place]);
                    row_loss(z, ids[place] as usize, any.then_some(scale * weight))
                })
                .collect();
            for (&place, l) in places.iter().zip(losses) {
                nll[place] = l;
                loss += f64::from(l) * f64::from(weights.map_or(1.0, |w| w[place]));
            }
            if let Some(dh) = &mut dh {
                let dpacked = &mut dpacked[..n * c];
                gemm(1.0, Mat::new(z, n, vocab), Mat::new(ws, vocab, c), 0.0, dpacked);
                for (row, &place) in dpacked.chunks_exact(c).zip(places) {
                    dh[place * c..][..c].copy_from_slice(row);
                }
            }
            if let Some(dw) = &mut dw {
                gemm(1.0, Mat::new(z, n, vocab).t(), Mat::new(packed, n, c), 1.0, dw);
            }
        }
        Ok(CrossEntropyOut {
            nll: Tensor::f32(nll, targets.ids.shape()),
            loss: Tensor::scalar((loss * f64::from(scale)) as f32),
            dh: dh.map(|d| Tensor::f32(d, h.shape())),
            dw: dw.map(|d| Tensor::f32(d, [vocab, c])),
        })
    }
}
