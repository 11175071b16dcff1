//! Retrieval: prompts are what was asked for, and answers are judged as greedy decoding would be.

use std::sync::atomic::AtomicBool;

use ltrain::backend::Cpu;
use ltrain::eval::passkey::{CellNews, answers, grid};
use ltrain::eval::{Facts, Passkey, PasskeyPlan, Question, Questions};
use ltrain::generate::{Sampler, generate};
use ltrain::report::record::{Grid, standard_error};

use crate::{Bytes, assert_near, load, text};

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
    let tokens: u64 = news.iter().map(|n| if let CellNews::Tokens { tokens, .. } = n { *tokens } else { 0 }).sum();
    assert_eq!((tokens, right.samples), (5 * 7 * 5064, 7));
}

#[test]
fn accuracy_is_the_share_of_right_answers() {
    let facts = Facts { distractors: 0 };
    let plan = PasskeyPlan { samples: 200, depths: vec![0.5], ..PasskeyPlan::new(&facts, vec![40]) };
    let even = |q: &Question| vec![q.answer[0], if q.answer[1].is_multiple_of(2) { q.answer[1] } else { 0 }];
    let (grid, _) = ask(&plan, even);
    let expected = plan.cell(40, 0.5).unwrap().iter().filter(|q| q.answer[1].is_multiple_of(2)).count() as f64 / 200.0;
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
        assert_eq!(given.len(), 3);
        for (place, &given) in given.iter().enumerate() {
            let prefix = [&q.tokens[..], &q.answer[..place]].concat();
            let next = generate(&Cpu, &model, &prefix, 1, &Sampler::GREEDY, &[], &mut |_| true).unwrap();
            assert_eq!(given, next[0], "place {place}");
        }
    }
}
