//! Text that was tokenised once and stays so: a memory-mapped cache keyed by everything that decides its content.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;

use crate::data::encode::{Encode, MASKED, Specials};
use crate::data::error::DataError;
use crate::data::format::{Example, Format};
use crate::data::skip::{SkipReason, SkipReport};
use crate::data::source::{Document, Reading, Sources};
use crate::data::token_file::{Entry, Opened, TokenFile, TokenWriter, VERSION};
use crate::error::{Error, IoContext, Result};

/// Text that is tokenised in one go: enough to keep every core busy, little enough to hold several times over.
const CHUNK_BYTES: u64 = 16 << 20;

/// How far tokenisation has come, in bytes of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Read and tokenised.
    pub bytes_done: u64,
    /// All there is.
    pub bytes_total: u64,
}

/// Where the tokens came from, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheUse {
    /// Built in memory; nothing is on disk.
    InMemory,
    /// Read from an earlier run's file.
    Hit(PathBuf),
    /// Tokenised now, because there was no file.
    Built(PathBuf),
    /// Tokenised now, because the file could not be used.
    Rebuilt {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        why: &'static str,
    },
}

/// How to tokenise, and where to keep the result.
#[derive(Debug, Clone)]
pub struct CorpusOptions {
    /// How JSON rows are read.
    pub reading: Reading,
    /// Tokens around every document of text; conversations have those of their template.
    pub specials: Specials,
    /// Folders for the cache; the first that can be written to is used.
    pub cache: Vec<PathBuf>,
}

#[derive(Debug)]
enum Storage {
    Memory { tokens: Vec<u32>, table: Vec<Entry> },
    Mapped(TokenFile),
}

/// What a corpus knows of its files; the JSON of the cache.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
struct Meta {
    skipped: SkipReport,
    formats: BTreeSet<Format>,
}

/// Tokenised documents, in the order of the files.
#[derive(Debug)]
pub struct Corpus {
    storage: Storage,
    specials: Specials,
    longest: usize,
    /// Documents left out, and why.
    pub skipped: SkipReport,
    /// Formats of the files: all conversations or all text.
    pub formats: BTreeSet<Format>,
    /// Where the tokens came from.
    pub cache: CacheUse,
}

impl Corpus {
    /// Reads the corpus from the cache, or tokenises it and writes the cache.
    ///
    /// # Errors
    /// Whatever is wrong with the files, [`DataError::Empty`] when they hold no text, and the tokenizer's own errors.
    pub fn open(sources: &Sources, encode: &dyn Encode, options: &CorpusOptions, progress: &dyn Fn(Progress)) -> Result<Self> {
        let hash = sources.hash()?;
        let name = format!("{}.tokens", key(hash, encode, options));
        let mut damage = None;
        for path in options.cache.iter().map(|folder| folder.join(&name)) {
            match TokenFile::open(&path)? {
                Opened::Missing => {}
                Opened::Damaged(why) => damage = damage.or(Some(why)),
                Opened::Good(file) => match serde_json::from_slice(file.meta()) {
                    Ok(meta) => {
                        let storage = Storage::Mapped(file);
                        return Ok(Self::new(storage, options.specials, meta, CacheUse::Hit(path)));
                    }
                    Err(_) => damage = damage.or(Some("damaged list of skipped documents")),
                },
            }
        }
        let (path, writer) = create(&options.cache, &name)?;
        let mut builder = Builder {
            encode,
            specials: options.specials,
            writer,
            skipped: SkipReport::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            progress,
            at: Progress { bytes_done: 0, bytes_total: sources.bytes() },
        };
        let pass = sources.read(&options.reading, &mut |doc| builder.add(doc))?;
        builder.flush()?;
        // Blank documents never reached the builder.
        builder.at.bytes_done = builder.at.bytes_total;
        progress(builder.at);
        if pass.hash != hash {
            return Err(DataError::Changed.into());
        }
        let mut skipped = pass.skipped;
        skipped.merge(&builder.skipped);
        if builder.writer.docs() == 0 {
            let files = sources.files().len();
            return Err(DataError::Empty { files, skipped }.into());
        }
        let meta = Meta { skipped, formats: pass.formats };
        let json = serde_json::to_vec(&meta).expect("meta: names and counts");
        builder.writer.finish(&path, &json)?;
        let Opened::Good(file) = TokenFile::open(&path)? else {
            return Err(DataError::Cache { path }.into());
        };
        let cache = match damage {
            Some(why) => CacheUse::Rebuilt { path, why },
            None => CacheUse::Built(path),
        };
        let storage = Storage::Mapped(file);
        Ok(Self::new(storage, options.specials, meta, cache))
    }

