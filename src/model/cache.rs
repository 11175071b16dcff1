//! Keys and values of the tokens already seen, so that generation costs one token per step.

use crate::backend::Kernels;
use crate::error::Result;
use crate::tensor::Tensor;

/// Of one text: a growing pair of tensors per layer, `(1, tokens, kv_heads, head_dim)` each; keys are stored rotated.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<[Tensor; 2]>>,
    most: usize,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers, with room for `most` tokens once it has some. It grows beyond where it must, which
    /// takes a half more memory than its tokens.
    pub fn new(layers: usize, most: usize) -> Self {
        Self { layers: vec![None; layers], most }
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.layers.first().and_then(Option::as_ref).map_or(0, |[k, _]| k.shape().dims()[1])
    }

    /// Appends one layer's new keys and values and returns all of them.
    fn extend(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<[Tensor; 2]> {
        let slot = &mut self.layers[layer];
        match slot {
            Some([keys, values]) => {
                keys.append(k)?;
                values.append(v)?;
            }
            None => *slot = Some([k.with_room(self.most)?, v.with_room(self.most)?]),
        }
        Ok(slot.clone().expect("cache: the slot was filled above"))
    }
}

/// Attention of every row to what its cache holds and to itself, whose keys and values the cache of this layer holds then, too.
/// `q`, `k` and `v` are those of the new tokens, `segments` has a table for each row. Caches are of different lengths, so each row is a
/// call of its own.
pub(super) fn attention(
    kernels: &dyn Kernels,
    caches: &mut [KvCache],
    layer: usize,
    qkv: [&Tensor; 3],
    segments: &[Tensor],
    scale: f32,
) -> Result<Tensor> {
    let alone = caches.len() == 1;
    let mut rows = Vec::with_capacity(caches.len());
    for (row, (cache, segments)) in caches.iter_mut().zip(segments).enumerate() {
        let [q, k, v] = qkv.map(|x| if alone { Ok(x.clone()) } else { x.row(row) });
        let [k, v] = cache.extend(layer, &k?, &v?)?;
        rows.push(kernels.attention_fwd(&q?, &k, &v, segments, scale)?.0);
    }
    Ok(Tensor::joined(rows)?.reshape("cache: o (B,T,H,D)", qkv[0].shape())?)
}
