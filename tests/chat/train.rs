//! What masks, padding and packing must not change: losses and gradients, on the CPU and on a device.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ltrain::backend::{Cpu, EmuMode, Kernels};
use ltrain::data::rows::Long;
use ltrain::data::{
    Attend, Batch, BatchBuilder, Corpus, CorpusOptions, DocPart, Loss, Packing, Reading, RowOptions, RowSet, Sources, Specials,
};
use ltrain::model::{Llama, ModelConfig, Recompute, RopeConfig, RopeScaling};
use ltrain::positions::Mix;
use ltrain::tape::Tape;
use ltrain::train::{TrainMode, gradients, prepare};
use serde_json::json;

use super::common::backends::devices;
use super::common::{distance, small_model};
use super::{template, turns, with_template};

/// Tokens of a row.
const ROW: usize = 96;

/// Two layers in every extent's own size.
fn config() -> ModelConfig {
    let rope = RopeConfig { theta: 1e4, scaling: RopeScaling::Default };
    ModelConfig { vocab: 512, context: ROW, rope, ..small_model() }
}

/// Chats of very different lengths of questions and answers.
const CHATS: &[&[&str]] = &[
    &["What is the capital?", "Oslo"],
    &["hi", "A small town by the sea, and it is cold.", "And the other one?", "No."],
    &["Please answer in one sentence: what is cold?", "It is."],
    &["a", "b"],
    &["q", "The capital is a small town by the sea, and it is cold. Thank you!"],
    &["Is the country in the north cold, or is it small?", "Yes."],
];

fn corpus() -> Arc<Corpus> {
    corpus_in("llama3", Loss::Answers)
}

fn corpus_in(name: &str, loss: Loss) -> Arc<Corpus> {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<_> = CHATS.iter().map(|chat| json!({"messages": turns(chat)}).to_string()).collect();
    fs::write(dir.path().join("chat.jsonl"), rows.join("\n")).unwrap();
    with_template("bytes", &template(name, false), loss, |chat| {
        let options = CorpusOptions { reading: Reading::default(), specials: Specials::of(chat), cache: vec![dir.path().into()] };
        let sources = Sources::collect(&[dir.path().join("chat.jsonl")]).unwrap();
        Arc::new(Corpus::open(&sources, chat, &options, &|_| {}).unwrap())
    })
}

fn builder(corpus: &Arc<Corpus>) -> BatchBuilder {
    let parts: Vec<_> = (0..corpus.docs()).map(|doc| DocPart { doc, tokens: 0..corpus.doc(doc).len() }).collect();
    let options = RowOptions { seq_len: ROW, span: ROW, packing: Packing::Whole(Long::Skip) };
    let rows = Arc::new(RowSet::new(Arc::clone(corpus), &parts, options).unwrap());
    BatchBuilder { rows, method: Mix::natural(), seed: 3, attention: Attend::Full }
}

fn model(kernels: &dyn Kernels) -> Llama {
    let mut model = Llama::init(config(), 9).unwrap();
    prepare(&mut model, TrainMode::Full, None, 0).unwrap();
    model.place(kernels).unwrap();
    model
}

/// Loss and all gradients of one step over these micro-batches.
fn step(kernels: &dyn Kernels, model: &Llama, micro: &[Batch]) -> (f64, Vec<f32>) {
    let (grads, loss) = gradients(kernels, model, micro, Recompute::Nothing, &AtomicBool::new(false)).unwrap().unwrap();
    let flat = |(_, grad): (_, &ltrain::tensor::Tensor)| grad.to_host_f32().unwrap().as_f32().unwrap().to_vec();
    let grads: Vec<f32> = grads.iter().flat_map(flat).collect();
    assert_eq!(grads.len() as u64, model.params.trainable_elements(), "a gradient of every parameter");
    (loss, grads)
}

/// Losses place by place.
fn nll(kernels: &dyn Kernels, model: &Llama, batch: &Batch) -> Vec<f32> {
    let mut tape = Tape::inference(kernels);
    let (_, nll) = model.loss(&mut tape, batch, Recompute::Nothing, 1.0).unwrap();
    nll.to_host_f32().unwrap().as_f32().unwrap().to_vec()
}

/// The CPU, and a device in bf16, each with the relative error that two ways of the same sum may have: in f32 of the gradients'
/// sums, on a device also of activations, which are rounded to 8 bits where tiles begin elsewhere.
fn backends() -> Vec<(String, Arc<dyn Kernels>, f64)> {
    let cpu = ("cpu".to_string(), Arc::new(Cpu) as Arc<dyn Kernels>, 1e-5);
    let on_devices = devices(EmuMode::Eager).into_iter().map(|(name, kernels)| (name, kernels, 1e-2));
    std::iter::once(cpu).chain(on_devices).collect()
}

