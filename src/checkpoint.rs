//! Checkpoints: atomic directories that a killed run continues from.
//!
//! `checkpoint-N/` is a model folder (full training) or a PEFT adapter (LoRA) in f32, loadable by itself, with the
//! optimiser's moments, the counters of the run, and `COMPLETE`: names, sizes and hashes of all of it, written last. Data
//! order, positions and initial weights are functions of the seed and the step, so nothing else needs saving.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::backend::Kernels;
use crate::error::{Explain, Explanation, IoContext, Result};
use crate::io::atomic::{Existing, write_dir_atomically};
use crate::io::model_dir::{EMBEDDING, LM_HEAD};
use crate::io::peft::{AdapterConfig, read_adapter, saved_name, write_adapter};
use crate::io::safetensors::write_safetensors;
use crate::io::{Export, ModelDir, ModelError, SafetensorsFile, Storage, fill_model_dir};
use crate::model::ModelConfig;
use crate::tensor::Tensor;
use crate::train::State;

const COMPLETE: &str = "COMPLETE";
const OPTIMIZER: &str = "optimizer.safetensors";
const COUNTERS: &str = "state.json";
const PREFIX: &str = "checkpoint-";

/// A checkpoint that cannot be written, read or continued.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder's run had other settings.
    #[error("{run:?} was started with a different configuration")]
    Mismatch {
        /// The run's folder.
        run: PathBuf,
        /// Setting, value then, value now.
        differences: Vec<(String, String, String)>,
    },
    /// No checkpoint to continue from where one was named.
    #[error("{path:?} holds no complete checkpoint")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Folders that looked like one, and why they are not.
        rejected: Vec<String>,
    },
    /// A checkpoint whose parts do not fit the model.
    #[error("{path:?} does not belong to this run: {what}")]
    Foreign {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The output folder belongs to somebody else.
    #[error("{path:?} is not empty and holds no run of ltrain")]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the folder.
    #[error("another ltrain is working in {path:?}")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Not enough room for what the run will write.
    #[error("the disk has not enough room for this run's checkpoints: needs {needed}, has {free}")]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Bytes needed, as people read them.
        needed: String,
        /// Bytes free.
        free: String,
    },
}

impl Explain for CheckpointError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Mismatch { run, differences } => {
                let width = |f: fn(&(String, String, String)) -> &str, title: &str| {
                    differences.iter().map(|d| f(d).chars().count()).max().unwrap_or(0).max(title.len())
                };
                let (a, b) = (width(|d| &d.0, "setting"), width(|d| &d.1, "then"));
                let row = |d: [&str; 3]| format!("  {:a$}  {:b$}  {}", d[0], d[1], d[2]);
                let mut e = Explanation::new("E901").fact(row(["setting", "then", "now"]));
                for (key, then, now) in differences {
                    e = e.fact(row([key, then, now]));
                }
                e.help(format!(
                    "use the old values ({}), or start anew with --out NEW or --overwrite",
                    run.join("ltrain.toml").display()
                ))
            }
            Self::Missing { rejected, .. } => {
                let e = Explanation::new("E902").help("point --resume to a run folder or to one of its checkpoint-N folders");
                rejected.iter().fold(e, |e, r| e.fact(r.clone()))
            }
            Self::Foreign { .. } => Explanation::new("E903").help("start anew with --out NEW or --overwrite"),
            Self::Occupied { .. } => Explanation::new("E703").help("choose another --out, or empty the folder"),
            Self::Locked { .. } => Explanation::new("E704").help("wait for it to end, or choose another --out"),
            Self::NoRoom { path, .. } => Explanation::new("E701")
                .fact(format!("on the disk of {}", path.display()))
                .help("free some space, lower --keep, or choose another --out"),
        }
    }
}

/// The counters of a run, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counters {
    step: u64,
    skipped: u64,
    optimizer_step: u64,
    seconds: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    size: u64,
    blake3: String,
}

/// What a checkpoint needs besides the state.
pub struct Context<'a> {
    /// The base model, for its configuration and tokenizer files.
    pub base: &'a ModelDir,
    /// Configuration of the extended model.
    pub config: &'a ModelConfig,
    /// The base model's name or path, for the adapter.
    pub base_name: &'a str,
    /// Seconds of training so far, over all sessions.
    pub seconds: f64,
}

