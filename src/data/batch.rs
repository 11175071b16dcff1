//! One micro-batch: what the model sees, and how rows become one.

use std::sync::Arc;

use crate::data::attend::Attend;
use crate::data::encode::MASKED;
use crate::data::rows::RowSet;
use crate::data::synthetic::{self, Document, KNOWN, OTHER, Stage};
use crate::error::Result;
use crate::ops::attention::Segments;
use crate::ops::cross_entropy::{IGNORE, Targets};
use crate::positions::{Mix, Part, Plan};
use crate::tensor::Tensor;

/// Rows of equal physical length.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Token ids, `(batch, seq_len)` u32.
    pub ids: Tensor,
    /// What to predict at each place, already shifted.
    pub targets: Targets,
    /// Position of each token, `(batch, seq_len)` u32.
    pub positions: Tensor,
    /// Positions are divided by this; one per row.
    pub rope_scale: Vec<f32>,
    /// Who sees whom.
    pub segments: Arc<Segments>,
}

impl Batch {
    /// Whole texts as they are stored, at their natural positions, each in a row of its own, under full attention: what evaluation
    /// feeds.
    ///
    /// Panics when the rows differ in length or there are none.
    pub fn contiguous(rows: &[&[u32]]) -> Self {
        let seq_len = rows.first().expect("batch: at least one row").len();
        let mut draft = Draft::default();
        for row in rows {
            assert_eq!(row.len(), seq_len, "batch: rows of equal length");
            draft.begin_row(1.0);
            draft.planned(Plan::contiguous(seq_len), row, |_| 1.0);
        }
        draft.finish(seq_len, &Attend::Full)
    }

    /// Places whose target counts: the denominator of a mean loss.
    pub fn target_count(&self) -> usize {
        let ids = self.targets.ids.as_u32().expect("batch: targets are u32");
        ids.iter().filter(|&&id| id != IGNORE).count()
    }
}

/// A batch in the making.
#[derive(Default)]
struct Draft {
    ids: Vec<u32>,
    targets: Vec<u32>,
    /// Loss weight of each target.
    weights: Vec<f32>,
    positions: Vec<u32>,
    rope_scale: Vec<f32>,
    doc_starts: Vec<Vec<usize>>,
    row_start: usize,
}

impl Draft {
    fn begin_row(&mut self, rope_scale: f32) {
        self.rope_scale.push(rope_scale);
        self.doc_starts.push(Vec::new());
        self.row_start = self.ids.len();
    }

    /// Adds one document's tokens, each with the loss weight of predicting it; 0 is no target at all. Each predicts the next
    /// of them; the last predicts nothing, so that no document is ever asked to foretell another.
    fn piece(&mut self, tokens: impl Iterator<Item = (u32, f32)>, positions: impl IntoIterator<Item = u32>) {
        let start = self.ids.len();
        self.doc_starts.last_mut().expect("draft: a row was begun").push(start - self.row_start);
        for (id, weight) in tokens {
            if self.ids.len() > start {
                self.targets.push(if weight == 0.0 { IGNORE } else { id });
                self.weights.push(weight);
            }
            self.ids.push(id);
        }
        self.targets.push(IGNORE);
        self.weights.push(0.0);
        self.positions.extend(positions);
    }

    /// [`Draft::piece`] of what was planned for a document, whose tokens are `text` as it is stored and weigh `weight` by place.
    fn planned(&mut self, plan: Plan, text: &[u32], weight: impl Fn(usize) -> f32) {
        let mut tokens = Vec::with_capacity(plan.positions.len());
        for part in plan.parts {
            match part {
                Part::Text(range) => tokens.extend(range.map(|i| match text[i] & MASKED {
                    0 => (text[i], weight(i)),
                    _ => (text[i] & !MASKED, 0.0),
                })),
                Part::Own(ids, weight) => tokens.extend(ids.iter().map(|&id| (id, weight))),
            }
        }
        self.piece(tokens.into_iter(), plan.positions);
    }

