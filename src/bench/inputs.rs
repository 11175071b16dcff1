//! Inputs: normal values that are drawn once and dealt out again and again. Never zeros, on which a GPU needs less power and
//! runs faster.

use std::cell::Cell;

use half::bf16;
use rayon::prelude::*;

use crate::backend::{Device, Kernels, Meta};
use crate::error::Result;
use crate::rng::{Rng, Stream};
use crate::tensor::{Shape, Tensor};

/// Values that are drawn.
const DRAWN: usize = 1 << 22;
/// Values that a thread draws or deals at a time.
const PIECE: usize = 1 << 16;
/// Where the next tensor's values begin: odd, so that no two tensors begin at the same place.
const STRIDE: usize = 1_000_003;

/// Normal values, rounded to bf16.
#[derive(Debug)]
pub struct Values(Vec<bf16>);

impl Values {
    /// Draws them.
    pub fn draw() -> Self {
        let mut values = vec![bf16::ZERO; DRAWN];
        values.par_chunks_mut(PIECE).enumerate().for_each(|(i, piece)| {
            let mut rng = Rng::at(0, Stream::Bench, i as u64);
            piece.iter_mut().for_each(|v| *v = bf16::from_f64(rng.normal()));
        });
        Self(values)
    }
}

/// Where inputs come from.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Drawn(&'a Values),
    /// Memory is counted and nothing is in it.
    Counted(&'a Device<Meta>),
}

/// Makes inputs in a backend's memory. Two makers of the same values make the same inputs, on whatever backends.
pub struct Inputs<'a> {
    kernels: &'a dyn Kernels,
    origin: Origin<'a>,
    at: Cell<usize>,
}

impl<'a> Inputs<'a> {
    /// Inputs in the memory of `kernels`.
    pub fn new(kernels: &'a dyn Kernels, values: &'a Values) -> Self {
        Self { kernels, origin: Origin::Drawn(values), at: Cell::new(0) }
    }

    /// Inputs without content, to count their memory.
    pub fn counted(device: &'a Device<Meta>) -> Self {
        Self { kernels: device, origin: Origin::Counted(device), at: Cell::new(0) }
    }

    /// Whose memory they are in.
    pub fn kernels(&self) -> &'a dyn Kernels {
        self.kernels
    }

    /// A weight or an activation with standard deviation `scale`.
    pub fn normal(&self, shape: impl Into<Shape>, scale: f32) -> Result<Tensor> {
        let shape = shape.into();
        match self.origin {
            Origin::Counted(device) => device.reserve(shape),
            Origin::Drawn(values) => {
                let dealt =
                    self.dealt(values, shape.len(), |v| if scale == 1.0 { v } else { bf16::from_f32(v.to_f32() * scale) });
                self.kernels.place(&Tensor::bf16(dealt, shape))
            }
        }
    }

    /// f32 values made from normal ones.
    pub fn exact(&self, shape: impl Into<Shape>, from: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
        let shape = shape.into();
        match self.origin {
            Origin::Counted(_) => self.kernels.zeros_exact(&shape),
            Origin::Drawn(values) => {
                let dealt = self.dealt(values, shape.len(), |v| from(v.to_f32()));
                self.kernels.place_exact(&Tensor::f32(dealt, shape))
            }
        }
    }

    /// A weight that trains: `(value, master)`, with an exact copy where the backend's weights are rounded. An update starts
    /// from the copy, where there is one, which is the same on every backend.
    pub fn trained(&self, shape: impl Into<Shape>) -> Result<(Tensor, Option<Tensor>)> {
        let exact = self.exact(shape, |v| v / 16.0)?;
        match self.kernels.rounds() {
            true => Ok((self.normal(exact.shape(), 1.0 / 16.0)?, Some(exact))),
            false => {
                self.next();
                Ok((exact, None))
            }
        }
    }

    /// Token ids on the host, distributed as words are: the number `n` about `1/n` as often as the first.
    pub fn ids(&self, tokens: usize, vocab: usize) -> Tensor {
        let mut rng = Rng::at(1, Stream::Bench, self.next() as u64);
        let id = |_| ((vocab as f64).powf(rng.uniform()) as usize - 1).min(vocab - 1) as u32;
        Tensor::u32((0..tokens).map(id).collect(), [1, tokens])
    }

    fn dealt<T: Send + Default + Clone>(&self, values: &Values, len: usize, of: impl Fn(bf16) -> T + Sync) -> Vec<T> {
        let start = self.next();
        let mut dealt = vec![T::default(); len];
        dealt.par_chunks_mut(PIECE).enumerate().for_each(|(i, piece)| {
            piece.iter_mut().zip(start + i * PIECE..).for_each(|(to, from)| *to = of(values.0[from % DRAWN]));
        });
        dealt
    }

    /// Where the next tensor's values begin.
    fn next(&self) -> usize {
        self.at.replace(self.at.get() + STRIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;

    #[test]
    fn values_are_normal_and_never_the_same_twice_in_a_row() {
        let values = Values::draw();
        let inputs = Inputs::new(&Cpu, &values);
        let [a, b] = [0, 1].map(|_| inputs.normal([3, 50_000], 0.5).unwrap());
        let v = a.as_f32().unwrap();
        let moment = |p: i32| v.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / v.len() as f64;
        // 150,000 values: the mean's standard error is 0.0013, the variance's 0.0009.
        assert!(moment(1).abs() < 0.01 && (moment(2) - 0.25).abs() < 0.01, "{} {}", moment(1), moment(2));
        assert_ne!(v, b.as_f32().unwrap());
        assert_eq!(a, Inputs::new(&Cpu, &values).normal([3, 50_000], 0.5).unwrap());
    }

    #[test]
    fn ids_are_below_the_vocabulary_and_small_ones_are_common() {
        let values = Values::draw();
        let ids = Inputs::new(&Cpu, &values).ids(10_000, 1000);
        let ids = ids.as_u32().unwrap();
        let below = |n| ids.iter().filter(|&&id| id < n).count();
        assert_eq!(below(1000), 10_000);
        // A third of all draws falls on the first ten of a thousand.
        assert!((2500..4500).contains(&below(10)), "{}", below(10));
    }
}
