//! Keys, values and variables that no two things of a sample share.

use std::collections::HashSet;

use crate::eval::words::{ADJECTIVES, NOUNS};
use crate::rng::Rng;

/// What a key or a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `quiet-river`; `gentle-quiet-river` where nearly all pairs are drawn.
    Words,
    /// Seven digits, the first not 0.
    Number,
    /// A random UUID, version 4.
    Uuid,
    /// So many upper-case letters.
    Variable(usize),
    /// Six lower-case letters.
    Coded,
}

/// Draws names, each once.
#[derive(Debug, Default)]
pub struct Names(HashSet<String>);

impl Names {
    /// A name that was not drawn before.
    pub fn draw(&mut self, name: Name, rng: &mut Rng) -> String {
        /// Draws of names that are taken, after which few can be left.
        const TRIES: usize = 64;
        for tries in 0.. {
            let mut drawn = name.draw(rng);
            if tries >= TRIES && name == Name::Words {
                drawn = format!("{}-{drawn}", of(ADJECTIVES, rng));
            }
            if self.0.insert(drawn.clone()) {
                return drawn;
            }
        }
        unreachable!("names: there are more of every kind than a text can hold")
    }

    /// Several.
    pub fn several(&mut self, name: Name, count: usize, rng: &mut Rng) -> Vec<String> {
        (0..count).map(|_| self.draw(name, rng)).collect()
    }
}

impl Name {
    fn draw(self, rng: &mut Rng) -> String {
        let letters =
            |rng: &mut Rng, first: u8, count: usize| (0..count).map(|_| (first + rng.below(26) as u8) as char).collect();
        match self {
            Self::Words => format!("{}-{}", of(ADJECTIVES, rng), of(NOUNS, rng)),
            Self::Number => rng.between(1_000_000, 9_999_999).to_string(),
            Self::Uuid => {
                let bits = u128::from(rng.bits()) << 64 | u128::from(rng.bits());
                // RFC 9562: four bits say the version, two the variant.
                let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
                let hex = format!("{bits:032x}");
                format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
            Self::Variable(letters_of) => letters(rng, b'A', letters_of),
            Self::Coded => letters(rng, b'a', 6),
        }
    }
}

fn of(words: &[&'static str], rng: &mut Rng) -> &'static str {
    words[rng.below(words.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn words_never_run_out() {
        let pairs = ADJECTIVES.len() * NOUNS.len();
        let drawn = Names::default().several(Name::Words, pairs + 1000, &mut Rng::at(1, Stream::Eval, 0));
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), pairs + 1000);
        assert!(drawn.iter().all(|name| (2..=3).contains(&name.split('-').count())));
        assert!(drawn[..pairs / 2].iter().all(|name| name.split('-').count() == 2));
    }

    #[test]
    fn names_look_as_they_should_and_differ() {
        let mut rng = Rng::at(1, Stream::Eval, 0);
        let mut names = Names::default();
        let variables = names.several(Name::Variable(1), 26, &mut rng);
        assert_eq!(variables.iter().collect::<HashSet<_>>().len(), 26);
        for uuid in names.several(Name::Uuid, 50, &mut rng) {
            let groups: Vec<_> = uuid.split('-').collect();
            assert_eq!(groups.iter().map(|g| g.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']), "{uuid}");
        }
        let number = names.draw(Name::Number, &mut rng);
        assert!(number.len() == 7 && !number.starts_with('0'));
        assert!(names.draw(Name::Coded, &mut rng).bytes().all(|b| b.is_ascii_lowercase()));
    }
}
