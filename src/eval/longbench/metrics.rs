//! LongBench's metrics (arXiv 2308.14508), each as the released code computes it, quirks included: that is what published numbers
//! were measured with.

use std::collections::{HashMap, HashSet};

choices! {
    /// How an output is compared with one answer.
    Metric {
        /// F1 of words, without case, punctuation and articles.
        F1 = "f1",
        /// ROUGE-L's F, by the `rouge` package's summary level: distinct words of the longest common subsequences of sentences.
        RougeL = "rouge-l",
        /// 1 by the number of classes that occur, if the right one is among them.
        Classification = "classification",
        /// The share of the whole numbers that are the right one.
        Count = "count",
        /// The same for the number behind `Paragraph`.
        Retrieval = "retrieval",
        /// Similarity of the first line of code with the right line, by edits.
        Edit = "edit",
    }
}

impl Metric {
    /// Why no output can score against these answers; `None` where one can.
    pub fn unscorable(self, answers: &[String], classes: &[String]) -> Option<&'static str> {
        let any = |can: &dyn Fn(&String) -> bool| answers.iter().any(can);
        match self {
            Self::Classification if !any(&|answer| classes.contains(answer)) => Some("no answer is one of \"all_classes\""),
            Self::Count if !any(&|a| !a.is_empty() && a.bytes().all(|b| b.is_ascii_digit())) => {
                Some("no answer is a whole number")
            }
            Self::Retrieval if !any(&|answer| paragraph(answer).is_some()) => Some("no answer is \"Paragraph\" and a number"),
            _ => None,
        }
    }

    /// From 0 to 1. `classes` are for [`Metric::Classification`].
    pub fn score(self, output: &str, answer: &str, classes: &[String]) -> f64 {
        match self {
            Self::F1 => f1(output, answer),
            Self::RougeL => rouge_l(output, answer),
            Self::Classification => classification(output, answer, classes),
            Self::Count => numbers_equal(output, answer),
            Self::Retrieval => paragraph(answer).map_or(0.0, |number| numbers_equal(output, number)),
            Self::Edit => edit_similarity(first_code_line(output), answer),
        }
    }
}

/// Lower case, no ASCII punctuation, no articles; words by whitespace.
fn plain_words(text: &str) -> Vec<String> {
    let bare: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article is a whole run of word characters, whatever stands beside it.
    let mut kept = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(char::is_alphanumeric) {
        let word = rest[start..].split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        kept += &rest[..start];
        kept += if matches!(word, "a" | "an" | "the") { " " } else { word };
        rest = &rest[start + word.len()..];
    }
    kept += rest;
    kept.split_whitespace().map(str::to_owned).collect()
}

fn f1(output: &str, answer: &str) -> f64 {
    let (output, answer) = (plain_words(output), plain_words(answer));
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &answer {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0usize;
    for word in &output {
        if let Some(n) = left.get_mut(word.as_str()).filter(|n| **n > 0) {
            *n -= 1;
            shared += 1;
        }
    }
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (shared as f64 / output.len() as f64, shared as f64 / answer.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Sentences by full stops, words by whitespace. One of nothing but whitespace counts as an empty word, as there.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let words = text.split('.').filter(|s| !s.is_empty()).map(|s| s.split_whitespace().collect::<Vec<_>>());
    words.map(|words| if words.is_empty() { vec![""] } else { words }).collect()
}

fn rouge_l(output: &str, answer: &str) -> f64 {
    let (output, answer) = (sentences(output), sentences(answer));
    if output.is_empty() || answer.is_empty() {
        return 0.0;
    }
    let mut common = HashSet::new();
    for reference in &answer {
        for written in &output {
            common.extend(common_words(reference, written));
        }
    }
    let distinct = |text: &[Vec<&str>]| text.iter().flatten().collect::<HashSet<_>>().len() as f64;
    let (precision, recall) = (common.len() as f64 / distinct(&output), common.len() as f64 / distinct(&answer));
    2.0 * precision * recall / (precision + recall + 1e-8)
}

/// A longest common subsequence; of several, the one that a walk back from the ends finds that leaves out words of `b` first.
fn common_words<'t>(a: &[&'t str], b: &[&str]) -> Vec<&'t str> {
    let table = common_lengths(a, b);
    let (mut i, mut j) = (a.len(), b.len());
    let mut words = Vec::new();
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            words.push(a[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if table[i - 1][j] > table[i][j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    words
}

/// `[i][j]`: length of the longest common subsequence of the first `i` of `a` and the first `j` of `b`.
fn common_lengths<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Vec<u32>> {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            table[i + 1][j + 1] = if x == y { table[i][j] + 1 } else { table[i][j + 1].max(table[i + 1][j]) };
        }
    }
    table
}

fn classification(output: &str, answer: &str, classes: &[String]) -> f64 {
    let mut found: Vec<&str> = classes.iter().map(String::as_str).filter(|class| output.contains(class)).collect();
    // Parts of the right class's name do not count. As released, what follows one that is taken out is not looked at.
    let mut at = 0;
    while at < found.len() {
        if found[at] != answer && answer.contains(found[at]) {
            found.remove(at);
        }
        at += 1;
    }
    if found.contains(&answer) { 1.0 / found.len() as f64 } else { 0.0 }
}

/// The share of the runs of digits that are `number`, as written.
fn numbers_equal(output: &str, number: &str) -> f64 {
    let numbers: Vec<&str> = output.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).collect();
    let right = numbers.iter().filter(|n| **n == number).count();
    if numbers.is_empty() { 0.0 } else { right as f64 / numbers.len() as f64 }
}

/// `12` of `Paragraph 12`.
fn paragraph(answer: &str) -> Option<&str> {
    let numbers = answer.match_indices("Paragraph ").map(|(at, word)| &answer[at + word.len()..]);
    let mut digits = numbers.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    digits.find(|digits| !digits.is_empty())
}

/// The first line that is code: without a backtick, `#` and `//`.
fn first_code_line(output: &str) -> &str {
    let code = |line: &&str| !line.contains('`') && !line.contains('#') && !line.contains("//");
    output.trim_start_matches('\n').split('\n').find(code).unwrap_or_default()
}

/// Twice the longest common subsequence by both lengths, in whole percent (`fuzz.ratio` with python-Levenshtein).
fn edit_similarity(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let common = common_lengths(&a, &b)[a.len()][b.len()];
    let total = (a.len() + b.len()) as f64;
    // In the package's order, because a half of a percent is one there only where its numbers are exact. Python rounds it to even.
    let ratio = 1.0 - (total - f64::from(2 * common)) / total;
    (100.0 * ratio).round_ties_even() / 100.0
}
