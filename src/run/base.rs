//! The base model: a folder, the one in the program, or random weights.

use std::collections::HashSet;
use std::path::Path;

use crate::backend::{Device, Kernels, Meta};
use crate::checkpoint;
use crate::config::RunConfig;
use crate::config::text::ModelSource;
use crate::data::Encode;
use crate::error::{IoContext, Result};
use crate::io::atomic::{Existing, write_dir_atomically};
use crate::io::model_dir::EMBEDDING;
use crate::io::peft::{Adapter, read_adapter};
use crate::io::safetensors::{TensorView, write_safetensors};
use crate::io::{ModelDir, ModelError, Storage, TextTokenizer, hf_config};
use crate::model::{Llama, LoraConfig, LoraTarget, ModelConfig};
use crate::tape::ParamId;
use crate::tensor::Tensor;
use crate::train::{TrainMode, prepare};

/// The model in the program, made by `scripts/make_tiny_model.sh`.
const TINY: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../assets/tiny/config.json")),
    ("model.safetensors", include_bytes!("../../assets/tiny/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../assets/tiny/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../assets/tiny/tokenizer_config.json")),
];

/// A model folder with its tokenizer.
pub struct Base {
    /// Configuration, weights and companions.
    pub dir: ModelDir,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
}

impl Base {
    /// The model that a command names, with its own tokenizer or that of another folder.
    pub fn open(source: &ModelSource, tokenizer: Option<&Path>) -> Result<Self> {
        let dir = open_dir(source)?;
        let tokenizer = tokenizer.map_or_else(|| dir.tokenizer(), |folder| TextTokenizer::open(folder, dir.config()))?;
        Ok(Self { dir, tokenizer })
    }

    /// The weights on a backend.
    pub fn load_on(&self, kernels: &dyn Kernels) -> Result<Llama> {
        load_on(&self.dir, kernels)
    }

    /// The weights on a backend for training: beside those that move and would be rounded there, their exact values.
    pub fn load_for(&self, mode: TrainMode, kernels: &dyn Kernels) -> Result<Llama> {
        let is_exact = |view: &TensorView| !kernels.rounds() || view.storage == Storage::Bf16;
        load(&self.dir, kernels, |view| mode.moves(view.name) && !is_exact(view))
    }
}

/// A folder's weights on a backend.
pub fn load_on(dir: &ModelDir, kernels: &dyn Kernels) -> Result<Llama> {
    load(dir, kernels, |_| false)
}

/// A folder's weights on a backend, some with their exact values. The host never holds more than one that goes to a device.
fn load(dir: &ModelDir, kernels: &dyn Kernels, exact: impl Fn(&TensorView) -> bool) -> Result<Llama> {
    let mut masters = Vec::new();
    let placed = dir.load_with(|view| match (kernels.rounds(), exact(&view)) {
        (false, _) => view.to_tensor(),
        (true, false) => kernels.place(&view.to_tensor_as_stored()?),
        (true, true) => {
            let value = view.to_tensor()?;
            masters.push((view.name.to_owned(), kernels.place_exact(&value)?));
            kernels.place(&value)
        }
    })?;
    let mut model = Llama::new(dir.config().clone(), placed)?;
    for (name, master) in masters {
        let id = model.params.id(&name).expect("load: the model has what was read for it");
        model.params.get_mut(id).master = Some(master);
    }
    Ok(model)
}

/// A model's folder.
pub fn open_dir(source: &ModelSource) -> Result<ModelDir> {
    match source {
        ModelSource::Builtin => ModelDir::from_embedded("builtin:tiny", TINY),
        ModelSource::Folder(folder) => ModelDir::open(folder),
    }
}

/// A model that is written and not computed with, perhaps with an adapter: nothing of the base is in memory but the tensor
/// that is being written.
pub struct OnDisk {
    /// Where the weights, the configuration and the tokenizer come from.
    pub base: ModelDir,
    model: Llama,
    brought: HashSet<ParamId>,
}

impl OnDisk {
    /// A model's folder and an adapter's.
    pub fn open(source: &ModelSource, adapter: Option<&Path>) -> Result<Self> {
        let base = open_dir(source)?;
        base.check_tying()?;
        let outline = Device::new(Meta::default(), u64::MAX);
        let mut model = Llama::outline(base.config().clone(), |shape| outline.reserve(shape))?;
        let brought = adapter.map_or_else(|| Ok(HashSet::new()), |adapter| adapt(&mut model, &base, adapter))?;
        Ok(Self { base, model, brought })
    }

    /// The configuration, which an adapter may change.
    pub fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// All tensors in the order of [`expected_tensors`](crate::model::llama::expected_tensors), the adapter multiplied in.
    pub fn tensors(&self) -> impl Iterator<Item = Result<(String, Tensor)>> {
        let params = &self.model.params;
        self.model.merged(|id| (!self.brought.contains(&id)).then(|| self.base.view(&params.get(id).name)?.to_tensor()))
    }
}

