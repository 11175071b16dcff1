use crate::check::{assert_close_f32, assert_refused, floats, ramp};
use crate::common::Golden;
use crate::common::backends::backends;
use crate::parity::{BF16, parity};
use ltrain::backend::{Cpu, Kernels};
use ltrain::error::Result;
use ltrain::model::Params;
use ltrain::ops::optim::{AdamWStep, AdamWTensor, OptimKernels};
use ltrain::optim::{AdamW, AdamWConfig};
use ltrain::tape::{ParamGrads, Tape};
use ltrain::tensor::Tensor;

/// Gradients by parameter: each value goes on a tape as a leaf that receives its gradient as the seed.
fn grads(kernels: &dyn Kernels, params: &Params, grads: Vec<Tensor>) -> ParamGrads {
    let mut sum = ParamGrads::new(params.len());
    for (id, grad) in grads.into_iter().enumerate() {
        let grad = kernels.place_exact(&grad).unwrap();
        let mut tape = Tape::new(kernels);
        let leaf = tape.param(id, &params.get(id).value);
        tape.backward(&leaf, grad, &mut sum).unwrap();
    }
    sum
}

#[test]
fn ten_clipped_steps_follow_pytorch() {
    follow_pytorch("cpu", &Cpu);
    for (name, device) in backends(10_000) {
        follow_pytorch(&name, &*device);
    }
}

