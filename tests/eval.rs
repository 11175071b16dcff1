//! Perplexity and retrieval: what the definitions promise, and Transformers' numbers on a real model.

mod common;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use common::fixtures;
use ltrain::backend::Cpu;
use ltrain::data::Encode;
use ltrain::data::synthetic::vocabulary;
use ltrain::error::{Explain, Result};
use ltrain::eval::passkey::{CellNews, answers, grid, standard_error};
use ltrain::eval::perplexity::{Losses, Window, disjoint, score, sliding};
use ltrain::eval::{EvalPlan, EvalProgress, Evaluation, Facts, Passkey, PasskeyPlan, Question, Questions, Subject};
use ltrain::generate::{Sampler, generate};
use ltrain::io::ModelDir;
use ltrain::io::tokenizer::{SpecialTokens, TextTokenizer};
use ltrain::model::Llama;
use ltrain::model::rope::{RopeConfig, RopeScaling};
use ltrain::report::record::{EvalRecord, Grid, Role};
use serde_json::Value;

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
    assert_eq!((together.windows, together.tokens()), (7, 7 * 99));
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
    let plan = EvalPlan { lengths: vec![1000, 256, 600], min_tokens: 0, ..EvalPlan::default() };
    let (record, news) = evaluate(&mut model, &plan, &rope, &[&text, &text[..300]]).unwrap();
    let measured: Vec<_> = record.perplexity.iter().map(|s| (s.length, s.windows, s.nll.is_finite())).collect();
    assert_eq!(measured, [(256, 3, true), (600, 1, true), (1000, 0, false)]);
    assert!(news.iter().any(|n| matches!(n, EvalProgress::TextTooShort { length: 1000, longest: 600 })));
    assert_eq!(record.buckets.last().unwrap().hi, 600, "buckets are those of the longest length that was measured");
    assert_eq!((record.name.as_str(), record.role, record.ppl_at(1000)), ("subject", Role::RopeOnly, None));
}

