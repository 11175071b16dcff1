//! Retrieval rows: one fact before the jump, the question and its only right answer behind it.

use ltrain::positions::retrieval::ANSWER;
use ltrain::positions::{Part, Plan, Retrieval};
use proptest::prelude::*;

use super::{draw, ranges, uniform_counts, within_five_sigma, words};

/// Tokens of a statement, and of a question with its answer, in [`words`].
const STATEMENT: usize = 4;
const QUESTION: usize = 3;

/// What the method brought: place of its first token, tokens, weight.
fn own(plan: &Plan) -> Vec<(usize, Vec<u32>, f32)> {
    let mut own = Vec::new();
    let mut place = 0;
    for part in &plan.parts {
        if let Part::Own(tokens, weight) = part {
            own.push((place, tokens.to_vec(), *weight));
        }
        place += part.len();
    }
    own
}

fn retrieval(target: usize) -> Retrieval {
    Retrieval { target, facts: words().facts }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_question_has_one_right_answer_and_it_stands_before_the_jump(
        want in 14usize..200, extra in 0usize..300, room in 0usize..900, seed: u64,
    ) {
        let (_, plan) = draw(&retrieval(want + room), want + extra, want, seed, 0);
        let skip = |place: usize| plan.positions[place] as usize - place;
        prop_assert_eq!((ranges(&plan)[0].start, plan.positions[0]), (0, 0));

        let own = own(&plan);
        let [statements @ .., (asked, question, one), (at, answer, weight)] = own.as_slice() else { panic!("{plan:?}") };
        prop_assert_eq!((at + answer.len(), asked + question.len()), (want, *at), "the answer ends the row: {:?}", plan);
        prop_assert_eq!((*one, *weight), (1.0, ANSWER));

        // [100, 200 + thing, 300 + value, 101] states, [102, 200 + thing] asks.
        let mut things: Vec<u32> = statements.iter().map(|(_, tokens, _)| tokens[1]).collect();
        let stated: Vec<_> = statements.iter().filter(|(_, tokens, _)| tokens[1] == question[1]).collect();
        let [(place, tokens, _)] = stated.as_slice() else { panic!("stated {} times: {plan:?}", stated.len()) };
        prop_assert_eq!(&tokens[2..3], answer.as_slice());
        prop_assert!(statements.iter().all(|(_, tokens, weight)| tokens[0] == 100 && *weight == 1.0));
        things.sort_unstable();
        things.dedup();
        prop_assert_eq!(things.len(), statements.len(), "two facts about one thing: {:?}", plan);

        let fits = (want / 2 - QUESTION) / STATEMENT;
        prop_assert!((fits.min(3)..=fits.min(6)).contains(&statements.len()), "{} facts in {}", statements.len(), want);

        // All before the jump is contiguous, all behind it is moved by as much.
        let far = skip(want - 1);
        let jump = (0..want).find(|&k| skip(k) > 0).unwrap_or(want);
        prop_assert!(far <= room && (jump..want).all(|k| skip(k) == far), "{:?}", plan);
        prop_assert!(far == 0 || (place + STATEMENT..=*asked).contains(&jump), "jump at {} in {:?}", jump, plan);
        prop_assert_eq!((plan.positions[*at] - plan.positions[*place]) as usize, at - place + far);
    }

    #[test]
    fn a_document_too_short_for_a_fact_stays_as_it_is(want in 1usize..14, extra in 0usize..300, room in 0usize..900, seed: u64) {
        let (_, plan) = draw(&retrieval(want + room), want + extra, want, seed, 0);
        prop_assert_eq!(ranges(&plan).len(), 1);
        prop_assert!(own(&plan).is_empty());
        prop_assert_eq!(plan.positions, (0..want as u32).collect::<Vec<_>>());
    }
}

#[test]
fn distances_facts_and_their_order_are_drawn_evenly() {
    let (want, room, rows) = (100, 20, 40_000);
    let (mut distances, mut numbers, mut ranks, mut things) = ([0; 21], [0; 4], [0; 3], [0; 8]);
    let (mut moved, mut near) = (0, 0);
    for row in 0..rows {
        let (_, plan) = draw(&retrieval(want + room), want, want, 6, row);
        let skip = |place: usize| plan.positions[place] as usize - place;
        distances[skip(want - 1)] += 1;
        let own = own(&plan);
        let (statements, question) = (&own[..own.len() - 2], &own[own.len() - 2].1);
        things[question[1] as usize - 200] += 1;
        numbers[statements.len() - 3] += 1;
        if statements.len() == 3 {
            let rank = statements.iter().position(|(_, tokens, _)| tokens[1] == question[1]).unwrap();
            ranks[rank] += 1;
            // Where the fact asked for is the first, the jump is behind it, the second or the third.
            if rank == 0 && skip(want - 1) > 0 {
                moved += 1;
                near += u32::from(skip(statements[2].0) == 0);
            }
        }
    }
    uniform_counts("u ~ U{0..T-n}", &distances[..20]);
    within_five_sigma("rows that end at the target", distances[20], rows as u32, 0.2 + 0.8 / 21.0);
    uniform_counts("others ~ U{2..5}", &numbers);
    uniform_counts("place of the fact asked for", &ranks);
    uniform_counts("the thing asked for", &things);
    within_five_sigma("all facts before the jump", near, moved, 1.0 / 3.0);
}
