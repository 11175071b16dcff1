//! Text to token ids and back, from `tokenizer.json`; what special tokens are for, from `tokenizer_config.json`.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::ModelError;
use super::chat_template::{ChatTemplate, Source};
use super::files::ModelFiles;
use crate::error::Result;
use crate::model::ModelConfig;

/// The vocabulary and how text is cut; what is in no other file.
pub const TOKENIZER: &str = "tokenizer.json";
/// Names of the special tokens and the length limit.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What [`TextTokenizer::decode`] does with tokens such as `</s>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Write them out.
    Keep,
    /// Leave them out.
    Skip,
}

/// A tokenizer that fits a model.
pub struct TextTokenizer {
    inner: Tokenizer,
    hash: blake3::Hash,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    chat: Source,
}

/// A text's tokens and where each stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The bytes of the text that each token stands for; tokens of one character share it.
    pub bytes: Vec<Range<usize>>,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer").field("hash", &self.hash.to_hex().as_str()).finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads the tokenizer of a folder that need not hold a model (`--tokenizer DIR`).
    pub fn open(dir: &Path, model: &ModelConfig) -> Result<Self> {
        Self::load(&ModelFiles::folder(dir)?, model)
    }

    /// Reads a tokenizer and checks that the model has an embedding for every id.
    ///
    /// # Errors    [`ModelError::MissingTokenizer`], [`ModelError::Tokenizer`], [`ModelError::WrongTokenizer`].
    pub fn load(files: &ModelFiles, model: &ModelConfig) -> Result<Self> {
        let path = files.at(TOKENIZER);
        let Some(bytes) = files.read(TOKENIZER)? else {
            return Err(ModelError::MissingTokenizer { dir: files.path().to_path_buf(), found: files.names()? }.into());
        };
        let refused = |cause| ModelError::Tokenizer { path: path.clone(), cause };
        let mut inner = Tokenizer::from_bytes(&bytes).map_err(refused)?;
        // Some files carry the limits of the run that wrote them; here a text is always encoded whole.
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);

        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        if largest as usize >= model.vocab {
            return Err(ModelError::WrongTokenizer { path, largest, vocab: model.vocab }.into());
        }
        let settings = files.json(TOKENIZER_CONFIG)?;
        let special = |key: &str| settings.as_ref().map(|s| token_of(s, key).and_then(|t| inner.token_to_id(t)));
        // The tokenizer's own word counts; Qwen's config.json names a bos that its tokenizer never writes.
        let bos = special("bos_token").unwrap_or(model.bos);
        let eos = special("eos_token").flatten().or(model.eos.first().copied());
        let mut stops = model.eos.clone();
        stops.extend(eos.filter(|id| !model.eos.contains(id)));
        let chat = Source::find(files, settings.as_ref())?;
        Ok(Self { inner, hash: blake3::hash(&bytes), bos, eos, stops, chat })
    }

    /// The template in the file `given`, or else the one beside the tokenizer, if there is one.
    ///
    /// # Errors    An unreadable file, [`TemplateError`](super::TemplateError).
    pub fn chat_template(&self, given: Option<&Path>) -> Result<Option<ChatTemplate>> {
        ChatTemplate::open(&self.chat, given)
    }

    /// Token ids of the whole text, without special tokens around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(Self::failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`TextTokenizer::encode`], and where each token stands.
    pub fn encode_spans(&self, text: &str) -> Result<Spans> {
        let encoding = self.inner.encode(text, false).map_err(Self::failed)?;
        let bytes = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok(Spans { ids: encoding.get_ids().to_vec(), bytes })
    }

    /// Whether a token was added to the vocabulary by name, as `<|eot_id|>` and the like are.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// Text of token ids; ids without a token are left out.
    pub fn decode(&self, ids: &[u32], special: SpecialTokens) -> Result<String> {
        let skip = special == SpecialTokens::Skip;
        Ok(self.inner.decode(ids, skip).map_err(Self::failed)?)
    }

    /// A token by itself, for a reader: its text, or its name in the vocabulary where the text alone would lose something, which is
    /// a SentencePiece token's space (`▁`) or part of a character.
    pub fn piece(&self, id: u32) -> Result<String> {
        let text = self.decode(&[id], SpecialTokens::Keep)?;
        let name = self.inner.id_to_token(id).filter(|name| name.contains('▁') || text.contains(char::REPLACEMENT_CHARACTER));
        Ok(name.unwrap_or(text))
    }

    fn failed(cause: tokenizers::Error) -> ModelError {
        ModelError::Tokenizer { path: TOKENIZER.into(), cause }
    }

    /// The first id that is not the same token in both, and the two tokens.
    pub fn difference(&self, other: &Self) -> Option<(u32, [Option<String>; 2])> {
        if self.hash == other.hash {
            return None;
        }
        let largest = [self, other].into_iter().flat_map(|t| t.inner.get_vocab(true).into_values()).max().unwrap_or(0);
        let both = |id| [self, other].map(|t| t.inner.id_to_token(id));
        (0..=largest).map(|id| (id, both(id))).find(|(_, [ours, theirs])| ours != theirs)
    }

    /// The token a document starts with, if the tokenizer has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token a document ends with.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Tokens that end a generated text.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// blake3 of `tokenizer.json`: part of the key of cached token ids.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }
}

/// `"eos_token": "</s>"` or `"eos_token": {"content": "</s>", …}`.
fn token_of<'a>(settings: &'a Value, key: &str) -> Option<&'a str> {
    let token = settings.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}