#[test]
fn short_windows_are_more_until_they_hold_enough_tokens() {
    let text = text(5000);
    let plan = EvalPlan { windows: 3, min_tokens: 2000, ..EvalPlan::default() };
    assert_eq!([100, 500, 1000, 2000].map(|l| plan.windows_of(&[&text], l).len()), [20, 4, 3, 2]);
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

#[test]
fn prompts_have_the_length_and_the_depth_they_are_asked_for() {
    let passkey = Passkey::new(&Bytes).unwrap();
    let kinds: [&dyn Questions; 3] = [&Facts { distractors: 0 }, &Facts { distractors: 9 }, &passkey];
    for questions in kinds {
        let shortest = questions.shortest().unwrap();
        for length in [shortest, shortest + 1, 1000, 4097] {
            let bounds = [0.0, 1.0].map(|depth| questions.ask(length, depth, 3, 5).unwrap().stated);
            for depth in [0.0, 0.1, 0.5, 0.9, 1.0] {
                let q = questions.ask(length, depth, 3, 5).unwrap();
                assert_eq!(q, questions.ask(length, depth, 3, 5).unwrap());
                assert_eq!(q.length(), length);
                let wanted = bounds[0] as f64 + depth * (bounds[1] - bounds[0]) as f64;
                // Facts round to whole sentences and whole distractors on either side.
                assert_near("depth", q.stated as f64, wanted, 7.0);
                let stated = &q.tokens[q.stated..];
                assert!(stated.windows(q.answer.len()).any(|w| w == q.answer), "the answer stands where it is stated");
            }
        }
        let [a, b] = [5, 6].map(|index| questions.ask(1000, 0.5, 3, index).unwrap());
        assert_ne!(a.answer, b.answer, "other questions have other answers");
    }
}

#[test]
fn a_passkey_prompt_reads_like_the_papers() {
    let q = Passkey::new(&Bytes).unwrap().ask(700, 0.5, 0, 0).unwrap();
    let text = |tokens: &[u32]| String::from_utf8(tokens.iter().map(|&t| t as u8).collect()).unwrap();
    let (prompt, key) = (text(&q.tokens[1..]), text(&q.answer));
    let key = key.trim();
    assert!((1..=50_000).contains(&key.parse::<u32>().unwrap()));
    let info = format!("\nThe pass key is {key}. Remember it. {key} is the pass key.\nThe grass is green. The sky is blue. ");
    assert!(prompt.contains(&info), "{prompt}");
    assert!(prompt.starts_with("There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "));
    assert!(prompt.contains("there.\nThe grass is green. The sky is blue. The sun is yellow. Here we go."));
    assert!(prompt.ends_with("\nWhat is the pass key? The pass key is"));
}

/// Accuracies of a plan under some way to answer, and the news.
fn ask(plan: &PasskeyPlan, answer: fn(&Question) -> Vec<u32>) -> (Grid, Vec<CellNews>) {
    let mut news = Vec::new();
    let mut all = |qs: &[Question]| Ok(qs.iter().map(answer).collect());
    let grid = grid(plan, &mut all, &AtomicBool::new(false), &mut |n| news.push(n)).unwrap().unwrap();
    (grid, news)
}

#[test]
fn an_oracle_scores_all_and_a_liar_nothing() {
    let facts = Facts { distractors: 3 };
    let plan = PasskeyPlan { samples: 7, ..PasskeyPlan::new(&facts, vec![20, 64, 5000]) };
    let (right, news) = ask(&plan, |q| q.answer.clone());
    let (wrong, _) = ask(&plan, |q| vec![q.answer[0], q.answer[1] ^ 1]);
    let (empty, _) = ask(&plan, |_| Vec::new());
    for depth in 0..5 {
        assert_eq!([0, 1, 2].map(|length| right.cell(depth, length)), [None, Some(1.0), Some(1.0)]);
        assert_eq!([1, 2].map(|length| wrong.cell(depth, length)), [Some(0.0); 2]);
        assert_eq!([1, 2].map(|length| empty.cell(depth, length)), [Some(0.0); 2]);
    }
    assert!(news.contains(&CellNews::TooShort { length: 20, needs: 30 }), "a length without room is reported");
    let tokens: u64 = news.iter().map(|n| if let CellNews::Tokens(n) = n { *n } else { 0 }).sum();
    assert_eq!((tokens, right.samples), (5 * 7 * 5064, 7));
}

#[test]
fn accuracy_is_the_share_of_right_answers() {
    let facts = Facts { distractors: 0 };
    let plan = PasskeyPlan { samples: 200, depths: vec![0.5], ..PasskeyPlan::new(&facts, vec![40]) };
    let even = |q: &Question| vec![q.answer[0], if q.answer[1] % 2 == 0 { q.answer[1] } else { 0 }];
    let (grid, _) = ask(&plan, even);
    let expected = plan.cell(40, 0.5).unwrap().iter().filter(|q| q.answer[1] % 2 == 0).count() as f64 / 200.0;
    assert_eq!(grid.accuracy, [[expected]]);
    assert!((0.3..0.7).contains(&expected), "{expected}");
    assert_near("standard error", standard_error(0.2, 100), 0.04, 1e-12);
}

#[test]
fn given_answers_are_what_greedy_generation_writes_after_the_same_tokens() {
    let model = load("llama");
    let question = |seed: usize, length: usize| {
        let tokens = text(length + seed)[seed..].to_vec();
        // True tokens that the model itself would write are followed by themselves; others test the true prefix.
        let own = generate(&Cpu, &model, &tokens, 3, &Sampler::GREEDY, &[], &mut |_| true).unwrap();
        Question { answer: vec![own[0], (own[1] + 1) % 127, own[2]], tokens, stated: 0 }
    };
    let questions: Vec<Question> = (0..5).map(|seed| question(seed, 50)).collect();
    let given = answers(&Cpu, &model, &questions).unwrap();
    for (q, given) in questions.iter().zip(&given) {
        for place in 0..3 {
            let prefix = [&q.tokens[..], &q.answer[..place]].concat();
            let next = generate(&Cpu, &model, &prefix, 1, &Sampler::GREEDY, &[], &mut |_| true).unwrap();
            assert_eq!(given[place], next[0], "place {place}");
        }
    }
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
    let plan = EvalPlan { lengths: vec![100, 200], stride: Some(50), min_tokens: 0, passkey, ..EvalPlan::default() };
    let (record, news) = evaluate(&mut model, &plan, &rope, &[&text]).unwrap();
    let scored: Vec<_> = record.perplexity.iter().map(|s| (s.length, s.tokens)).collect();
    assert_eq!(scored, [(100, 299), (200, 399)], "sliding scores all but the first token");
    assert_eq!(record.passkey.unwrap().accuracy.len(), 2);
    let Some(EvalProgress::Tokens { done, total }) = news.iter().rfind(|n| matches!(n, EvalProgress::Tokens { .. })) else {
        panic!("no progress");
    };
    assert_eq!(done, total);
}

/// The folder with real models, if it is here: `$LTRAIN_SHARED`, or `shared` beside the repository.
fn shared() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = std::env::var_os("LTRAIN_SHARED").map_or_else(beside, PathBuf::from);
    let found = path.join("models/stories260k.expected.json").exists();
    if !found {
        println!("skipped: ../shared is not here");
    }
    found.then_some(path)
}

struct Stories {
    model: Llama,
    tokenizer: TextTokenizer,
    expected: Value,
    ids: Vec<u32>,
}

