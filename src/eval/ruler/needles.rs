//! Needles: keys with values, and everything that is not asked for around them.

use super::names::{Name, Names};
use super::prompts::{Asked, NOISE, needle, niah, niah_prefix};
use super::{Draft, RulerTask, cut, enough};
use crate::eval::haystack::Haystack;
use crate::rng::Rng;

/// Shares of the text where needles of essays may stand: 40 whole percents from 0 to 100.
const DEPTHS: usize = 40;
/// Bytes of the shortest essay.
const LEAST: usize = 200;

/// What surrounds the needles.
enum Filler {
    Noise,
    Essay,
    Needles,
}

/// One of the eight needle tasks.
struct Kind {
    filler: Filler,
    key: Name,
    value: Name,
    keys: usize,
    values: usize,
    queries: usize,
}

fn kind(task: RulerTask) -> Kind {
    let single = |filler| Kind { filler, key: Name::Words, value: Name::Number, keys: 1, values: 1, queries: 1 };
    match task {
        RulerTask::NiahSingle1 => single(Filler::Noise),
        RulerTask::NiahSingle3 => Kind { value: Name::Uuid, ..single(Filler::Essay) },
        RulerTask::NiahMultikey1 => Kind { keys: 4, ..single(Filler::Essay) },
        RulerTask::NiahMultikey2 => single(Filler::Needles),
        RulerTask::NiahMultikey3 => Kind { key: Name::Uuid, value: Name::Uuid, ..single(Filler::Needles) },
        RulerTask::NiahMultivalue => Kind { values: 4, ..single(Filler::Essay) },
        RulerTask::NiahMultiquery => Kind { keys: 4, queries: 4, ..single(Filler::Essay) },
        _ => single(Filler::Essay),
    }
}

/// Whether a task is one of needles in an essay.
pub fn reads_essay(task: RulerTask) -> bool {
    let others = [RulerTask::Vt, RulerTask::Cwe, RulerTask::Fwe, RulerTask::Qa1, RulerTask::Qa2];
    !others.contains(&task) && matches!(kind(task).filler, Filler::Essay)
}

fn plural(value: Name) -> &'static str {
    if value == Name::Uuid { "uuids" } else { "numbers" }
}

/// `a`, or `a, b, and c`.
fn listed(queries: &[&str]) -> String {
    match queries {
        [all @ .., last] if !all.is_empty() => format!("{}, and {last}", all.join(", ")),
        _ => queries.concat(),
    }
}

/// A needle task's question; `index` numbers its essay.
pub fn draft<'a>(task: RulerTask, mut rng: Rng, haystack: &Haystack, budget: usize, index: u64) -> Draft<'a> {
    let Kind { filler, key, value, keys, values, queries } = kind(task);
    let (rng, names) = (&mut rng, &mut Names::default());
    let kind = plural(value);
    let keys = names.several(key, keys, rng);
    let values: Vec<Vec<String>> = keys.iter().map(|_| names.several(value, values, rng)).collect();
    let mut needles: Vec<String> = Vec::new();
    for (key, values) in keys.iter().zip(&values) {
        needles.extend(values.iter().map(|value| needle(kind, key, value)));
    }
    rng.shuffle(&mut needles);
    let mut order: Vec<usize> = (0..keys.len()).collect();
    rng.shuffle(&mut order);
    let asked = &order[..queries];
    let query = listed(&asked.iter().map(|&i| keys[i].as_str()).collect::<Vec<_>>());
    let answers: Vec<String> = asked.iter().flat_map(|&i| values[i].clone()).collect();

    let count = if answers.len() == 1 { Asked::One } else { Asked::Several };
    let prefix = niah_prefix(count, kind, &query);
    let (sizes, context): (_, Box<dyn Fn(usize) -> String>) = match filler {
        Filler::Noise => {
            let text = [NOISE].repeat(enough(budget) / NOISE.len() + 1).join("\n");
            let places = Places::scattered(needles.len(), rng);
            let context = move |size: usize| places.insert(cut(&text, size).split('\n').collect(), &needles, "\n");
            (NOISE.len()..=enough(budget), Box::new(context))
        }
        Filler::Essay => {
            let sentences = haystack.sentences(index, enough(budget));
            let places = Places::depths(needles.len(), rng);
            let context = move |size: usize| places.insert(beginning(&sentences, size), &needles, " ");
            (LEAST..=enough(budget), Box::new(context))
        }
        Filler::Needles => {
            // No line takes fewer tokens than it has words.
            let most = budget / 9 + 1;
            let lines: Vec<String> = (0..most).map(|_| needle(kind, &names.draw(key, rng), &names.draw(value, rng))).collect();
            let places = Places::scattered(needles.len(), rng);
            let context = move |size: usize| places.insert(lines[..size].iter().map(String::as_str).collect(), &needles, "\n");
            (1..=most, Box::new(context))
        }
    };
    let write = move |size: usize| niah(count, kind, &context(size), &query);
    Draft { sizes, write: Box::new(write), prefix, answers }
}

