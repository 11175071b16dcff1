//! Sizes that ops are measured at.

use crate::config::choices::Shapes;

/// Extents of a model and of what goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Tokens of one row; the keys of a decoding step.
    pub tokens: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the MLP.
    pub ffn: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Blocks: how many tensors the optimiser moves.
    pub layers: usize,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Elements of the copy, and rows, columns and depth of the product, that the device's limits are measured with.
    pub limits: [usize; 2],
    /// Bytes of a weight or an activation.
    pub element: usize,
}

/// Rank of the adapters.
pub const RANK: usize = 16;

impl Dims {
    /// The sizes of a model.
    pub fn of(shapes: Shapes, tokens: usize, element: usize) -> Self {
        let model = |[hidden, heads, kv_heads, head_dim, ffn, vocab, layers]: [usize; 7], tied, limits| Self {
            tokens,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ffn,
            vocab,
            layers,
            tied,
            limits,
            element,
        };
        match shapes {
            Shapes::Llama8b => model([4096, 32, 8, 128, 14336, 128_256, 32], false, [1 << 29, 8192]),
            Shapes::Llama1b => model([2048, 32, 8, 64, 8192, 128_256, 16], true, [1 << 29, 8192]),
            Shapes::Tiny => model([256, 8, 2, 32, 688, 512, 2], true, [1 << 20, 256]),
        }
    }

    /// A small case of the same kind: the same heads' width and grouping, sizes that are no multiple of a tile.
    pub fn small(&self) -> Self {
        let group = self.heads / self.kv_heads;
        Self {
            tokens: 203,
            hidden: 264,
            heads: 2 * group,
            kv_heads: 2,
            ffn: 328,
            vocab: 1003,
            layers: 1,
            limits: [10_007, 136],
            ..*self
        }
    }

    /// Width of all queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
