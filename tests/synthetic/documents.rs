//! Facts, chains, repetitions and filler.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use ltrain::data::SyntheticBuilder;
use ltrain::data::attend::Attend;
use ltrain::data::synthetic::vocabulary::{BOS, IS, KEY, LET, STOP, TRACE, VARIABLES};
use ltrain::data::synthetic::{Document, KNOWN, Kind, OTHER, Probe, REPEATED, STAGES, Stage, SyntheticError, known, recalls};
use ltrain::positions::{MethodArgs, Words, build};

use crate::sentences;

const LONG: Kind = Kind::Facts { keys: 40, recalls: 90 };

const CHAINS: Kind = Kind::Chains { chains: 5, links: 3 };

const PINNED: &str = "some house meets this young baker carries today . that forest fears that fire . \
    key is basil 7 9 . key is orchid 0 6 . key is basil 7 9 . key is orchid 0 6 .";

/// Weights that a document of facts or chains should have, from its words alone.
fn expected_weights(document: &Document) -> Vec<f32> {
    let mut expected = vec![OTHER; document.tokens.len()];
    expected[0] = 0.0;
    let mut values: HashMap<u32, &[u32]> = HashMap::new();
    for (at, sentence) in sentences(&document.tokens) {
        let known = match *sentence {
            [KEY, IS, key, _, _, STOP] => match values.insert(key, &sentence[3..5]) {
                Some(stated) => {
                    assert_eq!(stated, &sentence[3..5], "a recall contradicts its fact");
                    3..5
                }
                None => continue,
            },
            [LET, name, .., STOP] => {
                let known = values.insert(name, &sentence[2..sentence.len() - 1]);
                assert_eq!(known, None, "a variable is assigned twice");
                continue;
            }
            [TRACE, .., STOP] => {
                let (mut name, mut walk) = (sentence[1], &sentence[2..sentence.len() - 1]);
                while let [next, rest @ ..] = walk
                    && VARIABLES.contains(next)
                {
                    assert_eq!(values[&name], [*next], "a walk leaves its chain");
                    (name, walk) = (*next, rest);
                }
                assert_eq!(values[&name], walk, "a walk ends in another value");
                2..sentence.len() - 1
            }
            _ => continue,
        };
        expected[at + known.start..at + known.end].fill(KNOWN);
    }
    expected
}

/// Whether the token at `place` follows from the sentences of `row` before it, of which the first and the last may be torn.
fn follows(row: &[u32], place: usize) -> bool {
    let before = |end: usize, words: &[u32]| row[..end].windows(words.len()).any(|w| w == words);
    let start = row[..place].iter().rposition(|t| [KEY, TRACE].contains(t)).unwrap();
    if row[start] == KEY {
        // The value of a fact: its words so far and the rest of it stand before this sentence.
        return row.len() > start + 5 && before(start, &row[start..start + 6]);
    }
    // A walk: each of its steps so far, and the one to this token, was assigned.
    let step = |at: usize| match VARIABLES.contains(&row[at + 1]) {
        true => before(start, &[LET, row[at], row[at + 1], STOP]),
        false => row.len() > at + 2 && before(start, &[LET, row[at], row[at + 1], row[at + 2], STOP]),
    };
    (start + 1..place).take_while(|&at| VARIABLES.contains(&row[at])).all(step)
}