/// The sentences' first `bytes` bytes, with a space behind each sentence; the last one may be cut.
fn beginning(sentences: &[String], bytes: usize) -> Vec<&str> {
    let mut left = bytes;
    let part = |sentence| {
        let part = cut(sentence, left);
        left = left.saturating_sub(part.len() + 1);
        part
    };
    sentences.iter().map(String::as_str).map(part).take_while(|part| !part.is_empty()).collect()
}

/// The words of a question with one answer, for those who place its needles themselves.
pub struct NeedleTexts {
    /// What begins the text, with the line break after it.
    pub head: String,
    /// The needles; the first is the one that is asked for.
    pub needles: Vec<String>,
    /// The question and the beginning of its answer, with the line break before them.
    pub question: String,
    /// The answer, without the space before it.
    pub answer: String,
}

/// `count` keys with a number each, of which the first is asked for.
pub fn needle_texts(count: usize, rng: &mut Rng) -> NeedleTexts {
    let names = &mut Names::default();
    let kind = plural(Name::Number);
    let pairs: Vec<[String; 2]> = (0..count).map(|_| [names.draw(Name::Words, rng), names.draw(Name::Number, rng)]).collect();
    let [key, value] = &pairs[0];
    let whole = niah(Asked::One, kind, CONTEXT, key) + &niah_prefix(Asked::One, kind, key);
    let (head, question) = whole.split_once(CONTEXT).expect("niah: the context stands in the prompt");
    NeedleTexts {
        head: head.into(),
        needles: pairs.iter().map(|[key, value]| needle(kind, key, value)).collect(),
        question: question.into(),
        answer: value.clone(),
    }
}

/// Stands for a context and nothing else.
const CONTEXT: &str = "\0";

/// Where needles stand, as shares of the text in ascending order.
pub(super) struct Places {
    shares: Vec<f64>,
    /// Whether each takes a place of its own.
    apart: bool,
}

impl Places {
    /// Anywhere, no two at one place.
    pub(super) fn scattered(count: usize, rng: &mut Rng) -> Self {
        let mut shares: Vec<f64> = (0..count).map(|_| rng.uniform()).collect();
        shares.sort_by(f64::total_cmp);
        Self { shares, apart: true }
    }

    /// At some of the whole percents.
    fn depths(count: usize, rng: &mut Rng) -> Self {
        let percent = |i: usize| (100.0 * i as f64 / (DEPTHS - 1) as f64).round() / 100.0;
        let mut depths: Vec<usize> = (0..DEPTHS).collect();
        rng.shuffle(&mut depths);
        depths.truncate(count);
        depths.sort_unstable();
        Self { shares: depths.into_iter().map(percent).collect(), apart: false }
    }

    /// The pieces with the needles between them, in order.
    pub(super) fn insert<S: AsRef<str>>(&self, pieces: Vec<&str>, needles: &[S], between: &str) -> String {
        let count = pieces.len();
        let place = |(i, share): (usize, &f64)| match self.apart {
            // One of `count` places for each, in order and none twice.
            true => (share * (count + 1).saturating_sub(needles.len()) as f64) as usize + i,
            false => (share * count as f64) as usize,
        };
        let places = self.shares.iter().enumerate().map(place);
        let mut all = Vec::with_capacity(count + needles.len());
        let mut pieces = pieces.into_iter();
        let mut before = 0;
        for (place, needle) in places.zip(needles) {
            all.extend(pieces.by_ref().take(place - before));
            all.push(needle.as_ref());
            before = place;
        }
        all.extend(pieces);
        all.join(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn needles_stand_where_their_shares_say() {
        let pieces = || vec!["a", "b", "c", "d"];
        let at = |shares: &[f64], apart| Places { shares: shares.into(), apart }.insert(pieces(), &["1", "2"], " ");
        assert_eq!(at(&[0.0, 0.5], false), "1 a b 2 c d");
        assert_eq!(at(&[0.5, 1.0], false), "a b 1 c d 2");
        assert_eq!(at(&[0.0, 0.0], true), "1 a 2 b c d");
        assert_eq!(at(&[0.99, 0.99], true), "a b 1 c 2 d");
    }

    #[test]
    fn depths_are_whole_percents_and_differ() {
        for index in 0..50 {
            let shares = Places::depths(4, &mut Rng::at(3, Stream::Eval, index)).shares;
            assert!(shares.windows(2).all(|w| w[0] < w[1]), "{shares:?}");
            assert!(shares.iter().all(|s| (s * 100.0 - (s * 100.0).round()).abs() < 1e-9 && *s <= 1.0));
        }
    }

    #[test]
    fn several_queries_are_listed_as_in_the_released_prompts() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c", "d"]), "a, b, c, and d");
    }
}
