//! From generated tokens to a score: when writing ends, and what then counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ltrain::backend::Cpu;
use ltrain::data::Encode;
use ltrain::error::{Explain, Result};
use ltrain::eval::score::Rule;
use ltrain::eval::{EvalError, EvalProgress, Evaluation, Haystack, Language, LongBenchPlan, Prompt, RulerPlan, Subject, Writer};
use ltrain::eval::{EvalPlan, longbench, rows_written_together, ruler};
use ltrain::generate::{Sampler, generate};
use ltrain::model::Llama;
use ltrain::report::record::Role;

use crate::{Bytes, evaluate, load, text};

/// Any tokens are as many words, `w1 w2 …`, whatever they are; a text's tokens are its bytes.
#[derive(Default)]
struct Counted {
    stops: Vec<u32>,
    /// Words that cannot be decoded any more.
    breaks_at: Option<usize>,
    /// Tokens of each call.
    decoded: Mutex<Vec<usize>>,
}

impl Encode for Counted {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(|b| u32::from(b) % 128).collect())
    }
    fn bos(&self) -> Option<u32> {
        None
    }
    fn eos(&self) -> Option<u32> {
        None
    }
    fn identity(&self) -> String {
        "counted".into()
    }
}

impl Language for Counted {
    fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decoded.lock().unwrap().push(ids.len());
        if self.breaks_at == Some(ids.len()) {
            return Err(EvalError::NotFinite { tokens: ids.len() }.into());
        }
        Ok((1..=ids.len()).map(|n| format!("w{n} ")).collect())
    }
    fn stops(&self) -> &[u32] {
        &self.stops
    }
}

/// The score of at most six tokens against these answers, and how many tokens each decoding saw.
fn score(
    model: &Llama,
    language: &Counted,
    stop: &AtomicBool,
    rule: &Rule,
    answers: &[&str],
) -> (Result<Option<f64>>, Vec<usize>) {
    let answers: Vec<String> = answers.iter().map(|a| (*a).into()).collect();
    let writer = Writer { kernels: &Cpu, model, language, stop };
    let score = writer.scores(&[Prompt { tokens: &text(20), rule, answers: &answers }], 6).map(|scores| scores.map(|s| s[0]));
    (score, language.decoded.lock().unwrap().clone())
}

static GOES_ON: AtomicBool = AtomicBool::new(false);

#[test]
fn writing_ends_when_no_more_words_can_matter() {
    let model = load("llama");
    for (rule, answers, wanted, words) in [
        (Rule::Part, ["w9 ", "w2 "].as_slice(), 1.0, 2),
        (Rule::All, &["w3 ", "w1 "], 1.0, 3),
        (Rule::All, &["w3 ", "w9 "], 0.5, 6),
        (Rule::Part, &["w7 "], 0.0, 6),
    ] {
        let (score, decoded) = score(&model, &Counted::default(), &GOES_ON, &rule, answers);
        assert_eq!(score.unwrap(), Some(wanted), "{answers:?}");
        assert_eq!(decoded, (1..=words).chain([words]).collect::<Vec<_>>(), "{answers:?}: word by word, and the whole");
    }
}

#[test]
fn a_token_that_ends_a_text_ends_the_answer_and_is_no_part_of_it() {
    let model = load("llama");
    let own = generate(&Cpu, &model, &text(20), 6, &Sampler::GREEDY, &[], &mut |_| true).unwrap();
    let (place, &last) = own.iter().enumerate().rfind(|(at, token)| !own[..*at].contains(token)).unwrap();
    assert!(place > 0, "the model writes different tokens: {own:?}");
    let language = || Counted { stops: vec![last], ..Counted::default() };
    let before = format!("w{place} ");
    let ending = format!("w{} ", place + 1);
    assert_eq!(score(&model, &language(), &GOES_ON, &Rule::All, &[&before, &ending]).0.unwrap(), Some(0.5));
    assert_eq!(score(&model, &Counted::default(), &GOES_ON, &Rule::All, &[&before, &ending]).0.unwrap(), Some(1.0));
}

#[test]
fn what_cannot_be_decoded_is_an_error_and_a_stop_is_no_score() {
    let model = load("llama");
    let language = Counted { breaks_at: Some(2), ..Counted::default() };
    let (error, decoded) = score(&model, &language, &GOES_ON, &Rule::All, &["w5 "]);
    assert_eq!((error.unwrap_err().explain().code, decoded), ("E802", vec![1, 2]), "nothing is written behind it");
    let (stopped, decoded) = score(&model, &Counted::default(), &AtomicBool::new(true), &Rule::All, &["w5 "]);
    assert_eq!((stopped.unwrap(), decoded.len()), (None, 0), "nothing is read");
}

