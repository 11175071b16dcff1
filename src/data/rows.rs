//! Documents cut and packed into training rows.
//!
//! Every row has exactly `seq_len` tokens and no padding. A long document is cut into spans, and a span of `L` tokens gives
//! `ceil(L / seq_len)` rows an epoch, each with a fresh plan over the whole span (PoSE picks its chunks from all of it).
//! Short documents share rows, first fit in the order of the corpus; what no document fits is filled with the beginning of
//! the next, whose rest goes on in a later row.
//!
//! Conversations stay whole ([`Packing::Whole`]): first fit again, and what is left of a row is padding, which is a piece of its own:
//! nobody sees it, it sees itself alone, and none of it is predicted.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::corpus::{Corpus, targets};
use crate::data::encode::MASKED;
use crate::data::error::DataError;
use crate::data::skip::{SkipReason, SkipReport};
use crate::data::split::DocPart;
use crate::error::Result;
use crate::rng::{Rng, Stream};

/// Short documents looked at for one that fits what is left of a row. Further ones wait for their turn, which keeps
/// packing linear.
const LOOK_AHEAD: usize = 256;

/// What becomes of documents shorter than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Several share a row, isolated from each other.
    On,
    /// They are left out and counted.
    Off,
    /// No document is cut to fill a row: several share one, isolated from each other, and the rest of it is padded.
    Whole(Long),
}

choices! {
    /// `--long`: what becomes of a conversation that is longer than a row.
    #[derive(Default)]
    Long {
        /// It is left out and counted.
        #[default]
        Skip = "skip",
        /// Its beginning is kept.
        Cut = "cut",
    }
}

/// How rows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowOptions {
    /// Tokens in a row; at least 2.
    pub seq_len: usize,
    /// The most tokens of a document that one row's plan may choose from. A method that keeps text contiguous wants
    /// `seq_len` here, so that its rows tile the document. Less than `seq_len` means `seq_len`.
    pub span: usize,
    /// What becomes of short documents.
    pub packing: Packing,
}

/// A stretch of a document, with a BOS of its own when it does not begin where the document does: position methods rely
/// on the first token being one that can stand at position 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Number of the document; nothing for padding.
    pub doc: Option<usize>,
    /// Which of its tokens.
    pub tokens: Range<usize>,
    /// Stands in front of them.
    pub bos: Option<u32>,
}

impl Piece {
    fn new(doc: usize, tokens: Range<usize>, bos: Option<u32>) -> Self {
        let bos = bos.filter(|_| tokens.start > 0);
        Self { doc: Some(doc), tokens, bos }
    }

    /// These tokens of the same document.
    fn part(&self, tokens: Range<usize>, bos: Option<u32>) -> Self {
        Self { doc: self.doc, ..Self::new(0, tokens, bos) }
    }

    fn padding(len: usize) -> Self {
        Self { doc: None, tokens: 0..len, bos: None }
    }

    /// Tokens, the BOS included.
    pub fn len(&self) -> usize {
        self.lead() + self.tokens.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lead(&self) -> usize {
        usize::from(self.bos.is_some())
    }

    /// Its tokens as they are stored: [`MASKED`] is set in one that is not predicted. Padding is the token that ends a text.
    pub fn text<'a>(&self, corpus: &'a Corpus) -> Cow<'a, [u32]> {
        let Some(doc) = self.doc else {
            return Cow::Owned(vec![corpus.specials().eos.unwrap_or(0) | MASKED; self.tokens.len()]);
        };
        let stored = &corpus.doc(doc)[self.tokens.clone()];
        match self.bos {
            Some(bos) => Cow::Owned(std::iter::once(bos).chain(stored.iter().copied()).collect()),
            None => Cow::Borrowed(stored),
        }
    }

    /// The first `room` tokens (fewer than all), and the rest as a piece of its own.
    fn cut(self, room: usize, bos: Option<u32>) -> (Self, Self) {
        let at = self.tokens.start + room - self.lead();
        let rest = self.part(at..self.tokens.end, bos);
        let first = Self { tokens: self.tokens.start..at, ..self };
        (first, rest)
    }
}

