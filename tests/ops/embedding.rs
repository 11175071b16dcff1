use crate::check::{assert_refused, bits, floats, gradcheck, ramp, run};
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

#[test]
fn wrong_shapes_are_refused() {
    let w = ramp([7, 4], 0.0);
    assert_refused("rank of ids", Cpu.embedding_fwd(&Tensor::u32(vec![0; 3], [3]), &w));
    assert_refused("storage of ids", Cpu.embedding_fwd(&ramp([2, 3], 0.0), &w));
    assert_refused("rank of w", Cpu.embedding_fwd(&ids([2, 3], 7), &ramp([7], 0.0)));
    assert_refused("ids unlike dy", Cpu.embedding_bwd(&ramp([2, 3, 4], 0.0), &ids([2, 2], 7), 7));
    assert_refused("scalar dy", Cpu.embedding_bwd(&ramp([], 0.0), &ids([1, 1], 7), 7));
}
