//! What a reader of a row can know: a row may be part of a document, and what was stated in the rest is not known there.

use std::collections::HashMap;

use super::recalls;
use super::vocabulary::{DIGITS, LET, STOP, TRACE, VARIABLES};

/// What a variable of a chain holds.
enum Holds {
    Variable(u32),
    Value,
}

/// Places of the tokens that those before them determine: values of facts that were stated before, and walks along chains as far as
/// their assignments are there.
pub fn known(tokens: &[u32]) -> Vec<usize> {
    let recalled = recalls(tokens).into_iter().flat_map(|recall| [recall.at, recall.at + 1]);
    recalled.chain(walked(tokens)).collect()
}

fn walked(tokens: &[u32]) -> Vec<usize> {
    let (mut holds, mut found) = (HashMap::new(), Vec::new());
    for at in 0..tokens.len() {
        match tokens[at..] {
            [LET, variable, a, b, STOP, ..] if DIGITS.contains(&a) && DIGITS.contains(&b) => {
                holds.insert(variable, Holds::Value);
            }
            [LET, variable, other, STOP, ..] if VARIABLES.contains(&other) => {
                holds.insert(variable, Holds::Variable(other));
            }
            [TRACE, mut variable, ..] => {
                let mut place = at + 2;
                // In a row of torn sentences assignments may go round in a circle.
                for _ in VARIABLES {
                    let Some(Holds::Variable(next)) = holds.get(&variable) else { break };
                    found.push(place);
                    (variable, place) = (*next, place + 1);
                }
                if let Some(Holds::Value) = holds.get(&variable) {
                    found.extend([place, place + 1]);
                }
            }
            _ => {}
        }
    }
    found.retain(|&place| place < tokens.len());
    found
}