#[test]
fn ragged_micro_batches_are_one_batch() {
    let builder = builder(&corpus());
    let rows = builder.rows.rows_per_epoch() as usize;
    assert!(rows >= 3, "{rows} rows");
    for (name, kernels, tolerance) in backends() {
        let model = model(&*kernels);
        let single: Vec<_> = (0..rows as u64).map(|i| builder.batch(i, 1)).collect();
        let (loss, grads) = step(&*kernels, &model, &[builder.batch(0, rows)]);
        let (sum, parts) = step(&*kernels, &model, &single);
        assert!((loss - sum).abs() <= 1e-5 * loss, "{name}: {loss} at once, {sum} in turn");
        let off = distance(&parts, &grads);
        assert!(off <= tolerance, "{name}: gradients differ by {off:.1e}");
        // Rows have so different numbers of targets that a mean of means is another loss.
        let counts: Vec<_> = single.iter().map(Batch::target_count).collect();
        assert!(counts.iter().max().unwrap() > &(2 * counts.iter().min().unwrap()), "{counts:?}");
    }
}

#[test]
fn a_packed_conversation_has_the_losses_that_it_has_alone() {
    let corpus = corpus();
    let builder = builder(&corpus);
    for (name, kernels, tolerance) in backends() {
        let model = model(&*kernels);
        let mut learned = 0;
        for i in 0..builder.rows.rows_per_epoch() {
            let packed = nll(&*kernels, &model, &builder.batch(i, 1));
            let mut start = 0;
            for slot in builder.rows.row(builder.rows.order(builder.seed, 0, i)) {
                let here = &packed[start..start + slot.want];
                start += slot.want;
                let Some(doc) = slot.piece.doc else {
                    assert!(here.iter().all(|&loss| loss == 0.0), "{name}: padding has a loss");
                    continue;
                };
                let alone = nll(&*kernels, &model, &Batch::contiguous(&[corpus.doc(doc)]));
                let off = distance(here, &alone);
                assert!(off <= tolerance, "{name}: conversation {doc} is off by {off:.1e}");
                learned += alone.iter().filter(|&&loss| loss > 0.0).count();
            }
        }
        assert_eq!(learned, corpus.targets(), "{name}");
    }
}

#[test]
fn packing_and_padding_change_no_gradient() {
    let corpus = corpus();
    let builder = builder(&corpus);
    let rows = builder.rows.rows_per_epoch() as usize;
    assert!(rows < corpus.docs(), "nothing is packed");
    for (name, kernels, tolerance) in backends() {
        let model = model(&*kernels);
        let alone: Vec<_> = (0..corpus.docs()).map(|doc| Batch::contiguous(&[corpus.doc(doc)])).collect();
        let (loss, grads) = step(&*kernels, &model, &alone);
        let (packed_loss, packed) = step(&*kernels, &model, &[builder.batch(0, rows)]);
        assert!((loss - packed_loss).abs() <= tolerance * loss, "{name}: {loss} alone, {packed_loss} packed");
        let off = distance(&packed, &grads);
        assert!(off <= tolerance, "{name}: gradients differ by {off:.1e}");
    }
}

#[test]
fn the_side_of_a_conversation_depends_on_what_is_said_alone() {
    let hashes = |corpus: &Corpus| (0..corpus.docs()).map(|doc| corpus.doc_hash(doc)).collect::<Vec<_>>();
    let (answers, all) = (corpus(), corpus_in("chatml", Loss::All));
    assert_ne!(answers.doc(0), all.doc(0));
    assert_eq!(hashes(&answers), hashes(&all));
    let different: std::collections::BTreeSet<_> = hashes(&answers).into_iter().collect();
    assert_eq!(different.len(), CHATS.len());
}

#[test]
fn what_users_say_has_no_loss() {
    let corpus = corpus();
    let model = model(&Cpu);
    let doc = corpus.doc(1);
    let masked = |id: &u32| id & ltrain::data::MASKED != 0;
    let losses = nll(&Cpu, &model, &Batch::contiguous(&[doc]));
    // The loss of a token stands where the one before it is.
    for (place, (loss, next)) in losses.iter().zip(&doc[1..]).enumerate() {
        assert_eq!(*loss > 0.0, !masked(next), "place {place}: {loss}");
    }
    assert_eq!(losses[doc.len() - 1], 0.0, "nothing follows the last token");
    assert!(doc.iter().any(masked) && !doc.iter().all(masked));
    let (_, grads) = step(&Cpu, &model, &[Batch::contiguous(&[doc])]);
    // With all of it learned the step is another one.
    let all: Vec<u32> = doc.iter().map(|id| id & !ltrain::data::MASKED).collect();
    let (_, of_all) = step(&Cpu, &model, &[Batch::contiguous(&[&all])]);
    let (learned, everything) = (Batch::contiguous(&[doc]).target_count(), Batch::contiguous(&[&all]).target_count());
    assert!(learned < everything, "{learned} of {everything}");
    assert!(distance(&grads, &of_all) > 0.1);
}
