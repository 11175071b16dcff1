//! The tape: what ran forward, so that it can run backward.
//!
//! A [`Var`] is a value and, when a gradient is wanted for it, its slot on the tape. Ops compute their value through the
//! [`Kernels`] and [`record`](Tape::record) how to go back; the tape alone accumulates gradients. `backward` consumes
//! the tape, so what an op saved dies as soon as it has been used.

use crate::backend::Kernels;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// Index of a parameter in the model's parameter list.
pub type ParamId = usize;

/// A value on the tape. Without a slot it is a constant: nothing flows back through it.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    slot: Option<usize>,
}

impl Var {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The value, which is gone from here; the place on the tape stays.
    pub(crate) fn take(&mut self) -> Tensor {
        std::mem::replace(&mut self.value, Tensor::f32(Vec::new(), [0]))
    }

    /// Whether a gradient will flow into this value.
    pub fn wants_grad(&self) -> bool {
        self.slot.is_some()
    }
}

/// Gradients of the parameters, summed over every backward pass since [`ParamGrads::new`].
#[derive(Debug)]
pub struct ParamGrads(Vec<Option<Tensor>>);

impl ParamGrads {
    /// No gradients yet, for `params` parameters.
    pub fn new(params: usize) -> Self {
        Self(vec![None; params])
    }

    /// The gradient of one parameter, if any reached it.
    pub fn get(&self, id: ParamId) -> Option<&Tensor> {
        self.0.get(id)?.as_ref()
    }

    /// Every parameter that has a gradient, in parameter order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.0.iter().enumerate().filter_map(|(id, g)| Some((id, g.as_ref()?)))
    }

    fn add(&mut self, kernels: &dyn Kernels, id: ParamId, grad: Tensor) -> Result<()> {
        accumulate(kernels, &mut self.0[id], grad)
    }
}

fn accumulate(kernels: &dyn Kernels, slot: &mut Option<Tensor>, grad: Tensor) -> Result<()> {
    match slot {
        Some(sum) => kernels.add_assign(sum, &grad.reshape("gradient of a view", sum.shape())?)?,
        None => *slot = Some(grad),
    }
    Ok(())
}

type Backward<'a> = Box<dyn FnOnce(&dyn Kernels, &mut ParamGrads, Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> + 'a>;

struct Node<'a> {
    inputs: Vec<Option<usize>>,
    /// Slot and shape of each output: a view may have handed its gradient in under another shape.
    outputs: Vec<(usize, Shape)>,
    backward: Backward<'a>,
}

/// A recording of one forward pass. `'a` is the life of what backward closures borrow: the model and the batch.
pub struct Tape<'a> {
    kernels: &'a dyn Kernels,
    recording: bool,
    nodes: Vec<Node<'a>>,
    params: Vec<(usize, ParamId)>,
    slots: usize,
}

impl<'a> Tape<'a> {
    /// A tape that records.
    pub fn new(kernels: &'a dyn Kernels) -> Self {
        Self { kernels, recording: true, nodes: Vec::new(), params: Vec::new(), slots: 0 }
    }

    /// A tape that records nothing: the same forward pass for evaluation.
    pub fn inference(kernels: &'a dyn Kernels) -> Self {
        Self { recording: false, ..Self::new(kernels) }
    }

