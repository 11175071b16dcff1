//! Logits, loss and every stored gradient of the fixtures' models against Transformers and PEFT in float64.

mod common;

use std::sync::Arc;

use common::backends::devices;
use common::{Golden, assert_close_in_norm as assert_close, distance, fixtures};
use ltrain::backend::{Cpu, EmuMode, Kernels};
use ltrain::data::Batch;
use ltrain::io::ModelDir;
use ltrain::io::peft::read_adapter;
use ltrain::model::{Llama, LoraConfig, LoraTarget, Recompute};
use ltrain::ops::attention::Segments;
use ltrain::ops::cross_entropy::{IGNORE, Targets};
use ltrain::optim::{AdamW, AdamWConfig, Schedule, Shape};
use ltrain::tape::{ParamGrads, Tape};
use ltrain::tensor::Tensor;
use ltrain::train::{self, TrainMode};

/// The batch stored under `prefix`: labels are shifted here, as `Targets` wants them.
fn batch(golden: &Golden, prefix: &str) -> Batch {
    let (ids, dims) = golden.i64(&format!("{prefix}input_ids"));
    let (positions, _) = golden.i64(&format!("{prefix}position_ids"));
    let [rows, t]: [usize; 2] = dims.try_into().unwrap();
    let labels = golden.names().contains(&format!("{prefix}labels")).then(|| golden.i64(&format!("{prefix}labels")).0);
    let target = |n: usize| match &labels {
        Some(labels) if n % t + 1 < t && labels[n + 1] >= 0 => labels[n + 1] as u32,
        _ => IGNORE,
    };
    let unsigned = |v: Vec<i64>| Tensor::u32(v.into_iter().map(|x| x as u32).collect(), [rows, t]);
    Batch {
        targets: Targets { ids: Tensor::u32((0..rows * t).map(target).collect(), [rows, t]), weights: None },
        ids: unsigned(ids),
        positions: unsigned(positions),
        rope_scale: vec![1.0; rows],
        segments: Arc::new(Segments { starts: [vec![0; rows * t], vec![0; rows * t]] }),
    }
}

fn load(name: &str) -> Llama {
    let dir = ModelDir::open(&fixtures().join("models").join(name)).unwrap();
    Llama::new(dir.config().clone(), dir.load().unwrap()).unwrap()
}

fn floats(t: &Tensor) -> Vec<f32> {
    t.to_host_f32().unwrap().as_f32().unwrap().to_vec()
}

fn logits(kernels: &dyn Kernels, model: &Llama, batch: &Batch) -> Vec<f32> {
    let mut tape = Tape::inference(kernels);
    let hidden = model.hidden(&mut tape, batch, Recompute::Nothing, None).unwrap();
    floats(&model.logits(kernels, hidden.value()).unwrap())
}

/// Logit and loss of every target by the fixture's logits, 0 where there is none.
fn golden_scores(golden: &Golden, batch: &Batch) -> [Vec<f32>; 2] {
    let (logits, dims) = golden.f32("logits");
    let rows = logits.chunks_exact(dims[2]).zip(batch.targets.ids.as_u32().unwrap());
    let score = |(row, &target): (&[f32], &u32)| match row.get(target as usize) {
        None => (0.0, 0.0),
        Some(&logit) => (logit, row.iter().map(|&z| f64::from(z - logit).exp()).sum::<f64>().ln() as f32),
    };
    let (logits, losses) = rows.map(score).unzip();
    [logits, losses]
}

/// How far a backend's results may be from float64.
#[derive(Clone, Copy)]
struct Allowed {
    logits: f64,
    loss: f64,
    grads: f64,
}

/// What the product promises of f32.
const F32: Allowed = Allowed { logits: 1e-4, loss: 1e-5, grads: 1e-4 };

/// Of bf16: a rounding is off by 2^-8/sqrt(12) = 1.1e-3 in the mean, each of a layer's 15 or so tensors and 9 weights is
/// rounded once, and these are models of two layers: sqrt(2·24)·1.1e-3 = 8e-3. A gradient passes forward and backward, and
/// products of differences lose more where terms cancel: three times that. The loss is a mean over tokens.
const BF16: Allowed = Allowed { logits: 1.6e-2, loss: 2e-3, grads: 3e-2 };

