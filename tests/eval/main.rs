//! Perplexity and retrieval: what the definitions promise, and Transformers' numbers on a real model.

#[path = "../common/mod.rs"]
mod common;
mod generated;
mod passkey;
mod pieces;
mod ruler;
mod stories;

use std::sync::atomic::AtomicBool;

use common::fixtures;
use ltrain::backend::Cpu;
use ltrain::data::Encode;
use ltrain::data::synthetic::vocabulary;
use ltrain::error::{Explain, Result};
use ltrain::eval::perplexity::{Losses, Window, disjoint, score, sliding};
use ltrain::eval::{EvalPlan, EvalProgress, Evaluation, Facts, PasskeyPlan, Subject};
use ltrain::io::ModelDir;
use ltrain::model::Llama;
use ltrain::model::rope::{RopeConfig, RopeScaling};
use ltrain::report::record::{EvalRecord, Role};
use ltrain::report::{self, RunRecord};

/// One token per byte, and a BOS.
struct Bytes;

impl Encode for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn bos(&self) -> Option<u32> {
        Some(256)
    }
    fn eos(&self) -> Option<u32> {
        None
    }
    fn identity(&self) -> String {
        "bytes".into()
    }
}

fn load(name: &str) -> Llama {
    let dir = ModelDir::open(&fixtures().join("models").join(name)).unwrap();
    Llama::new(dir.config().clone(), dir.load().unwrap()).unwrap()
}

/// A text of the fixture models' 128 tokens.
fn text(length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 7 + i * 31 + 5) % 127) as u32).collect()
}

fn losses(model: &Llama, windows: &[Window]) -> Losses {
    score(&Cpu, model, windows, &AtomicBool::new(false), &mut |_| {}).unwrap().unwrap()
}

fn assert_near(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{what}: {got}, expected {want}, allowed {tolerance:.0e}");
}

#[test]
fn sliding_by_whole_windows_is_disjoint_windows() {
    let text = text(300);
    assert_eq!(sliding(&text, 50, 50), disjoint(&[&text], 50, usize::MAX));
}

#[test]
fn sliding_scores_every_token_but_the_first_once() {
    let text: Vec<u32> = (0..301).collect();
    for (length, stride) in [(50, 1), (50, 20), (50, 49), (300, 7), (301, 300), (400, 399), (2, 1)] {
        let windows = sliding(&text, length, stride);
        let scored: Vec<u32> = windows.iter().flat_map(|w| &w.tokens[w.tokens.len() - w.scored..]).copied().collect();
        assert_eq!(scored, text[1..], "length {length}, stride {stride}");
        for w in &windows[1..] {
            assert!(w.tokens.len() - w.scored >= length - stride, "length {length}, stride {stride}: {} scored", w.scored);
        }
    }
}

#[test]
fn windows_come_from_many_documents_and_never_cross_them() {
    let (a, b, c) = (text(25), text(9), text(30));
    let windows = disjoint(&[&a, &b, &c], 10, 4);
    let expected = [&a[..10], &c[..10], &a[10..20], &c[10..20]];
    assert_eq!(windows.iter().map(|w| w.tokens).collect::<Vec<_>>(), expected);
    assert_eq!(disjoint(&[&b], 10, 4), []);
}

#[test]
fn a_score_does_not_depend_on_how_windows_are_batched() {
    let (model, text) = (load("llama"), text(700));
    let windows = disjoint(&[&text], 100, 7);
    let together = losses(&model, &windows);
    let mut sum = 0.0;
    for window in &windows {
        sum += losses(&model, &[*window]).mean();
    }
    assert_near("mean", together.mean(), sum / 7.0, 1e-6);
    assert_eq!((together.score(100).windows, together.tokens()), (7, 7 * 99));
}

#[test]
fn losses_by_position_recombine_to_the_mean() {
    let (model, text) = (load("llama"), text(600));
    let losses = losses(&model, &disjoint(&[&text], 200, 3));
    let buckets = losses.buckets(200);
    let bounds: Vec<_> = buckets.iter().map(|b| (b.lo, b.hi)).collect();
    assert_eq!(bounds, [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 200)]);
    for b in &buckets {
        assert_eq!(b.tokens, 3 * (b.hi - b.lo) as u64);
    }
    let sum: f64 = buckets.iter().map(|b| b.nll * b.tokens as f64).sum();
    assert_near("mean", sum / losses.tokens() as f64, losses.mean(), 1e-12);
}

/// What an evaluation of the plan measures, and its news.
fn evaluate(model: &mut Llama, plan: &EvalPlan, rope: &RopeConfig, docs: &[&[u32]]) -> Result<(EvalRecord, Vec<EvalProgress>)> {
    let stop = AtomicBool::new(false);
    let evaluation = Evaluation { kernels: &Cpu, plan, docs, stop: &stop };
    let subject = Subject { name: "subject".into(), role: Role::RopeOnly, rope: rope.clone() };
    let mut news = Vec::new();
    let record = evaluation.run(model, &subject, &mut |n| news.push(n))?;
    Ok((record.expect("nothing stops it"), news))
}

