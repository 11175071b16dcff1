//! AdamW with decoupled decay and global-norm clipping.

use crate::backend::Kernels;
use crate::error::Result;
use crate::model::{Param, Params};
use crate::ops::optim::{AdamWStep, AdamWTensor};
use crate::tape::{ParamGrads, ParamId};
use crate::tensor::Tensor;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay; norms and biases are exempt.
    pub weight_decay: f64,
    /// Largest global gradient norm; infinite to switch clipping off.
    pub max_grad_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 }
    }
}

/// First and second moments of every trainable parameter, by parameter id.
#[derive(Debug)]
pub struct AdamW {
    /// Constants.
    pub config: AdamWConfig,
    moments: Vec<Option<[Tensor; 2]>>,
    step: u64,
}

/// What one step reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// False when the norm was not finite and nothing was changed.
    pub applied: bool,
}

impl AdamW {
    /// Zero moments for the trainable parameters, in the backend's memory.
    pub fn new(config: AdamWConfig, params: &Params, kernels: &dyn Kernels) -> Result<Self> {
        let zeros = |p: &Param| Ok([kernels.zeros_exact(p.value.shape())?, kernels.zeros_exact(p.value.shape())?]);
        let moments = params.iter().map(|p| p.trainable.then(|| zeros(p)).transpose()).collect::<Result<_>>()?;
        Ok(Self { config, moments, step: 0 })
    }

    /// Steps applied so far.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// The moments by parameter id, for checkpoints.
    pub fn moments(&self) -> impl Iterator<Item = (ParamId, &[Tensor; 2])> {
        self.moments.iter().enumerate().filter_map(|(id, m)| Some((id, m.as_ref()?)))
    }

    /// Puts saved moments back, one parameter's after the other.
    pub fn restore(&mut self, step: u64, mut put: impl FnMut(ParamId, &mut [Tensor; 2]) -> Result<()>) -> Result<()> {
        self.step = step;
        self.moments.iter_mut().enumerate().try_for_each(|(id, moments)| moments.as_mut().map_or(Ok(()), |m| put(id, m)))
    }

    /// Clips by the global norm and moves every trainable parameter. `lr` gives each parameter its learning rate.
    /// A gradient that is not finite changes nothing.
    pub fn apply(
        &mut self,
        kernels: &dyn Kernels,
        params: &mut Params,
        grads: &ParamGrads,
        lr: impl Fn(&str) -> f64,
    ) -> Result<StepStats> {
        let AdamWConfig { beta1, beta2, eps, weight_decay, max_grad_norm } = self.config;
        let correction = |beta: f64| (1.0 - beta.powf((self.step + 1) as f64)) as f32;
        let step = AdamWStep {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            bias_correction1: correction(beta1),
            bias_correction2: correction(beta2),
            max_grad_norm,
        };
        let moving = params.iter_mut().zip(&mut self.moments).enumerate().filter_map(|(id, (param, moments))| {
            let grad = grads.get(id)?;
            let [m, v] = moments.as_mut().expect("adamw: a parameter with a gradient is trainable");
            let lr = lr(&param.name) as f32;
            let weight_decay = if param.decays() { weight_decay as f32 } else { 0.0 };
            Some(AdamWTensor { value: &mut param.value, master: param.master.as_mut(), grad, m, v, lr, weight_decay })
        });
        let grad_norm = kernels.adamw(&mut moving.collect::<Vec<_>>(), &step)?;
        let applied = grad_norm.is_finite();
        self.step += u64::from(applied);
        Ok(StepStats { grad_norm, applied })
    }
}