#[test]
fn what_a_row_does_not_say_is_not_known_in_it() -> Result<()> {
    for kind in [LONG, CHAINS] {
        for index in 0..20 {
            let Document { tokens, weights } = kind.document(1500, 2, index)?;
            let places = |weights: &[f32]| (0..weights.len()).filter(|&i| weights[i] == KNOWN).collect::<BTreeSet<_>>();
            assert_eq!(known(&tokens).into_iter().collect::<BTreeSet<_>>(), places(&weights), "all of a document says it all");
            let (mut kept, mut lost) = (0, 0);
            // Chains need more room for their assignments to be there.
            let length = if kind == CHAINS { 1100 } else { 300 };
            for start in (0..1500 - length).step_by(97) {
                let row = &tokens[start..start + length];
                let expected = places(&weights[start..start + length]).into_iter().filter(|&place| {
                    // A sentence that began before the row says nothing.
                    let begun = row[..place].iter().any(|t| [KEY, TRACE].contains(t));
                    let follows = begun && follows(row, place);
                    (kept, lost) = (kept + u32::from(follows), lost + u32::from(!follows));
                    follows
                });
                assert_eq!(known(row).into_iter().collect::<BTreeSet<_>>(), expected.collect(), "{kind:?}, from {start}");
            }
            assert!(lost > 0 && kept > 0, "{kind:?}: {kept} kept, {lost} lost");
        }
    }
    Ok(())
}

#[test]
fn assignments_in_a_circle_end() {
    let [a, b] = [VARIABLES.start, VARIABLES.start + 1];
    let walk = [LET, a, b, STOP, LET, b, a, STOP, TRACE, a, b, a];
    assert!(known(&walk).iter().all(|&place| place < walk.len()));
    assert!(known(&[TRACE]).is_empty() && known(&[LET, a, a, STOP, TRACE]).is_empty());
}

#[test]
fn rows_that_are_part_of_a_document_weigh_what_they_say() -> Result<()> {
    let stage: Stage = "synthetic:mixed-2048".parse()?;
    for (name, seq_len) in [("natural", 256), ("pose", 256), ("natural", 2048)] {
        let method = build(&name.parse()?, &MethodArgs::new(2048, 256, seq_len), &Words::default())?;
        let builder = SyntheticBuilder { stage, method, seed: 4, attention: Attend::Full, seq_len };
        let (mut known_targets, mut of_documents) = (0, 0);
        for row in 0..40 {
            let batch = builder.batch(row, 1)?;
            // A part of a repetition has no weights: all of it weighs the same.
            let Some(weights) = &batch.targets.weights else { continue };
            let (ids, weights) = (batch.ids.as_u32()?, weights.as_f32()?);
            if weights.contains(&REPEATED) {
                continue;
            }
            // What is said again in a row was said before in its document, so it weighs what the document says.
            let heavy: BTreeSet<usize> = (1..seq_len).filter(|&i| weights[i - 1] == KNOWN).collect();
            let said: BTreeSet<usize> = known(ids).into_iter().collect();
            assert_eq!(heavy, said, "{name} {seq_len}, row {row}");
            known_targets += heavy.len();
            of_documents += stage.document(4, row)?.weights.iter().filter(|w| **w == KNOWN).count();
        }
        assert!(known_targets > 100, "{name} {seq_len}: {known_targets}");
        assert_eq!(known_targets == of_documents, seq_len == 2048, "{name} {seq_len}: {known_targets} of {of_documents}");
    }
    Ok(())
}

#[test]
fn a_document_depends_on_its_kind_length_seed_and_index_only() -> Result<()> {
    let at = |seed, index| LONG.document(1500, seed, index);
    assert_eq!(at(5, 9)?, at(5, 9)?);
    assert_ne!(at(5, 9)?, at(6, 9)?);
    assert_ne!(at(5, 9)?, at(5, 10)?);
    // Pinned: the committed model and its figures were made with exactly these words.
    let words = Kind::Facts { keys: 2, recalls: 2 }.document(40, 1, 0)?.text();
    assert_eq!(words, PINNED);
    Ok(())
}

#[test]
fn every_recall_repeats_an_earlier_fact_and_weighs_more_than_the_rest() -> Result<()> {
    for kind in [LONG, CHAINS, Kind::Facts { keys: 6, recalls: 4 }] {
        let length = if kind == LONG { 1111 } else { 150 };
        for index in 0..40 {
            let document = kind.document(length, 3, index)?;
            assert_eq!(document.weights, expected_weights(&document), "{kind:?} {index}");
        }
    }
    Ok(())
}

