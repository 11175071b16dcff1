//! The model's parameters: one list, one order, Hugging Face's names.

use std::collections::HashMap;

use crate::backend::Kernels;
use crate::error::Result;
use crate::tape::ParamId;
use crate::tensor::Tensor;

/// One parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Hugging Face's name, e.g. `model.layers.0.mlp.up_proj.weight`; LoRA factors append `lora_A` and `lora_B`.
    pub name: String,
    /// The value that the model computes with.
    pub value: Tensor,
    /// The value before it was rounded to the backend's storage type, where it was and training moves it.
    pub master: Option<Tensor>,
    /// Whether training moves it.
    pub trainable: bool,
}

impl Param {
    /// The value as exactly as it is known: what is saved.
    pub fn exact(&self) -> &Tensor {
        self.master.as_ref().unwrap_or(&self.value)
    }

    /// Takes a value over into the backend's memory and precision, and exactly too if training moves it.
    pub fn set(&mut self, kernels: &dyn Kernels, value: &Tensor) -> Result<()> {
        self.master = (self.trainable && kernels.rounds()).then(|| kernels.place_exact(value)).transpose()?;
        self.value = kernels.place(value)?;
        Ok(())
    }

    /// Moves the value into the backend's memory and precision, where it is not yet.
    pub fn place(&mut self, kernels: &dyn Kernels) -> Result<()> {
        match self.master {
            Some(_) => Ok(()),
            None => self.set(kernels, &self.value.clone()),
        }
    }

    /// Whether weight decay applies: matrices yes, norms and biases no.
    pub fn decays(&self) -> bool {
        self.value.shape().dims().len() > 1
    }
}

/// The parameter list. Ids are indices and never change.
#[derive(Debug, Clone, Default)]
pub struct Params {
    list: Vec<Param>,
    ids: HashMap<String, ParamId>,
}

impl Params {
    /// Adds a frozen parameter.
    pub fn push(&mut self, name: impl Into<String>, value: Tensor) -> ParamId {
        let name = name.into();
        self.ids.insert(name.clone(), self.list.len());
        self.list.push(Param { name, value, master: None, trainable: false });
        self.list.len() - 1
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The id of a name.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.ids.get(name).copied()
    }

    /// One parameter.
    pub fn get(&self, id: ParamId) -> &Param {
        &self.list[id]
    }

    /// One parameter, for the optimiser.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Param {
        &mut self.list[id]
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    /// All parameters in order, for writing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        self.list.iter_mut()
    }

    /// Number of scalars that training moves.
    pub fn trainable_elements(&self) -> u64 {
        self.list.iter().filter(|p| p.trainable).map(|p| p.value.shape().len() as u64).sum()
    }
}
