//! Variable tracking: a value is given to one variable, and that to another, and so on.

use super::names::{Name, Names};
use super::needles::Places;
use super::prompts::{NOISE, trace, trace_prefix};
use super::{Draft, cut, enough};
use crate::data::Encode;
use crate::error::Result;
use crate::eval::fit::fit;
use crate::rng::Rng;

/// Assignments of a chain behind the first.
const HOPS: usize = 4;
/// Most tokens of the example in front.
const EXAMPLE: usize = 500;

/// Variables and what is written about them.
struct Chain {
    variables: Vec<String>,
    value: String,
    lines: Vec<String>,
}

impl Chain {
    fn draw(letters: usize, rng: &mut Rng) -> Self {
        let variables = Names::default().several(Name::Variable(letters), HOPS + 1, rng);
        let value = rng.between(10_000, 99_998).to_string();
        let mut lines = vec![format!("VAR {} = {value}", variables[0])];
        // The space at the end is the released code's.
        lines.extend(variables.windows(2).map(|pair| format!("VAR {} = VAR {} ", pair[1], pair[0])));
        Self { variables, value, lines }
    }

    /// The task's text over the filler's lines.
    fn text(&self, filler: &str, places: &Places) -> String {
        trace(&places.insert(filler.split('\n').collect(), &self.lines, "\n"), &self.value)
    }

    fn prefix(&self) -> String {
        trace_prefix(self.variables.len(), &self.value)
    }
}

fn noise(lines: usize) -> String {
    [NOISE].repeat(lines).join("\n")
}

/// A chain among filler, behind a short example of another one with its answer.
pub fn draft<'a>(mut rng: Rng, encode: &dyn Encode, budget: usize) -> Result<Draft<'a>> {
    let rng = &mut rng;
    let (shown, places) = (Chain::draw(3, rng), Places::scattered(HOPS + 1, rng));
    let example =
        |lines: usize| format!("{}{} {}\n\n", shown.text(&noise(lines), &places), shown.prefix(), shown.variables.join(" "));
    let least = HOPS + 1;
    let lines = fit(EXAMPLE, least..=EXAMPLE, |lines| Ok(encode.encode(&example(lines))?.len()))?;
    let example = example(lines.unwrap_or(least));

    let (chain, places) = (Chain::draw(5, rng), Places::scattered(HOPS + 1, rng));
    let text = noise(enough(budget) / NOISE.len() + 1);
    let (prefix, answers) = (chain.prefix(), chain.variables.clone());
    let write = move |size: usize| example.clone() + &chain.text(cut(&text, size), &places);
    Ok(Draft { sizes: noise(least).len()..=enough(budget), write: Box::new(write), prefix, answers })
}