/// Name of the checkpoint after `step` steps.
pub fn folder_name(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// Writes `run/checkpoint-N` and deletes the oldest beyond `keep`.
pub fn save(run: &Path, state: &State, context: &Context, keep: usize) -> Result<PathBuf> {
    let path = run.join(folder_name(state.step));
    write_dir_atomically(&path, Existing::Replace, |tmp| {
        write_weights(tmp, state, context)?;
        let names: Vec<(String, &Tensor)> = state
            .optimizer
            .moments()
            .flat_map(|(id, [m, v])| {
                let name = &state.model.params.get(id).name;
                [(format!("{name}.exp_avg"), m), (format!("{name}.exp_avg_sq"), v)]
            })
            .collect();
        write_safetensors(&tmp.join(OPTIMIZER), Storage::F32, names.iter().map(|(n, t)| (n.as_str(), *t)))?;
        let counters = Counters {
            step: state.step,
            skipped: state.skipped,
            optimizer_step: state.optimizer.step_count(),
            seconds: context.seconds,
        };
        write_json(&tmp.join(COUNTERS), &counters)?;
        write_json(&tmp.join(COMPLETE), &manifest(tmp)?)
    })?;
    // Later ones are damaged or belong to a future that will happen again; they must not push out this one.
    let so_far = list(run)?.into_iter().rev().filter(|(step, _)| *step <= state.step);
    for (_, old) in so_far.skip(keep.max(1)) {
        fs::remove_dir_all(&old).context("remove", &old)?;
    }
    Ok(path)
}

fn write_weights(tmp: &Path, state: &State, context: &Context) -> Result<()> {
    let export = Export {
        base: context.base,
        config: context.config,
        storage: Storage::F32,
        existing: Existing::Replace,
        shard_limit: u64::MAX,
    };
    match state.model.lora() {
        None => fill_model_dir(tmp, &export, state.model.params.iter().map(|p| Ok((p.name.clone(), p.exact().clone())))),
        Some(_) => write_adapter_of(tmp, state, context, Storage::F32),
    }
}

/// The adapter of a model that has one, with its trained embeddings and norms, in PEFT's format.
pub fn write_adapter_of(dir: &Path, state: &State, context: &Context, storage: Storage) -> Result<()> {
    let lora = state.model.lora().expect("adapter: the model was prepared with adapters");
    let mut config = AdapterConfig::of(lora, &state.model.params, context.base_name);
    let mut tensors: Vec<(String, &Tensor)> =
        state.model.params.iter().filter(|p| p.trainable).map(|p| (saved_name(&p.name), p.exact())).collect();
    // PEFT replaces the embedding alone; a tied output projection would stay the base's unless it is replaced too.
    let embedding =
        state.model.params.id(EMBEDDING).map(|id| state.model.params.get(id)).filter(|p| p.trainable && context.config.tied);
    if let Some(embedding) = embedding {
        config.modules_to_save.push("lm_head".into());
        tensors.push((saved_name(LM_HEAD), embedding.exact()));
    }
    let extended = crate::io::hf_config::extended_config(context.base.raw(), context.config);
    write_adapter(dir, &config, storage, tensors.iter().map(|(n, t)| (n.as_str(), *t)), &extended)
}

/// An adapter's tensors without the copy of the embedding that stands for a tied output projection. `embedding` is the base's,
/// which counts when the adapter has none.
///
/// # Errors
/// [`ModelError::AdapterHead`] when it is no copy: a tied model has no place for another matrix.
pub fn untied(
    path: &Path,
    mut tensors: Vec<(String, Tensor)>,
    model: &ModelConfig,
    embedding: impl FnOnce() -> Result<Tensor>,
) -> Result<Vec<(String, Tensor)>> {
    let place = |tensors: &[(String, Tensor)], name| tensors.iter().position(|(n, _)| *n == saved_name(name));
    let Some(head) = place(&tensors, LM_HEAD).filter(|_| model.tied) else { return Ok(tensors) };
    let (_, head) = tensors.remove(head);
    let copy = match place(&tensors, EMBEDDING) {
        Some(saved) => tensors[saved].1 == head,
        None => embedding()? == head,
    };
    if copy { Ok(tensors) } else { Err(ModelError::AdapterHead { path: path.to_path_buf() }.into()) }
}

/// The newest complete checkpoint of a run, and remarks on those that are not. `from` is the run's folder, or one of its
/// checkpoints.
pub fn newest(from: &Path) -> Result<(Option<PathBuf>, Vec<String>)> {
    let mut rejected = Vec::new();
    let candidates = match from.join(COMPLETE).exists() {
        true => vec![(0, from.to_path_buf())],
        false => list(from)?,
    };
    for (_, path) in candidates.into_iter().rev() {
        match verify(&path) {
            Ok(()) => return Ok((Some(path), rejected)),
            Err(why) => rejected.push(format!("{}: {why}", path.display())),
        }
    }
    Ok((None, rejected))
}

/// Steps that a checkpoint's training has done.
pub fn step_of(checkpoint: &Path) -> Result<u64> {
    Ok(counters(checkpoint)?.step)
}

fn counters(checkpoint: &Path) -> Result<Counters> {
    let path = checkpoint.join(COUNTERS);
    let text = fs::read_to_string(&path).context("read", &path)?;
    let foreign = |e| CheckpointError::Foreign { path: checkpoint.to_path_buf(), what: format!("{COUNTERS}: {e}") };
    Ok(serde_json::from_str(&text).map_err(foreign)?)
}

/// Puts the checkpoint's tensors and counters into a freshly prepared state on a backend; returns the seconds of training so far.
pub fn restore(path: &Path, state: &mut State, kernels: &dyn Kernels) -> Result<f64> {
    let foreign = |what: String| CheckpointError::Foreign { path: path.to_path_buf(), what };
    let counters = counters(path)?;
    let (mut used, mut given) = (0, 0);
    let has_adapters = state.model.lora().is_some();
    let (params, config) = (&mut state.model.params, &state.model.config);
    let mut put = |name: &str, tensor: &Tensor| -> Result<()> {
        let ours = name.strip_prefix("base_model.model.").unwrap_or(name);
        let id = params.id(ours).ok_or_else(|| foreign(format!("tensor {ours}")))?;
        let param = params.get_mut(id);
        if param.value.shape() != tensor.shape() {
            return Err(foreign(format!("{ours} is {}, the model's is {}", tensor.shape(), param.value.shape())).into());
        }
        (used, given) = (used + usize::from(param.trainable), given + 1);
        param.set(kernels, tensor)
    };
    match has_adapters {
        false => drop(ModelDir::open(path)?.load_with(|view| put(view.name, &view.to_tensor()?))?),
        true => {
            // Adapters are saved with the embedding that a copy stands for.
            let none = || Err(foreign(format!("{LM_HEAD} without {EMBEDDING}")).into());
            let tensors = untied(path, read_adapter(path)?.tensors, config, none)?;
            tensors.iter().try_for_each(|(name, tensor)| put(name, tensor))?;
        }
    }
    let wanted = state.model.params.iter().filter(|p| p.trainable).count();
    if used != wanted || used != given {
        return Err(foreign(format!("{wanted} trained tensors expected, {used} of {given} found")).into());
    }
    let file = SafetensorsFile::open(&path.join(OPTIMIZER))?;
    let params = &state.model.params;
    state.optimizer.restore(counters.optimizer_step, |id, [m, v]| {
        let name = &params.get(id).name;
        *m = kernels.place_exact(&file.view(&format!("{name}.exp_avg"))?.to_tensor()?)?;
        *v = kernels.place_exact(&file.view(&format!("{name}.exp_avg_sq"))?.to_tensor()?)?;
        Ok(())
    })?;
    (state.step, state.skipped) = (counters.step, counters.skipped);
    Ok(counters.seconds)
}

/// Checkpoint folders by step, oldest first.
fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run).context("read", run)? {
        let path = entry.context("read", run)?.path();
        let step = path.file_name().and_then(|n| n.to_str()?.strip_prefix(PREFIX)?.parse().ok());
        found.extend(step.map(|step| (step, path)));
    }
    found.sort();
    Ok(found)
}