#[test]
fn documents_hold_as_many_facts_recalls_and_chains_as_asked_for() -> Result<()> {
    let count = |document: &Document, word| document.tokens.iter().filter(|&&t| t == word).count();
    let facts = LONG.document(1111, 3, 0)?;
    assert_eq!(count(&facts, KEY), 40 + 90);
    assert_eq!(recalls(&facts.tokens).len(), 90);
    assert_eq!(facts.known().count(), 2 * 90);
    let chains = CHAINS.document(300, 3, 0)?;
    assert_eq!((count(&chains, LET), count(&chains, TRACE)), (5 * 4, 5));
    Ok(())
}

#[test]
fn a_repetition_weighs_exactly_what_its_first_round_determines() -> Result<()> {
    let mut periods = BTreeSet::new();
    for index in 0..300 {
        let document = Kind::Repeat.document(97, 2, index)?;
        let tokens = &document.tokens;
        let silent = document.weights.iter().take_while(|&&w| w == 0.0).count();
        assert!(document.weights[silent..].iter().all(|&w| w == REPEATED));
        let period = silent - 2;
        assert!((period + 1..97).all(|i| tokens[i] == tokens[i - period]), "{index}");
        periods.insert(period);
    }
    assert_eq!(periods, (4..=16).collect());
    Ok(())
}

#[test]
fn lengths_are_exact_and_ids_stay_inside_the_vocabulary() -> Result<()> {
    let checks = |document: &Document, length| {
        assert_eq!((document.tokens.len(), document.weights.len()), (length, length));
        assert_eq!((document.tokens[0], document.weights[0]), (BOS, 0.0));
        assert!(document.tokens[1..].iter().all(|&t| (STOP..256).contains(&t)));
    };
    for stage in STAGES {
        for index in 0..20 {
            checks(&stage.document(1, index)?, stage.length);
        }
    }
    for length in [61, 64, 67, 255, 1000, 5003] {
        checks(&Kind::Facts { keys: 6, recalls: 4 }.document(length, 1, 0)?, length);
    }
    for length in [151, 203] {
        checks(&CHAINS.document(length, 1, 0)?, length);
    }
    Ok(())
}

#[test]
fn filler_is_far_from_uniform_but_not_a_single_sentence() -> Result<()> {
    let filler = Kind::Facts { keys: 0, recalls: 0 };
    let mut pairs: HashMap<(u32, u32), f64> = HashMap::new();
    let mut singles: HashMap<u32, f64> = HashMap::new();
    for index in 0..40 {
        for pair in filler.document(5000, 1, index)?.tokens.windows(2) {
            *pairs.entry((pair[0], pair[1])).or_default() += 1.0;
            *singles.entry(pair[0]).or_default() += 1.0;
        }
    }
    let total: f64 = pairs.values().sum();
    let nll = pairs.iter().map(|(&(a, _), n)| -n * (n / singles[&a]).ln()).sum::<f64>() / total;
    assert!((1.0..2.0).contains(&nll), "bigram entropy {nll} nats; uniform would be 5.5");
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let refused = |e: SyntheticError| e.to_string();
    let facts = Kind::Facts { keys: 10, recalls: 10 }.document(120, 0, 0);
    assert_eq!(refused(facts.unwrap_err()), "synthetic text: a document of facts needs at least 121 tokens, got a length of 120");
    let many = Kind::Facts { keys: 65, recalls: 0 }.document(4096, 0, 0);
    assert_eq!(refused(many.unwrap_err()), "synthetic text: the vocabulary has 64 keys, got a request for 65");
    assert!(Kind::Repeat.document(32, 0, 0).is_err());
    assert!(Kind::Chains { chains: 7, links: 3 }.document(4096, 0, 0).is_err());
    assert!(Kind::Chains { chains: 2, links: 3 }.document(50, 0, 0).is_err());
    assert!(Probe { length: 11, depth: 0.0, distractors: 0 }.prompt(0, 0).is_err());
}