/// Loss and gradients of the fixture's batch.
fn step(kernels: &dyn Kernels, model: &Llama, golden: &Golden, recompute: Recompute) -> (Vec<f32>, ParamGrads) {
    let batch = batch(golden, "");
    let mut grads = ParamGrads::new(model.params.len());
    let mut tape = Tape::new(kernels);
    let scale = (1.0 / batch.targets.total_weight().unwrap()) as f32;
    let (loss, _) = model.loss(&mut tape, &batch, recompute, scale).unwrap();
    let value = floats(loss.value());
    tape.backward(&loss, Tensor::scalar(1.0), &mut grads).unwrap();
    (value, grads)
}

/// The fixture's gradients: name in the fixture, ours, theirs.
fn pairs(
    golden: &Golden,
    model: &Llama,
    grads: &ParamGrads,
    rename: &dyn Fn(&str) -> String,
) -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let names = golden.names().into_iter().filter(|n| n.starts_with("grad."));
    let pairs = names.map(|name| {
        let ours = rename(name.trim_start_matches("grad."));
        let id = model.params.id(&ours).unwrap_or_else(|| panic!("no parameter {ours}"));
        let grad = grads.get(id).unwrap_or_else(|| panic!("no gradient for {ours}"));
        let want = golden.f32(&name).0;
        (name.to_owned(), floats(grad), want)
    });
    pairs.collect()
}

/// How far each gradient moves when nothing but the weights is rounded to bf16, in f32 on the CPU: its condition.
fn conditions(golden: &Golden, mut model: Llama, rename: &dyn Fn(&str) -> String) -> Vec<f64> {
    for param in model.params.iter_mut() {
        let values = floats(&param.value).into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect();
        param.value = Tensor::f32(values, param.value.shape().clone());
    }
    let (_, grads) = step(&Cpu, &model, golden, Recompute::Nothing);
    pairs(golden, &model, &grads, rename).iter().map(|(_, got, want)| distance(got, want)).collect()
}

/// Every device in reach. A gradient that rounding the weights alone moves far may move three times as far.
fn check_on_devices(golden: &Golden, model: impl Fn() -> Llama, rename: &dyn Fn(&str) -> String) {
    let conditions = conditions(golden, model(), rename);
    for (_, device) in devices(EmuMode::Eager) {
        let mut model = model();
        model.place(&*device).unwrap();
        check(&*device, BF16, |i| BF16.grads.max(3.0 * conditions[i]), golden, &model, rename);
    }
}

fn check(
    kernels: &dyn Kernels,
    allowed: Allowed,
    of_gradient: impl Fn(usize) -> f64,
    golden: &Golden,
    model: &Llama,
    rename: &dyn Fn(&str) -> String,
) {
    let batch = batch(golden, "");
    assert_close("logits", &logits(kernels, model, &batch), &golden.f32("logits").0, allowed.logits);
    let (want, got) = (golden_scores(golden, &batch), model.target_scores(kernels, &batch).unwrap());
    for (name, got, want) in [("target logits", &got[0], &want[0]), ("target losses", &got[1], &want[1])] {
        assert_close(name, got, want, allowed.logits);
    }
    for recompute in [Recompute::Nothing, Recompute::Layers] {
        let (loss, grads) = step(kernels, model, golden, recompute);
        assert_close("loss", &loss, &golden.f32("loss").0, allowed.loss);
        let pairs = pairs(golden, model, &grads, rename);
        for (i, (name, got, want)) in pairs.iter().enumerate() {
            assert_close(name, got, want, of_gradient(i));
        }
        assert!(pairs.len() >= 5, "only {} gradients compared", pairs.len());
    }
}

fn check_on_cpu(golden: &Golden, model: &Llama, rename: &dyn Fn(&str) -> String) {
    check(&Cpu, F32, |_| F32.grads, golden, model, rename);
}

fn whole(name: &str) -> Llama {
    let mut model = load(name);
    model.params.iter_mut().for_each(|p| p.trainable = true);
    model
}

