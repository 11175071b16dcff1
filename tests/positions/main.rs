//! What position methods promise, for every method in the registry, and what each paper promises about its own.

#[path = "../common/mod.rs"]
mod common;

mod end_prompt;
mod golden;
mod long_recipe;
mod mix;
mod retrieval;
mod rows;

use std::sync::Arc;

use ltrain::error::Explain;
use ltrain::positions::{
    Coverage, E2Llm, Fact, MethodArgs, MethodError, Natural, Part, Plan, Pose, PositionPlan, RandPos, Spec, Uniform, Words,
    method, names,
};
use ltrain::rng::{Rng, Stream};
use proptest::prelude::*;

/// A language of 50 words: every fifth ends a sentence, every seventh is marked.
fn words() -> Words {
    let fact = |thing: u32, n: u32| Fact {
        statement: [100, 200 + thing, 300 + n, 101].into(),
        question: [102, 200 + thing].into(),
        answer: [300 + n].into(),
    };
    Words {
        ends: (0..50).map(|id| id % 5 == 0).collect(),
        marked: (0..50).map(|id| id % 7 == 0).collect(),
        end_prompt: [400, 401, 402].into(),
        facts: (0..8).map(|thing| (0..3).map(|n| fact(thing, n)).collect()).collect(),
    }
}

/// A document of that language.
fn text(len: usize) -> Vec<u32> {
    let mut rng = Rng::at(9, Stream::Text, len as u64);
    (0..len).map(|_| rng.below(50) as u32).collect()
}

/// Ranges of the document's tokens.
fn ranges(plan: &Plan) -> Vec<std::ops::Range<usize>> {
    let text = |part: &Part| match part {
        Part::Text(range) => Some(range.clone()),
        Part::Own(..) => None,
    };
    plan.parts.iter().filter_map(text).collect()
}

/// Any method, for lengths that may work together.
fn any_method() -> impl Strategy<Value = (Arc<dyn PositionPlan>, MethodArgs)> {
    let names: Vec<&'static str> = names().collect();
    (proptest::sample::select(names), 1usize..300, 1usize..12, 1usize..400, 1usize..6).prop_map(
        |(name, seq_len, factor, context, chunks)| {
            let args = MethodArgs { chunks: chunks.min(seq_len), ..MethodArgs::new(seq_len * factor, context, seq_len) };
            (method(name, &args, &words()).unwrap(), args)
        },
    )
}

/// The row's scale and plan, as training draws them.
fn draw(method: &dyn PositionPlan, available: usize, want: usize, seed: u64, row: u64) -> (f32, Plan) {
    let mut rng = Rng::at(seed, Stream::Positions, row);
    let scale = method.rope_scale(&mut rng).unwrap_or(1.0);
    (scale, method.plan(&text(available), want, scale, &mut rng))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_keeps_its_promise(
        (method, args) in any_method(), want in 1usize..300, extra in 0usize..500, seed: u64, row: u64,
    ) {
        let want = want.min(args.seq_len);
        let available = want + extra;
        let (scale, plan) = draw(&*method, available, want, seed, row);

        prop_assert_eq!(plan.positions.len(), want);
        prop_assert!(plan.positions.windows(2).all(|w| w[0] < w[1]), "{:?}", plan);
        let end = match method.name() {
            // Raw positions fill the scaled window; only a row longer than that goes beyond it.
            "e2-llm" => want.max(scale as usize * args.context),
            _ => args.target,
        };
        prop_assert!((plan.positions[want - 1] as usize) < end, "{:?}", plan);
        if method.name() != "random" {
            prop_assert_eq!(plan.positions[0], 0);
        }

        prop_assert_eq!(plan.parts.iter().map(Part::len).sum::<usize>(), want);
        prop_assert!(plan.parts.iter().all(|part| !part.is_empty()), "{:?}", plan);
        let ranges = ranges(&plan);
        prop_assert!(ranges.iter().all(|r| r.end <= available), "{:?}", plan);
        prop_assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start), "{:?}", plan);

        prop_assert!(scale >= 1.0 && scale.fract() == 0.0);
        prop_assert_eq!((scale, plan), draw(&*method, available, want, seed, row));
    }

    #[test]
    fn pose_jumps_once_per_boundary_and_starts_with_the_document(
        chunks in 1usize..6, want in 1usize..200, extra in 0usize..300, room in 0usize..900, seed: u64,
    ) {
        let pose = Pose { target: want + room, chunks };
        let (_, plan) = draw(&pose, want + extra, want, seed, 0);
        let jumps = plan.positions.windows(2).filter(|w| w[1] != w[0] + 1).count();
        prop_assert!(jumps < chunks, "{} jumps in {:?}", jumps, plan);
        let ranges = ranges(&plan);
        prop_assert_eq!(ranges[0].start, 0);
        prop_assert_eq!(ranges.len(), chunks.min(want));
        if chunks == 2 {
            prop_assert!(ranges[0].len() <= want.div_ceil(2));
        }
    }

    #[test]
    fn e2_llm_shifts_all_but_four_tokens_into_the_scaled_window(
        context in 1usize..300, max_scale in 1usize..30, want in 1usize..300, seed: u64,
    ) {
        let e2 = E2Llm { context, max_scale };
        let (scale, plan) = draw(&e2, want, want, seed, 0);
        prop_assert!((1..=max_scale).contains(&(scale as usize)));
        let room = (scale as usize * context).saturating_sub(want);
        for (m, &p) in plan.positions.iter().enumerate() {
            let shift = p as usize - m;
            if m < 4 {
                prop_assert_eq!(shift, 0);
            } else {
                prop_assert!(shift <= room);
                prop_assert_eq!(shift, plan.positions[4] as usize - 4);
            }
        }
    }
}