impl Stories {
    fn open() -> Option<Self> {
        let shared = shared()?;
        let dir = ModelDir::open(&shared.join("models/stories260k")).unwrap();
        let tokenizer = dir.tokenizer().unwrap();
        let expected = std::fs::read_to_string(shared.join("models/stories260k.expected.json")).unwrap();
        let text = std::fs::read_to_string(shared.join("data/tinystories-valid-30k.txt")).unwrap();
        Some(Self {
            model: Llama::new(dir.config().clone(), dir.load().unwrap()).unwrap(),
            // Python's `open` reads every line break as `\n`, and so did the golden's script.
            ids: tokenizer.encode(&text.replace("\r\n", "\n")).unwrap(),
            expected: serde_json::from_str(&expected).unwrap(),
            tokenizer,
        })
    }

    fn expect(&self, pointer: &str) -> f64 {
        self.expected.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}"))
    }

    fn check(&self, what: &str, windows: &[Window], pointer: &str) {
        let (got, want) = (losses(&self.model, windows).mean(), self.expect(pointer));
        println!("{what}: {got:.6}, Transformers {want:.6}, off {:.1e}", (got - want).abs());
        // Both sides are f32. Measured: at most 2e-6 apart; the rest is room for other orders of summation.
        assert_near(what, got, want, 1e-4);
    }
}

fn ids_of(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[test]
fn stories_perplexities_are_those_of_transformers() {
    let Some(mut stories) = Stories::open() else { return };
    assert_eq!(stories.ids.len() as u64, stories.expected["tokens"].as_u64().unwrap());
    assert_eq!(stories.ids[..64], ids_of(&stories.expected["first_tokens"]));

    let ids = stories.ids.clone();
    for length in [128, 256, 512, 1024, 2048, 4096] {
        let windows = disjoint(&[&ids], length, 8);
        stories.check(&format!("disjoint {length}"), &windows, &format!("/mean_nll_disjoint_windows/{length}"));
    }
    let windows = sliding(&ids[..4096], 512, 256);
    let scored: usize = windows.iter().map(|w| w.scored).sum();
    assert_eq!(scored as f64, stories.expect("/mean_nll_sliding_512_stride_256_first_4096/scored"));
    stories.check("sliding", &windows, "/mean_nll_sliding_512_stride_256_first_4096/nll");

    let rotations = [
        ("none", 1e4, RopeScaling::Default),
        ("linear8", 1e4, RopeScaling::Linear { factor: 8.0 }),
        ("yarn8", 1e4, RopeScaling::yarn(8.0, 512)),
        ("theta80000", 8e4, RopeScaling::Default),
    ];
    for (name, theta, scaling) in rotations {
        stories.model.config.rope = RopeConfig { theta, scaling };
        stories.check(name, &disjoint(&[&ids], 4096, 1), &format!("/mean_nll_4096_first_window/{name}"));
    }
}

#[test]
fn stories_continue_as_in_transformers() {
    let Some(stories) = Stories::open() else { return };
    let golden = &stories.expected["greedy"];
    let (prompt, output) = (ids_of(&golden["prompt_ids"]), ids_of(&golden["output_ids"]));
    let encoded = stories.tokenizer.encode(golden["prompt"].as_str().unwrap()).unwrap();
    assert_eq!(stories.tokenizer.bos().into_iter().chain(encoded).collect::<Vec<_>>(), prompt);
    let new = output.len() - prompt.len();
    let stops = stories.tokenizer.stops();
    let written = generate(&Cpu, &stories.model, &prompt, new, &Sampler::GREEDY, stops, &mut |_| true).unwrap();
    let all = [prompt, written].concat();
    assert_eq!(all, output);
    assert_eq!(stories.tokenizer.decode(&all, SpecialTokens::Skip).unwrap(), golden["text"].as_str().unwrap());
}

struct Tokens<'a>(&'a TextTokenizer);

impl Encode for Tokens<'_> {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.0.encode(text)
    }
    fn bos(&self) -> Option<u32> {
        self.0.bos()
    }
    fn eos(&self) -> Option<u32> {
        self.0.eos()
    }
    fn identity(&self) -> String {
        self.0.hash().to_hex().to_string()
    }
}

#[test]
fn a_sentencepiece_tokenizer_writes_passkey_prompts_without_seams() {
    let Some(stories) = Stories::open() else { return };
    let tokens = Tokens(&stories.tokenizer);
    let passkey = Passkey::new(&tokens).unwrap();
    let q = passkey.ask(passkey.shortest().unwrap() + 300, 0.4, 1, 2).unwrap();
    let text = stories.tokenizer.decode(&[&q.tokens[..], &q.answer].concat(), SpecialTokens::Skip).unwrap();
    println!("{text}");
    assert!(text.contains(" there.\nThe grass is green. The sky is blue."));
    assert!(text.contains("is the pass key.\nThe grass is green."));
    let key = text.rsplit(' ').next().unwrap();
    assert!(text.contains(&format!("\nThe pass key is {key}. Remember it. {key} is the pass key.\n")));
    assert!(text.ends_with(&format!("\nWhat is the pass key? The pass key is {key}")));
}