fn files_of(dir: &Path, below: &str, out: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(dir).context("read", dir)? {
        let path = entry.context("read", dir)?.path();
        let name = format!("{below}{}", path.file_name().unwrap_or_default().to_string_lossy());
        match path.is_dir() {
            true => files_of(&path, &format!("{name}/"), out)?,
            false => out.push((name, path)),
        }
    }
    Ok(())
}

fn manifest(dir: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    files_of(dir, "", &mut files)?;
    files.sort();
    files
        .into_iter()
        .filter(|(name, _)| name != COMPLETE)
        .map(|(name, path)| {
            let mut hasher = blake3::Hasher::new();
            let mut file = fs::File::open(&path).context("read", &path)?;
            let size = std::io::copy(&mut file, &mut hasher).context("read", &path)?;
            Ok(Entry { name, size, blake3: hasher.finalize().to_hex().to_string() })
        })
        .collect()
}

fn verify(path: &Path) -> std::result::Result<(), String> {
    let text = fs::read_to_string(path.join(COMPLETE)).map_err(|_| format!("has no {COMPLETE} file"))?;
    let promised: Vec<Entry> = serde_json::from_str(&text).map_err(|e| format!("{COMPLETE}: {e}"))?;
    let found = manifest(path).map_err(|e| e.to_string())?;
    for entry in &promised {
        match found.iter().find(|f| f.name == entry.name) {
            Some(f) if f == entry => {}
            Some(f) if f.size != entry.size => {
                return Err(format!("{} has {} bytes, expected {}", entry.name, f.size, entry.size));
            }
            Some(_) => return Err(format!("{} was changed", entry.name)),
            None => return Err(format!("{} is missing", entry.name)),
        }
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("checkpoint: plain structs serialise");
    fs::write(path, text + "\n").context("write", path)
}
