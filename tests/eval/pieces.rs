//! Long rows are read in pieces behind a cache: the same answers as in one pass.

use ltrain::backend::{Cpu, EmuMode, Kernels};
use ltrain::data::Batch;
use ltrain::eval::passkey::in_pieces;
use ltrain::generate::hidden_behind;
use ltrain::model::rope::{RopeConfig, RopeScaling};
use ltrain::model::{KvCache, Llama, Recompute};
use ltrain::tape::Tape;

use crate::common::assert_close_in_norm;
use crate::common::backends::emulated;
use crate::{load, text};

/// Hidden states of a row's last places in one pass.
fn whole(kernels: &dyn Kernels, model: &Llama, row: &[u32], tail: usize) -> Vec<f32> {
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, &Batch::contiguous(&[row]), Recompute::Nothing, None).unwrap();
    let all = hidden.value().to_host_f32().unwrap();
    all.as_f32().unwrap()[(row.len() - tail) * model.config.hidden..].to_vec()
}

fn pieced(kernels: &dyn Kernels, model: &Llama, row: &[u32], tail: usize, piece: usize) -> Vec<f32> {
    let mut cache = KvCache::new(model.config.layers, row.len());
    let hidden = hidden_behind(kernels, model, row, tail, Some(&mut cache), piece).unwrap();
    assert_eq!(cache.tokens(), row.len());
    hidden.to_host_f32().unwrap().as_f32().unwrap().to_vec()
}

#[test]
fn pieces_of_any_size_see_what_one_pass_sees() {
    for name in ["llama", "llama_yarn", "qwen3"] {
        let model = load(name);
        for (length, tail, piece) in [(100, 1, 1), (101, 5, 7), (130, 5, 64), (130, 9, 4), (64, 3, 64), (65, 1, 64), (40, 40, 16)]
        {
            let row = text(length);
            let what = format!("{name}: {length} tokens, the last {tail}, in pieces of {piece}");
            assert_close_in_norm(&what, &pieced(&Cpu, &model, &row, tail, piece), &whole(&Cpu, &model, &row, tail), 1e-5);
        }
    }
}

#[test]
fn pieces_on_a_device_are_as_close_as_its_numbers() {
    let device = emulated(EmuMode::Eager);
    let mut model = load("llama_d64");
    model.place(&device).unwrap();
    let row = text(90);
    let (one, some) = (whole(&device, &model, &row, 6), pieced(&device, &model, &row, 6, 32));
    // bf16 activations: the two differ in the order of sums alone.
    assert_close_in_norm("device", &some, &one, 1e-2);
}

/// Hidden states of the next token of several texts behind caches of their own, in one pass or in one each.
fn next(kernels: &dyn Kernels, model: &Llama, texts: &[Vec<u32>]) -> [Vec<f32>; 2] {
    let floats = |hidden: &ltrain::tensor::Tensor| hidden.to_host_f32().unwrap().as_f32().unwrap().to_vec();
    let read = |text: &Vec<u32>| {
        // It has no room for the last token, so it grows.
        let mut cache = KvCache::new(model.config.layers, text.len() - 1);
        hidden_behind(kernels, model, &text[..text.len() - 1], 1, Some(&mut cache), 32).unwrap();
        cache
    };
    let mut caches: Vec<KvCache> = texts.iter().map(read).collect();
    let last: Vec<_> = texts.iter().map(|text| &text[text.len() - 1..]).collect();
    let mut batch = Batch::contiguous(&last);
    batch.positions = ltrain::tensor::Tensor::u32(texts.iter().map(|text| text.len() as u32 - 1).collect(), [texts.len(), 1]);
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, &batch, Recompute::Nothing, Some(&mut caches)).unwrap();
    assert!(caches.iter().zip(texts).all(|(cache, text)| cache.tokens() == text.len()));
    let alone = |text: &Vec<u32>| floats(&hidden_behind(kernels, model, text, 1, Some(&mut read(text)), 32).unwrap());
    [floats(hidden.value()), texts.iter().flat_map(alone).collect()]
}

#[test]
fn rows_behind_caches_of_their_own_do_not_see_each_other() {
    let texts: Vec<Vec<u32>> = [(0, 40), (3, 93), (60, 62), (20, 85)].map(|(from, to)| text(to)[from..].to_vec()).into();
    for name in ["llama", "llama_yarn", "qwen3"] {
        let [together, alone] = next(&Cpu, &load(name), &texts);
        assert_close_in_norm(name, &together, &alone, 1e-6);
    }
    let device = emulated(EmuMode::Eager);
    let mut model = load("llama_d64");
    model.place(&device).unwrap();
    let [together, alone] = next(&device, &model, &texts);
    assert_close_in_norm("device", &together, &alone, 1e-2);
}

#[test]
fn likeliest_tokens_are_the_same_in_pieces() {
    let model = load("llama");
    for length in [60, 150] {
        let row = text(length);
        assert_eq!(in_pieces(&Cpu, &model, &row, 6, 16).unwrap(), in_pieces(&Cpu, &model, &row, 6, 1000).unwrap());
    }
}

#[test]
fn dynamic_rotations_are_never_cached_beyond_the_context() {
    let mut model = load("llama");
    model.config.rope = RopeConfig { theta: 1e4, scaling: RopeScaling::Dynamic { factor: 4.0 } };
    let row = text(model.config.context + 50);
    let logits = |hidden: Vec<f32>| {
        let shape = [6, model.config.hidden];
        let logits = model.logits(&Cpu, &ltrain::tensor::Tensor::f32(hidden, shape)).unwrap();
        let rows = logits.as_f32().unwrap().chunks_exact(model.config.vocab).map(|row| {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter().position(|&x| x == largest).unwrap() as u32
        });
        rows.collect::<Vec<_>>()
    };
    let given = in_pieces(&Cpu, &model, &row, 6, 32).unwrap();
    assert_eq!(given, logits(whole(&Cpu, &model, &row, 6)));
    // A cache would turn the first keys by too small a base.
    assert!(pieced(&Cpu, &model, &row, 6, 32) != whole(&Cpu, &model, &row, 6));
}
