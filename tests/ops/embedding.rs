use crate::check::{assert_refused, bits, floats, gradcheck, ramp, run};
use crate::parity::parity;
use ltrain::backend::Cpu;
use ltrain::ops::embedding::{EmbeddingKernels, embedding};
use ltrain::tensor::Tensor;

fn ids(shape: [usize; 2], vocab: usize) -> Tensor {
    Tensor::u32((0..shape[0] * shape[1]).map(|i| (i * i % vocab) as u32).collect(), shape)
}

#[test]
fn rows_are_gathered() {
    let (ids, w) = (ids([3, 5], 7), ramp([7, 4], 0.3));
    let y = Cpu.embedding_fwd(&ids, &w).unwrap();
    assert_eq!(y.shape().dims(), [3, 5, 4]);
    for (y, &id) in floats(&y).chunks_exact(4).zip(ids.as_u32().unwrap()) {
        assert_eq!(y, &floats(&w)[id as usize * 4..][..4]);
    }
}

#[test]
fn gradients_match_differences() {
    let ids = ids([2, 5], 3);
    gradcheck("embedding", [ramp([3, 4], 0.3)], 1, |t, [w]| embedding(t, &ids, &w));
}

#[test]
fn two_runs_are_bit_equal() {
    let ids = ids([3, 1000], 11);
    let once = || run(&[ramp([11, 5], 0.3)], |y| y.clone(), |t, [w]| embedding(t, &ids, &w)).1.map(|g| bits(&g));
    assert_eq!(once(), once());
}

/// Rows of ids, vocabulary, width: unused ids, and ids that are frequent enough to be cut.
const SHAPES: [([usize; 2], usize, usize); 7] = [
    ([1, 1], 1, 8),
    ([3, 5], 7, 24),
    ([2, 33], 100, 64),
    ([5, 13], 11, 136),
    ([3, 41], 37, 1032),
    ([1, 2], 5, 4096),
    ([2, 700], 3, 16),
];

#[test]
fn every_backend_agrees() {
    for (shape, vocab, c) in SHAPES {
        let ids = ids(shape, vocab);
        // Forward copies bits. Backward adds in the order of the tokens, as the CPU does, except where a frequent id is cut.
        let pieces = f64::from(f32::EPSILON) * (shape[0] as f64 * shape[1] as f64 / vocab as f64).sqrt() * 8.0;
        let allowed = if shape[0] * shape[1] > 256 { pieces } else { 0.0 };
        parity("embedding", [ramp([vocab, c], 0.3), ramp([shape[0], shape[1], c], 1.1)], [0.0, allowed], |k, [w, dy]| {
            Ok([k.embedding_fwd(&ids, w)?, k.embedding_bwd(dy, &ids, vocab)?])
        });
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let w = ramp([7, 4], 0.0);
    assert_refused("rank of ids", Cpu.embedding_fwd(&Tensor::u32(vec![0; 3], [3]), &w));
    assert_refused("storage of ids", Cpu.embedding_fwd(&ramp([2, 3], 0.0), &w));
    assert_refused("rank of w", Cpu.embedding_fwd(&ids([2, 3], 7), &ramp([7], 0.0)));
    assert_refused("ids unlike dy", Cpu.embedding_bwd(&ramp([2, 3, 4], 0.0), &ids([2, 2], 7), 7));
    assert_refused("scalar dy", Cpu.embedding_bwd(&ramp([], 0.0), &ids([1, 1], 7), 7));
}
