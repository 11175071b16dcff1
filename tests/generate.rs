//! Generation: the cache changes nothing, sampling keeps its promises, text streams whole characters.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::fixtures;
use ltrain::backend::Cpu;
use ltrain::data::Batch;
use ltrain::error::{Explain, Result};
use ltrain::generate::{Sampler, TextStream, Until, generate, generate_together};
use ltrain::io::ModelDir;
use ltrain::model::rope::{RopeConfig, RopeScaling};
use ltrain::model::{Llama, Recompute};
use ltrain::tape::Tape;

static GOES_ON: AtomicBool = AtomicBool::new(false);

/// The likeliest continuations.
fn together(model: &Llama, prompts: &[&[u32]], until: &Until, on_token: &mut dyn FnMut(usize, u32) -> bool) -> Vec<Vec<u32>> {
    generate_together(&Cpu, model, prompts, &Sampler::GREEDY, until, on_token).unwrap()
}

fn load(name: &str) -> Llama {
    let dir = ModelDir::open(&fixtures().join("models").join(name)).unwrap();
    Llama::new(dir.config().clone(), dir.load().unwrap()).unwrap()
}

fn text(length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * i * 7 + i * 31 + 5) % 127) as u32).collect()
}

fn written(model: &Llama, prompt: &[u32], max_new: usize, sampler: &Sampler) -> Vec<u32> {
    generate(&Cpu, model, prompt, max_new, sampler, &[], &mut |_| true).unwrap()
}

/// Logits of the last place in one uncached pass.
fn last_logits(model: &Llama, tokens: &[u32]) -> Vec<f32> {
    let mut tape = Tape::inference(&Cpu);
    let hidden = model.hidden(&mut tape, &Batch::contiguous(&[tokens]), Recompute::Nothing, None).unwrap();
    let logits = model.logits(&Cpu, hidden.value()).unwrap();
    logits.as_f32().unwrap()[(tokens.len() - 1) * model.config.vocab..].to_vec()
}

fn check_greedy(model: &Llama, prompt: usize, new: usize) {
    let prompt = text(prompt);
    let tokens = written(model, &prompt, new, &Sampler::GREEDY);
    assert_eq!(tokens.len(), new);
    check_likeliest(model, &prompt, &tokens);
}

fn check_likeliest(model: &Llama, prompt: &[u32], tokens: &[u32]) {
    let mut all = prompt.to_vec();
    for (step, &token) in tokens.iter().enumerate() {
        let logits = last_logits(model, &all);
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Two likeliest tokens may be closer than a cache's different order of sums.
        let off = largest - logits[token as usize];
        assert!(off <= 1e-5, "step {step} after {}: token {token} is {off:.1e} below the likeliest", prompt.len());
        all.push(token);
    }
}

#[test]
fn every_cached_step_is_the_likeliest_token_of_an_uncached_pass() {
    for name in ["llama", "llama_tied", "llama_yarn", "qwen2", "qwen3"] {
        check_greedy(&load(name), 37, 12);
    }
}

#[test]
fn long_prompts_are_read_in_pieces() {
    let model = load("llama");
    for prompt in [1, 511, 512, 513, 1100] {
        check_greedy(&model, prompt, 3);
    }
}

#[test]
fn dynamic_rotations_turn_the_whole_text_when_it_grows() {
    let mut model = load("llama");
    model.config.rope = RopeConfig { theta: 1e4, scaling: RopeScaling::Dynamic { factor: 4.0 } };
    check_greedy(&model, model.config.context - 3, 6);
    check_greedy(&model, 20, 6);
}

