//! What a batch promises: targets, positions, segments, purity.

use std::sync::Arc;

use ltrain::data::attend::Group;
use ltrain::data::{Attend, Batch, BatchBuilder, Packing, RowOptions, RowSet};
use ltrain::ops::cross_entropy::IGNORE;
use ltrain::positions::{Mix, Part, Plan, PositionPlan};
use ltrain::rng::Rng;

use super::{BOS, BOTH, NEITHER, corpus, whole};

/// Contiguous text at contiguous positions.
#[derive(Debug)]
struct Straight;

impl PositionPlan for Straight {
    fn name(&self) -> &'static str {
        "straight"
    }
    fn plan(&self, _: &[u32], want: usize, _: f32, _: &mut Rng) -> Plan {
        Plan { parts: vec![Part::Text(0..want)], positions: (0..want as u32).collect() }
    }
}

/// Two chunks: the first tokens and the last ones, with a random jump between their positions.
#[derive(Debug)]
struct Jump;

impl PositionPlan for Jump {
    fn name(&self) -> &'static str {
        "jump"
    }
    fn rope_scale(&self, rng: &mut Rng) -> Option<f32> {
        Some(rng.between(1, 1_000_000) as f32)
    }
    fn plan(&self, text: &[u32], want: usize, _: f32, rng: &mut Rng) -> Plan {
        let first = want / 2;
        let jump = rng.between(0, 10_000) as u32;
        let near = 0..first as u32;
        let far = first as u32 + jump..want as u32 + jump;
        Plan {
            parts: [0..first, text.len() - (want - first)..text.len()].map(Part::Text).into(),
            positions: near.chain(far).collect(),
        }
    }
}

fn builder(specials: ltrain::data::Specials, lengths: &[usize], span: usize, method: Mix) -> BatchBuilder {
    let corpus = corpus(specials, lengths);
    let options = RowOptions { seq_len: 16, span, packing: Packing::On };
    let rows = RowSet::new(Arc::clone(&corpus), &whole(&corpus), options).unwrap();
    BatchBuilder { rows: Arc::new(rows), method, seed: 5, attention: Attend::Full }
}

const LENGTHS: &[usize] = &[3, 40, 7, 13, 5, 29, 1, 8, 100];

fn u32s(tensor: &ltrain::tensor::Tensor) -> &[u32] {
    tensor.as_u32().unwrap()
}

fn contents(batch: &Batch) -> (Vec<u32>, Vec<u32>, Vec<u32>, Vec<f32>) {
    (u32s(&batch.ids).to_vec(), u32s(&batch.targets.ids).to_vec(), u32s(&batch.positions).to_vec(), batch.rope_scale.clone())
}

#[test]
fn an_epoch_of_contiguous_rows_holds_every_token_of_every_document() {
    let builder = builder(NEITHER, LENGTHS, 16, Mix::only(Straight));
    let batch = builder.batch(0, builder.rows.rows_per_epoch() as usize);
    let count = |ids: &mut dyn Iterator<Item = u32>| {
        let mut counts = [0usize; 260];
        ids.for_each(|id| counts[id as usize] += 1);
        counts
    };
    let corpus = builder.rows.corpus();
    let text = count(&mut (0..corpus.docs()).flat_map(|i| corpus.doc(i).iter().copied()));
    let seen = count(&mut u32s(&batch.ids).iter().copied());
    assert!(text.iter().zip(seen).all(|(&text, seen)| seen >= text));
    // Only what completes the last row is there twice.
    assert!(seen.iter().sum::<usize>() - text.iter().sum::<usize>() < 16);
}

#[test]
fn no_target_crosses_a_document_and_none_inside_is_lost() {
    for method in [Mix::only(Straight), Mix::only(Jump)] {
        let builder = builder(BOTH, LENGTHS, 80, method);
        let n = builder.rows.rows_per_epoch();
        let batch = builder.batch(0, n as usize);
        let mut counted = 0;
        for i in 0..n {
            let row = builder.rows.row(builder.rows.order(5, 0, i));
            let at = i as usize * 16;
            let (ids, targets) = (&u32s(&batch.ids)[at..at + 16], &u32s(&batch.targets.ids)[at..at + 16]);
            let mut start = 0;
            for slot in row {
                let end = start + slot.want;
                assert_eq!(ids[start], BOS);
                assert_eq!(targets[start..end - 1], ids[start + 1..end]);
                assert_eq!(targets[end - 1], IGNORE);
                for half in &batch.segments.starts {
                    assert!(half[at + start..at + end].iter().all(|&s| s as usize == start));
                }
                counted += slot.want - 1;
                start = end;
            }
        }
        assert_eq!(batch.target_count(), counted);
    }
}