/// One document's share of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What a plan may choose from.
    pub piece: Piece,
    /// How many tokens it chooses.
    pub want: usize,
}

impl Slot {
    fn all_of(piece: Piece) -> Self {
        let want = piece.len();
        Self { piece, want }
    }
}

/// All rows of an epoch.
#[derive(Debug)]
pub struct RowSet {
    corpus: Arc<Corpus>,
    seq_len: usize,
    slots: Vec<Slot>,
    /// End of every row in `slots`.
    ends: Vec<usize>,
    skipped: SkipReport,
    /// The order in use: recomputed at the first row of an epoch, shared by the rest.
    order: Mutex<Option<Order>>,
}

#[derive(Debug, Clone)]
struct Order {
    seed: u64,
    epoch: u64,
    rows: Arc<[u32]>,
}

impl RowSet {
    /// Cuts and packs `parts` of the corpus.
    ///
    /// # Errors
    /// [`DataError::TooShort`] when there is not one full row; [`DataError::NoRow`] when no whole document is kept.
    pub fn new(corpus: Arc<Corpus>, parts: &[DocPart], options: RowOptions) -> Result<Self> {
        let RowOptions { seq_len, span, packing } = options;
        assert!(seq_len >= 2, "rows: a row has at least two tokens, got {seq_len}");
        let bos = corpus.specials().bos;
        let wholes = || parts.iter().map(|p| Piece::new(p.doc, p.tokens.clone(), bos));
        let total = wholes().map(|piece| piece.len()).sum();
        let longest = || wholes().map(|piece| piece.len()).max().unwrap_or(0);
        let too_short = || DataError::TooShort { docs: parts.len(), longest: longest(), total, seq_len, packing };
        if packing == Packing::On && total < seq_len {
            return Err(too_short().into());
        }
        let mut set = Self {
            corpus,
            seq_len,
            slots: Vec::new(),
            ends: Vec::new(),
            skipped: SkipReport::default(),
            order: Mutex::new(None),
        };
        if let Packing::Whole(long) = packing {
            set.pack_whole(wholes(), long);
            return match set.ends.is_empty() {
                true => Err(DataError::NoRow { seq_len, longest: longest(), long, skipped: set.skipped }.into()),
                false => Ok(set),
            };
        }
        let mut short = VecDeque::new();
        for part in wholes() {
            if part.len() < seq_len && packing == Packing::Off {
                set.skipped.add(SkipReason::ShorterThanRow);
                continue;
            }
            for piece in spans(part, span.max(seq_len), seq_len, packing, bos) {
                if piece.len() < seq_len {
                    short.push_back(piece);
                } else {
                    set.add_span(&piece);
                }
            }
        }
        set.pack(short, bos, wholes);
        if set.ends.is_empty() {
            return Err(too_short().into());
        }
        Ok(set)
    }

    fn add_span(&mut self, piece: &Piece) {
        for _ in 0..piece.len().div_ceil(self.seq_len) {
            self.slots.push(Slot { piece: piece.clone(), want: self.seq_len });
            self.ends.push(self.slots.len());
        }
    }

    /// Fills rows with `short` pieces; the last row is completed with the beginning of the corpus.
    fn pack<I: Iterator<Item = Piece>>(&mut self, mut short: VecDeque<Piece>, bos: Option<u32>, wholes: impl Fn() -> I) {
        while !short.is_empty() {
            let mut room = self.seq_len;
            while room > 0 {
                let piece = match first_fit(&mut short, room) {
                    Some(piece) => piece,
                    None => match short.pop_front() {
                        Some(piece) => {
                            let (first, rest) = piece.cut(room, bos);
                            short.push_front(rest);
                            first
                        }
                        None => break,
                    },
                };
                room -= piece.len();
                self.slots.push(Slot::all_of(piece));
            }
            for piece in wholes() {
                if room == 0 {
                    break;
                }
                let piece = if piece.len() > room { piece.cut(room, bos).0 } else { piece };
                room -= piece.len();
                self.slots.push(Slot::all_of(piece));
            }
            assert_eq!(room, 0, "rows: the corpus fills at least one row");
            self.ends.push(self.slots.len());
        }
    }