#[test]
fn texts_written_together_are_those_written_alone() {
    let dynamic = |mut model: Llama| {
        model.config.rope = RopeConfig { theta: 1e4, scaling: RopeScaling::Dynamic { factor: 4.0 } };
        // All but one text end beyond it, so none has a cache.
        model.config.context = 40;
        model
    };
    for model in [load("llama"), load("llama_yarn"), load("qwen3"), dynamic(load("llama"))] {
        let all = text(140);
        // The second ends before the others.
        let prompts = [&all[..37], &all[30..31], &all[5..140], &all[50..90]];
        let mut heard = vec![Vec::new(); prompts.len()];
        let mut hear = |at: usize, token| {
            heard[at].push(token);
            !(at == 1 && heard[1].len() == 3)
        };
        let texts = together(&model, &prompts, &Until { max_new: 9, stops: &[], stop: &GOES_ON }, &mut hear);
        assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [9, 3, 9, 9]);
        assert_eq!(heard, texts);
        for (prompt, tokens) in prompts.into_iter().zip(&texts) {
            check_likeliest(&model, prompt, tokens);
        }
    }
}

#[test]
fn a_stop_ends_all_texts() {
    let (model, all, stop) = (load("llama"), text(140), AtomicBool::new(false));
    let prompts = [&all[..37], &all[20..60]];
    let until = Until { max_new: 9, stops: &[], stop: &stop };
    let mut heard = 0;
    let mut hear = |_, _| {
        heard += 1;
        stop.store(heard >= 5, Ordering::Relaxed);
        true
    };
    let texts = together(&model, &prompts, &until, &mut hear);
    assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3], "the token of all that was begun, and no more");
    assert_eq!(together(&model, &prompts, &until, &mut |_, _| true), [[], []] as [[u32; 0]; 2]);
}

#[test]
fn of_texts_written_together_each_has_its_own_end() {
    let (model, all) = (load("llama"), text(140));
    let prompts = [&all[..37], &all[20..60], &all[5..140]];
    let free = prompts.map(|prompt| written(&model, prompt, 9, &Sampler::GREEDY));
    let stop = free[2][4];
    let ended = |tokens: &Vec<u32>| tokens.iter().take_while(|&&token| token != stop).copied().collect::<Vec<_>>();
    let together = |prompts: &[&[u32]], max_new| {
        let until = Until { max_new, stops: &[stop], stop: &GOES_ON };
        generate_together(&Cpu, &model, prompts, &Sampler::GREEDY, &until, &mut |_, _| true)
    };
    let texts = together(&prompts, 9).unwrap();
    assert_eq!(texts, free.iter().map(ended).collect::<Vec<_>>());
    assert!(texts.iter().any(|text| text.len() < 9));
    assert!(together(&[], 9).unwrap().is_empty());
    assert_eq!(together(&prompts, 0).unwrap(), vec![Vec::<u32>::new(); 3]);
    assert_eq!(together(&[&all[..9], &[]], 1).unwrap_err().explain().code, "E223");
}

#[test]
fn any_number_of_tokens_may_be_asked_for() {
    let (model, prompt) = (load("llama"), text(20));
    let mut left = 2;
    let mut on_token = |_| {
        left -= 1;
        left > 0
    };
    let tokens = generate(&Cpu, &model, &prompt, usize::MAX, &Sampler::GREEDY, &[], &mut on_token).unwrap();
    assert_eq!(tokens.len(), 2);
}

#[test]
fn a_vanishing_nucleus_is_greedy() {
    let (model, prompt) = (load("llama"), text(20));
    let narrow = Sampler { temperature: 1.5, top_p: 0.0, seed: 4 };
    assert_eq!(written(&model, &prompt, 20, &narrow), written(&model, &prompt, 20, &Sampler::GREEDY));
    let wide = Sampler { temperature: 1.5, top_p: 1.0, seed: 4 };
    assert_ne!(written(&model, &prompt, 20, &wide), written(&model, &prompt, 20, &Sampler::GREEDY));
}

#[test]
fn a_seed_decides_the_text() {
    let (model, prompt) = (load("llama"), text(20));
    let of = |seed| written(&model, &prompt, 20, &Sampler { temperature: 1.0, top_p: 0.95, seed });
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
}

