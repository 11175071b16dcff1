//! One micro-batch: what the model sees.

use std::sync::Arc;

use crate::ops::attention::Segments;
use crate::ops::cross_entropy::Targets;
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
