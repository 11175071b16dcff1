//! Whole steps on a small model: accumulation and determinism.

use std::sync::atomic::AtomicBool;

use crate::check::bits;
use ltrain::backend::Cpu;
use ltrain::data::attend::Group;
use ltrain::data::{Attend, Batch};
use ltrain::model::{Arch, Llama, ModelConfig, Recompute, RopeConfig, RopeScaling};
use ltrain::optim::{AdamW, AdamWConfig};
use ltrain::tape::ParamGrads;
use ltrain::train::gradients;

fn model() -> Llama {
    let config = ModelConfig {
        arch: Arch::Llama,
        vocab: 31,
        hidden: 24,
        ffn: 20,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_dim: 4,
        rms_eps: 1e-5,
        tied: true,
        qkv_bias: true,
        o_bias: false,
        mlp_bias: false,
        qk_norm: true,
        context: 64,
        rope: RopeConfig { theta: 1e4, scaling: RopeScaling::Default },
        bos: None,
        eos: Vec::new(),
        initializer_range: 0.2,
    };
    let mut model = Llama::init(config, 3).unwrap();
    model.params.iter_mut().for_each(|p| p.trainable = true);
    model
}

fn rows() -> Vec<Vec<u32>> {
    (0..4).map(|row| (0..37).map(|n| (n * n + 5 * row + n * row) % 31).collect()).collect()
}

fn batch(rows: &[Vec<u32>]) -> Batch {
    Batch::contiguous(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn step(model: &Llama, micro: &[Batch], recompute: Recompute) -> (ParamGrads, f64) {
    gradients(&Cpu, model, micro, recompute, &AtomicBool::new(false)).unwrap().unwrap()
}

#[test]
fn four_rows_at_once_are_four_rows_in_turn() {
    let (model, rows) = (model(), rows());
    let (at_once, loss) = step(&model, &[batch(&rows)], Recompute::Nothing);
    let in_turn: Vec<Batch> = rows.chunks(1).map(batch).collect();
    let (accumulated, sum) = step(&model, &in_turn, Recompute::Nothing);
    assert!((loss - sum).abs() <= 1e-6 * loss, "{loss} vs {sum}");
    for ((id, a), (_, b)) in at_once.iter().zip(accumulated.iter()) {
        let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
        let size = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let whole = size(&mut a.iter().map(|&a| f64::from(a)));
        let off = size(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        assert!(off <= 1e-6 * whole, "{}: off by {:.1e}", model.params.get(id).name, off / whole);
    }
}

#[test]
fn recomputed_layers_give_the_same_bits() {
    let (model, mut batch) = (model(), batch(&rows()));
    batch.segments =
        Attend::Shifted { group: Group::Tokens(8) }.segments(&[vec![0, 11], vec![0], vec![0, 5, 30], vec![0]], 37).into();
    let (kept, _) = step(&model, std::slice::from_ref(&batch), Recompute::Nothing);
    let (recomputed, _) = step(&model, &[batch], Recompute::Layers);
    for ((id, a), (other, b)) in kept.iter().zip(recomputed.iter()) {
        assert_eq!((id, bits(a)), (other, bits(b)));
    }
}

#[test]
fn two_runs_are_bit_equal() {
    let once = || {
        let mut model = model();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model.params, &Cpu).unwrap();
        let mut losses = Vec::new();
        for _ in 0..3 {
            let (grads, loss) = step(&model, &[batch(&rows())], Recompute::Nothing);
            optimizer.apply(&Cpu, &mut model.params, &grads, |_| 1e-2).unwrap();
            losses.push(loss.to_bits());
        }
        (losses, model.params.iter().map(|p| bits(&p.value)).collect::<Vec<_>>())
    };
    assert_eq!(once(), once());
}