/// What is known of a run's base before the run has a folder.
pub struct Found {
    /// Nothing yet with `--init`.
    dir: Option<ModelDir>,
    /// Shape and constants.
    pub config: ModelConfig,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
}

impl Found {
    /// Finds and checks model and tokenizer.
    pub fn of_run(run: &RunConfig) -> Result<Self> {
        let (dir, config) = match &run.model.init {
            Some(json) => (None, hf_config::read_config(json)?),
            None => {
                let dir = open_dir(&run.model.source)?;
                let config = dir.config().clone();
                (Some(dir), config)
            }
        };
        let tokenizer = match (&run.model.tokenizer, &dir) {
            (Some(folder), _) => TextTokenizer::open(folder, &config)?,
            (None, Some(dir)) => dir.tokenizer()?,
            (None, None) => unreachable!("config: --init comes with --tokenizer"),
        };
        Ok(Self { dir, config, tokenizer })
    }

    /// The base. With `--init`, random weights are written to `run/init` once and read from there, so that they are a model
    /// like any other.
    pub fn base(self, config: &RunConfig, run: &Path) -> Result<Base> {
        let dir = match (self.dir, &config.model.init) {
            (Some(dir), _) => dir,
            (None, None) => unreachable!("of_run: only --init has no folder"),
            (None, Some(json)) => {
                let init = run.join("init");
                if !init.exists() {
                    write_random(&init, json, config)?;
                }
                ModelDir::open(&init)?
            }
        };
        let dir = match &config.model.tokenizer {
            Some(folder) => dir.with_tokenizer(folder)?,
            None => dir,
        };
        let dir = match &config.data.chat_template {
            Some(file) => dir.with_chat_template(file)?,
            None => dir,
        };
        Ok(Base { dir, tokenizer: self.tokenizer })
    }
}

fn write_random(init: &Path, json: &Path, config: &RunConfig) -> Result<()> {
    let text = std::fs::read(json).context("read", json)?;
    let raw = serde_json::from_slice(&text).map_err(std::io::Error::from).context("parse", json)?;
    let model = Llama::init(hf_config::parse_config(json, &raw)?, config.train.seed)?;
    write_dir_atomically(init, Existing::Refuse, |tmp| {
        std::fs::write(tmp.join("config.json"), &text).context("write", tmp)?;
        if let Some(folder) = &config.model.tokenizer {
            for name in ["tokenizer.json", "tokenizer_config.json"] {
                let from = folder.join(name);
                if from.exists() {
                    std::fs::copy(&from, tmp.join(name)).context("copy", &from)?;
                }
            }
        }
        let tensors = model.params.iter().map(|p| (p.name.as_str(), &p.value));
        write_safetensors(&tmp.join("model.safetensors"), Storage::F32, tensors)
    })
}

/// Puts a PEFT adapter on a model of `base`'s; returns what it brought, which is on the host.
pub fn adapt(model: &mut Llama, base: &ModelDir, dir: &Path) -> Result<HashSet<ParamId>> {
    let Adapter { config, tensors } = read_adapter(dir)?;
    let foreign = |what: String| ModelError::OtherBase { path: dir.to_path_buf(), what };
    let targets =
        config.target_modules.iter().map(|m| m.parse::<LoraTarget>().map_err(foreign)).collect::<std::result::Result<_, _>>()?;
    let lora = LoraConfig { rank: config.r, alpha: config.lora_alpha as f32, rslora: config.use_rslora, targets };
    prepare(model, TrainMode::Lora, Some(&lora), 0)?;
    let mut brought = HashSet::new();
    let embedding = || base.view(EMBEDDING)?.to_tensor();
    for (name, tensor) in checkpoint::untied(dir, tensors, &model.config, embedding)? {
        let ours = name.strip_prefix("base_model.model.").unwrap_or(&name);
        let id = model.params.id(ours).ok_or_else(|| foreign(format!("the base model has no {ours}")))?;
        let param = model.params.get_mut(id);
        if param.value.shape() != tensor.shape() {
            return Err(foreign(format!("{ours} is {}, the base model's is {}", tensor.shape(), param.value.shape())).into());
        }
        param.value = tensor;
        brought.insert(id);
    }
    // The adapter was trained under this rotation; without it the result is noise.
    let patched = dir.join("base_config/config.json");
    if patched.exists() {
        let config = hf_config::read_config(&patched)?;
        (model.config.rope, model.config.context) = (config.rope, config.context);
    }
    Ok(brought)
}

impl Encode for TextTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        TextTokenizer::encode(self, text)
    }

    fn bos(&self) -> Option<u32> {
        TextTokenizer::bos(self)
    }

    fn eos(&self) -> Option<u32> {
        TextTokenizer::eos(self)
    }

    fn identity(&self) -> String {
        self.hash().to_hex().to_string()
    }
}
