//! Questions at the end of a document.

use std::collections::HashMap;

use anyhow::Result;
use ltrain::data::synthetic::Probe;
use ltrain::data::synthetic::vocabulary::{DIGITS, KEY, KEYS};

use crate::sentences;
use crate::tokenizer::tokenizer;

#[test]
fn a_prompt_asks_for_the_fact_at_its_depth() -> Result<()> {
    let tokenizer = tokenizer();
    for (length, distractors) in [(64, 0), (250, 7), (2048, 20), (4099, 63)] {
        for depth in [0.0, 0.3, 0.77, 1.0] {
            if distractors == 63 && depth == 0.3 {
                continue;
            }
            let probe = Probe { length, depth, distractors };
            let prompt = probe.prompt(8, 1)?;
            assert_eq!(prompt, probe.prompt(8, 1)?);
            assert_eq!(prompt.tokens.len() + prompt.answer.len(), length);
            let encoded = tokenizer.encode(prompt.text(), true).unwrap();
            assert_eq!(encoded.get_ids(), prompt.tokens);

            let (at, key) = (prompt.tokens.len(), *prompt.tokens.last().unwrap());
            assert!(KEYS.contains(&key));
            let stated = at - prompt.distance;
            assert_eq!(prompt.tokens[stated - 1], key);
            assert_eq!(prompt.tokens[stated..stated + 2], prompt.answer);
            let mentions = prompt.tokens.iter().filter(|&&t| t == key).count();
            assert_eq!(mentions, 2, "the fact and the question");
            let facts: Vec<_> = sentences(&prompt.tokens).into_iter().filter(|s| s.1[0] == KEY).collect();
            assert_eq!(facts.len(), distractors + 2);
            let same = facts.iter().filter(|f| f.1.get(3..5) == Some(&prompt.answer[..])).count();
            assert_eq!(same, 1, "no distractor has the answer");

            // BOS and three words of the fact come before its value, the fact and the question are not counted. Where facts fill
            // everything, the place is a multiple of theirs.
            let room = (length - 1 - 6 - 5) as f64;
            let off = (stated as f64 - 4.0) - depth * room;
            let allowed = if distractors == 63 { 6.0 } else { 0.5 };
            assert!(off.abs() <= allowed, "{probe:?}: off by {off}");
        }
    }
    Ok(())
}

/// However deep the fact, any number of the others may come before it.
#[test]
fn the_place_among_the_others_says_nothing() -> Result<()> {
    for depth in [0.1, 0.5, 0.9] {
        let mut before = [0u32; 9];
        for index in 0..4500 {
            let prompt = Probe { length: 1024, depth, distractors: 8 }.prompt(1, index)?;
            let stated = prompt.tokens.len() - prompt.distance;
            before[sentences(&prompt.tokens[..stated]).iter().filter(|s| s.1[0] == KEY && s.1.len() > 3).count()] += 1;
        }
        // Binomial(4500, 1/9): sigma = 21.
        assert!(before.iter().all(|n| n.abs_diff(500) < 105), "{depth}: {before:?}");
    }
    Ok(())
}

#[test]
fn values_and_keys_are_evenly_drawn() -> Result<()> {
    let mut first = HashMap::new();
    for index in 0..4000 {
        let prompt = Probe { length: 64, depth: 0.5, distractors: 0 }.prompt(1, index)?;
        assert!(prompt.answer.iter().all(|d| DIGITS.contains(d)));
        *first.entry(prompt.answer[0]).or_insert(0i32) += 1;
    }
    // Binomial(4000, 1/10): sigma = 19, so 100 is more than five of them.
    assert_eq!(first.len(), 10);
    assert!(first.values().all(|n| (n - 400).abs() < 100), "{first:?}");
    Ok(())
}