    /// The kernels ops call.
    pub fn kernels(&self) -> &'a dyn Kernels {
        self.kernels
    }

    /// Whether ops are being recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    fn new_slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    /// A value without gradient.
    pub fn constant(&self, value: Tensor) -> Var {
        Var { value, slot: None }
    }

    /// A leaf whose gradient [`backward`](Tape::backward) adds to `params[id]`.
    pub fn param(&mut self, id: ParamId, value: &Tensor) -> Var {
        if !self.recording {
            return self.constant(value.clone());
        }
        let slot = self.new_slot();
        self.params.push((slot, id));
        Var { value: value.clone(), slot: Some(slot) }
    }

    /// Puts one op on the tape and returns its outputs.
    ///
    /// `backward` receives which inputs want a gradient and the gradients of the outputs (`None` where nothing flowed
    /// back), and returns the gradients of the inputs, `None` for an input that wants none or has none by nature.
    pub fn record<const N: usize, const M: usize>(
        &mut self,
        inputs: [&Var; N],
        values: [Tensor; M],
        backward: impl FnOnce(&dyn Kernels, [bool; N], [Option<Tensor>; M]) -> Result<[Option<Tensor>; N]> + 'a,
    ) -> [Var; M] {
        let wants = inputs.map(Var::wants_grad);
        self.record_group(&inputs, values, move |kernels, grads| Ok(backward(kernels, wants, grads)?.into()))
    }

    /// [`record`](Self::record) for an op whose inputs are counted when it runs; what they want is for the op to keep.
    pub fn record_group<const M: usize>(
        &mut self,
        inputs: &[&Var],
        values: [Tensor; M],
        backward: impl FnOnce(&dyn Kernels, [Option<Tensor>; M]) -> Result<Vec<Option<Tensor>>> + 'a,
    ) -> [Var; M] {
        if !self.recording || !inputs.iter().any(|v| v.wants_grad()) {
            return values.map(|value| Var { value, slot: None });
        }
        let backward: Backward<'a> =
            Box::new(move |kernels, _, grads| backward(kernels, grads.try_into().expect("tape: one gradient slot per output")));
        self.push(inputs.iter().map(|v| v.slot).collect(), values, backward)
    }

    fn push<const M: usize>(&mut self, inputs: Vec<Option<usize>>, values: [Tensor; M], backward: Backward<'a>) -> [Var; M] {
        let vars = values.map(|value| Var { value, slot: Some(self.new_slot()) });
        let outputs = vars.iter().filter_map(|v| Some((v.slot?, v.value.shape().clone()))).collect();
        self.nodes.push(Node { inputs, outputs, backward });
        vars
    }

    /// `(B,T,H·D)` seen as `(B,T,H,D)`: the same values, the same slot.
    pub fn split_heads(&self, x: &Var, head_dim: usize) -> Result<Var> {
        let [b, t, width] = x.value.dims("split_heads: x (B,T,H·D)")?;
        self.view(x, [b, t, width.checked_div(head_dim).unwrap_or(0), head_dim])
    }

    /// `(B,T,H,D)` seen as `(B,T,H·D)`.
    pub fn merge_heads(&self, x: &Var) -> Result<Var> {
        let [b, t, h, d] = x.value.dims("merge_heads: x (B,T,H,D)")?;
        self.view(x, [b, t, h * d])
    }

    fn view<const N: usize>(&self, x: &Var, shape: [usize; N]) -> Result<Var> {
        Ok(Var { value: x.value.reshape("view", shape)?, slot: x.slot })
    }

    /// Runs `segment` without keeping what it would save for backward, and runs it again when backward needs it
    /// (activation checkpointing). The segment must be a pure function of its inputs and the parameters.
    pub fn checkpoint<const N: usize, const M: usize>(
        &mut self,
        inputs: [&Var; N],
        segment: impl Fn(&mut Tape<'a>, [Var; N]) -> Result<[Var; M]> + 'a,
    ) -> Result<[Var; M]> {
        let constants = inputs.map(|v| self.constant(v.value.clone()));
        if !self.recording {
            return segment(self, constants);
        }
        self.recording = false;
        let values = segment(self, constants);
        self.recording = true;
        let values = values?.map(|v| v.value);
        let (saved, kernels) = (inputs.map(Clone::clone), self.kernels);
        let backward: Backward<'a> = Box::new(move |_, params, grads| {
            let mut inner = Tape::new(kernels);
            let leaves = saved.map(|v| Var { slot: v.slot.is_some().then(|| inner.new_slot()), value: v.value });
            let slots = leaves.each_ref().map(|v| v.slot);
            let outputs = segment(&mut inner, leaves)?;
            let seeds = outputs.into_iter().zip(grads).filter_map(|(v, g)| Some((v.slot?, g?))).collect();
            let mut grads = inner.run_backward(seeds, params)?;
            Ok(slots.iter().map(|slot| grads[(*slot)?].take()).collect())
        });
        Ok(self.push(inputs.map(|v| v.slot).into(), values, backward))
    }

    /// Goes back from `output`, whose gradient is `seed`, and adds the parameters' gradients to `params`.
    pub fn backward(self, output: &Var, seed: Tensor, params: &mut ParamGrads) -> Result<()> {
        let seeds = output.slot.map(|slot| (slot, seed)).into_iter().collect();
        self.run_backward(seeds, params).map(drop)
    }

    fn run_backward(mut self, seeds: Vec<(usize, Tensor)>, params: &mut ParamGrads) -> Result<Vec<Option<Tensor>>> {
        let kernels = self.kernels;
        let mut grads: Vec<Option<Tensor>> = vec![None; self.slots];
        for (slot, seed) in seeds {
            accumulate(kernels, &mut grads[slot], seed)?;
        }
        while let Some(node) = self.nodes.pop() {
            let outputs =
                node.outputs.iter().map(|(slot, shape)| grads[*slot].take().map(|g| g.reshape("gradient", shape)).transpose());
            let outputs: Vec<_> = outputs.collect::<std::result::Result<_, _>>()?;
            if outputs.iter().all(Option::is_none) {
                continue;
            }
            let inputs = (node.backward)(kernels, params, outputs)?;
            for (slot, grad) in node.inputs.iter().zip(inputs) {
                if let (Some(slot), Some(grad)) = (slot, grad) {
                    accumulate(kernels, &mut grads[*slot], grad)?;
                }
            }
        }
        for (slot, id) in self.params.drain(..) {
            if let Some(grad) = grads[slot].take() {
                params.add(kernels, id, grad)?;
            }
        }
        Ok(grads)
    }
}