    /// Fills rows with documents that fit into what is left of one, and with padding where none does.
    fn pack_whole(&mut self, wholes: impl Iterator<Item = Piece>, long: Long) {
        let mut waiting = VecDeque::new();
        for mut piece in wholes {
            if piece.len() > self.seq_len {
                if long == Long::Skip {
                    self.skipped.add(SkipReason::LongerThanRow);
                    continue;
                }
                piece.tokens.end = piece.tokens.start + self.seq_len;
            }
            let doc = piece.doc.expect("rows: a part is a document's");
            if targets(&self.corpus.doc(doc)[piece.tokens.clone()]) == 0 {
                self.skipped.add(SkipReason::NoAnswer);
                continue;
            }
            waiting.push_back(piece);
        }
        while !waiting.is_empty() {
            let mut room = self.seq_len;
            while let Some(piece) = first_fit(&mut waiting, room) {
                room -= piece.len();
                self.slots.push(Slot::all_of(piece));
            }
            if room > 0 {
                self.slots.push(Slot::all_of(Piece::padding(room)));
            }
            self.ends.push(self.slots.len());
        }
    }

    /// Rows in an epoch; at least one.
    pub fn rows_per_epoch(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Tokens in a row.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// The tokens that rows point into.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Documents left out, and why.
    pub fn skipped(&self) -> &SkipReport {
        &self.skipped
    }

    /// What row `i` is made of; the wants add up to [`RowSet::seq_len`].
    pub fn row(&self, i: usize) -> &[Slot] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.slots[start..self.ends[i]]
    }

    /// The row that is trained on as the `i`-th of an epoch: a permutation that depends on seed and epoch alone.
    pub fn order(&self, seed: u64, epoch: u64, i: u64) -> usize {
        let mut known = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let order = match known.take() {
            Some(order) if order.seed == seed && order.epoch == epoch => order,
            _ => {
                let rows = u32::try_from(self.ends.len()).expect("rows: fewer than 2^32");
                let mut rows: Vec<u32> = (0..rows).collect();
                Rng::at(seed, Stream::Order, epoch).shuffle(&mut rows);
                Order { seed, epoch, rows: rows.into() }
            }
        };
        let row = order.rows[i as usize] as usize;
        *known = Some(order);
        row
    }
}

/// Takes out the first piece that fits into `room` tokens.
fn first_fit(pieces: &mut VecDeque<Piece>, room: usize) -> Option<Piece> {
    let fits = pieces.iter().take(LOOK_AHEAD).position(|p| p.len() <= room);
    fits.and_then(|i| pieces.remove(i))
}

/// Cuts a piece into spans that cover it.
///
/// Equal spans where all of them can hold a row; else spans of full length, and what is left at the end is short: it is
/// packed, or, without packing, the last span begins earlier and overlaps the one before.
fn spans(piece: Piece, span: usize, seq_len: usize, packing: Packing, bos: Option<u32>) -> Vec<Piece> {
    if piece.len() <= span {
        return vec![piece];
    }
    let lead = usize::from(bos.is_some());
    // Every span begins with a BOS, the document's own or one put there: the rest is what has to be shared out.
    let Range { start, end } = piece.tokens;
    let first = if start == 0 { lead } else { 0 };
    let text = end - start - first;
    let count = text.div_ceil(span - lead);
    let at = |i: usize| match i {
        0 => start,
        i => start + first + text * i / count,
    };
    if text / count + lead >= seq_len {
        return (0..count).map(|i| piece.part(at(i)..at(i + 1), bos)).collect();
    }
    let mut spans = Vec::with_capacity(count);
    let mut rest = piece.part(start..end, bos);
    while rest.len() > span {
        let (first, next) = rest.cut(span, bos);
        spans.push(first);
        rest = next;
    }
    if rest.len() < seq_len && packing == Packing::Off {
        rest = rest.part(end - (seq_len - lead)..end, bos);
    }
    spans.push(rest);
    spans
}