#[test]
fn prompts_asked_together_are_scored_each_by_its_own() {
    let (model, language) = (load("llama"), Counted::default());
    let writer = Writer { kernels: &Cpu, model: &model, language: &language, stop: &GOES_ON };
    let [first, second, third] = [vec!["w2 ".to_owned()], vec!["w4 ".into(), "w9 ".into()], vec!["w9 ".into()]];
    let (texts, rule) = ([text(20), text(31), text(7)], Rule::All);
    let answers = [&first, &second, &third];
    let prompts: Vec<_> = texts.iter().zip(answers).map(|(tokens, answers)| Prompt { tokens, rule: &rule, answers }).collect();
    assert_eq!(writer.scores(&prompts, 6).unwrap(), Some(vec![1.0, 0.5, 0.0]));
    // The first is settled by its second word, while the others go on.
    let words = language.decoded.lock().unwrap().clone();
    assert_eq!(words, [1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 2, 6, 6]);

    let broken = Counted { breaks_at: Some(2), ..Counted::default() };
    let writer = Writer { language: &broken, ..writer };
    assert_eq!(writer.scores(&prompts, 6).unwrap_err().explain().code, "E802");
    assert_eq!(*broken.decoded.lock().unwrap(), [1, 1, 1, 2], "what cannot be decoded ends all");
}

#[test]
fn as_many_answers_are_written_together_as_their_memory_allows() {
    let mut model = load("llama");
    // Of the size of Llama 3 8B's in bf16: 128 KiB a token, so 4 GiB are 32k tokens.
    (model.config.layers, model.config.kv_heads, model.config.head_dim) = (32, 8, 64);
    assert_eq!(model.cache_bytes(), 128 << 10);
    let at = [2048, 4096, 16_384, 32_768, 131_072];
    assert_eq!(at.map(|length| rows_written_together(&model, length, &at)), [8, 8, 8, 4, 1]);
    assert_eq!(at.map(|length| rows_written_together(&model, length, &[length])), [8, 8, 2, 1, 1]);
}

/// A row of LongBench's that takes `answer_tokens` to answer.
fn set(dataset: &str) -> Vec<longbench::Questionnaire> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.jsonl");
    let row = serde_json::json!({"context": "once ".repeat(300), "answers": ["w1 w2"], "dataset": dataset});
    std::fs::write(&path, format!("{row}\n{row}\n")).unwrap();
    longbench::read(&[path], longbench::Metric::F1, 9).unwrap()
}

#[test]
fn lengths_without_room_are_told_and_the_rest_is_measured() {
    let (mut model, language, haystack) = (load("llama"), Counted::default(), Haystack::Own { seed: 1 });
    let sets = [set("hotpotqa"), set("qmsum")].concat();
    let source = ruler::Source { encode: &language, haystack: &haystack, squad: None, hotpotqa: None, seed: 1 };
    let lengths = vec![64, 900];
    let tasks = vec![ruler::RulerTask::NiahSingle1, ruler::RulerTask::Vt];
    let plan = EvalPlan {
        ruler: Some(RulerPlan { language: &language, source, tasks, lengths: lengths.clone(), samples: 2 }),
        longbench: Some(LongBenchPlan { language: &language, sets: &sets, lengths }),
        ..EvalPlan::default()
    };
    let rope = model.config.rope.clone();
    let (record, news) = evaluate(&mut model, &plan, &rope, &[]).unwrap();
    let measured = |scores: &[ltrain::report::record::TaskScore]| -> Vec<(String, usize, u64)> {
        scores.iter().map(|s| (s.task.clone(), s.length, s.samples)).collect()
    };
    assert_eq!(measured(&record.ruler), [("niah_single_1".into(), 900, 2)]);
    assert_eq!(measured(&record.longbench), [("hotpotqa".into(), 64, 2), ("hotpotqa".into(), 900, 2), ("qmsum".into(), 900, 2)]);
    let skipped = news.iter().filter_map(|n| match n {
        EvalProgress::PromptTooLong { task, length, .. } => Some((task.as_str(), *length)),
        _ => None,
    });
    assert_eq!(skipped.collect::<Vec<_>>(), [("niah_single_1", 64), ("vt", 64), ("vt", 900), ("qmsum", 64)]);
    let shares = news.iter().filter_map(|n| if let EvalProgress::Tokens { share, .. } = n { Some(*share) } else { None });
    let shares: Vec<f64> = shares.collect();
    assert!(shares.windows(2).all(|w| w[0] < w[1]) && (shares.last().unwrap() - 1.0).abs() < 1e-9, "{shares:?}");
}

#[test]
fn a_stop_while_writing_leaves_no_record() {
    let (mut model, language, stop) = (load("llama"), Counted::default(), AtomicBool::new(false));
    let sets = set("hotpotqa");
    let plan = EvalPlan {
        longbench: Some(LongBenchPlan { language: &language, sets: &sets, lengths: vec![64, 80] }),
        ..EvalPlan::default()
    };
    let evaluation = Evaluation { kernels: &Cpu, plan: &plan, docs: &[], stop: &stop };
    let subject = Subject { name: "x".into(), role: Role::Other, rope: model.config.rope.clone() };
    let mut progress = |_| stop.store(true, Ordering::Relaxed);
    assert!(evaluation.run(&mut model, &subject, &mut progress).unwrap().is_none());
}

#[test]
fn long_prompts_lose_their_middle() {
    let cut = |most| longbench::prompt_tokens(&Bytes, "abcdefghij", most).unwrap();
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    assert_eq!(cut(11), [vec![256], bytes("abcdefghij")].concat());
    assert_eq!(cut(6), [vec![256], bytes("abhij")].concat());
    assert_eq!(cut(5), [vec![256], bytes("abij")].concat());
}
