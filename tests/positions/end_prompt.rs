//! EndPrompt (section 3): the text's beginning where it is, the prompt at the end of the target.

use ltrain::positions::{EndPrompt, Part};
use proptest::prelude::*;

use super::draw;

proptest! {
    #[test]
    fn the_prompt_is_the_end_of_the_target(
        want in 1usize..200, extra in 0usize..300, room in 0usize..900, b in 0usize..20, weight in 0.0..=1.0f32, seed: u64,
    ) {
        let target = want + room;
        let prompt: Vec<u32> = (500..500 + b as u32).collect();
        let method = EndPrompt { target, prompt: prompt.clone().into(), weight };
        let (_, plan) = draw(&method, want + extra, want, seed, 0);
        let near = 0..want as u32;
        if b == 0 || want <= 2 * b {
            prop_assert_eq!(plan.parts, [Part::Text(0..want)]);
            prop_assert_eq!(plan.positions, near.collect::<Vec<_>>());
        } else {
            let end = target as u32 - b as u32..target as u32;
            prop_assert_eq!(plan.parts, [Part::Text(0..want - b), Part::Own(prompt.into(), weight)]);
            prop_assert_eq!(plan.positions, near.take(want - b).chain(end).collect::<Vec<_>>());
        }
    }
}
