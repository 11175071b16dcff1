use crate::check::{assert_close_f32, assert_refused, floats, ramp};
use crate::common::Golden;
use ltrain::backend::Cpu;
use ltrain::error::Result;
use ltrain::model::Params;
use ltrain::ops::optim::{AdamWStep, AdamWTensor, OptimKernels};
use ltrain::optim::{AdamW, AdamWConfig};
use ltrain::tape::{ParamGrads, Tape};
use ltrain::tensor::Tensor;

/// Gradients by parameter: each value goes on a tape as a leaf that receives its gradient as the seed.
fn grads(params: &Params, grads: Vec<Tensor>) -> ParamGrads {
    let mut sum = ParamGrads::new(params.len());
    for (id, grad) in grads.into_iter().enumerate() {
        let mut tape = Tape::new(&Cpu);
        let leaf = tape.param(id, &params.get(id).value);
        tape.backward(&leaf, grad, &mut sum).unwrap();
    }
    sum
}

#[test]
fn ten_clipped_steps_follow_pytorch() {
    let file = Golden::open("adamw");
    let hyper = file.meta("hyper");
    let number = |key: &str| hyper[key].as_f64().unwrap();
    let decays: Vec<f64> = hyper["weight_decay"].as_array().unwrap().iter().map(|d| d.as_f64().unwrap()).collect();
    let golden = |name: String| {
        let (data, shape) = file.f32(&name);
        Tensor::f32(data, shape)
    };
    let mut params = Params::default();
    for (i, decay) in decays.iter().enumerate() {
        let id = params.push(format!("p{i}"), golden(format!("p{i}.init")));
        params.get_mut(id).trainable = true;
        assert_eq!(params.get(id).decays(), *decay > 0.0, "decay group of p{i}");
    }
    let config = AdamWConfig {
        beta1: number("beta1"),
        beta2: number("beta2"),
        eps: number("eps"),
        weight_decay: decays[0],
        max_grad_norm: number("max_grad_norm"),
    };
    let norms = file.f32("grad_norms").0;
    let mut optimizer = AdamW::new(config, &params, &Cpu).unwrap();
    assert_eq!(norms.len(), 10);
    for (step, &norm) in norms.iter().enumerate() {
        let given = grads(&params, (0..3).map(|i| golden(format!("step{step}.g{i}"))).collect());
        let stats = optimizer.apply(&Cpu, &mut params, &given, |_| number("lr")).unwrap();
        assert!(stats.applied);
        let off = (stats.grad_norm - f64::from(norm)).abs();
        // The fixture keeps the norm in f32.
        assert!(off <= 1e-6 * stats.grad_norm, "step {step}: norm {}, expected {norm}", stats.grad_norm);
        for i in 0..3 {
            let name = format!("step{step}.p{i}");
            assert_close_f32(&name, floats(&params.get(i).value), &file.f32(&name).0, 1e-4);
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut params = Params::default();
    let id = params.push("p", ramp([3, 2], 0.1));
    params.get_mut(id).trainable = true;
    let mut optimizer = AdamW::new(AdamWConfig::default(), &params, &Cpu).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let given = grads(&params, vec![Tensor::f32(vec![1.0, 1.0, bad, 1.0, 1.0, 1.0], [3, 2])]);
        let stats = optimizer.apply(&Cpu, &mut params, &given, |_| 0.1).unwrap();
        assert!(!stats.applied && !stats.grad_norm.is_finite());
    }
    assert_eq!(optimizer.step_count(), 0);
    assert_eq!(floats(&params.get(0).value), floats(&ramp([3, 2], 0.1)));
}

#[test]
fn the_norm_is_exact_to_double_precision() {
    for n in [0, 1, 7, 8, 17, 100_003] {
        let x = ramp([n], 0.3);
        let want: f64 = floats(&x).iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let got = adamw([ramp([n], 0.0), x, Tensor::zeros([n]), Tensor::zeros([n])]).unwrap();
        // Squares of floats are exact in f64; the orders of summation differ by n·eps at most.
        assert!((got - want).abs() <= 1e-15 * n as f64 * want.max(1.0), "{n}: {got} vs {want}");
    }
}

/// One step of one tensor: value, gradient and moments.
fn adamw([mut value, grad, mut m, mut v]: [Tensor; 4]) -> Result<f64> {
    let step = AdamWStep {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        bias_correction1: 0.1,
        bias_correction2: 0.05,
        max_grad_norm: f64::INFINITY,
    };
    let tensor = AdamWTensor { value: &mut value, master: None, grad: &grad, m: &mut m, v: &mut v, lr: 0.1, weight_decay: 0.0 };
    Cpu.adamw(&mut [tensor], &step)
}

#[test]
fn wrong_shapes_are_refused() {
    let good = || ramp([3, 2], 0.0);
    assert!(adamw([good(), good(), good(), good()]).is_ok());
    assert_refused("g", adamw([good(), ramp([2, 3], 0.0), good(), good()]));
    assert_refused("m", adamw([good(), good(), ramp([6], 0.0), good()]));
    assert_refused("v", adamw([good(), good(), good(), ramp([3, 3], 0.0)]));
    assert_refused("storage", adamw([good(), Tensor::u32(vec![1; 6], [3, 2]), good(), good()]));
}