#[test]
fn a_length_the_text_does_not_hold_is_reported() {
    let (mut model, text) = (load("llama"), text(600));
    let rope = model.config.rope.clone();
    let plan = EvalPlan { lengths: vec![1000, 256, 600], ..EvalPlan::default() };
    let (record, news) = evaluate(&mut model, &plan, &rope, &[&text, &text[..300]]).unwrap();
    let measured: Vec<_> = record.perplexity.iter().map(|s| (s.length, s.windows, s.nll.is_finite())).collect();
    assert_eq!(measured, [(256, 3, true), (600, 1, true), (1000, 0, false)]);
    assert!(news.iter().any(|n| matches!(n, EvalProgress::TextTooShort { length: 1000, longest: 600 })));
    assert_eq!(record.buckets.last().unwrap().hi, 600, "buckets are those of the longest length that was measured");
    assert_eq!((record.name.as_str(), record.role, record.ppl_at(1000)), ("subject", Role::RopeOnly, None));

    let dir = tempfile::tempdir().unwrap();
    let run = RunRecord { evaluations: vec![record], ..RunRecord::default() };
    report::write(dir.path(), &run).unwrap();
    let read = RunRecord::load(&dir.path().join("report.json")).unwrap();
    assert_eq!(read.evaluations[0].perplexity[2].windows, 0);
}

#[test]
fn the_model_gets_its_own_rotation_back() {
    let (mut model, text) = (load("llama"), text(64));
    let own = model.config.rope.clone();
    let other = RopeConfig { theta: 1e5, scaling: RopeScaling::Linear { factor: 4.0 } };
    let plan = EvalPlan { lengths: vec![64], ..EvalPlan::default() };
    let (before, _) = evaluate(&mut model, &plan, &own, &[&text]).unwrap();
    let (under, _) = evaluate(&mut model, &plan, &other, &[&text]).unwrap();
    assert_eq!(model.config.rope, own);
    assert_ne!(before.perplexity[0].nll, under.perplexity[0].nll);
    assert_eq!(under.rope, other.to_string());
    let foreign = [500u32; 64];
    let error = evaluate(&mut model, &plan, &other, &[&foreign]).unwrap_err();
    assert_eq!((error.explain().code, &model.config.rope), ("E330", &own), "{error}");
}

#[test]
fn a_raised_flag_stops_before_the_next_forward_pass() {
    let (mut model, text) = (load("llama"), text(1000));
    let stop = AtomicBool::new(false);
    let plan = EvalPlan { lengths: vec![100, 200, 300], ..EvalPlan::default() };
    let evaluation = Evaluation { kernels: &Cpu, plan: &plan, docs: &[&text], stop: &stop };
    let subject = Subject { name: "x".into(), role: Role::Other, rope: model.config.rope.clone() };
    let mut passes = 0;
    let mut progress = |news| {
        passes += u32::from(matches!(news, EvalProgress::Tokens { .. }));
        stop.store(passes > 0, std::sync::atomic::Ordering::Relaxed);
    };
    assert!(evaluation.run(&mut model, &subject, &mut progress).unwrap().is_none());
    assert_eq!(passes, 1);
}

#[test]
fn senseless_plans_are_refused() {
    let refused = |plan: EvalPlan| plan.check().unwrap_err().to_string();
    let plan = || EvalPlan { lengths: vec![64], ..EvalPlan::default() };
    assert_eq!(refused(EvalPlan { lengths: vec![64, 1], ..plan() }), "evaluation: length must be at least 2, got 1");
    assert_eq!(refused(EvalPlan { windows: 0, ..plan() }), "evaluation: windows must be at least 1, got 0");
    let stride = "evaluation: stride must be at most the shortest length, got 65";
    assert_eq!(refused(EvalPlan { stride: Some(65), ..plan() }), stride);
    let passkey = PasskeyPlan { depths: vec![1.5], ..PasskeyPlan::new(&Facts { distractors: 0 }, vec![64]) };
    let depth = "evaluation: passkey depth must be between 0 and 1, got 1.5";
    assert_eq!(refused(EvalPlan { passkey: Some(passkey), ..plan() }), depth);
}

#[test]
fn an_evaluation_fills_its_record() {
    let dir = ModelDir::open(&fixtures().join("models/llama")).unwrap();
    let mut config = dir.config().clone();
    config.vocab = vocabulary::SIZE;
    let mut model = Llama::init(config, 1).unwrap();
    let (rope, text) = (model.config.rope.clone(), text(400));
    let facts = Facts { distractors: 1 };
    let passkey = Some(PasskeyPlan { samples: 3, depths: vec![0.0, 1.0], ..PasskeyPlan::new(&facts, vec![32, 100]) });
    let plan = EvalPlan { lengths: vec![100, 200], stride: Some(50), passkey, ..EvalPlan::default() };
    let (record, news) = evaluate(&mut model, &plan, &rope, &[&text]).unwrap();
    let scored: Vec<_> = record.perplexity.iter().map(|s| (s.length, s.tokens)).collect();
    assert_eq!(scored, [(100, 299), (200, 399)], "sliding scores all but the first token");
    assert_eq!(record.passkey.unwrap().accuracy.len(), 2);
    let Some(EvalProgress::Tokens { done, total, share }) = news.iter().rfind(|n| matches!(n, EvalProgress::Tokens { .. }))
    else {
        panic!("no progress");
    };
    assert_eq!(done, total);
    assert_near("share of the work", *share, 1.0, 1e-12);
}
