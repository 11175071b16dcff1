//! The one thing the pipeline asks of a tokenizer.

use crate::data::chat::ChatError;
use crate::data::format::Conversation;
use crate::error::Result;

/// Set in a stored token that must not be predicted, such as a prompt's; the rest is its id.
pub const MASKED: u32 = 1 << 31;

/// Text to token ids, for the pipeline's purposes.
pub trait Encode: Sync {
    /// The ids of `text`, with no special tokens added.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
    /// The ids of a conversation, special tokens and all; those that are not to be predicted have [`MASKED`] set.
    fn conversation(&self, conversation: &Conversation) -> std::result::Result<Vec<u32>, ChatError> {
        let _ = conversation;
        Err(ChatError::NoTemplate)
    }
    /// The token that begins a text, if the model has one.
    fn bos(&self) -> Option<u32>;
    /// The token that ends a text, if the model has one.
    fn eos(&self) -> Option<u32>;
    /// Changes whenever [`Encode::encode`] may answer differently, such as a hash of the tokenizer's file.
    fn identity(&self) -> String;
}

/// Ids of `text` where it follows `before`: tokenizers treat the beginning of a text differently.
pub fn encode_after(encode: &dyn Encode, before: &str, text: &str) -> Result<Vec<u32>> {
    let (start, mut all) = (encode.encode(before)?, encode.encode(&format!("{before}{text}"))?);
    let shared = start.iter().zip(&all).take_while(|(a, b)| a == b).count();
    Ok(all.split_off(shared))
}

/// What is put around every document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Specials {
    /// In front of a document, and in front of every piece cut out of its middle.
    pub bos: Option<u32>,
    /// Behind a document. Without it a model never learns to stop.
    pub eos: Option<u32>,
}

impl Specials {
    /// Whatever the tokenizer has.
    pub fn of(encode: &dyn Encode) -> Self {
        Self { bos: encode.bos(), eos: encode.eos() }
    }
}