macro_rules! models {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() { check_on_cpu(&Golden::open(stringify!($name)), &whole(stringify!($name)), &str::to_owned); }
    )* };
}
macro_rules! models_on_devices {
    ($($test:ident: $name:literal)*) => { $(
        #[test]
        fn $test() { check_on_devices(&Golden::open($name), || whole($name), &str::to_owned); }
    )* };
}
models_on_devices! {
    llama_d64_on_devices: "llama_d64"
    llama_headdim_on_devices: "llama_headdim"
    qwen2_on_devices: "qwen2"
    qwen3_on_devices: "qwen3"
}
models! { llama llama_tied llama_headdim llama_d64 llama_linear llama_yarn llama_llama3 mistral qwen2 qwen3 }

/// The fixture's adapter on its base model.
fn adapted(base: &str, adapter: &str) -> Llama {
    let mut model = load(base);
    let adapter = read_adapter(&fixtures().join("adapters").join(adapter)).unwrap();
    let lora = LoraConfig {
        rank: adapter.config.r,
        alpha: adapter.config.lora_alpha as f32,
        rslora: adapter.config.use_rslora,
        targets: adapter.config.target_modules.iter().map(|m| m.parse::<LoraTarget>().unwrap()).collect(),
    };
    let mode = if adapter.config.modules_to_save.is_empty() { TrainMode::Lora } else { TrainMode::LoraPlus };
    train::prepare(&mut model, mode, Some(&lora), 0).unwrap();
    for (name, tensor) in &adapter.tensors {
        let ours = name.trim_start_matches("base_model.model.");
        let id = model.params.id(ours).unwrap_or_else(|| panic!("no parameter {ours}"));
        model.params.get_mut(id).value = tensor.clone();
    }
    model
}

fn check_adapter(base: &str, tag: &str) {
    let model = adapted(base, tag);
    let rename =
        |name: &str| name.trim_start_matches("base_model.model.").replace(".modules_to_save.default", "").replace(".default", "");
    check_on_cpu(&Golden::open(tag), &model, &rename);
    let golden = Golden::open(&format!("{tag}_merged"));
    let merged = Llama::new(model.config.clone(), model.merged(|_| None).collect::<Result<_, _>>().unwrap()).unwrap();
    assert_close("merged logits", &logits(&Cpu, &merged, &batch(&golden, "")), &golden.f32("logits").0, 1e-4);
    for name in golden.names().iter().filter(|n| n.starts_with("merged.")) {
        let id = merged.params.id(name.trim_start_matches("merged.")).unwrap();
        assert_close(name, &floats(&merged.params.get(id).value), &golden.f32(name).0, 1e-6);
    }
    check_on_devices(&Golden::open(tag), || adapted(base, tag), &rename);
}

#[test]
fn lora_with_embeddings_and_norms_matches_peft() {
    check_adapter("llama", "lora_llama_plus");
}

#[test]
fn lora_on_every_linear_layer_matches_peft() {
    check_adapter("qwen2", "lora_qwen2");
}

#[test]
fn thirty_steps_follow_pytorch() {
    let golden = Golden::open("trajectory");
    let mut model = load("llama");
    model.params.iter_mut().for_each(|p| p.trainable = true);
    let config = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 };
    let mut optimizer = AdamW::new(config, &model.params, &Cpu).unwrap();
    let schedule = Schedule { peak: 3e-3, warmup: 5, steps: 30, shape: Shape::Cosine, floor: 0.1 };
    let batches: Vec<_> = (0..4).map(|i| batch(&golden, &format!("batch{i}."))).collect();
    let (losses, norms, lrs) = (golden.f32("losses").0, golden.f32("grad_norms").0, golden.f32("lrs").0);
    let stop = Default::default();
    for step in 0..30 {
        let micro = [batches[2 * step % 4].clone(), batches[(2 * step + 1) % 4].clone()];
        let (grads, loss) = train::gradients(&Cpu, &model, &micro, Recompute::Nothing, &stop).unwrap().unwrap();
        let lr = schedule.at(step as u64);
        assert!((lr - f64::from(lrs[step])).abs() < 1e-9, "step {step}: lr {lr}, expected {}", lrs[step]);
        assert!((loss - f64::from(losses[step])).abs() <= 1e-3, "step {step}: loss {loss}, expected {}", losses[step]);
        let stats = optimizer.apply(&Cpu, &mut model.params, &grads, |_| lr).unwrap();
        let norm = f64::from(norms[step]);
        assert!((stats.grad_norm - norm).abs() <= 5e-3 * norm, "step {step}: norm {}, expected {norm}", stats.grad_norm);
    }
}