#[test]
fn a_document_begins_at_position_0_and_one_jump_is_inside_it() {
    let builder = builder(BOTH, &[500], 80, Mix::only(Jump));
    let batch = builder.batch(0, 3);
    for row in u32s(&batch.positions).chunks_exact(16) {
        assert_eq!(row[0], 0);
        assert!(row.windows(2).all(|w| w[0] < w[1]));
        assert!(row.windows(2).filter(|w| w[1] != w[0] + 1).count() <= 1);
    }
    assert_eq!(batch.target_count(), 3 * 15, "the jump's target counts");
}

#[test]
fn a_batch_depends_on_its_number_alone() {
    let [a, b] = [(); 2].map(|()| builder(BOTH, LENGTHS, 80, Mix::only(Jump)));
    let n = a.rows.rows_per_epoch();
    let late = contents(&a.batch(3 * n + 1, 2));
    a.batch(0, 4);
    assert_eq!(late, contents(&a.batch(3 * n + 1, 2)));
    assert_eq!(late, contents(&b.batch(3 * n + 1, 2)));
    assert_ne!(late, contents(&a.batch(3 * n + 3, 2)));
}

#[test]
fn batches_of_any_size_are_the_same_rows() {
    let builder = builder(BOTH, LENGTHS, 80, Mix::only(Jump));
    // Across the seam of two epochs.
    let first = builder.rows.rows_per_epoch() - 2;
    let whole = contents(&builder.batch(first, 5));
    let single: Vec<_> = (first..first + 5).map(|i| contents(&builder.batch(i, 1))).collect();
    assert_eq!(whole.0, single.iter().flat_map(|c| c.0.clone()).collect::<Vec<_>>());
    assert_eq!(whole.2, single.iter().flat_map(|c| c.2.clone()).collect::<Vec<_>>());
    assert_eq!(whole.3, single.iter().flat_map(|c| c.3.clone()).collect::<Vec<_>>());
}

#[test]
fn the_same_row_gets_fresh_positions_in_every_epoch() {
    let builder = builder(NEITHER, &[80], 80, Mix::only(Jump));
    let [first, second] = [0, builder.rows.rows_per_epoch()].map(|i| contents(&builder.batch(i, 1)));
    assert_ne!(first.2, second.2);
    assert_ne!(first.3, second.3);
}

#[test]
fn evaluation_batches_are_contiguous() {
    let batch = Batch::contiguous(&[&[5, 6, 7], &[8, 9, 4]]);
    assert_eq!(u32s(&batch.ids), [5, 6, 7, 8, 9, 4]);
    assert_eq!(u32s(&batch.targets.ids), [6, 7, IGNORE, 9, 4, IGNORE]);
    assert_eq!(u32s(&batch.positions), [0, 1, 2, 0, 1, 2]);
    assert_eq!(batch.rope_scale, [1.0, 1.0]);
    assert_eq!(batch.segments.starts, [vec![0; 6], vec![0; 6]]);
    assert_eq!(batch.target_count(), 4);
}

/// The mask of `make_fixtures.py`: same document, same group, not later.
fn visible(docs: &[usize], group: Option<usize>, shifted: bool, q: usize, k: usize) -> bool {
    let id = |i: usize| match group {
        Some(g) if shifted => (i + g / 2) / g,
        Some(g) => i / g,
        None => 0,
    };
    k <= q && docs[q] == docs[k] && id(q) == id(k)
}

#[test]
fn segments_are_the_naive_mask() {
    let starts = [vec![0, 20, 45], vec![0, 7], vec![0]];
    let seq_len = 64;
    for (attend, group) in [
        (Attend::Full, None),
        (Attend::Shifted { group: Group::Tokens(16) }, Some(16)),
        (Attend::Shifted { group: Group::Tokens(2) }, Some(2)),
        (Attend::Shifted { group: Group::Tokens(100) }, Some(100)),
    ] {
        let table = attend.segments(&starts, seq_len);
        for (half, table) in table.starts.iter().enumerate() {
            assert_eq!(table.len(), starts.len() * seq_len);
            for (row, starts) in starts.iter().enumerate() {
                let docs: Vec<_> = (0..seq_len).map(|i| starts.iter().filter(|&&s| s <= i).count()).collect();
                for q in 0..seq_len {
                    let first = table[row * seq_len + q] as usize;
                    for k in 0..seq_len {
                        let seen = (first..=q).contains(&k);
                        assert_eq!(seen, visible(&docs, group, half == 1, q, k), "{attend:?} {half} {row} {q} {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn groups_of_a_length_that_does_not_divide() {
    let table = Attend::Shifted { group: Group::Tokens(2048) }.segments(&[vec![0]], 4274);
    let bounds = table.starts.map(|mut starts| {
        starts.dedup();
        starts
    });
    assert_eq!(bounds, [vec![0, 2048, 4096], vec![0, 1024, 3072]]);
}