    fn finish(self, seq_len: usize, attention: &Attend) -> Batch {
        let shape = [self.rope_scale.len(), seq_len];
        let segments = attention.segments(&self.doc_starts, seq_len);
        let alike = self.targets.iter().zip(&self.weights).all(|(&id, &weight)| id == IGNORE || weight == 1.0);
        Batch {
            ids: Tensor::u32(self.ids, shape),
            targets: Targets {
                ids: Tensor::u32(self.targets, shape),
                weights: (!alike).then(|| Tensor::f32(self.weights, shape)),
            },
            positions: Tensor::u32(self.positions, shape),
            rope_scale: self.rope_scale,
            segments: Arc::new(segments),
        }
    }
}

/// Places of a document whose tokens those before them in the row determine, ascending: what was stated in a part of the document that the
/// plan left out is not known.
fn known_places(plan: &Plan, document: &Document) -> Vec<usize> {
    let of_text = |part: &Part| match part {
        Part::Text(range) => range.clone(),
        Part::Own(..) => 0..0,
    };
    let places: Vec<usize> = plan.parts.iter().flat_map(of_text).collect();
    let tokens: Vec<u32> = places.iter().map(|&i| document.tokens[i]).collect();
    let mut known: Vec<usize> = synthetic::known(&tokens).into_iter().map(|i| places[i]).collect();
    known.sort_unstable();
    known
}

/// Makes training batches: a pure function of the seed and a running row number, so that nothing needs saving.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// The training rows.
    pub rows: Arc<RowSet>,
    /// Where their tokens pretend to be.
    pub method: Mix,
    /// Decides order and positions.
    pub seed: u64,
    /// Who sees whom, documents aside.
    pub attention: Attend,
}

impl BatchBuilder {
    /// The batch of `rows` rows that begins with the run's row number `first`; epochs follow one another without a seam.
    pub fn batch(&self, first: u64, rows: usize) -> Batch {
        let mut draft = Draft::default();
        let per_epoch = self.rows.rows_per_epoch();
        for counter in first..first + rows as u64 {
            let row = self.rows.order(self.seed, counter / per_epoch, counter % per_epoch);
            let mut plans = self.method.row(self.seed, counter);
            draft.begin_row(plans.scale);
            for slot in self.rows.row(row) {
                let text = slot.piece.text(self.rows.corpus());
                // Padding is nobody's text: no method may bring its own tokens to it.
                let plan = match slot.piece.doc {
                    Some(_) => plans.plan(&text, slot.want),
                    None => Plan::contiguous(slot.want),
                };
                draft.planned(plan, &text, |_| 1.0);
            }
        }
        draft.finish(self.rows.seq_len(), &self.attention)
    }
}

/// [`BatchBuilder`] over documents that are written as they are needed and never repeat.
#[derive(Debug, Clone)]
pub struct SyntheticBuilder {
    /// What is written.
    pub stage: Stage,
    /// Where its tokens pretend to be.
    pub method: Mix,
    /// Decides the text and the positions.
    pub seed: u64,
    /// Who sees whom.
    pub attention: Attend,
    /// Tokens per row, at most a document's.
    pub seq_len: usize,
}

impl SyntheticBuilder {
    /// The batch of `rows` rows that begins with the run's row number `first`.
    ///
    /// # Errors
    /// None for one of the named stages.
    pub fn batch(&self, first: u64, rows: usize) -> Result<Batch> {
        let mut draft = Draft::default();
        for counter in first..first + rows as u64 {
            let document = self.stage.document(self.seed, counter)?;
            let mut plans = self.method.row(self.seed, counter);
            let plan = plans.plan(&document.tokens, self.seq_len);
            draft.begin_row(plans.scale);
            let known = known_places(&plan, &document);
            let weight = |i: usize| match document.weights[i] == KNOWN && known.binary_search(&i).is_err() {
                true => OTHER,
                false => document.weights[i],
            };
            draft.planned(plan, &document.tokens, weight);
        }
        Ok(draft.finish(self.seq_len, &self.attention))
    }
}
