//! LongRecipe (sections 4.1 and 4.2, appendix algorithm 1): what is kept, and where the gaps fall.

use std::ops::Range;

use ltrain::positions::{LongRecipe, Plan, PositionPlan as _};
use ltrain::rng::{Rng, Stream};
use proptest::prelude::*;

use super::{draw, ranges, text, uniform_counts, within_five_sigma, words};

fn recipe(target: usize, rest: f64) -> LongRecipe {
    let words = words();
    LongRecipe { target, rest, ends: words.ends, marked: words.marked }
}

/// The document's sentences, by the words of [`words`].
fn sentences(text: &[u32]) -> Vec<Range<usize>> {
    let ends = (1..=text.len()).filter(|&end| end == text.len() || text[end - 1].is_multiple_of(5));
    let mut start = 0;
    ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
}

fn matters(text: &[u32], sentence: &Range<usize>) -> bool {
    text[sentence.clone()].iter().any(|id| id.is_multiple_of(7))
}

/// Index in the document of every token of the row.
fn sources(plan: &Plan) -> Vec<usize> {
    ranges(plan).into_iter().flatten().collect()
}

/// Positions skipped before every token of the row.
fn skips(plan: &Plan) -> Vec<usize> {
    plan.positions.iter().enumerate().map(|(place, &p)| p as usize - place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn gaps_fall_between_sentences_and_where_the_head_ends(
        want in 1usize..200, extra in 0usize..300, room in 0usize..900, rest in 0.0..=1.0f64, seed: u64,
    ) {
        let (_, plan) = draw(&recipe(want + room, rest), want + extra, want, seed, 0);
        let starts: Vec<usize> = sentences(&text(want + extra)).iter().map(|s| s.start).collect();
        let (sources, skips) = (sources(&plan), skips(&plan));
        prop_assert_eq!((sources[0], skips[0]), (0, 0));
        prop_assert!(sources.is_sorted_by(|a, b| a < b), "a token twice, or out of order: {:?}", plan);
        prop_assert!(skips.is_sorted() && skips[want - 1] <= room, "{:?}", plan);

        let jumps: Vec<usize> = (1..want).filter(|&k| skips[k] > skips[k - 1]).collect();
        let inside: Vec<usize> = jumps.iter().copied().filter(|&k| !starts.contains(&sources[k])).collect();
        prop_assert!(inside.is_empty() || inside == jumps[..1], "torn at {:?} of {:?}", inside, plan);
        prop_assert!(inside.iter().all(|&head| head <= want.div_ceil(2)), "a head of {:?} in {:?}", inside, plan);
    }

    #[test]
    fn whole_sentences_are_kept_and_those_that_matter_before_the_others(
        want in 1usize..200, extra in 0usize..300, rest in 0.0..=1.0f64, seed: u64,
    ) {
        let text = text(want + extra);
        let sentences = sentences(&text);
        let keep = |rest: f64| {
            let sources = sources(&draw(&recipe(1000, rest), text.len(), want, seed, 0).1);
            sentences.iter().map(|s| sources.iter().filter(|&i| s.contains(i)).count()).collect::<Vec<_>>()
        };
        let kept = keep(rest);
        let torn = sentences.iter().zip(&kept).filter(|(s, tokens)| **tokens > 0 && **tokens < s.len()).count();
        prop_assert!(torn <= 1 && kept[0] > 0, "{:?} of {:?}", kept, sentences);

        // Without a share of the others one of them is taken only when all that matter are.
        let kept = keep(0.0);
        let of = |matter: bool| (1..sentences.len()).filter(|&i| matters(&text, &sentences[i]) == matter).collect::<Vec<_>>();
        if of(false).iter().any(|&i| kept[i] > 0) {
            prop_assert!(of(true).iter().all(|&i| kept[i] == sentences[i].len()), "{:?} of {:?}", kept, sentences);
        }
    }
}

/// Of many rows: how often a sentence was taken, for those that matter and the others, in each quarter of the document.
fn taken(rest: f64, want: usize) -> [[(u32, u32); 4]; 2] {
    let text = text(3000);
    let sentences = sentences(&text);
    let mut counts = [[(0, 0); 4]; 2];
    for row in 0..500 {
        let sources = sources(&draw(&recipe(4000, rest), text.len(), want, 3, row).1);
        for sentence in &sentences[1..] {
            let (taken, of) = &mut counts[usize::from(!matters(&text, sentence))][4 * sentence.start / text.len()];
            *of += 1;
            *taken += u32::from(sources.binary_search(&sentence.start).is_ok());
        }
    }
    counts
}

#[test]
fn rows_are_drawn_evenly_from_the_whole_document() {
    let counts_of = taken(0.4, 900);
    let [matter, others] = counts_of;
    let share = |counts: &[(u32, u32)]| {
        let (taken, of) = counts.iter().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        f64::from(taken) / f64::from(of)
    };
    for (name, counts) in [("matter", matter), ("others", others)] {
        for (quarter, (taken, of)) in counts.into_iter().enumerate() {
            within_five_sigma(&format!("{name}, quarter {quarter}"), taken, of, share(&counts));
        }
    }
    // The row holds part of those that are kept, and the kept are all alike.
    let (matter, others) = (share(&matter), share(&others));
    assert!(matter < 0.9, "{matter}: the row is meant to be too short for all that matter");
    // Five standard errors of a ratio of two independent shares.
    let spread = |share: f64, of: u32| (1.0 - share) / (share * f64::from(of));
    let of = counts_of.map(|counts| counts.iter().map(|(_, of)| of).sum());
    let error = others / matter * (spread(matter, of[0]) + spread(others, of[1])).sqrt();
    assert!((others / matter - 0.4).abs() < 5.0 * error, "{others} of the others, {matter} of those that matter, ± {error}");
}

/// Plans of a document in which 0 ends a sentence and matters.
fn plans(text: &[u32], target: usize, rows: u64) -> impl Iterator<Item = Plan> {
    let recipe = LongRecipe { target, rest: 0.0, ends: [true].into(), marked: [true].into() };
    let of_row = move |row| recipe.plan(text, text.len(), 1.0, &mut Rng::at(4, Stream::Positions, row));
    (0..rows).map(of_row)
}

/// Three skips fall into two gaps and the tail in (3+2 over 2) = 10 ways, which are equally likely.
#[test]
fn skips_are_a_uniform_composition() {
    // The head ends in the first sentence at the latest, so that both gaps show.
    let text = [1, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0];
    let ways: Vec<[usize; 2]> = (0..=3).flat_map(|second| (second..=3).map(move |third| [second, third])).collect();
    let mut counts = [0; 10];
    for plan in plans(&text, 15, 40_000) {
        let skips = skips(&plan);
        counts[ways.iter().position(|way| *way == [skips[6], skips[9]]).unwrap()] += 1;
    }
    uniform_counts("compositions of 3 into 3 parts", &counts);
}

#[test]
fn heads_are_uniform_up_to_half_of_the_row() {
    // A sentence per token, and so much room that there is a gap behind almost every one.
    let mut counts = [0; 16];
    for plan in plans(&[0; 31], 10_000_000, 32_000) {
        counts[skips(&plan).iter().filter(|&&skip| skip == 0).count() - 1] += 1;
    }
    uniform_counts("h ~ U{1..(n+1)/2}", &counts);
}
