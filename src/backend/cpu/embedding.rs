use super::{Cpu, fill_rows};
use crate::error::Result;
use crate::ops::embedding::EmbeddingKernels;
use crate::tensor::{Tensor, pool};
use rayon::prelude::*;

impl EmbeddingKernels for Cpu {
    fn embedding_fwd(&self, ids: &Tensor, w: &Tensor) -> Result<Tensor> {
        let [batch, seq_len] = ids.dims("embedding: ids (B,T)")?;
        let [_, c] = w.dims("embedding: w (V,C)")?;
        let (ids, ws) = (ids.as_u32()?, w.as_f32()?);
        let y = fill_rows(ids.len(), c, |first, out| {
            for (y, &id) in out.chunks_exact_mut(c).zip(&ids[first..]) {
                y.copy_from_slice(&ws[id as usize * c..][..c]);
            }
        });
        Ok(Tensor::f32(y, [batch, seq_len, c]))
    }

    fn embedding_bwd(&self, dy: &Tensor, ids: &Tensor, vocab: usize) -> Result<Tensor> {
        let [_, c] = dy.rows_cols("embedding_bwd: dy (B,T,C)")?;
        ids.expect("embedding_bwd: ids (B,T)", &dy.shape().dims()[..dy.shape().dims().len() - 1])?;
        let (dys, ids) = (dy.as_f32()?, ids.as_u32()?);
        let mut dw = pool::zeroed(vocab * c);
        // Each task owns a range of vocabulary rows and walks all tokens in order, so no two tasks add to one row and
        // the order of summation is that of the tokens.
        let step = vocab.div_ceil(rayon::current_num_threads()).max(1);
        dw.par_chunks_mut(step * c).enumerate().for_each(|(task, dw)| {
            let owned = task * step..task * step + dw.len() / c;
            for (&id, dy) in ids.iter().zip(dys.chunks_exact(c)) {
                if owned.contains(&(id as usize)) {
                    let row = &mut dw[(id as usize - owned.start) * c..][..c];
                    for (dw, dy) in row.iter_mut().zip(dy) {
                        *dw += dy;
                    }
                }
            }
        });
        Ok(Tensor::f32(dw, [vocab, c]))
    }
}
