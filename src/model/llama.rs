//! The forward pass of Llama, Mistral, Qwen2 and Qwen3: one function for training, evaluation and generation.

use std::collections::HashMap;
use std::sync::Arc;

use super::{KvCache, LoraConfig, LoraTarget, ModelConfig, Params, cache};
use crate::backend::{Cpu, Kernels};
use crate::data::Batch;
use crate::error::Result;
use crate::ops::attention::attention;
use crate::ops::bias::bias;
use crate::ops::cross_entropy::{IGNORE, cross_entropy};
use crate::ops::elementwise::{ElementwiseKernels as _, add};
use crate::ops::embedding::embedding;
use crate::ops::linear::{self, LinearKernels as _, Lora, linear};
use crate::ops::rms_norm::{add_rms_norm, rms_norm};
use crate::ops::rope::{RopeTable, rope};
use crate::ops::swiglu::swiglu;
use crate::rng::{Rng, Stream};
use crate::tape::{ParamId, Tape, Var};
use crate::tensor::Tensor;

/// Whether backward re-runs each layer instead of keeping its activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Keep every activation.
    #[default]
    Nothing,
    /// Keep the input of each layer and run the layer again.
    Layers,
}

#[derive(Debug)]
struct Projection {
    w: ParamId,
    bias: Option<ParamId>,
    lora: Option<(ParamId, ParamId, f32)>,
}

#[derive(Debug)]
struct Layer {
    input_norm: ParamId,
    /// Indexed by [`LoraTarget`] as `usize`.
    projections: [Projection; 7],
    qk_norm: Option<[ParamId; 2]>,
    post_norm: ParamId,
}

/// What all layers share in one pass.
#[derive(Clone)]
struct Pass {
    rope: Arc<RopeTable>,
    /// One for the batch, or one for each row when rows have caches.
    segments: Vec<Tensor>,
}

/// A model: configuration and parameters.
#[derive(Debug)]
pub struct Llama {
    /// Shape and constants; `rope` may be replaced to evaluate under another rotation.
    pub config: ModelConfig,
    /// All parameters, adapters last.
    pub params: Params,
    layers: Vec<Layer>,
    embed: ParamId,
    norm: ParamId,
    head: ParamId,
    lora: Option<LoraConfig>,
}

/// Name of a tensor of one layer.
fn layer_name(layer: usize, rest: &str) -> String {
    format!("model.layers.{layer}.{rest}")
}

fn module_path(target: LoraTarget) -> String {
    let block = if matches!(target, LoraTarget::Gate | LoraTarget::Up | LoraTarget::Down) { "mlp" } else { "self_attn" };
    format!("{block}.{}", target.module())
}

/// `(name, shape)` of every tensor of a model, in the order of the parameter list. `lm_head.weight` only when untied.
pub fn expected_tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (c, f, d) = (config.hidden, config.ffn, config.head_dim);
    let (q, kv) = (config.heads * d, config.kv_heads * d);
    let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![config.vocab, c])];
    for i in 0..config.layers {
        let mut add = |rest: String, shape: Vec<usize>| tensors.push((layer_name(i, &rest), shape));
        add("input_layernorm.weight".into(), vec![c]);
        for target in LoraTarget::ALL {
            let (out, inp, biased) = match target {
                LoraTarget::Q => (q, c, config.qkv_bias),
                LoraTarget::K | LoraTarget::V => (kv, c, config.qkv_bias),
                LoraTarget::O => (c, q, config.o_bias),
                LoraTarget::Gate | LoraTarget::Up => (f, c, config.mlp_bias),
                LoraTarget::Down => (c, f, config.mlp_bias),
            };
            add(format!("{}.weight", module_path(target)), vec![out, inp]);
            if biased {
                add(format!("{}.bias", module_path(target)), vec![out]);
            }
        }
        if config.qk_norm {
            add("self_attn.q_norm.weight".into(), vec![d]);
            add("self_attn.k_norm.weight".into(), vec![d]);
        }
        add("post_attention_layernorm.weight".into(), vec![c]);
    }
    tensors.push(("model.norm.weight".into(), vec![c]));
    if !config.tied {
        tensors.push(("lm_head.weight".into(), vec![config.vocab, c]));
    }
    tensors
}

