//! Text to hide things in: a file of the user's, or plain sentences of our own, which never run out.

use super::words::{ADJECTIVES, NOUNS, VERBS};
use crate::rng::{Rng, Stream};

/// What stands around needles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Haystack {
    /// Sentences made of words of our own, a pure function of the seed. They hold no digits and no hyphens.
    Own {
        /// Decides them.
        seed: u64,
    },
    /// Sentences of a text, from its beginning and over and over.
    Text(Vec<String>),
}

impl Haystack {
    /// The sentences of a text, whitespace made single spaces. What is too long for a sentence is cut at its line breaks.
    ///
    /// # Errors
    /// Why it is no haystack: it is empty, or something in it has neither sentences nor lines, and no needle could stand there.
    pub fn of_text(text: &str) -> Result<Self, String> {
        let lines = |sentence: &'_ str| match sentence.len() > LONG {
            true => sentence.lines().map(single_spaces).collect(),
            false => vec![single_spaces(sentence)],
        };
        let cut: Vec<String> = sentences(text).flat_map(lines).filter(|sentence| !sentence.is_empty()).collect();
        match cut.iter().max_by_key(|sentence| sentence.len()) {
            None => Err("it is empty".into()),
            Some(longest) if longest.len() > LONGEST => {
                let (bytes, begin) = (longest.len(), longest.chars().take(40).collect::<String>());
                Err(format!(
                    "{bytes} bytes from {begin:?} on have no end of a sentence and no line break, so no needle can stand there"
                ))
            }
            Some(_) => Ok(Self::Text(cut)),
        }
    }

    /// Sentence `i` of the text number `index`. Texts of our own differ; a user's text is always the same.
    pub fn sentence(&self, index: u64, i: usize) -> String {
        match self {
            Self::Own { seed } => sentence(&mut Rng::at(*seed ^ index.rotate_left(32), Stream::Text, i as u64)),
            Self::Text(sentences) => sentences[i % sentences.len()].clone(),
        }
    }

    /// The sentences of text number `index` that take `bytes` bytes with a space behind each.
    pub fn sentences(&self, index: u64, bytes: usize) -> Vec<String> {
        let mut left = bytes;
        let fits = |sentence: &String| {
            let begins = left > 0;
            left = left.saturating_sub(sentence.len() + 1);
            begins
        };
        (0..).map(|i| self.sentence(index, i)).take_while(fits).collect()
    }
}

/// Bytes from which a sentence is rather lines without full stops.
const LONG: usize = 600;
/// Bytes that no sentence has: a needle could stand at a few depths only.
const LONGEST: usize = 4000;

/// Cuts text behind every `.`, `!` or `?` that whitespace follows, and behind every `。`, `！` and `？`; the last piece may be
/// unfinished.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let ends = |(at, c): (usize, char)| {
            let end = at + c.len_utf8();
            let ended = match c {
                '.' | '!' | '?' => rest[end..].starts_with(char::is_whitespace),
                _ => matches!(c, '。' | '！' | '？'),
            };
            ended.then_some(end)
        };
        let end = rest.char_indices().find_map(ends).unwrap_or(rest.len());
        let (sentence, after) = rest.split_at(end);
        rest = after;
        Some(sentence)
    })
}

fn single_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
    fn no_word_is_in_another_one_or_in_two_lists() {
        let all: Vec<_> = [ADJECTIVES, NOUNS, VERBS].concat();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        for word in &all {
            assert_eq!(all.iter().filter(|other| other.contains(word)).collect::<Vec<_>>(), [word]);
        }
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
        assert_eq!(hay.sentences(5, 16), ["One two.", "Three."]);
        assert_eq!(hay.sentences(5, 17), ["One two.", "Three.", "One two."]);
        assert!(Haystack::of_text(" \n").unwrap_err().contains("empty"));
    }

    #[test]
    fn texts_without_full_stops_are_cut_at_their_lines_or_refused() {
        let cut = |text: &str| match Haystack::of_text(text).unwrap() {
            Haystack::Text(sentences) => sentences,
            Haystack::Own { .. } => unreachable!(),
        };
        assert_eq!(cut("一。二！三？四"), ["一。", "二！", "三？", "四"]);
        assert_eq!(cut("One\nsentence.\nTwo."), ["One sentence.", "Two."], "a wrapped line is no end");
        let lines = "some words of a line\n".repeat(500);
        assert_eq!(cut(&lines), ["some words of a line"; 500]);
        let endless = format!("Well. {}", "no end ".repeat(1000));
        let reason = Haystack::of_text(&endless).unwrap_err();
        assert!(reason.contains("6999 bytes from \"no end no end"), "{reason}");
    }
}
