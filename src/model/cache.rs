//! Keys and values of the tokens already seen, so that generation costs one token per step.

use crate::error::Result;
use crate::tensor::Tensor;

/// Of one text: a growing pair of tensors per layer, `(1, tokens, kv_heads, head_dim)` each; keys are stored rotated.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<Option<[Tensor; 2]>>,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers.
    pub fn new(layers: usize) -> Self {
        Self { layers: vec![None; layers] }
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.layers.first().and_then(Option::as_ref).map_or(0, |[k, _]| k.shape().dims()[1])
    }

    /// Appends one layer's new keys and values and returns all of them.
    pub(super) fn extend(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<[Tensor; 2]> {
        let slot = &mut self.layers[layer];
        match slot {
            Some([keys, values]) => {
                keys.append(k)?;
                values.append(v)?;
            }
            None => *slot = Some([k.clone(), v.clone()]),
        }
        Ok(slot.clone().expect("cache: the slot was filled above"))
    }
}