impl Llama {
    /// A model from tensors in the order of [`expected_tensors`], shapes checked.
    pub fn new(config: ModelConfig, tensors: Vec<(String, Tensor)>) -> Result<Self> {
        let mut params = Params::default();
        let expected = expected_tensors(&config);
        assert_eq!(expected.len(), tensors.len(), "model: one tensor per expected name");
        for ((name, shape), (given, value)) in expected.into_iter().zip(tensors) {
            assert_eq!(name, given, "model: tensors come in the expected order");
            value.expect("model: weight", shape)?;
            params.push(name, value);
        }
        let id = |name: &str| params.id(name).expect("model: every expected tensor was pushed");
        let layers = (0..config.layers)
            .map(|i| Layer {
                input_norm: id(&layer_name(i, "input_layernorm.weight")),
                projections: LoraTarget::ALL.map(|target| {
                    let path = layer_name(i, &module_path(target));
                    Projection { w: id(&format!("{path}.weight")), bias: params.id(&format!("{path}.bias")), lora: None }
                }),
                qk_norm: config.qk_norm.then(|| ["q", "k"].map(|x| id(&layer_name(i, &format!("self_attn.{x}_norm.weight"))))),
                post_norm: id(&layer_name(i, "post_attention_layernorm.weight")),
            })
            .collect();
        let embed = id("model.embed_tokens.weight");
        let head = params.id("lm_head.weight").unwrap_or(embed);
        Ok(Self { layers, embed, norm: id("model.norm.weight"), head, lora: None, config, params })
    }

    /// A model whose weights are memory of any content, of the shapes that it needs.
    pub fn outline(config: ModelConfig, reserve: impl Fn(Vec<usize>) -> Result<Tensor>) -> Result<Self> {
        let weights = expected_tensors(&config).into_iter().map(|(name, shape)| Ok((name, reserve(shape)?)));
        let weights = weights.collect::<Result<_>>()?;
        Self::new(config, weights)
    }

    /// A model with random weights: normal with `initializer_range`, norms 1, biases 0.
    pub fn init(config: ModelConfig, seed: u64) -> Result<Self> {
        let std = f64::from(config.initializer_range);
        let tensors = expected_tensors(&config)
            .into_iter()
            .enumerate()
            .map(|(i, (name, shape))| {
                let n: usize = shape.iter().product();
                let mut rng = Rng::at(seed, Stream::Init, i as u64);
                let data = match shape.len() {
                    1 => vec![if name.ends_with(".bias") { 0.0 } else { 1.0 }; n],
                    _ => (0..n).map(|_| (std * rng.normal()) as f32).collect(),
                };
                (name, Tensor::f32(data, shape))
            })
            .collect();
        Self::new(config, tensors)
    }