fn follow_pytorch(on: &str, kernels: &dyn Kernels) {
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
        params.get_mut(id).place(kernels).unwrap();
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
    let mut optimizer = AdamW::new(config, &params, kernels).unwrap();
    assert_eq!(norms.len(), 10);
    for (step, &norm) in norms.iter().enumerate() {
        let given = grads(kernels, &params, (0..3).map(|i| golden(format!("step{step}.g{i}"))).collect());
        let stats = optimizer.apply(kernels, &mut params, &given, |_| number("lr")).unwrap();
        assert!(stats.applied);
        let off = (stats.grad_norm - f64::from(norm)).abs();
        // The fixture keeps the norm in f32.
        assert!(off <= 1e-6 * stats.grad_norm, "{on}, step {step}: norm {}, expected {norm}", stats.grad_norm);
        for i in 0..3 {
            let name = format!("step{step}.p{i}");
            let exact = params.get(i).exact().to_host_f32().unwrap();
            assert_close_f32(&format!("{on}: {name}"), floats(&exact), &file.f32(&name).0, 1e-4);
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
        let given = grads(&Cpu, &params, vec![Tensor::f32(vec![1.0, 1.0, bad, 1.0, 1.0, 1.0], [3, 2])]);
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

/// Two steps of three tensors with rates of their own: every master, moment and value, and the two norms.
fn two_steps(k: &dyn Kernels, given: &[Tensor; 6], max_grad_norm: f64) -> Result<[Tensor; 13]> {
    let exact = |t: &Tensor| k.place_exact(&t.to_host_f32()?);
    let mut values = [0, 2, 4].map(|i| given[i].clone());
    let mut masters = [0, 2, 4].map(|i| exact(&given[i]));
    let grads = [1, 3, 5].map(|i| exact(&given[i]));
    let mut moments = [0, 2, 4].map(|i| [(); 2].map(|()| k.place_exact(&Tensor::zeros(given[i].shape()))));
    let mut norms = Vec::new();
    for step in 1..3 {
        let step = AdamWStep {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            bias_correction1: 1.0 - 0.9f32.powi(step),
            bias_correction2: 1.0 - 0.95f32.powi(step),
            max_grad_norm,
        };
        let mut tensors = Vec::new();
        for (i, (((value, master), grad), moments)) in
            values.iter_mut().zip(&mut masters).zip(&grads).zip(&mut moments).enumerate()
        {
            let [m, v] = moments.each_mut().map(|t| t.as_mut().expect("placed"));
            let master = k.rounds().then(|| master.as_mut().expect("placed"));
            let grad = grad.as_ref().expect("placed");
            tensors.push(AdamWTensor { value, master, grad, m, v, lr: 0.01 * (i + 1) as f32, weight_decay: 0.1 * i as f32 });
        }
        norms.push(k.adamw(&mut tensors, &step)? as f32);
    }
    let mut out = vec![Tensor::f32(norms, [2])];
    for ((value, master), moments) in values.into_iter().zip(masters).zip(moments) {
        out.push(if k.rounds() { master? } else { value.clone() });
        out.push(value);
        out.extend(moments.into_iter().collect::<Result<Vec<_>>>()?);
    }
    Ok(out.try_into().expect("a norm and three times four"))
}

#[test]
fn every_backend_agrees() {
    // Sums of f32 in f64, then a dozen roundings; the value is the master rounded once.
    let of_f32 = 1e-6;
    let tolerances: [f64; 13] = std::array::from_fn(|i| if i % 4 == 2 { BF16 + of_f32 } else { of_f32 });
    for sizes in [[1, 3, 4], [17, 5, 1], [1000, 8, 31], [2, 16_384, 7], [16_385, 9, 3], [40_003, 1, 16_383]] {
        let [a, b, c] = sizes;
        let inputs = [ramp([a], 0.1), ramp([a], 1.9), ramp([b], 0.7), ramp([b], 2.9), ramp([c], 0.2), ramp([c], 1.4)];
        for max_grad_norm in [1.0, f64::INFINITY] {
            parity("adamw", inputs.clone(), tolerances, |k, given| two_steps(k, given, max_grad_norm));
        }
    }
}

#[test]
fn every_backend_agrees_on_more_tensors_than_a_grid_has_blocks() {
    let step =
        AdamWStep { beta1: 0.9, beta2: 0.95, eps: 1e-8, bias_correction1: 0.1, bias_correction2: 0.05, max_grad_norm: 1.0 };
    let one = |x: f32| Tensor::f32(vec![x], [1]);
    // The tolerance is that of `every_backend_agrees`.
    parity("adamw of many", [ramp([600], 0.1), ramp([600], 1.9)], [1e-6; 2], |k, [values, grads]| {
        let (values, grads) = (values.to_host_f32()?, grads.to_host_f32()?);
        let placed = |x: &Tensor| floats(x).iter().map(|&x| k.place_exact(&one(x))).collect::<Result<Vec<_>>>();
        let (mut masters, grads) = (placed(&values)?, placed(&grads)?);
        let mut rounded = floats(&values).iter().map(|&x| k.place(&one(x))).collect::<Result<Vec<_>>>()?;
        let mut m = placed(&Tensor::zeros([600]))?;
        let mut v = placed(&Tensor::zeros([600]))?;
        let each = masters.iter_mut().zip(&mut rounded).zip(&grads).zip(m.iter_mut().zip(&mut v));
        let mut tensors: Vec<_> = each
            .map(|(((master, rounded), grad), (m, v))| {
                let (value, master) = if k.rounds() { (rounded, Some(master)) } else { (master, None) };
                AdamWTensor { value, master, grad, m, v, lr: 0.01, weight_decay: 0.1 }
            })
            .collect();
        let norm = k.adamw(&mut tensors, &step)?;
        let masters = masters.iter().map(|t| Ok(floats(&t.to_host_f32()?)[0])).collect::<Result<_>>()?;
        Ok([one(norm as f32), Tensor::f32(masters, [600])])
    });
}

#[test]
fn no_backend_moves_anything_by_a_gradient_that_is_not_finite() {
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let grad = Tensor::f32(vec![1.0, 1.0, bad, 1.0, 1.0], [5]);
        let inputs = [ramp([7], 0.1), ramp([7], 1.9), ramp([5], 0.7), grad, ramp([3], 0.2), ramp([3], 1.4)];
        parity("adamw", inputs, [0.0; 13], |k, given| {
            let mut out = two_steps(k, given, 1.0)?;
            let finite = out[0].to_host_f32()?.as_f32()?.iter().map(|n| f32::from(u8::from(n.is_finite()))).collect();
            out[0] = Tensor::f32(finite, [2]);
            Ok(out)
        });
    }
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
