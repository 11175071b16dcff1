//! A real model against Transformers: tokens, perplexities under several rotations, greedy text.

use std::path::PathBuf;

use ltrain::backend::Cpu;
use ltrain::data::Encode;
use ltrain::error::Result;
use ltrain::eval::perplexity::{Window, disjoint, sliding};
use ltrain::eval::{Passkey, Questions};
use ltrain::generate::{Sampler, generate};
use ltrain::io::ModelDir;
use ltrain::io::tokenizer::{SpecialTokens, TextTokenizer};
use ltrain::model::Llama;
use ltrain::model::rope::{RopeConfig, RopeScaling};
use serde_json::Value;

use crate::{assert_near, losses};

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
