//! Mixes: a method per row by its share, and one scale per row or step.

use ltrain::positions::{MethodArgs, Mix, Part, Spec, build, method, names};
use ltrain::rng::{Rng, Stream};

use super::{text, uniform_counts, within_five_sigma, words};

fn mix(spec: &str, args: &MethodArgs) -> Mix {
    build(&spec.parse::<Spec>().unwrap(), args, &words()).unwrap()
}

/// The method of a row, where only these two bring tokens of their own.
fn kind(mix: &Mix, seed: u64, row: u64) -> &'static str {
    let plan = mix.row(seed, row).plan(&text(64), 64);
    match plan.parts.iter().find(|part| matches!(part, Part::Own(..))) {
        Some(Part::Own(tokens, _)) if tokens[0] == 400 => "endprompt",
        Some(_) => "retrieval",
        None => "another",
    }
}

#[test]
fn rows_are_shared_out_by_weight() {
    let mix = mix("mix:endprompt=25,natural=15,retrieval=60", &MethodArgs::new(512, 64, 64));
    let kinds: Vec<_> = (0..20_000).map(|row| kind(&mix, 3, row)).collect();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count() as u32;
    for (kind, share) in [("another", 0.15), ("endprompt", 0.25), ("retrieval", 0.6)] {
        within_five_sigma(kind, count(kind), 20_000, share);
    }
    // A row's method says nothing about that of the next.
    let twice = kinds.windows(2).filter(|pair| *pair == ["endprompt"; 2]).count() as u32;
    within_five_sigma("endprompt twice", twice, 19_999, 0.0625);
}

#[test]
fn a_row_is_a_function_of_the_seed_and_its_number() {
    let args = MethodArgs::new(512, 100, 64);
    let mixed = || mix("mix:pose=1,e2-llm=1,longrecipe=1,retrieval=1", &args);
    let (one, other) = (mixed(), mixed());
    let row = |mix: &Mix, seed, row| {
        let mut row = mix.row(seed, row);
        (row.scale, row.plan(&text(200), 64), row.plan(&text(30), 30))
    };
    let forwards: Vec<_> = (0..100).map(|i| row(&one, 7, i)).collect();
    let mut backwards: Vec<_> = (0..100).rev().map(|i| row(&other, 7, i)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let elsewhere = (0..100).filter(|&i| row(&one, 8, i) == forwards[i as usize]).count();
    assert!(elsewhere < 5, "{elsewhere} rows of another seed are the same");
}

#[test]
fn one_method_alone_is_that_method() {
    let args = MethodArgs::new(512, 100, 64);
    for name in names() {
        let alone = method(name, &args, &words()).unwrap();
        for (spec, row) in [name.to_owned(), format!("mix:{name}=7")].iter().zip([3, 1000]) {
            let mut rng = Rng::at(5, Stream::Positions, row);
            let scale = alone.rope_scale(&mut Rng::at(5, Stream::Scale, row)).unwrap_or(1.0);
            let mixed = mix(spec, &args);
            let mut drawn = mixed.row(5, row);
            assert_eq!(drawn.scale, scale, "{spec}");
            for (available, want) in [(200, 40), (24, 24)] {
                let text = text(available);
                assert_eq!(drawn.plan(&text, want), alone.plan(&text, want, scale, &mut rng), "{spec}");
            }
        }
    }
}

/// Where E²-LLM scales its own rows on the base rotation, the others are interpolated to the target.
#[test]
fn other_rows_are_interpolated_where_e2_llm_has_a_share() {
    let long = MethodArgs::new(640, 256, 64);
    let scales = |spec: &str, args: &MethodArgs| {
        let mix = mix(spec, args);
        let mut scales = [vec![], vec![]];
        (0..400).for_each(|row| scales[usize::from(kind(&mix, 2, row) == "another")].push(mix.row(2, row).scale));
        scales
    };
    let [prompts, e2] = scales("mix:endprompt=1,e2-llm=1", &long);
    assert!(prompts.len() > 100 && prompts.iter().all(|&scale| scale == 2.5), "{prompts:?}");
    assert!(e2.len() > 100 && [1.0, 2.0, 3.0].iter().all(|g| e2.contains(g)), "{e2:?}");
    assert!(e2.iter().all(|g| [1.0, 2.0, 3.0].contains(g)), "{e2:?}");
    let shorter = MethodArgs::new(640, 1000, 64);
    for (spec, args) in [("mix:endprompt=1,pose=1", &long), ("mix:endprompt=1,e2-llm=1", &shorter)] {
        assert!(scales(spec, args).concat().iter().all(|&scale| scale == 1.0), "{spec}");
    }
}

/// The paper's equations: one scale per iteration.
#[test]
fn rows_of_a_step_share_their_scale_and_steps_do_not() {
    let args = MethodArgs { rows_per_scale: 16, max_scale: Some(5), ..MethodArgs::new(512, 100, 64) };
    let e2 = mix("e2-llm", &args);
    let scales: Vec<f32> = (0..10_000).map(|step| e2.row(4, 16 * step).scale).collect();
    for (step, &scale) in scales.iter().enumerate().take(100) {
        assert!((0..16).all(|row| e2.row(4, 16 * step as u64 + row).scale == scale), "step {step}");
    }
    let mut counts = [0; 5];
    scales.iter().for_each(|&scale| counts[scale as usize - 1] += 1);
    uniform_counts("g ~ U{1..G_max} per step", &counts);
    let alike = scales.windows(2).filter(|pair| pair[0] == pair[1]).count() as u32;
    within_five_sigma("steps with the scale of the one before", alike, 9_999, 0.2);

    // Rows of a step have offsets of their own.
    let offsets: Vec<u32> = (0..16).map(|row| e2.row(4, row).plan(&text(8), 8).positions[7]).collect();
    assert!(offsets.iter().any(|&offset| offset != offsets[0]), "{offsets:?}");
    // In a mix, all rows of the method.
    let mixed = mix("mix:e2-llm=1,endprompt=1", &args);
    for step in 0..50 {
        let rows = (16 * step..16 * (step + 1)).filter(|&row| kind(&mixed, 4, row) == "another");
        assert!(rows.clone().count() > 0 && rows.into_iter().all(|row| mixed.row(4, row).scale == scales[step as usize]));
    }
    // Per row it is drawn anew.
    let each = mix("e2-llm", &MethodArgs { rows_per_scale: 1, ..args });
    let scales: Vec<f32> = (0..10_000).map(|row| each.row(4, row).scale).collect();
    let alike = scales.windows(2).filter(|pair| pair[0] == pair[1]).count() as u32;
    within_five_sigma("rows with the scale of the one before", alike, 9_999, 0.2);
}
