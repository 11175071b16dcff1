//! From files to batches: documents, cache, split, rows, positions.

mod batch;
mod corpus;
mod prefetch;
mod rows;
mod source;
mod split;

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ltrain::data::{Corpus, DocPart, Encode, Specials};
use ltrain::error::{Error, Explain, Explanation};
use ltrain::rng::{Rng, Stream};

const BOS: u32 = 256;
const EOS: u32 = 257;

/// One token per byte; counts how many texts it has seen.
#[derive(Default)]
struct Bytes {
    calls: AtomicUsize,
}

impl Encode for Bytes {
    fn encode(&self, text: &str) -> ltrain::Result<Vec<u32>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(text.bytes().map(u32::from).collect())
    }
    fn bos(&self) -> Option<u32> {
        Some(BOS)
    }
    fn eos(&self) -> Option<u32> {
        Some(EOS)
    }
    fn identity(&self) -> String {
        "bytes 1".into()
    }
}

/// A folder with the given files, which may be in sub-folders.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn paths(dir: &tempfile::TempDir, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|n| dir.path().join(n)).collect()
}

/// `n` letters, different for every `seed`.
fn prose(seed: usize, n: usize) -> String {
    let mut rng = Rng::at(seed as u64, Stream::Text, 0);
    (0..n).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

/// Documents of these lengths, counted without special tokens.
fn corpus(specials: Specials, lengths: &[usize]) -> Arc<Corpus> {
    let texts: Vec<_> = lengths.iter().enumerate().map(|(i, &n)| prose(i, n)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    Arc::new(Corpus::from_texts(&texts, &Bytes::default(), specials).unwrap())
}

const BOTH: Specials = Specials { bos: Some(BOS), eos: Some(EOS) };
const NEITHER: Specials = Specials { bos: None, eos: None };

fn whole(corpus: &Corpus) -> Vec<DocPart> {
    (0..corpus.docs()).map(|doc| DocPart { doc, tokens: 0..corpus.doc(doc).len() }).collect()
}

/// Sentence and explanation of an error.
fn told(error: Error) -> (String, Explanation) {
    (error.to_string(), error.explain())
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