    /// Tokenises texts that are in memory already, and keeps them there.
    ///
    /// # Errors
    /// [`DataError::Empty`] and the tokenizer's own errors.
    pub fn from_texts(texts: &[&str], encode: &dyn Encode, specials: Specials) -> Result<Self> {
        let mut skipped = SkipReport::default();
        let (mut tokens, mut table) = (Vec::new(), Vec::new());
        let encoded: Vec<_> = texts.par_iter().map(|text| text_tokens(text, encode, specials)).collect::<Result<_>>()?;
        for (text, doc) in texts.iter().zip(encoded) {
            match doc {
                _ if text.trim().is_empty() => skipped.add(SkipReason::Empty),
                Err(reason) => skipped.add(reason),
                Ok((ids, hash)) => {
                    tokens.extend(ids);
                    table.push([tokens.len() as u64, hash]);
                }
            }
        }
        if table.is_empty() {
            return Err(DataError::Empty { files: 0, skipped }.into());
        }
        let storage = Storage::Memory { tokens, table };
        let meta = Meta { skipped, formats: BTreeSet::from([Format::Text]) };
        Ok(Self::new(storage, specials, meta, CacheUse::InMemory))
    }

    fn new(storage: Storage, specials: Specials, Meta { skipped, formats }: Meta, cache: CacheUse) -> Self {
        let mut corpus = Self { storage, specials, longest: 0, skipped, formats, cache };
        let lengths = (0..corpus.docs()).map(|i| corpus.doc(i).len());
        corpus.longest = lengths.max().unwrap_or(0);
        corpus
    }

    fn all_tokens(&self) -> &[u32] {
        match &self.storage {
            Storage::Memory { tokens, .. } => tokens,
            Storage::Mapped(file) => file.tokens(),
        }
    }

    fn table(&self) -> &[Entry] {
        match &self.storage {
            Storage::Memory { table, .. } => table,
            Storage::Mapped(file) => file.table(),
        }
    }

    /// The tokens of document `i`, special tokens included; [`MASKED`] is set in those that are not predicted.
    pub fn doc(&self, i: usize) -> &[u32] {
        let table = self.table();
        let start = if i == 0 { 0 } else { table[i - 1][0] };
        &self.all_tokens()[start as usize..table[i][0] as usize]
    }

    /// Hash of the text of document `i`, or of its messages and tools; equal documents have equal hashes.
    pub fn doc_hash(&self, i: usize) -> u64 {
        self.table()[i][1]
    }

    /// Number of documents; at least one.
    pub fn docs(&self) -> usize {
        self.table().len()
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.all_tokens().len()
    }

    /// Tokens of the longest document.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether the documents are conversations, which stay whole.
    pub fn conversations(&self) -> bool {
        !self.formats.contains(&Format::Text)
    }

    /// Tokens that are predicted where the whole of their document is seen: all that are not masked but first ones.
    pub fn targets(&self) -> usize {
        (0..self.docs()).map(|i| targets(self.doc(i))).sum()
    }

    /// The tokens around every document.
    pub fn specials(&self) -> Specials {
        self.specials
    }
}