#[test]
fn rows_differ_from_each_other() {
    let args = MethodArgs::new(4096, 512, 256);
    for name in names() {
        let method = method(name, &args, &words()).unwrap();
        let plans: Vec<_> = (0..20).map(|row| draw(&*method, 5000, 256, 1, row)).collect();
        if name == "endprompt" {
            // Nothing is drawn: the text's beginning and the prompt.
            assert!(plans.windows(2).all(|w| w[0] == w[1]));
            continue;
        }
        let distinct = (1..20).filter(|&i| !plans[..i].contains(&plans[i])).count();
        assert!(distinct >= 15, "{name}: only {distinct} of 19 rows are new");
        assert_ne!(draw(&*method, 5000, 256, 2, 0), plans[0], "{name}: the seed changes nothing");
    }
}

#[test]
fn an_unknown_method_is_answered_with_the_list() {
    let error = "pos".parse::<Spec>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "--positions: expected one of natural, pose, random, e2-llm, longrecipe, endprompt, uniform, retrieval, got \"pos\""
    );
    assert_eq!(error.explain().exit_code(), 2);
}

#[test]
fn lengths_that_cannot_work_together_are_refused_when_the_method_is_built() {
    let args = MethodArgs::new(2048, 256, 256);
    for name in names() {
        assert_eq!(
            method(name, &MethodArgs { seq_len: 4096, ..args }, &words()).unwrap_err(),
            MethodError::RowTooLong { seq_len: 4096, target: 2048 }
        );
        assert_eq!(
            method(name, &MethodArgs { context: 0, ..args }, &words()).unwrap_err(),
            MethodError::Zero { what: "context" }
        );
        let far = 1 << 33;
        assert_eq!(method(name, &MethodArgs { target: far, ..args }, &words()).unwrap_err(), MethodError::TooFar { end: far });
    }
    assert_eq!(
        method("pose", &MethodArgs { chunks: 257, ..args }, &words()).unwrap_err(),
        MethodError::TooManyChunks { chunks: 257, seq_len: 256 }
    );
    assert!(method("pose", &MethodArgs { chunks: 0, ..args }, &words()).is_err());
    assert!(method("e2-llm", &MethodArgs { max_scale: Some(0), ..args }, &words()).is_err());
    assert!(method("e2-llm", &MethodArgs { max_scale: Some(1 << 31), ..args }, &words()).is_err());
}

/// χ² of `counts` against equal expectations stays below its mean plus five standard deviations.
fn uniform_counts(what: &str, counts: &[u32]) {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
    let df = (counts.len() - 1) as f64;
    assert!(chi2 < df + 5.0 * (2.0 * df).sqrt(), "{what}: χ² = {chi2:.1} with {df} degrees");
    assert!(chi2 > df - 5.0 * (2.0 * df).sqrt(), "{what}: χ² = {chi2:.1} is too good");
}

/// `count` of `of` is within five standard deviations of a binomial's mean.
fn within_five_sigma(what: &str, count: u32, of: u32, share: f64) {
    let (mean, sigma) = (f64::from(of) * share, (f64::from(of) * share * (1.0 - share)).sqrt());
    assert!((f64::from(count) - mean).abs() < 5.0 * sigma, "{what}: {count} of {of}, expected {mean:.0} ± {sigma:.0}");
}

