//! What is measured: one pass of one op.

use crate::backend::Kernels;
use crate::error::Result;
use crate::tensor::Tensor;

use super::dims::Dims;
use super::inputs::Inputs;

/// What a call costs at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    /// Multiplications and additions, of what is visible: not of tiles.
    Flops(f64),
    /// Bytes that must come from memory or go there: each input once, each output once.
    Bytes(f64),
}

/// A call on inputs of its own, in memory already. Returns what was computed.
pub type Call = Box<dyn FnMut(&dyn Kernels) -> Result<Vec<Tensor>>>;

/// Makes a call's inputs at one size.
pub type MakeCall = Box<dyn Fn(&Inputs, &Dims) -> Result<Call>>;

/// One row of the table at every size.
pub struct Op {
    /// Op, pass and variant: what peers' results are joined by.
    pub name: String,
    /// Its extents, for people.
    pub shape: Box<dyn Fn(&Dims) -> String>,
    /// What it costs.
    pub cost: Box<dyn Fn(&Dims) -> Cost>,
    /// Makes its inputs.
    pub inputs: MakeCall,
    /// How far each output may be from the CPU's, over the CPU's largest value: what roundings explain.
    pub allowed: Vec<f64>,
    /// Whether the number of tokens matters to it.
    pub per_token: bool,
}

impl Op {
    /// An op over tokens.
    pub fn new(
        name: impl Into<String>,
        shape: impl Fn(&Dims) -> String + 'static,
        cost: impl Fn(&Dims) -> Cost + 'static,
        allowed: impl Into<Vec<f64>>,
        inputs: impl Fn(&Inputs, &Dims) -> Result<Call> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            shape: Box::new(shape),
            cost: Box::new(cost),
            inputs: Box::new(inputs),
            allowed: allowed.into(),
            per_token: true,
        }
    }

    /// One whose work is the same at any length.
    pub fn of_the_model(self) -> Self {
        Self { per_token: false, ..self }
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
