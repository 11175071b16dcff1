use crate::check::{assert_close, assert_refused, bits, floats, ramp, run};
use ltrain::Result;
use ltrain::backend::Cpu;
use ltrain::ops::elementwise::add;
use ltrain::ops::linear::{Projection, linear};
use ltrain::ops::rms_norm::rms_norm;
use ltrain::ops::swiglu::swiglu;
use ltrain::tape::{ParamGrads, Tape, Var};
use ltrain::tensor::Tensor;

#[test]
fn a_value_used_twice_gets_both_gradients() {
    let seed = ramp([2, 3], 1.0);
    let (_, [dx]) = run(&[ramp([2, 3], 0.1)], |_| seed.clone(), |t, [x]| add(t, &x, &x));
    let twice: Vec<f64> = floats(&seed).iter().map(|&v| 2.0 * f64::from(v)).collect();
    assert_close("x + x", floats(&dx), &twice, 0.0);
    // Through a view as well: the gradient of the split form comes in under another shape.
    let (_, [dx]) = run(
        &[ramp([2, 3, 4], 0.1)],
        |y| Tensor::f32(vec![1.0; 24], y.shape()),
        |t, [x]| {
            let split = t.split_heads(&x, 2)?;
            let merged = t.merge_heads(&split)?;
            add(t, &merged, &x)
        },
    );
    assert_eq!(floats(&dx), [2.0; 24]);
}

#[test]
fn one_parameter_on_two_leaves_gets_their_sum() {
    let w = ramp([3, 4], 0.2);
    let mut grads = ParamGrads::new(1);
    let mut tape = Tape::new(&Cpu);
    let (a, b) = (tape.param(0, &w), tape.param(0, &w));
    let y = add(&mut tape, &a, &b).unwrap();
    tape.backward(&y, ramp([3, 4], 1.0), &mut grads).unwrap();
    let twice: Vec<f64> = floats(&ramp([3, 4], 1.0)).iter().map(|&v| 2.0 * f64::from(v)).collect();
    assert_close("tied", floats(grads.get(0).unwrap()), &twice, 0.0);
}

#[test]
fn passes_add_up_until_the_gradients_are_dropped() {
    let w = ramp([3, 4], 0.2);
    let mut grads = ParamGrads::new(2);
    for _ in 0..3 {
        let mut tape = Tape::new(&Cpu);
        let w = tape.param(1, &w);
        tape.backward(&w, Tensor::f32(vec![1.0; 12], [3, 4]), &mut grads).unwrap();
    }
    assert_eq!(floats(grads.get(1).unwrap()), [3.0; 12]);
    assert_eq!(grads.iter().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
}

#[test]
fn constants_and_inference_record_nothing() {
    let x = ramp([2, 3], 0.1);
    for mut tape in [Tape::new(&Cpu), Tape::inference(&Cpu)] {
        let recording = tape.is_recording();
        let c = tape.constant(x.clone());
        assert!(!add(&mut tape, &c, &c).unwrap().wants_grad());
        let p = tape.param(0, &x);
        let sum = add(&mut tape, &p, &c).unwrap();
        assert_eq!(sum.wants_grad(), recording);
        let mut grads = ParamGrads::new(1);
        tape.backward(&sum, x.clone(), &mut grads).unwrap();
        assert_eq!(grads.get(0).is_some(), recording);
    }
}

/// A small block whose inner values fan out, so that recomputation has something to get wrong.
fn block(t: &mut Tape, [x, w, gain]: [Var; 3]) -> Result<[Var; 2]> {
    let y = rms_norm(t, &x, &gain, 1e-5)?;
    let [gate] = linear(t, &y, [Projection { w, lora: None }])?;
    let act = swiglu(t, &gate, &y)?;
    Ok([add(t, &x, &act)?, act])
}

#[test]
fn a_checkpointed_segment_gives_the_same_bits() {
    let inputs = [ramp([2, 3, 5], 0.1), ramp([5, 5], 0.9), ramp([5], 1.7)];
    let gradients = |checkpointed: bool, last: bool| {
        run(
            &inputs,
            |y| ramp([y.shape().len()], 0.4).reshape("seed", y.shape()).unwrap(),
            |t, [x, w, gain]| {
                let inputs = [&x, &w, &gain];
                let [h, act] = match checkpointed {
                    true => t.checkpoint(inputs, block)?,
                    false => block(t, inputs.map(Clone::clone))?,
                };
                // Either both outputs are used, or only one.
                let inputs = [&h, &w, &gain];
                let [h, _] = match checkpointed {
                    true => t.checkpoint(inputs, block)?,
                    false => block(t, inputs.map(Clone::clone))?,
                };
                if last { Ok(h) } else { add(t, &h, &act) }
            },
        )
    };
    for last in [false, true] {
        let (plain, kept) = gradients(false, last);
        let (again, recomputed) = gradients(true, last);
        assert_eq!(bits(&plain), bits(&again));
        for (kept, recomputed) in kept.iter().zip(&recomputed) {
            assert_eq!(bits(kept), bits(recomputed));
        }
    }
}

#[test]
fn views_of_wrong_shape_are_refused() {
    let tape = Tape::new(&Cpu);
    let x = tape.constant(ramp([2, 3, 4], 0.1));
    assert!(tape.split_heads(&x, 2).is_ok());
    assert_refused("width by heads", tape.split_heads(&x, 3));
    assert_refused("no width", tape.split_heads(&x, 0));
    assert_refused("rank to split", tape.split_heads(&tape.constant(ramp([2, 12], 0.1)), 4));
    assert_refused("rank to merge", tape.merge_heads(&x));
}