#[test]
fn pose_draws_skips_lengths_and_content_uniformly() {
    let (target, want, available) = (72, 32, 47);
    let pose = Pose { target, chunks: 2 };
    let (mut skips, mut lengths, mut contents) = ([0; 41], [0; 16], [0; 16]);
    for row in 0..40_000 {
        let (_, plan) = draw(&pose, available, want, 3, row);
        skips[plan.positions[want - 1] as usize - (want - 1)] += 1;
        let ranges = ranges(&plan);
        lengths[ranges[0].len() - 1] += 1;
        contents[ranges[1].end - want] += 1;
    }
    uniform_counts("u ~ U{0..T-n}", &skips);
    uniform_counts("l0 ~ U{1..(n+1)/2}", &lengths);
    uniform_counts("end ~ U{n..available}", &contents);
}

#[test]
fn e2_llm_draws_scales_and_offsets_uniformly() {
    let e2 = E2Llm { context: 16, max_scale: 5 };
    let (mut scales, mut offsets) = ([0; 5], [0; 39]);
    for row in 0..100_000 {
        let (scale, plan) = draw(&e2, 10, 10, 4, row);
        scales[scale as usize - 1] += 1;
        if scale == 3.0 {
            offsets[plan.positions[9] as usize - 9] += 1;
        }
    }
    uniform_counts("g ~ U{1..G_max}", &scales);
    uniform_counts("t ~ U{0..g·L0-R}", &offsets);
}

#[test]
fn random_positions_are_an_even_sample() {
    let (target, want) = (37, 11);
    let method = RandPos { target };
    let mut counts = [0u32; 37];
    for row in 0..40_000 {
        for p in draw(&method, want, want, 5, row).1.positions {
            counts[p as usize] += 1;
        }
    }
    // Without replacement each count is binomial(40000, 11/37): sigma = 91.
    let expected = 40_000 * want as u32 / target as u32;
    assert!(counts.iter().all(|c| c.abs_diff(expected) < 5 * 91), "{counts:?}");
}

#[test]
fn natural_windows_start_anywhere_in_the_document() {
    let mut starts = [0; 21];
    for row in 0..21_000 {
        let (_, plan) = draw(&Natural, 30, 10, 6, row);
        assert_eq!(plan.positions, (0..10).collect::<Vec<u32>>());
        starts[ranges(&plan)[0].start] += 1;
    }
    uniform_counts("offset", &starts);
}

/// The histogram against counting every pair.
#[test]
fn coverage_counts_exactly() {
    let rows: Vec<Vec<u32>> = (0..60)
        .map(|row| match row % 4 {
            0 => draw(&Pose { target: 200, chunks: 4 }, 40, 33, 7, row).1.positions,
            1 => draw(&RandPos { target: 200 }, 40, 29, 7, row).1.positions,
            2 => draw(&E2Llm { context: 50, max_scale: 5 }, 40, 31, 7, row).1.positions,
            _ => vec![row as u32],
        })
        .collect();
    let mut coverage = Coverage::new(200, 30);
    let (mut pairs, mut covered) = ([0.0; 29], [0.0; 29]);
    let bucket = |distance: usize| (distance / 7).min(28);
    let mut far = 0.0;
    for row in &rows {
        coverage.add(row);
        let mut hit = [false; 29];
        for (i, q) in row.iter().enumerate() {
            for k in &row[..i] {
                let distance = (q - k) as usize;
                pairs[bucket(distance)] += 1.0;
                hit[bucket(distance)] = true;
                far += f64::from(u8::from(distance >= 100));
            }
        }
        hit.iter().zip(&mut covered).for_each(|(&hit, c)| *c += f64::from(u8::from(hit)));
    }
    let buckets = coverage.buckets();
    assert_eq!(coverage.rows(), 60);
    assert_eq!(buckets.len(), 29);
    assert_eq!((buckets[0].distance_lo, buckets[0].distance_hi), (1, 7));
    assert!(buckets.windows(2).all(|w| w[0].distance_hi == w[1].distance_lo));
    for (i, bucket) in buckets.iter().enumerate() {
        assert_eq!(bucket.pairs, pairs[i], "{bucket:?}");
        assert_eq!(bucket.covered_rows, covered[i] / 60.0, "{bucket:?}");
    }
    // So few rows leave gaps everywhere, so that a share of buckets would be another number.
    let few = &rows[..4];
    let distances: std::collections::BTreeSet<u32> =
        few.iter().flat_map(|row| row.iter().enumerate().flat_map(|(i, q)| row[..i].iter().map(move |k| q - k))).collect();
    let far_seen = distances.range(40..200).count();
    assert!((1..150).contains(&far_seen), "{far_seen}");
    let mut counted = Coverage::new(200, 30);
    few.iter().for_each(|row| counted.add(row));
    assert_eq!(counted.share_seen(40..200), Some(far_seen as f64 / 160.0));
    assert_eq!(counted.share_seen(200..200), None);
    let all: f64 = pairs.iter().sum();
    assert_eq!(coverage.share_beyond(100), far / all);
    assert_eq!(coverage.share_beyond(1), 1.0);
    assert_eq!(Coverage::new(200, 30).share_beyond(1), 0.0);
}

