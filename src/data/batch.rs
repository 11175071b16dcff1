//! One micro-batch: what the model sees, and how rows become one.

use std::sync::Arc;

use crate::data::attend::Attend;
use crate::data::encode::MASKED;
use crate::data::rows::{RowSet, Slot};
use crate::data::synthetic::Stage;
use crate::error::Result;
use crate::ops::attention::Segments;
use crate::ops::cross_entropy::{IGNORE, Targets};
use crate::positions::PositionPlan;
use crate::rng::{Rng, Stream};
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
    /// Whole texts at their natural positions, each in a row of its own, under full attention: what evaluation feeds.
    ///
    /// Panics when the rows differ in length or there are none.
    pub fn contiguous(rows: &[&[u32]]) -> Self {
        let seq_len = rows.first().expect("batch: at least one row").len();
        let mut draft = Draft::default();
        for row in rows {
            assert_eq!(row.len(), seq_len, "batch: rows of equal length");
            draft.begin_row(1.0);
            draft.piece(row.iter().copied(), 0..seq_len as u32);
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
    /// Loss weight of each target; empty when all weigh the same.
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

    /// Adds one document's tokens. Each predicts the next of them; the last predicts nothing, so that no document is ever
    /// asked to foretell another. Nobody predicts a token with [`MASKED`] set.
    fn piece(&mut self, ids: impl Iterator<Item = u32>, positions: impl IntoIterator<Item = u32>) {
        let start = self.ids.len();
        self.ids.extend(ids);
        let target = |&id: &u32| if id & MASKED == 0 { id } else { IGNORE };
        self.targets.extend(self.ids[start + 1..].iter().map(target));
        self.targets.push(IGNORE);
        self.ids[start..].iter_mut().for_each(|id| *id &= !MASKED);
        self.positions.extend(positions);
        self.doc_starts.last_mut().expect("draft: a row was begun").push(start - self.row_start);
    }

    /// [`Draft::piece`] whose tokens have loss weights of their own; a weight of 0 is no target at all.
    fn weighted_piece(&mut self, tokens: &[(u32, f32)], positions: impl IntoIterator<Item = u32>) {
        let start = self.ids.len();
        self.piece(tokens.iter().map(|t| t.0), positions);
        let ahead = tokens.iter().skip(1).map(|t| t.1).chain([0.0]);
        for (weight, target) in ahead.zip(&mut self.targets[start..]) {
            self.weights.push(weight);
            if weight == 0.0 {
                *target = IGNORE;
            }
        }
    }

    fn finish(self, seq_len: usize, attention: &Attend) -> Batch {
        let shape = [self.rope_scale.len(), seq_len];
        let segments = attention.segments(&self.doc_starts, seq_len);
        Batch {
            ids: Tensor::u32(self.ids, shape),
            targets: Targets {
                ids: Tensor::u32(self.targets, shape),
                weights: (!self.weights.is_empty()).then(|| Tensor::f32(self.weights, shape)),
            },
            positions: Tensor::u32(self.positions, shape),
            rope_scale: self.rope_scale,
            segments: Arc::new(segments),
        }
    }
}

/// Makes training batches: a pure function of the seed and a running row number, so that nothing needs saving.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// The training rows.
    pub rows: Arc<RowSet>,
    /// Where their tokens pretend to be.
    pub method: Arc<dyn PositionPlan>,
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
            let mut rng = Rng::at(self.seed, Stream::Positions, counter);
            let scale = self.method.rope_scale(&mut rng);
            draft.begin_row(scale);
            for slot in self.rows.row(row) {
                self.add_slot(&mut draft, slot, scale, &mut rng);
            }
        }
        draft.finish(self.rows.seq_len(), &self.attention)
    }

    fn add_slot(&self, draft: &mut Draft, slot: &Slot, scale: f32, rng: &mut Rng) {
        let (available, want) = (slot.piece.len(), slot.want);
        let plan = self.method.plan(available, want, scale, rng);
        let chosen: usize = plan.tokens.iter().map(ExactSizeIterator::len).sum();
        assert!(
            chosen == want && plan.positions.len() == want,
            "{}: planned {chosen} tokens at {} positions, asked for {want} of {available}",
            self.method.name(),
            plan.positions.len(),
        );
        let corpus = self.rows.corpus();
        let ids = plan.tokens.into_iter().flatten();
        draft.piece(ids.map(|i| slot.piece.token(corpus, i)), plan.positions);
    }
}

/// [`BatchBuilder`] over documents that are written as they are needed and never repeat.
#[derive(Debug, Clone)]
pub struct SyntheticBuilder {
    /// What is written.
    pub stage: Stage,
    /// Where its tokens pretend to be.
    pub method: Arc<dyn PositionPlan>,
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
            let mut rng = Rng::at(self.seed, Stream::Positions, counter);
            let scale = self.method.rope_scale(&mut rng);
            let plan = self.method.plan(document.tokens.len(), self.seq_len, scale, &mut rng);
            let chosen: Vec<_> = plan.tokens.into_iter().flatten().map(|i| (document.tokens[i], document.weights[i])).collect();
            draft.begin_row(scale);
            draft.weighted_piece(&chosen, plan.positions);
        }
        Ok(draft.finish(self.seq_len, &self.attention))
    }
}