    /// Puts fresh adapters on the targets; the model computes what it did before.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            for &target in &config.targets {
                let projection = &mut layer.projections[target as usize];
                let [out, inp] = self.params.get(projection.w).value.dims("lora: w (out,in)")?;
                let [a, b] = config.init(out, inp, seed, (i * LoraTarget::ALL.len() + target as usize) as u64);
                let path = layer_name(i, &module_path(target));
                let a = self.params.push(format!("{path}.lora_A.weight"), a);
                let b = self.params.push(format!("{path}.lora_B.weight"), b);
                projection.lora = Some((a, b, config.scale()));
            }
        }
        self.lora = Some(config.clone());
        Ok(())
    }

    /// Memory that the keys and values of a token take, where the weights are now.
    pub fn cache_bytes(&self) -> usize {
        let c = &self.config;
        2 * c.layers * c.kv_heads * c.head_dim * self.params.get(self.embed).value.dtype().bytes()
    }

    /// Moves all parameters into the backend's memory and precision, where they are not yet.
    pub fn place(&mut self, kernels: &dyn Kernels) -> Result<()> {
        self.params.iter_mut().try_for_each(|param| param.place(kernels))
    }

    /// The adapters' shape, if there are any.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// The base tensors with the adapters multiplied in: `W + s·B·A` in f32, names and order of [`expected_tensors`], computed on
    /// the host one after the other.
    ///
    /// `base` gives the value that a parameter came with: a backend may have rounded it, and this is what is kept of a training.
    /// What it does not give, because training moved it, is the model's own.
    pub fn merged<'a>(
        &'a self,
        base: impl Fn(ParamId) -> Option<Result<Tensor>> + 'a,
    ) -> impl Iterator<Item = Result<(String, Tensor)>> + 'a {
        let of_weights = self.layers.iter().flat_map(|l| &l.projections).filter_map(|p| Some((p.w, p.lora?)));
        let factors: HashMap<ParamId, _> = of_weights.collect();
        let own = move |id: ParamId| self.params.get(id).exact().to_host_f32();
        (0..expected_tensors(&self.config).len()).map(move |id| {
            let mut w = base(id).unwrap_or_else(|| own(id))?;
            if let Some(&(a, b, scale)) = factors.get(&id) {
                let product = Cpu.linear_bwd_x(&own(b)?, &own(a)?)?;
                Cpu.add_assign(&mut w, &Cpu.scale(&product, scale)?)?;
            }
            Ok((self.params.get(id).name.clone(), w))
        })
    }

    fn param(&self, t: &mut Tape, id: ParamId) -> Var {
        let param = self.params.get(id);
        if param.trainable { t.param(id, &param.value) } else { t.constant(param.value.clone()) }
    }

    /// Projections of one input.
    fn project<const N: usize>(&self, t: &mut Tape, x: &Var, group: [&Projection; N]) -> Result<[Var; N]> {
        let weights = group.map(|p| {
            let w = self.param(t, p.w);
            let lora = p.lora.map(|(a, b, scale)| Lora { a: self.param(t, a), b: self.param(t, b), scale });
            linear::Projection { w, lora }
        });
        let mut ys = linear(t, x, weights)?;
        for (y, p) in ys.iter_mut().zip(group) {
            if let Some(b) = p.bias {
                let b = self.param(t, b);
                *y = bias(t, y, &b)?;
            }
        }
        Ok(ys)
    }

    /// Queries, keys or values split into heads: `(batch, seq_len, heads, head_dim)`.
    fn heads(&self, t: &mut Tape, y: &Var, norm: Option<ParamId>) -> Result<Var> {
        let y = t.split_heads(y, self.config.head_dim)?;
        match norm {
            Some(w) => {
                let w = self.param(t, w);
                rms_norm(t, &y, &w, self.config.rms_eps)
            }
            None => Ok(y),
        }
    }

    /// One layer: `h` is the residual stream, `y` its normalised form; returns the stream and what is still to be added to it.
    fn layer(&self, t: &mut Tape, i: usize, [h, y]: [Var; 2], pass: &Pass, caches: Option<&mut [KvCache]>) -> Result<[Var; 2]> {
        let layer = &self.layers[i];
        let [pq, pk, pv, po, pg, pu, pd] = &layer.projections;
        let [q_norm, k_norm] = layer.qk_norm.map_or([None, None], |ids| ids.map(Some));
        let [q, k, v] = self.project(t, &y, [pq, pk, pv])?;
        let q = self.heads(t, &q, q_norm)?;
        let k = self.heads(t, &k, k_norm)?;
        let v = self.heads(t, &v, None)?;
        let [q, k] = rope(t, [q, k], &pass.rope)?;
        let scale = 1.0 / (self.config.head_dim as f32).sqrt();
        let o = match caches {
            Some(caches) => {
                let o = cache::attention(t.kernels(), caches, i, [&q, &k, &v].map(Var::value), &pass.segments, scale)?;
                t.constant(o)
            }
            None => attention(t, &q, &k, &v, &pass.segments[0], scale)?,
        };
        let o = t.merge_heads(&o)?;
        let [o] = self.project(t, &o, [po])?;
        let w = self.param(t, layer.post_norm);
        let [h, y] = add_rms_norm(t, &h, &o, &w, self.config.rms_eps)?;

        let [gate, up] = self.project(t, &y, [pg, pu])?;
        let act = swiglu(t, &gate, &up)?;
        let [down] = self.project(t, &act, [pd])?;
        Ok([h, down])
    }

    /// The norm in front of layer `i`, or behind the last one.
    fn norm(&self, t: &mut Tape, i: usize) -> Var {
        self.param(t, self.layers.get(i).map_or(self.norm, |l| l.input_norm))
    }

    /// The last layer's normalised hidden states, `(batch, seq_len, hidden)`.
    ///
    /// With caches, one per row, the tokens of a row follow those in its cache. Such a pass is for inference: its attention has no
    /// gradient, and nothing is recomputed.
    pub fn hidden<'a>(
        &'a self,
        t: &mut Tape<'a>,
        batch: &Batch,
        recompute: Recompute,
        mut caches: Option<&mut [KvCache]>,
    ) -> Result<Var> {
        let longest = batch.positions.as_u32()?.iter().max().map_or(0, |&p| p as usize + 1);
        let freqs = self.config.rope.freqs(self.config.head_dim, self.config.context, longest);
        let rope = Arc::new(t.kernels().rope_table(&batch.positions, &batch.rope_scale, &freqs)?);
        let tables = batch.segments.tables(caches.as_ref().map_or(1, |caches| caches.len()));
        let segments = tables.iter().map(|table| t.kernels().place_integers(table)).collect::<Result<_>>()?;
        let pass = Pass { rope, segments };
        let w = self.param(t, self.embed);
        let mut h = embedding(t, &batch.ids, &w)?;
        let (layers, eps) = (self.layers.len(), self.config.rms_eps);
        if recompute == Recompute::Layers {
            for i in 0..layers {
                let pass = pass.clone();
                // A layer's input is all that stays until backward, so its norm belongs to the layer.
                [h] = t.checkpoint([&h], move |t, [h]| {
                    let w = self.norm(t, i);
                    let y = rms_norm(t, &h, &w, eps)?;
                    let [h, down] = self.layer(t, i, [h, y], &pass, None)?;
                    Ok([add(t, &h, &down)?])
                })?;
            }
            let w = self.norm(t, layers);
            return rms_norm(t, &h, &w, eps);
        }
        let w = self.norm(t, 0);
        let mut y = rms_norm(t, &h, &w, eps)?;
        for i in 0..layers {
            let [before, down] = self.layer(t, i, [h, y], &pass, caches.as_deref_mut())?;
            let w = self.norm(t, i + 1);
            [h, y] = add_rms_norm(t, &before, &down, &w, eps)?;
        }
        Ok(y)
    }

    /// `scale·Σ weight·nll` over the batch, and every place's `nll`.
    pub fn loss<'a>(&'a self, t: &mut Tape<'a>, batch: &Batch, recompute: Recompute, scale: f32) -> Result<(Var, Tensor)> {
        let h = self.hidden(t, batch, recompute, None)?;
        let w = self.param(t, self.head);
        cross_entropy(t, &h, &w, &batch.targets, scale)
    }

    /// Of every place of a batch, on the host: the raw logit of its target and the target's negative log-likelihood, row after
    /// row, 0 where there is no target. All logits of a place are never in memory beyond the loss's tile.
    pub fn target_scores(&self, kernels: &dyn Kernels, batch: &Batch) -> Result<[Vec<f32>; 2]> {
        let mut t = Tape::inference(kernels);
        let h = self.hidden(&mut t, batch, Recompute::Nothing, None)?;
        let w = &self.params.get(self.head).value;
        let nll = kernels.cross_entropy(h.value(), w, &batch.targets, 1.0, [false; 2])?.nll;
        let targets = batch.targets.ids.as_u32()?;
        let known = targets.iter().map(|&id| if id == IGNORE { 0 } else { id }).collect();
        let rows = kernels.embedding_fwd(&Tensor::u32(known, batch.ids.shape().clone()), w)?.to_host_f32()?;
        let h = h.value().to_host_f32()?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32;
        let places = h.as_f32()?.chunks_exact(self.config.hidden).zip(rows.as_f32()?.chunks_exact(self.config.hidden));
        let logits = places.zip(targets).map(|((h, w), &id)| if id == IGNORE { 0.0 } else { dot(h, w) }).collect();
        Ok([logits, nll.to_host_f32()?.as_f32()?.to_vec()])
    }

    /// Logits of hidden states: `(…, hidden)` → `(…, vocab)`.
    pub fn logits(&self, kernels: &dyn Kernels, hidden: &Tensor) -> Result<Tensor> {
        kernels.linear_fwd(hidden, &self.params.get(self.head).value)
    }
}