#[test]
fn draws_follow_the_tempered_nucleus() {
    // Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1; squared and renormalised at 0.5.
    let logits = [0.25f32, 0.5, 0.125, 0.125].map(f32::ln);
    let shares = |temperature, top_p| {
        let mut counts = [0u32; 4];
        for place in 0..40_000 {
            let token = Sampler { temperature, top_p, seed: 9 }.sample(&logits, place).unwrap();
            counts[token as usize] += 1;
        }
        counts.map(|n| f64::from(n) / 40_000.0)
    };
    let near = |got: [f64; 4], want: [f64; 4]| {
        // Five binomial standard deviations: 5·√(0.25/40000) = 0.0125.
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.0125), "{got:?}, expected {want:?}");
    };
    near(shares(1.0, 1.0), [0.25, 0.5, 0.125, 0.125]);
    near(shares(0.5, 1.0), [4.0, 16.0, 1.0, 1.0].map(|p| p / 22.0));
    near(shares(1.0, 0.75), [1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0]);
    near(shares(1.0, 0.8), [2.0 / 7.0, 4.0 / 7.0, 1.0 / 7.0, 0.0]);
}

#[test]
fn logits_that_are_no_numbers_give_no_token() {
    for sampler in [Sampler::GREEDY, Sampler { temperature: 1.0, top_p: 0.9, seed: 0 }] {
        assert_eq!(sampler.sample(&[0.0, f32::NAN, 1.0], 0), None);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3], 0), None);
        assert_eq!(sampler.sample(&[0.0, f32::INFINITY], 0), None);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY], 0), Some(1));
    }
}

#[test]
fn stops_end_the_text_and_are_left_out() {
    let (model, prompt) = (load("llama"), text(20));
    let free = written(&model, &prompt, 12, &Sampler::GREEDY);
    let stop = free[5];
    let first = free.iter().position(|&t| t == stop).unwrap();
    let mut heard = Vec::new();
    let mut hear = |token| {
        heard.push(token);
        true
    };
    let stopped = generate(&Cpu, &model, &prompt, 12, &Sampler::GREEDY, &[stop], &mut hear).unwrap();
    assert_eq!(stopped, free[..first]);
    assert_eq!(heard, stopped);
    let two = generate(&Cpu, &model, &prompt, 12, &Sampler::GREEDY, &[], &mut |t| t != free[1]).unwrap();
    assert_eq!(two.last(), Some(&free[1]));
    assert!(written(&model, &prompt, 0, &Sampler::GREEDY).is_empty());
}

#[test]
fn prompts_that_cannot_be_continued_are_refused() {
    let model = load("llama");
    let refused = |prompt: &[u32]| generate(&Cpu, &model, prompt, 1, &Sampler::GREEDY, &[], &mut |_| true).unwrap_err();
    assert_eq!(refused(&[]).explain().code, "E223");
    assert_eq!(refused(&[3, 128]).explain().code, "E330");
}

/// Tokens are bytes; what is not UTF-8 decodes to replacement characters, as byte-level tokenizers do.
fn decode(tokens: &[u32]) -> Result<String> {
    let bytes: Vec<u8> = tokens.iter().map(|&t| t as u8).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn characters_are_shown_when_they_are_whole() {
    let mut stream = TextStream::new(&[b'>'.into()], &decode).unwrap();
    let shown: Vec<String> = "aé漢🙂z".bytes().map(|b| stream.push(b.into()).unwrap()).collect();
    assert_eq!(shown, ["a", "", "é", "", "", "漢", "", "", "", "🙂", "z"]);
    assert_eq!(stream.finish().unwrap(), "");
    let mut cut = TextStream::new(&[], &decode).unwrap();
    assert_eq!(cut.push(0xE6).unwrap(), "");
    assert_eq!(cut.finish().unwrap(), "\u{FFFD}");
}
