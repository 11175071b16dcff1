//! Plans in batches: several documents in a row, weights in the loss.

use ltrain::data::{Attend, Batch, BatchBuilder};
use ltrain::ops::cross_entropy::IGNORE;
use ltrain::positions::{MethodArgs, Spec, build};

use super::common::packed;
use super::words;

const SEQ_LEN: usize = 64;

/// Documents of 8 to 24 tokens in rows of 64.
fn batch(method: &str, rows: usize) -> Batch {
    let lengths: Vec<usize> = (0..40).map(|i| 8 + i * 7 % 17).collect();
    let args = MethodArgs::new(512, 100, SEQ_LEN);
    let method = build(&method.parse::<Spec>().unwrap(), &args, &words()).unwrap();
    BatchBuilder { rows: packed::rows(&lengths, SEQ_LEN), method, seed: 1, attention: Attend::Full }.batch(0, rows)
}

/// Where the documents of a batch lie: the last token of each predicts nothing.
fn documents(batch: &Batch) -> Vec<std::ops::Range<usize>> {
    let targets = batch.targets.ids.as_u32().unwrap();
    let mut start = 0;
    let ends = (1..=targets.len()).filter(|&end| targets[end - 1] == IGNORE);
    ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
}

#[test]
fn e2_llm_keeps_the_first_tokens_of_every_document_and_one_scale_for_the_row() {
    let batch = batch("e2-llm", 8);
    let positions = batch.positions.as_u32().unwrap();
    assert_eq!(batch.rope_scale.len(), 8);
    let documents = documents(&batch);
    assert!(documents.len() >= 24, "{documents:?}");
    let mut offsets = vec![];
    for document in documents.into_iter().filter(|document| document.len() > 4) {
        let row = document.start / SEQ_LEN;
        let n = document.len() as u32;
        let document = &positions[document];
        assert_eq!(document[..4], [0, 1, 2, 3]);
        let offset = document[4] - 4;
        assert_eq!(document[4..], (4 + offset..n + offset).collect::<Vec<_>>());
        // Within the window of the row's scale.
        assert!(n + offset <= batch.rope_scale[row] as u32 * 100, "row {row}, scale {}: {document:?}", batch.rope_scale[row]);
        offsets.push((row, offset));
    }
    let apart = offsets.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1).count();
    assert!(apart >= 8, "documents of a row share their offset: {offsets:?}");
}

#[test]
fn end_prompts_are_predicted_with_their_weight_in_every_document() {
    let batch = batch("endprompt", 8);
    let [ids, targets, positions] = [&batch.ids, &batch.targets.ids, &batch.positions].map(|t| t.as_u32().unwrap());
    let weights = batch.targets.weights.as_ref().expect("a prompt weighs less").as_f32().unwrap();
    let mut prompts = 0;
    for document in documents(&batch) {
        let n = document.len();
        let prompt = if n > 6 { 3 } else { 0 };
        prompts += prompt;
        for (place, at) in document.clone().enumerate().take(n - 1) {
            let weight = if place + 1 < n - prompt { 1.0 } else { 0.1 };
            assert_eq!((targets[at], weights[at]), (ids[at + 1], weight), "place {place} of {n}");
        }
        assert_eq!(ids[document.end - prompt..document.end], [400, 401, 402][..prompt]);
        assert_eq!(positions[document.end - prompt..document.end], [509, 510, 511][..prompt]);
    }
    assert!(prompts > 3 * 16, "{prompts}");
}
