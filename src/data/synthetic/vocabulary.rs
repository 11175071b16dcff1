//! The 256 words: every word is one token, and a token's class is the range its id lies in.

use std::ops::Range;

/// Begins every document.
pub const BOS: u32 = 0;
/// Ends a text; the generator never writes it.
pub const EOS: u32 = 1;
/// What the tokenizer makes of a foreign word.
pub const UNK: u32 = 2;
/// `.`, the end of every sentence.
pub const STOP: u32 = 3;
/// First word of a fact: `key is amber 4 7 .`
pub const KEY: u32 = 4;
/// Second word of a fact.
pub const IS: u32 = 5;
/// Begins an assignment of a chain: `let B A .`
pub const LET: u32 = 6;
/// Begins the walk along a chain: `trace B A 4 7 .`
pub const TRACE: u32 = 7;
/// `0` to `9`, the parts of every value.
pub const DIGITS: Range<u32> = 8..18;
/// Variables of chains.
pub const VARIABLES: Range<u32> = 18..42;
/// Names that facts are about.
pub const KEYS: Range<u32> = 42..106;
/// Words of ordinary sentences.
pub const FILLER: Range<u32> = 106..256;

pub(super) const DETERMINERS: Range<u32> = 106..112;
pub(super) const ADJECTIVES: Range<u32> = 112..146;
pub(super) const NOUNS: Range<u32> = 146..202;
pub(super) const VERBS: Range<u32> = 202..236;
pub(super) const PREPOSITIONS: Range<u32> = 236..246;
pub(super) const ADVERBS: Range<u32> = 246..256;

/// Number of tokens.
pub const SIZE: usize = 256;

/// Every word at the place of its id.
#[rustfmt::skip]
pub const WORDS: [&str; SIZE] = [
    "<s>", "</s>", "<unk>", ".", "key", "is", "let", "trace",
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9",
    "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X",
    "amber", "basil", "cedar", "coral", "crane", "daisy", "ebony", "elder", "falcon", "fennel", "flint", "garnet",
    "ginger", "hazel", "heron", "holly", "indigo", "iris", "ivory", "jade", "jasmine", "juniper", "larch", "laurel",
    "lilac", "linden", "lotus", "magpie", "maple", "mint", "myrtle", "nettle", "onyx", "opal", "orchid", "osprey",
    "otter", "pearl", "pepper", "plover", "poppy", "quartz", "raven", "robin", "rowan", "ruby", "saffron", "sage",
    "sapphire", "sorrel", "sparrow", "sumac", "swan", "teal", "thistle", "thyme", "topaz", "tulip", "umber", "velvet",
    "violet", "walnut", "willow", "wren",
    "the", "this", "that", "every", "some", "another",
    "old", "young", "small", "large", "quiet", "loud", "bright", "dark", "warm", "cold", "empty", "full", "narrow",
    "wide", "deep", "shallow", "heavy", "light", "early", "late", "gentle", "rough", "clever", "plain", "proud", "shy",
    "busy", "idle", "hidden", "broken", "golden", "distant", "common", "strange",
    "river", "road", "garden", "house", "market", "bridge", "tower", "forest", "field", "harbour", "village", "city",
    "mountain", "valley", "island", "lake", "shore", "ship", "boat", "wagon", "horse", "dog", "cat", "bird", "fox",
    "farmer", "sailor", "baker", "teacher", "child", "king", "queen", "guard", "stranger", "friend", "letter", "book",
    "song", "story", "lamp", "fire", "door", "window", "table", "bell", "clock", "wheel", "stone", "rope", "basket",
    "coat", "bread", "storm", "winter", "morning", "shadow",
    "follows", "finds", "leaves", "crosses", "watches", "carries", "opens", "closes", "builds", "breaks", "hears",
    "sees", "meets", "helps", "calls", "paints", "sells", "buys", "keeps", "hides", "brings", "loves", "fears", "knows",
    "needs", "passes", "reaches", "visits", "moves", "turns", "holds", "feeds", "draws", "remembers",
    "near", "under", "over", "behind", "beside", "toward", "through", "without", "after", "before",
    "slowly", "quickly", "again", "often", "never", "always", "together", "alone", "soon", "today",
];

/// Words of `tokens` separated by spaces; a leading [`BOS`] is left out, since the tokenizer adds it.
///
/// Encoding the result gives `tokens` back.
pub fn text(tokens: &[u32]) -> String {
    let words: Vec<&str> = tokens.strip_prefix(&[BOS]).unwrap_or(tokens).iter().map(|&t| WORDS[t as usize]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_begins_and_ends_where_its_words_do() {
        let ends = |r: Range<u32>| (WORDS[r.start as usize], WORDS[r.end as usize - 1]);
        assert_eq!(ends(DIGITS), ("0", "9"));
        assert_eq!(ends(VARIABLES), ("A", "X"));
        assert_eq!(ends(KEYS), ("amber", "wren"));
        assert_eq!(ends(FILLER), ("the", "today"));
        assert_eq!(ends(DETERMINERS), ("the", "another"));
        assert_eq!(ends(ADJECTIVES), ("old", "strange"));
        assert_eq!(ends(NOUNS), ("river", "shadow"));
        assert_eq!(ends(VERBS), ("follows", "remembers"));
        assert_eq!(ends(PREPOSITIONS), ("near", "before"));
        assert_eq!(ends(ADVERBS), ("slowly", "today"));
        let named = [BOS, EOS, UNK, STOP, KEY, IS, LET, TRACE].map(|t| WORDS[t as usize]);
        let words = ["<s>", "</s>", "<unk>", ".", "key", "is", "let", "trace"];
        assert_eq!(named, words);
    }

    #[test]
    fn no_word_occurs_twice() {
        let distinct: std::collections::BTreeSet<_> = WORDS.iter().collect();
        assert_eq!(distinct.len(), SIZE);
    }
}
