//! What can be wrong with a model, tokenizer or adapter folder.

use std::path::{Path, PathBuf};

use super::nearest::nearest;
use super::safetensors::HeaderFault;
use crate::error::{Explain, Explanation};
use crate::tensor::Shape;
use crate::units::format_count;

/// Architectures with what each one needs, as messages list them.
const SUPPORTED: &str = "LlamaForCausalLM, MistralForCausalLM (no sliding window), Qwen2ForCausalLM, Qwen3ForCausalLM";

/// A model, tokenizer or adapter folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages name every field.
pub enum ModelError {
    /// No folder of that name.
    #[error("{}", if *is_file { format!("expected a model folder, got the file {path:?}") } else { format!("no model folder at {path:?}") })]
    MissingFolder { path: PathBuf, is_file: bool },
    /// A folder without `config.json` or `adapter_config.json`.
    #[error("no {file} in {dir:?}")]
    MissingFile { dir: PathBuf, file: &'static str, found: Vec<String> },
    /// A folder without safetensors.
    #[error("no weights in safetensors format in {dir:?}")]
    MissingWeights { dir: PathBuf, found: Vec<String> },
    /// `model.safetensors` next to an index of shards.
    #[error("two sets of weights in {dir:?}")]
    TwoWeights { dir: PathBuf },
    /// JSON that does not parse.
    #[error("{path:?} is not valid JSON: {cause}")]
    Json { path: PathBuf, cause: serde_json::Error },
    /// A field that is missing, of the wrong type, or out of range.
    #[error("{field}: expected {expected}, got {got}")]
    Field { path: PathBuf, field: String, expected: String, got: String },
    /// A model that is not one of ours.
    #[error("this model's architecture is not supported: {arch} (model_type {model_type:?})")]
    Architecture { path: PathBuf, arch: String, model_type: String },
    /// Mistral v0.1 and Qwen with `use_sliding_window`.
    #[error(
        "{arch} with a sliding window of {window} tokens is not supported: its attention never reaches further back than that, so a longer context cannot be trained into it"
    )]
    SlidingWindow { path: PathBuf, arch: &'static str, window: String },
    /// A rotation that is not one of ours.
    #[error("this model's rope type is not supported: {kind}")]
    RopeType { path: PathBuf, kind: String },
    /// A written `config.json` that does not read back as what was meant.
    #[error("{what} would not survive in config.json: wrote {wrote}, read back {read}")]
    RoundTrip { what: &'static str, wrote: String, read: String },
    /// A Git LFS pointer in place of weights.
    #[error("{path:?} is a Git LFS pointer ({bytes} bytes), not the weights")]
    LfsPointer { path: PathBuf, bytes: u64 },
    /// A file that ends early.
    #[error("{path:?} is incomplete")]
    Incomplete { path: PathBuf, part: &'static str, promised: u64, actual: u64 },
    /// A header that contradicts itself or its file.
    #[error("{path:?} is damaged: {fault}")]
    Header { path: PathBuf, fault: HeaderFault },
    /// A number type that weights cannot have here.
    #[error("tensor {tensor:?} is stored as {dtype}; expected F32, F16 or BF16")]
    NumberType { path: PathBuf, tensor: String, dtype: String },
    /// NaN or infinity in weights.
    #[error("tensor {tensor:?} holds {value} (element {index})")]
    NotFinite { path: PathBuf, tensor: String, index: usize, value: f32 },
    /// A value that the file's number type cannot hold.
    #[error("tensor {tensor:?} holds {value} (element {index}), which {storage} cannot store")]
    NotStorable { path: PathBuf, tensor: String, index: usize, value: f32, storage: &'static str },
    /// A shard that the index names and the folder lacks.
    #[error("{shard:?} is missing: the index says it holds {tensors} tensors")]
    MissingShard { index: PathBuf, shard: String, tensors: usize },
    /// A tensor that the index places where it is not.
    #[error("the index places tensor {tensor:?} in {shard:?}, which does not hold it")]
    Index { index: PathBuf, tensor: String, shard: String },
    /// A tensor that the configuration asks for.
    #[error("tensor {tensor:?} is missing")]
    MissingTensor { path: PathBuf, tensor: String, nearest: Option<String>, missing: usize },
    /// A tensor that the configuration has no place for.
    #[error("tensor {tensor:?} has no place in the model that config.json describes")]
    UnexpectedTensor { path: PathBuf, tensor: String, nearest: Option<String> },
    /// A tensor of another shape than the configuration says.
    #[error("tensor {tensor:?}: expected shape {expected}, got {got}")]
    TensorShape { path: PathBuf, tensor: String, expected: Shape, got: Shape },
    /// `tie_word_embeddings: true` and two different matrices.
    #[error(
        "config.json says that lm_head is the embedding (tie_word_embeddings), but {path:?} holds a different lm_head.weight"
    )]
    NotTied { path: PathBuf, index: usize, embedding: f32, head: f32 },
    /// No `tokenizer.json`.
    #[error("no tokenizer found in {dir:?}")]
    MissingTokenizer { dir: PathBuf, found: Vec<String> },
    /// A `tokenizer.json` that the tokenizers library refuses.
    #[error("{path:?} is not a tokenizer: {cause}")]
    Tokenizer { path: PathBuf, cause: Box<dyn std::error::Error + Send + Sync> },
    /// A tokenizer of another model.
    #[error("this tokenizer does not belong to this model: it has token ids up to {largest}, the model {vocab} embeddings")]
    WrongTokenizer { path: PathBuf, largest: u32, vocab: usize },
    /// An adapter feature that is not ours.
    #[error("this adapter is not supported: {field} is {got}; expected {expected}")]
    Adapter { path: PathBuf, field: String, expected: &'static str, got: String },
    /// An output projection of its own on a base that has none.
    #[error("the adapter {path:?} has a trained lm_head, but the base model's lm_head is its embedding (tie_word_embeddings)")]
    AdapterHead { path: PathBuf },
    /// An adapter of another base.
    #[error("the adapter {path:?} does not fit this base model: {what}")]
    OtherBase { path: PathBuf, what: String },
    /// Two models that cannot be mixed.
    #[error("{base:?} and {with:?} cannot be mixed: {field} is {ours} in the first and {theirs} in the second")]
    NotAlike { base: PathBuf, with: PathBuf, field: &'static str, ours: String, theirs: String },
    /// A destination that holds something already.
    #[error("{path:?} exists and is not empty")]
    OutputExists { path: PathBuf },
}

impl ModelError {
    /// [`ModelError::MissingTensor`] with the nearest of `names`.
    pub(crate) fn missing_tensor<'a>(
        path: &Path,
        tensor: &str,
        names: impl IntoIterator<Item = &'a str>,
        missing: usize,
    ) -> Self {
        Self::MissingTensor {
            path: path.to_path_buf(),
            tensor: tensor.to_string(),
            nearest: nearest(tensor, names).map(str::to_string),
            missing,
        }
    }
}

impl Explain for ModelError {
    fn explain(&self) -> Explanation {
        use ModelError::*;
        let from = |code, path: &Path| Explanation::new(code).fact(format!("from: {}", path.display()));
        match self {
            MissingFolder { path, .. } => missing_folder(path),
            MissingFile { dir, file, found } => Explanation::new("E305")
                .fact(format!("looked for: {file} (needed); found instead: {}", list(found)))
                .help(format!("check that {} is the right folder, or fetch it again: hf download ORG/NAME --local-dir {}", dir.display(), dir.display())),
            MissingWeights { dir, found } => missing_weights(dir, found),
            TwoWeights { dir } => Explanation::new("E605")
                .fact("found: model.safetensors and model.safetensors.index.json")
                .help(format!("one of them is left over from an earlier export; remove it from {}", dir.display())),
            Json { .. } => Explanation::new("E307").help("the file is damaged or was edited by hand; fetch it again, or repair that line"),
            Field { path, .. } => from("E307", path).help("correct that line in the file, or fetch the file again"),
            Architecture { path, .. } => from("E302", path)
                .fact(format!("supported: {SUPPORTED}"))
                .help("nothing was loaded. See `ltrain doctor --architectures` for what each one needs."),
            SlidingWindow { path, arch, .. } => sliding_window(from("E302", path), arch),
            RopeType { path, .. } => from("E302", path)
                .fact("supported: default, linear, dynamic, yarn, llama3")
                .help("nothing was loaded. Start from the model this one was extended from, if that is available."),
            RoundTrip { .. } => Explanation::new("E102").help("nothing was written. This is a bug in ltrain; please report it with the command line"),
            LfsPointer { path, .. } => {
                Explanation::new("E601").help(format!("run `git lfs pull` in {}", folder_of(path).display()))
            }
            Incomplete { path, part, promised, actual } => Explanation::new("E601")
                .fact(match *part {
                    "header" => format!("the header needs {} bytes, the file has {} (download stopped early?)", format_count(*promised), format_count(*actual)),
                    _ => format!("header promises {} bytes of {part}, the file has {} (download stopped early?)", format_count(*promised), format_count(*actual)),
                })
                .help(fetch_again(path)),
            Header { path, .. } => Explanation::new("E601").help(fetch_again(path)),
            NumberType { path, .. } => from("E604", path)
                .help("quantised and integer weights cannot be trained on; use the model's 16-bit or 32-bit version"),
            NotFinite { path, .. } => from("E603", path)
                .help("the weights are damaged, by a download or by a diverged training run; fetch or export them again"),
            NotStorable { path, .. } => from("E603", path).help("save in a wider number type: --save-dtype f32, or --dtype f32 of ltrain merge"),
            MissingShard { index, shard, .. } => from("E601", index).help(fetch_again(&index.with_file_name(shard))),
            Index { index, shard, .. } => from("E605", index)
                .help(format!("index and shards come from different downloads; fetch both again\n{}", fetch_again(&index.with_file_name(shard)))),
            MissingTensor { path, tensor, nearest, missing } => missing_tensor(from("E605", path), tensor, nearest, *missing),
            UnexpectedTensor { path, nearest, .. } => {
                let mut e = from("E605", path);
                if let Some(name) = nearest {
                    e = e.fact(format!("nearest expected name: {name:?}"));
                }
                e.help("ignoring it would load another model than was trained. Check that config.json and the weights belong together.")
            }
            TensorShape { path, .. } => from("E605", path).help("config.json and the weights do not belong together; fetch both again from one place"),
            NotTied { index, embedding, head, .. } => Explanation::new("E606")
                .fact(format!("first difference at element {index}: embedding {embedding}, lm_head {head}"))
                .help("which of the two is meant cannot be told. If lm_head was trained, set \"tie_word_embeddings\": false in config.json; if not, remove lm_head.weight from the file."),
            MissingTokenizer { dir, found } => missing_tokenizer(dir, found),
            Tokenizer { .. } => Explanation::new("E301").help("fetch tokenizer.json again, or point to another one: --tokenizer DIR"),
            WrongTokenizer { path, .. } => from("E306", path).help("use the tokenizer that came with the model: --tokenizer DIR"),
            Adapter { path, .. } => from("E308", path).help("merge the adapter into its base with PEFT (merge_and_unload) and start from the merged model"),
            AdapterHead { .. } => Explanation::new("E308")
                .fact("without it the result would be another model than was trained")
                .help("merge it with PEFT (merge_and_unload), set model.config.tie_word_embeddings = False before saving, and start from that model"),
            OtherBase { .. } => Explanation::new("E308").help("give the base model that it was trained on; adapter_config.json may name it as base_model_name_or_path"),
            NotAlike { .. } => Explanation::new("E313")
                .help("element by element, only models of one shape and vocabulary can be mixed: give the model and what was trained from it"),
            OutputExists { .. } => Explanation::new("E703").help("choose another folder with --out DIR, or remove it first"),
        }
    }
}

/// Up to eight names.
fn list(found: &[String]) -> String {
    match found {
        [] => "nothing".to_string(),
        names if names.len() <= 8 => names.join(", "),
        names => format!("{}, and {} more", names[..8].join(", "), names.len() - 8),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn fetch_again(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let dir = folder_of(path).display();
    format!("fetch this one file again:  hf download ORG/NAME {file} --local-dir {dir}")
}

/// Whether `path` could be a model's name on the hub: `org/name`.
fn is_hub_name(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let part =
        |p: &str| !p.is_empty() && !p.starts_with('.') && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    text.split_once('/').is_some_and(|(org, name)| part(org) && part(name))
}

fn missing_folder(path: &Path) -> Explanation {
    let e = Explanation::new("E305");
    if path.is_file() {
        return e.help(format!("give the folder that holds it: {}", folder_of(path).display()));
    }
    if is_hub_name(path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return e
            .fact("it looks like a model's name on the Hugging Face hub; ltrain reads local folders and downloads nothing")
            .help(format!("hf download {} --local-dir ./{name}\nand then give ./{name}", path.display()));
    }
    e.help("check the path; relative paths start at the current directory")
}

fn missing_weights(dir: &Path, found: &[String]) -> Explanation {
    let e = Explanation::new("E309")
        .fact(format!("looked for: model.safetensors or model.safetensors.index.json (needed); found instead: {}", list(found)));
    let dir = dir.display();
    if found.iter().any(|f| f.starts_with("pytorch_model") || f.ends_with(".bin") || f.ends_with(".pth")) {
        return e.help(format!(
            "ltrain does not open pickle files, which can run code. Convert them once with:\npython -c \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{dir}', torch_dtype='auto').save_pretrained('{dir}')\""
        ));
    }
    e.help(format!("fetch the model again: hf download ORG/NAME --local-dir {dir}"))
}

fn sliding_window(e: Explanation, arch: &str) -> Explanation {
    e.fact(format!("supported: {SUPPORTED}")).help(match arch {
        "MistralForCausalLM" => "nothing was loaded. Mistral 7B v0.2 and later attend to everything; use one of those.\nIf this model was trained with full attention, say so in config.json: \"sliding_window\": null",
        _ => "nothing was loaded. If this model was trained with full attention, say so in config.json: \"use_sliding_window\": false",
    })
}

fn missing_tensor(mut e: Explanation, tensor: &str, nearest: &Option<String>, missing: usize) -> Explanation {
    if let Some(name) = nearest {
        e = e.fact(format!("nearest name in the file: {name:?}"));
    }
    if missing > 1 {
        e = e.fact(format!("{missing} tensors are missing in all"));
    }
    if tensor == "lm_head.weight" {
        return e.help("if the output projection is the embedding, set \"tie_word_embeddings\": true in config.json");
    }
    e.help("config.json and the weights do not belong together, or the weights were renamed; fetch both again from one place")
}

fn missing_tokenizer(dir: &Path, found: &[String]) -> Explanation {
    let tokenizers: Vec<String> =
        found.iter().filter(|f| f.contains("token") || f.contains("vocab") || f.contains("merges")).cloned().collect();
    let dir = dir.display();
    Explanation::new("E301")
        .fact(format!("looked for: tokenizer.json (needed); found instead: {}", list(&tokenizers)))
        .help(format!(
            "ltrain reads the fast-tokenizer file only. Write it once with:\npython -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{dir}').save_pretrained('{dir}')\"\nor point to another one: --tokenizer DIR"
        ))
}