/// Everything that decides the content of the cache.
fn key(content: blake3::Hash, encode: &dyn Encode, options: &CorpusOptions) -> blake3::Hash {
    let mut hash = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&VERSION.to_le_bytes());
    part(content.as_bytes());
    part(encode.identity().as_bytes());
    part(options.reading.columns.text.as_bytes());
    part(options.reading.format.to_string().as_bytes());
    part(format!("{:?}", options.specials).as_bytes());
    hash.finalize()
}

/// Begins the cache file in the first folder that takes it.
fn create(folders: &[PathBuf], name: &str) -> Result<(PathBuf, TokenWriter)> {
    let mut refusal = None;
    for folder in folders {
        let path = folder.join(name);
        let made = fs::create_dir_all(folder).context("create", folder);
        match made.and_then(|()| TokenWriter::create(&path)) {
            Ok(writer) => return Ok((path, writer)),
            Err(e) => refusal = refusal.or(Some(e)),
        }
    }
    Err(match refusal.expect("corpus: at least one cache folder") {
        Error::Io(source) => DataError::NoCache(source).into(),
        other => other,
    })
}

/// Tokens of a document that are predicted.
pub(super) fn targets(document: &[u32]) -> usize {
    document.iter().skip(1).filter(|&id| id & MASKED == 0).count()
}

/// Ids and hash of a document, or why it has none.
pub(crate) type Tokens = std::result::Result<(Vec<u32>, u64), SkipReason>;

fn short_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("blake3: 32 bytes"))
}

/// Ids, with special tokens, and hash of one text.
fn text_tokens(text: &str, encode: &dyn Encode, specials: Specials) -> Result<Tokens> {
    let ids = encode.encode(text)?;
    if ids.is_empty() {
        return Ok(Err(SkipReason::NoTokens));
    }
    let ids = specials.bos.into_iter().chain(ids).chain(specials.eos);
    Ok(Ok((ids.collect(), short_hash(text.as_bytes()))))
}

/// Ids and hash of one document.
pub(crate) fn tokens(document: &Document, encode: &dyn Encode, specials: Specials) -> Result<Tokens> {
    let conversation = match &document.example {
        Example::Text(text) => return text_tokens(text, encode, specials),
        Example::Chat(conversation) => conversation,
    };
    let ids = encode.conversation(conversation).map_err(|error| DataError::Conversation {
        path: document.path.to_path_buf(),
        row: document.row,
        error,
    })?;
    // Which side of the split it is on must not depend on the template or on what is learned.
    let said = serde_json::json!([conversation.messages, conversation.tools]);
    let hash = short_hash(said.to_string().as_bytes());
    Ok(if targets(&ids) == 0 { Err(SkipReason::NoAnswer) } else { Ok((ids, hash)) })
}

struct Builder<'a> {
    encode: &'a dyn Encode,
    specials: Specials,
    writer: TokenWriter,
    skipped: SkipReport,
    waiting: Vec<Document>,
    waiting_bytes: u64,
    progress: &'a dyn Fn(Progress),
    at: Progress,
}

impl Builder<'_> {
    fn add(&mut self, doc: Document) -> Result<()> {
        self.waiting_bytes += doc.bytes;
        self.waiting.push(doc);
        if self.waiting_bytes >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Tokenises what is waiting, documents in parallel, each one whole: a cut inside a document could change its ids.
    fn flush(&mut self) -> Result<()> {
        let (encode, specials) = (self.encode, self.specials);
        let encoded: Vec<_> = self.waiting.par_iter().map(|doc| tokens(doc, encode, specials)).collect::<Result<_>>()?;
        for doc in encoded {
            match doc {
                Ok((ids, hash)) => self.writer.push(&ids, hash)?,
                Err(reason) => self.skipped.add(reason),
            }
        }
        self.at.bytes_done += self.waiting_bytes;
        self.waiting.clear();
        self.waiting_bytes = 0;
        (self.progress)(self.at);
        Ok(())
    }
}
