//! Which text is trained on and which is held back.

use std::ops::Range;
use std::str::FromStr;

use crate::data::corpus::Corpus;
use crate::data::error::DataError;
use crate::error::Result;

/// Never more documents than this are held back by a share.
const MAX_DOCS: usize = 64;
/// A whole document that is more of the corpus than this is too much to hold back unasked.
const MAX_WHOLE: f64 = 0.05;
/// The largest part of a document that becomes its tail, unless a larger share was asked for.
const MAX_TAIL: f64 = 0.1;

/// How much to hold back for validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Holdout {
    /// Nothing.
    None,
    /// This share of the documents, at most 64 of them.
    Share(f64),
    /// This many documents.
    Docs(usize),
}

impl Default for Holdout {
    fn default() -> Self {
        Self::Share(0.01)
    }
}

impl FromStr for Holdout {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let share = |t: &str| t.trim().parse().ok().filter(|p| (0.0..100.0).contains(p));
        match text.trim() {
            "none" | "0" => Some(Self::None),
            t => match t.strip_suffix('%') {
                Some(percent) => share(percent).map(|p: f64| match p {
                    0.0 => Self::None,
                    p => Self::Share(p / 100.0),
                }),
                None => t.parse().ok().map(Self::Docs),
            },
        }
        .ok_or_else(|| format!("expected a number of documents, a share below 100% or none, got {text:?}"))
    }
}

/// So many documents are this share of `different` ones, before there is at least one.
fn of_share(share: f64, different: usize) -> usize {
    (share * different as f64).round() as usize
}

/// Part of a document of the corpus, usually all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocPart {
    /// Number of the document.
    pub doc: usize,
    /// Which of its tokens; never empty.
    pub tokens: Range<usize>,
}

/// Training and validation text; no token is in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Trained on, in the order of the corpus.
    pub train: Vec<DocPart>,
    /// Held back.
    pub val: Vec<DocPart>,
}

impl Split {
    /// Splits by document hash: a document keeps its side when files are renamed or others are added after it, and all
    /// copies of a document are on one side.
    ///
    /// Where a single document is more than 5 % of all tokens, the end of the longest document is held back instead of a
    /// whole one: `min_tail` tokens, so that a long context can be measured, or the share asked for if that is more, but at
    /// most a tenth of the document. Of a handful of tokens nothing is held back. Conversations are held back whole, and
    /// none is where the share is less than half of one and one is more than 5 % of all tokens.
    ///
    /// # Errors
    /// [`DataError::Holdout`] when [`Holdout::Docs`] leaves nothing to train on.
    pub fn new(corpus: &Corpus, holdout: Holdout, min_tail: usize) -> Result<Self> {
        let docs = corpus.docs();
        let mut by_hash: Vec<_> = (0..docs).map(|i| (corpus.doc_hash(i), i)).collect();
        by_hash.sort_unstable();
        let different = by_hash.chunk_by(|a, b| a.0 == b.0).count();
        let (wanted, share) = match holdout {
            Holdout::None | Holdout::Docs(0) => return Ok(Self::whole(corpus, |_| false)),
            Holdout::Docs(n) if n >= different && (different > 1 || corpus.conversations()) => {
                return Err(DataError::Holdout { asked: n, docs: different }.into());
            }
            Holdout::Docs(n) => (n, 0.01),
            Holdout::Share(share) => (of_share(share, different).min(MAX_DOCS).min(different - 1).max(1), share),
        };
        let chosen: Vec<usize> = by_hash.chunk_by(|a, b| a.0 == b.0).take(wanted).flatten().map(|&(_, doc)| doc).collect();
        let held: usize = chosen.iter().map(|&doc| corpus.doc(doc).len()).sum();
        let too_much = held as f64 > MAX_WHOLE.max(share) * corpus.tokens() as f64;
        let asked_by_number = matches!(holdout, Holdout::Docs(_));
        if corpus.conversations() {
            let unasked = matches!(holdout, Holdout::Share(share) if of_share(share, different) == 0);
            if different == 1 || unasked && too_much {
                return Ok(Self::whole(corpus, |_| false));
            }
        } else if different == 1 || (wanted == 1 && too_much && !asked_by_number) {
            return Ok(Self::tail(corpus, share, min_tail));
        }
        let mut held_back = vec![false; docs];
        chosen.into_iter().for_each(|doc| held_back[doc] = true);
        Ok(Self::whole(corpus, |doc| held_back[doc]))
    }

    fn whole(corpus: &Corpus, held_back: impl Fn(usize) -> bool) -> Self {
        let all = (0..corpus.docs()).map(|doc| DocPart { doc, tokens: 0..corpus.doc(doc).len() });
        let (val, train) = all.partition(|part| held_back(part.doc));
        Self { train, val }
    }

    /// Holds back the end of the longest document. Copies of it are left out: they would give the end away.
    fn tail(corpus: &Corpus, share: f64, min_tail: usize) -> Self {
        let longest = (0..corpus.docs()).rev().max_by_key(|&doc| corpus.doc(doc).len());
        let Some(longest) = longest else {
            return Self::whole(corpus, |_| false);
        };
        let len = corpus.doc(longest).len();
        let most = (MAX_TAIL.max(share) * len as f64) as usize;
        let tail = ((share * corpus.tokens() as f64) as usize).max(min_tail).min(most);
        let mut split = Self::whole(corpus, |_| false);
        if tail > 0 {
            let hash = corpus.doc_hash(longest);
            split.train.retain(|part| part.doc == longest || corpus.doc_hash(part.doc) != hash);
            for part in split.train.iter_mut().filter(|part| part.doc == longest) {
                part.tokens.end = len - tail;
            }
            split.val.push(DocPart { doc: longest, tokens: len - tail..len });
        }
        split
    }
}
