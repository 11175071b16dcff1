//! Plans against those that `fixtures/make_plans.py` computes from the papers' formulas.

use std::collections::BTreeSet;
use std::sync::Arc;

use ltrain::positions::{Fact, MethodArgs, Part, Spec, Words, build};
use serde_json::Value;

use super::common::fixtures;

/// What stands at one place of a row: a token of the document, or one of the method's and its weight.
#[derive(Debug, PartialEq)]
enum Place {
    Text(usize),
    Own(u32, f32),
}

fn places<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Vec<Place> {
    let of_part = |part: &Part| -> Vec<Place> {
        match part {
            Part::Text(range) => range.clone().map(Place::Text).collect(),
            Part::Own(tokens, weight) => tokens.iter().map(|&id| Place::Own(id, *weight)).collect(),
        }
    };
    parts.into_iter().flat_map(of_part).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("plans.json: expected a list, got {value}"))
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("plans.json: expected a count, got {value}")) as usize
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("plans.json: expected a number, got {value}"))
}

fn ids(value: &Value) -> Vec<u32> {
    list(value).iter().map(|id| size(id) as u32).collect()
}

fn golden_part(part: &Value) -> Part {
    match part.as_object() {
        Some(own) => Part::Own(ids(&own["own"]).into(), float(&own["weight"]) as f32),
        None => Part::Text(size(&part[0])..size(&part[1])),
    }
}

fn golden_words(words: &Value) -> Words {
    let flags = |name: &str| -> Arc<[bool]> {
        let set = ids(&words[name]);
        (0..=set.iter().copied().max().unwrap()).map(|id| set.contains(&id)).collect()
    };
    let fact = |fact: &Value| {
        let [statement, question, answer] = ["statement", "question", "answer"].map(|name| ids(&fact[name]).into());
        Fact { statement, question, answer }
    };
    Words {
        ends: flags("ends"),
        marked: flags("marked"),
        end_prompt: ids(&words["end_prompt"]).into(),
        facts: list(&words["facts"]).iter().map(|about| list(about).iter().map(fact).collect()).collect(),
    }
}

#[test]
fn every_plan_is_the_one_that_the_papers_describe() {
    let file: Value = serde_json::from_slice(&std::fs::read(fixtures().join("plans.json")).unwrap()).unwrap();
    let (text, words) = (ids(&file["text"]), golden_words(&file["words"]));
    let mut specs = BTreeSet::new();
    for case in list(&file["cases"]) {
        let name = case["positions"].as_str().unwrap();
        let [target, context, seq_len] = ["target", "context", "seq_len"].map(|key| size(&case[key]));
        let args = MethodArgs {
            chunks: size(&case["chunks"]),
            max_scale: case["max_scale"].as_u64().map(|scale| scale as usize),
            rows_per_scale: size(&case["rows_per_scale"]) as u64,
            select_rest: float(&case["select_rest"]),
            end_prompt_weight: float(&case["end_prompt_weight"]) as f32,
            ..MethodArgs::new(target, context, seq_len)
        };
        let (seed, row) = (case["seed"].as_u64().unwrap(), case["row"].as_u64().unwrap());
        let mix = build(&name.parse::<Spec>().unwrap(), &args, &words).unwrap();
        let mut drawn = mix.row(seed, row);
        let what = format!("{name}, seed {seed}, row {row}");
        assert_eq!(drawn.scale, float(&case["scale"]) as f32, "{what}");
        for doc in list(&case["docs"]) {
            let (start, available) = (size(&doc["text"][0]), size(&doc["text"][1]));
            let plan = drawn.plan(&text[start..start + available], size(&doc["want"]));
            let parts: Vec<Part> = list(&doc["parts"]).iter().map(golden_part).collect();
            assert_eq!(places(&plan.parts), places(&parts), "{what}: tokens of {doc}");
            assert_eq!(plan.positions, ids(&doc["positions"]), "{what}: positions of {doc}");
        }
        specs.insert(name);
    }
    // Every method by itself, and mixes.
    assert!(ltrain::positions::names().all(|name| specs.contains(name)), "{specs:?}");
    assert!(specs.iter().any(|name| name.starts_with("mix:")));
}
