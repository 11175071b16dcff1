//! Text to hide things in: a file of the user's, or plain sentences of our own, which never run out.

use super::words::{ADJECTIVES, NOUNS, VERBS};
use crate::rng::{Rng, Stream};

/// What stands around needles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Haystack {
    /// Sentences made of [`words`](super::words), a pure function of the seed. They hold no digits and no hyphens.
    Own {
        /// Decides them.
        seed: u64,
    },
    /// Sentences of a text, from its beginning and over and over.
    Text(Vec<String>),
}

impl Haystack {
    /// The sentences of a text, whitespace made single spaces; `None` when there is none.
    pub fn of_text(text: &str) -> Option<Self> {
        let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let sentences: Vec<String> = sentences(&plain).map(str::to_owned).collect();
        (!sentences.is_empty()).then_some(Self::Text(sentences))
    }

    /// Sentence `i` of the text number `index`. Texts of our own differ; a user's text is always the same.
    pub fn sentence(&self, index: u64, i: usize) -> String {
        match self {
            Self::Own { seed } => sentence(&mut Rng::at(*seed ^ index.rotate_left(32), Stream::Text, i as u64)),
            Self::Text(sentences) => sentences[i % sentences.len()].clone(),
        }
    }

    /// At least `bytes` bytes of text number `index`, in whole sentences with a space between them.
    pub fn text(&self, index: u64, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 256);
        for i in 0.. {
            if text.len() >= bytes {
                break;
            }
            if i > 0 {
                text.push(' ');
            }
            text += &self.sentence(index, i);
        }
        text
    }
}

/// Cuts text behind every `.`, `!` or `?` that a space follows; the last piece may be unfinished.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return None;
        }
        let ends = |(at, c): (usize, char)| (matches!(c, '.' | '!' | '?') && rest[at + 1..].starts_with(' ')).then_some(at + 1);
        let end = rest.char_indices().find_map(ends).unwrap_or(rest.len());
        let (sentence, after) = rest.split_at(end);
        rest = after;
        Some(sentence)
    })
}

fn sentence(rng: &mut Rng) -> String {
    const WHEN: &[&str] = &["In the morning", "Years ago", "On that day", "Before supper", "After the rain", "At first", "Later"];
    const WHERE: &[&str] = &["near", "behind", "beside", "beyond", "above", "under", "opposite", "outside"];
    const HOW: &[&str] = &["slowly", "gladly", "never", "always", "nearly", "often", "once", "secretly"];
    let mut pick = |words: &[&'static str]| words[rng.below(words.len() as u64) as usize];
    let shape = pick(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let [n1, n2, n3, n4] = [(); 4].map(|()| pick(NOUNS));
    let [a1, a2] = [(); 2].map(|()| pick(ADJECTIVES));
    let [v1, v2] = [(); 2].map(|()| pick(VERBS));
    let (when, place, how) = (pick(WHEN), pick(WHERE), pick(HOW));
    match shape {
        "a" => format!("The {a1} {n1} {v1}ed the {n2} {place} the {n3}."),
        "b" => format!("{when}, the {n1} {how} {v1}ed one {a1} {n2}."),
        "c" => format!("Nobody {v1}ed the {a1} {n1} until the {n2} {v2}ed it."),
        "d" => format!("It was {a1} {place} the {n1}, and the {n2} was {a2}."),
        "e" => format!("When the {n1} {v1}ed the {n2}, the {a1} {n3} {how} {v2}ed the {n4}."),
        "f" => format!("Every {n1} {place} the {n2} {v1}ed another {a1} {n3}."),
        "g" => format!("The {n1} of the {n2} {v1}ed this {n3} because the {n4} was {a1}."),
        _ => format!("Some say that the {n1} {how} {v1}ed the {a1} {n2}, but the {n3} {v2}ed it."),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_word_is_in_two_lists() {
        let all: Vec<_> = [ADJECTIVES, NOUNS, VERBS].concat();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase())));
    }

    #[test]
    fn sentences_join_to_the_text_they_were_cut_from() {
        let text = "One. Two, 3.5 of them! Is this a third? And a re";
        let cut: Vec<_> = sentences(text).collect();
        assert_eq!(cut, ["One.", "Two, 3.5 of them!", "Is this a third?", "And a re"]);
        assert_eq!(cut.join(" "), text);
    }

    #[test]
    fn our_sentences_are_plain_and_hardly_ever_the_same() {
        let hay = Haystack::Own { seed: 42 };
        // As many as 128k tokens hold.
        let all: Vec<String> = (0..8000).map(|i| hay.sentence(7, i)).collect();
        assert!(all.iter().collect::<HashSet<_>>().len() > 7990);
        for sentence in &all {
            assert!(sentence.ends_with('.') && sentences(sentence).count() == 1, "{sentence}");
            assert!(!sentence.contains(|c: char| c.is_ascii_digit() || c == '-'), "{sentence}");
        }
        assert_eq!(hay.sentence(7, 3), all[3]);
        assert_ne!(hay.sentence(8, 3), all[3]);
    }

    #[test]
    fn a_text_repeats_when_it_ends() {
        let hay = Haystack::of_text("One\n two.  Three.").unwrap();
        assert_eq!(hay.text(5, 20), "One two. Three. One two.");
        assert_eq!(Haystack::of_text(" \n"), None);
    }
}