fn run_of(method: &dyn PositionPlan, target: usize, want: usize, buckets: usize, rows: u64) -> Coverage {
    let mut coverage = Coverage::new(target, buckets);
    for row in 0..rows {
        coverage.add(&draw(method, want, want, 8, row).1.positions);
    }
    coverage
}

/// For `R ≤ D ≤ T−R`: P(covered) = (R−1)/(T−R+1) = 14.3 %, and 48.8 pairs, for 2k → 16k.
#[test]
fn pose_covers_far_distances_as_its_closed_form_says() {
    let (r, t, rows) = (2048, 16384, 20_000);
    let coverage = run_of(&Pose { target: t, chunks: 2 }, t, r, t, rows);
    let buckets = coverage.buckets();
    let middle = &buckets[r..=t - r];
    // A row's cut and skip decide all of its distances together: 20,000 rows put 0.25 % on a single distance's 14.3 %,
    // and the mean over the plateau is far better.
    let covered = middle.iter().map(|b| b.covered_rows).sum::<f64>() / middle.len() as f64;
    assert!((covered - 0.1428).abs() < 0.002, "covered {covered}");
    for distance in [4096, 8192, 12000] {
        let one = buckets[distance].covered_rows;
        assert!((one - 0.1428).abs() < 5.0 * 0.0025, "{distance}: {one}");
    }
    let pairs = middle.iter().map(|b| b.pairs).sum::<f64>() / middle.len() as f64 / rows as f64;
    assert!((pairs - 48.8).abs() < 1.0, "pairs {pairs}");
    // And the tail falls linearly: (T−D)/(T−R+1).
    let tail = buckets[t - 1000].covered_rows;
    assert!((tail - 1000.0 / 14337.0).abs() < 5.0 * 0.0018, "tail {tail}");
    assert!((coverage.share_beyond(r) - 0.31).abs() < 0.01, "{}", coverage.share_beyond(r));
}

/// (far mean pairs per row, their coefficient of variation, density at T − R/16 relative to the mean), far being
/// `R ≤ D < T − R/32`.
fn far_statistics(method: &dyn PositionPlan) -> (f64, f64, f64) {
    let (r, t, rows) = (256, 2048, 200_000);
    let buckets = run_of(method, t, r, t, rows).buckets();
    let far: Vec<f64> = buckets[r..t - r / 32].iter().map(|b| b.pairs / rows as f64).collect();
    let mean = far.iter().sum::<f64>() / far.len() as f64;
    let variance = far.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / far.len() as f64;
    (mean, variance.sqrt() / mean, buckets[t - r / 16].pairs / rows as f64 / mean)
}

#[test]
fn uniform_trains_far_distances_more_and_more_evenly_than_pose() {
    let (t, tolerance) = (2048, 0.02);
    let near = |what: &str, got: f64, want: f64| {
        assert!((got - want).abs() < tolerance * want + 0.005, "{what}: {got:.4} vs {want}");
    };
    let (mean, cv, end) = far_statistics(&Pose { target: t, chunks: 2 });
    near("pose: pairs", mean, 5.72);
    near("pose: variation", cv, 0.224);
    near("pose: end", end, 0.01);
    let (mean, cv, end) = far_statistics(&Uniform { target: t });
    // One row in ten is contiguous and has no far pairs; ratios do not change.
    near("uniform: pairs", mean, 0.9 * 7.25);
    near("uniform: variation", cv, 0.133);
    near("uniform: end", end, 0.45);
}
