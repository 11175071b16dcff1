//! RULER's samples against their published descriptions.

use std::collections::{HashMap, HashSet};

use ltrain::data::Encode;
use ltrain::error::{Explain, Result};
use ltrain::eval::ruler::{QaSet, RulerTask, Sample, Source};
use ltrain::eval::{Haystack, Needles, Questions};

/// Words with the space before them, in tokens of at most four bytes; every digit and line break is one.
struct Pieces;

impl Encode for Pieces {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut piece = Vec::new();
        for byte in text.bytes() {
            let alone = byte.is_ascii_digit() || byte.is_ascii_punctuation() || byte == b'\n';
            if alone || byte == b' ' || piece.len() == 4 {
                ids.extend((!piece.is_empty()).then(|| hash(&piece)));
                piece.clear();
            }
            piece.push(byte);
            if alone {
                ids.push(hash(&piece));
                piece.clear();
            }
        }
        ids.extend((!piece.is_empty()).then(|| hash(&piece)));
        Ok(ids)
    }
    fn bos(&self) -> Option<u32> {
        Some(1 << 31)
    }
    fn eos(&self) -> Option<u32> {
        None
    }
    fn identity(&self) -> String {
        "pieces".into()
    }
}

fn hash(piece: &[u8]) -> u32 {
    piece.iter().fold(7, |h: u32, &b| h.wrapping_mul(31).wrapping_add(b.into())) & (u32::MAX >> 1)
}

const OWN: Haystack = Haystack::Own { seed: 42 };

fn source() -> Source<'static> {
    Source { encode: &Pieces, haystack: &OWN, squad: None, hotpotqa: None, seed: 42 }
}

fn sample(task: RulerTask, length: usize, index: u64) -> Sample {
    source().sample(task, length, index).unwrap_or_else(|e| panic!("{task} at {length}: {e}"))
}

/// The eleven tasks that need no file.
fn made() -> impl Iterator<Item = RulerTask> {
    RulerTask::ALL.iter().copied().filter(|task| !task.reads_file())
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Key and value of every needle, in order.
fn needles(text: &str) -> Vec<(String, String)> {
    let found = text.split("One of the special magic ").skip(1).map(|rest| {
        let (_, rest) = rest.split_once(" for ").unwrap();
        let (key, rest) = rest.split_once(" is: ").unwrap();
        (key.to_owned(), rest.split_once('.').unwrap().0.to_owned())
    });
    found.collect()
}

#[test]
fn a_sample_fills_its_length_and_never_exceeds_it() {
    for task in made() {
        // What cannot be cut: an entry of a list with its number, words that a count adds at once, a line with a needle.
        let slack = match task {
            RulerTask::Cwe => 9,
            RulerTask::Fwe => 12,
            RulerTask::NiahMultikey2 => 34,
            RulerTask::NiahMultikey3 => 90,
            _ => 1,
        };
        for length in [1500, 4096, 8192, 20_001] {
            for index in 0..3 {
                let sample = sample(task, length, index);
                let used = sample.tokens.len() + task.answer_tokens();
                assert!(used <= length && used + slack >= length, "{task} at {length}: {used}");
                let again: Vec<u32> = [1 << 31].into_iter().chain(Pieces.encode(&sample.text).unwrap()).collect();
                assert_eq!(sample.tokens, again, "{task}: tokens are those of the text");
            }
        }
    }
}

#[test]
fn samples_are_a_function_of_task_length_seed_and_index() {
    for task in made() {
        let first = sample(task, 2000, 0);
        assert_eq!(first, sample(task, 2000, 0));
        assert_ne!(first.answers, sample(task, 2000, 1).answers, "{task}: index");
        assert_ne!(first.answers, sample(task, 2001, 0).answers, "{task}: length");
        let other = Source { seed: 43, ..source() }.sample(task, 2000, 0).unwrap();
        assert_ne!(first.answers, other.answers, "{task}: seed");
    }
}

#[test]
fn needles_are_as_many_and_as_distinct_as_the_tasks_say() {
    let uuid = |s: &str| s.len() == 36 && s.split('-').map(str::len).collect::<Vec<_>>() == [8, 4, 4, 4, 12];
    let number = |s: &str| s.len() == 7 && s.bytes().all(|b| b.is_ascii_digit());
    let words = |s: &str| s.split('-').count() == 2;
    for (task, keys, values, queried) in [
        (RulerTask::NiahSingle1, 1, 1, 1),
        (RulerTask::NiahSingle2, 1, 1, 1),
        (RulerTask::NiahSingle3, 1, 1, 1),
        (RulerTask::NiahMultikey1, 4, 1, 1),
        (RulerTask::NiahMultivalue, 1, 4, 1),
        (RulerTask::NiahMultiquery, 4, 1, 4),
        (RulerTask::NiahMultikey2, 0, 1, 1),
        (RulerTask::NiahMultikey3, 0, 1, 1),
    ] {
        for index in 0..20 {
            let sample = sample(task, 4096, index);
            let found = needles(&sample.text);
            let distinct: HashSet<_> = found.iter().map(|(key, _)| key).collect();
            if keys > 0 {
                assert_eq!((distinct.len(), found.len()), (keys, keys * values), "{task}");
            } else {
                assert_eq!(distinct.len(), found.len(), "{task}: two needles of one key");
                assert!(found.len() > 30, "{task}: nothing but needles");
            }
            assert_eq!(found.iter().map(|(_, value)| value).collect::<HashSet<_>>().len(), found.len(), "{task}: values");
            let fits = |(key, value): &(String, String)| match task {
                RulerTask::NiahSingle3 => words(key) && uuid(value),
                RulerTask::NiahMultikey3 => uuid(key) && uuid(value),
                _ => words(key) && number(value),
            };
            assert!(found.iter().all(fits), "{task}: {:?}", found[0]);
            assert_eq!(sample.answers.len(), values * queried, "{task}");
            let asked: HashSet<_> = found.iter().filter(|(_, v)| sample.answers.contains(v)).map(|(k, _)| k).collect();
            assert_eq!(asked.len(), queried, "{task}");
            for answer in &sample.answers {
                assert_eq!(count(&sample.text, answer), 1, "{task}: an answer stands in its needle alone");
            }
            for key in asked {
                assert_eq!(count(&sample.text, key), values + 2, "{task}: needles, question, answer");
            }
        }
    }
}

#[test]
fn prompts_are_the_released_ones() {
    let text = |task| sample(task, 2000, 0).text;
    let single = text(RulerTask::NiahSingle2);
    let key = needles(&single)[0].0.clone();
    assert!(single.starts_with(
        "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the number \
         afterwards.\n"
    ));
    assert!(single.ends_with(&format!(
        "\nWhat is the special magic number for {key} mentioned in the provided text? The special magic number for {key} mentioned in \
         the provided text is"
    )));
    let several = text(RulerTask::NiahMultiquery);
    assert!(several.starts_with(
        "Some special magic numbers are hidden within the following text. Make sure to memorize it. I will quiz you about the numbers \
         afterwards.\n"
    ));
    assert!(several.contains("\nWhat are all the special magic numbers for ") && several.contains(", and "));
    assert!(several.ends_with(" mentioned in the provided text are"));
    let noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n";
    let lines = text(RulerTask::NiahSingle1);
    let context = lines.split_once("afterwards.\n").unwrap().1.split("\nWhat is").next().unwrap();
    let others: Vec<&str> = context.lines().filter(|line| !line.starts_with("One of the special")).collect();
    let (cut, whole) = others.split_last().unwrap();
    assert!(whole.len() > 20 && whole.iter().all(|line| *line == noise.trim_end()) && noise.starts_with(cut), "{context}");
    assert!(text(RulerTask::NiahSingle3).contains("I will quiz you about the uuid afterwards.\n"));
    assert!(text(RulerTask::Vt).ends_with(" they are: "));
    assert!(text(RulerTask::Cwe).ends_with("list? Answer: The top 10 words that appear most often in the list are:"));
    assert!(text(RulerTask::Fwe).ends_with(
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared words in \
         the above coded text? Answer: According to the coded text above, the three most frequently appeared words are:"
    ));
}

#[test]
fn a_chain_is_assigned_in_order_behind_a_short_example() {
    for index in 0..10 {
        let sample = sample(RulerTask::Vt, 4096, index);
        let begin = "Memorize and track the chain(s)";
        assert_eq!(count(&sample.text, begin), 2, "an example and the task");
        let (example, task) = sample.text.split_at(sample.text.rfind(begin).unwrap());
        assert!(Pieces.encode(example).unwrap().len() <= 500);
        for (part, letters) in [(example, 3), (task, 5)] {
            let context = &part[..part.find("\nQuestion").unwrap()];
            let chain: Vec<(&str, &str)> =
                context.lines().filter_map(|line| line.strip_prefix("VAR ")?.trim_end().split_once(" = ")).collect();
            assert_eq!(chain.len(), 5);
            let value = chain[0].1;
            assert!(value.len() == 5 && value.bytes().all(|b| b.is_ascii_digit()), "{value}");
            for pair in chain.windows(2) {
                assert_eq!(pair[1].1, format!("VAR {}", pair[0].0), "each variable takes the one before it");
            }
            assert!(chain.iter().all(|(name, _)| name.len() == letters && name.bytes().all(|b| b.is_ascii_uppercase())));
            assert!(part.contains(&format!("5 variables are assigned the value {value}, they are: ")));
            let names: Vec<&str> = chain.iter().map(|(name, _)| *name).collect();
            match letters {
                // Two spaces: the answer's beginning ends in one.
                3 => assert!(part.ends_with(&format!("they are:  {}\n\n", names.join(" "))), "{part}"),
                _ => assert_eq!(sample.answers, names),
            }
        }
    }
}

/// How often each word stands in a list `1. word 2. word …`, whose numbers are checked.
fn listed(list: &str) -> HashMap<&str, usize> {
    let words: Vec<&str> = list.split(' ').collect();
    let mut counts = HashMap::new();
    for (i, entry) in words.chunks(2).enumerate() {
        assert_eq!(entry[0], format!("{}.", i + 1));
        *counts.entry(entry[1]).or_default() += 1;
    }
    counts
}

#[test]
fn common_words_are_more_common_by_ten() {
    for (length, shown, main) in [(1500, (20, 3, 1), (6, 1)), (4096, (40, 10, 3), (30, 3)), (30_000, (40, 10, 3), (30, 3))] {
        let sample = sample(RulerTask::Cwe, length, 1);
        let lists: Vec<&str> = sample.text.split("most often.\n").skip(1).map(|rest| rest.split('\n').next().unwrap()).collect();
        assert_eq!(lists.len(), 2, "an example and the task");
        let example = listed(lists[0]);
        let times: Vec<usize> = example.values().copied().collect();
        assert_eq!((example.len(), times.iter().filter(|&&n| n == shown.1).count()), (shown.0, 10));
        assert!(times.iter().all(|&n| n == shown.1 || n == shown.2));
        let counts = listed(lists[1]);
        assert!(sample.answers.iter().all(|word| counts[word.as_str()] == main.0), "{:?}", sample.answers);
        let others: Vec<usize> =
            counts.iter().filter(|(word, _)| !sample.answers.iter().any(|a| a == *word)).map(|c| *c.1).collect();
        assert!(others.len() > 10 && others.iter().all(|&n| n <= main.1));
        assert!(others.iter().filter(|&&n| n < main.1).count() <= 1, "the last word alone may be cut short");
        assert_eq!(sample.answers.iter().collect::<HashSet<_>>().len(), 10);
    }
}

#[test]
fn frequent_words_rank_behind_the_dots() {
    for length in [1500, 4096, 16_384] {
        let sample = sample(RulerTask::Fwe, length, 2);
        let text = sample.text.split_once("coded words. ").unwrap().1;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        text[..text.find("\nQuestion").unwrap()].split(' ').for_each(|word| *counts.entry(word).or_default() += 1);
        let mut ranked: Vec<(&str, usize)> = counts.into_iter().collect();
        ranked.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        assert_eq!(ranked[0].0, "...");
        assert_eq!(ranked[1..4].iter().map(|r| r.0).collect::<Vec<_>>(), sample.answers);
        assert!(ranked[3].1 > ranked[4].1, "the third is no tie");
        let share = ranked[1].1 as f64 / ranked[0].1 as f64;
        assert!((share - 0.25).abs() < 0.02, "counts fall with the square of the rank: {share}");
    }
}

#[test]
fn an_oracle_scores_all_and_silence_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (squad, hotpotqa) = (dir.path().join("squad.json"), dir.path().join("hotpotqa.json"));
    let paragraph =
        r#"{"context": "Tea is hot.", "qas": [{"question": "How?", "answers": [{"text": "hot", "answer_start": 7}]}]}"#;
    std::fs::write(&squad, format!(r#"{{"data": [{{"paragraphs": [{paragraph}]}}]}}"#)).unwrap();
    std::fs::write(&hotpotqa, r#"[{"question": "Who?", "answer": "Ann", "context": [["T", ["Ann did."]]]}]"#).unwrap();
    let (squad, hotpotqa) = (QaSet::squad(&squad).unwrap(), QaSet::hotpotqa(&hotpotqa).unwrap());
    let source = Source { squad: Some(&squad), hotpotqa: Some(&hotpotqa), ..source() };
    for &task in RulerTask::ALL {
        let sample = source.sample(task, 4096, 0).unwrap();
        let (rule, answers) = (task.rule(), &sample.answers);
        assert_eq!(rule.score(&answers.join(", "), answers), 1.0, "{task}");
        assert_eq!(rule.score(&answers.join("\n").to_uppercase(), answers), 1.0, "{task}: in any case");
        assert_eq!(rule.score("", answers), 0.0, "{task}");
        let half = answers[0].clone();
        assert_eq!(rule.score(&half, answers), 1.0 / answers.len() as f64, "{task}");
    }
}

#[test]
fn tasks_without_room_or_questions_are_refused() {
    for task in made() {
        let error = source().sample(task, 100, 0).unwrap_err();
        assert_eq!(error.explain().code, "E224", "{task}: {error}");
        let needs: usize = error.to_string().split("at least ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(needs > 100 && source().sample(task, needs + 100, 0).is_ok(), "{task}: {error}");
    }
    assert_eq!(source().sample(RulerTask::Qa1, 4096, 0).unwrap_err().explain().code, "E225");
}

#[test]
fn needles_stand_at_their_depths_in_a_users_text() {
    let text: String = (0..400).map(|i| format!("Sentence number {} is here.\n", "x".repeat(1 + i % 7))).collect();
    let hay = Haystack::of_text(&text).unwrap();
    let mut percents = HashSet::new();
    for index in 0..40 {
        let sample = Source { haystack: &hay, ..source() }.sample(RulerTask::NiahSingle2, 3000, index).unwrap();
        let (before, rest) = sample.text.split_once("One of the special").unwrap();
        let context = rest.split("\nWhat is").next().unwrap();
        let (a, b) = (count(before, "Sentence"), count(context, "Sentence"));
        let share = a as f64 / (a + b) as f64 * 100.0;
        percents.insert(share.round() as i64);
        // One of 40 whole percents, cut down to a whole sentence.
        assert!(
            (0..40).any(|i| (share - (100.0 * f64::from(i) / 39.0).round()).abs() <= 100.0 / (a + b) as f64 + 1e-9),
            "{share}"
        );
        assert!(
            sample.text.contains("afterwards.\nSentence number x is here.") || a == 0,
            "a user's text begins at its beginning"
        );
    }
    assert!(percents.len() > 15 && *percents.iter().max().unwrap() > 80 && *percents.iter().min().unwrap() < 20);
}

#[test]
fn questions_about_documents_hold_the_right_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("squad.json");
    let paragraph = |n: usize| {
        let context = format!("Paragraph of subject {n}. {}", "It says something or other. ".repeat(8));
        let qa = |impossible: bool| {
            serde_json::json!({"question": format!("Which is {n}?"), "is_impossible": impossible,
            "answers": if impossible { vec![] } else { vec![serde_json::json!({"text": format!("answer{n}"), "answer_start": 0})] }})
        };
        serde_json::json!({"context": context, "qas": [qa(false), qa(true)]})
    };
    // The first paragraph stands twice in its article, the second time without a question.
    let again = |a: usize| serde_json::json!({"context": paragraph(2 * a)["context"], "qas": []});
    let articles: Vec<_> =
        (0..10).map(|a| serde_json::json!({"paragraphs": [paragraph(2 * a), again(a), paragraph(2 * a + 1)]})).collect();
    std::fs::write(&path, serde_json::json!({"version": "v2.0", "data": articles}).to_string()).unwrap();
    let squad = QaSet::squad(&path).unwrap();
    let hotpot_path = dir.path().join("hotpot.json");
    let hotpot = r#"[{"_id": "1", "question": "Who?", "answer": "Ann", "context": [["T1", ["One. ", "Two."]], ["T2", ["Three."]]]},
                     {"_id": "2", "question": "What?", "answer": "Tea", "context": [["T3", ["Four."]]]}]"#;
    std::fs::write(&hotpot_path, hotpot).unwrap();
    let hotpotqa = QaSet::hotpotqa(&hotpot_path).unwrap();
    let source = Source { squad: Some(&squad), hotpotqa: Some(&hotpotqa), ..source() };
    let mut asked = HashSet::new();
    for index in 0..20 {
        let sample = source.sample(RulerTask::Qa1, 1000, index).unwrap();
        let n = sample.answers[0].strip_prefix("answer").unwrap().to_owned();
        assert!(sample.text.ends_with(&format!("\n\nQuestion: Which is {n}? Answer:")), "{}", sample.text);
        let documents: Vec<&str> = sample.text.split("Document ").skip(1).map(|d| d.split_once(":\n").unwrap().1).collect();
        assert!(documents.len() >= 6 && documents.len() < 20, "as many as there is room for");
        assert_eq!(documents.iter().filter(|d| d.starts_with(&format!("Paragraph of subject {n}."))).count(), 1);
        assert_eq!(documents.iter().collect::<HashSet<_>>().len(), documents.len());
        asked.insert(n);
    }
    assert_eq!(asked.len(), 20, "every answerable question once");
    let sample = source.sample(RulerTask::Qa2, 600, 0).unwrap();
    for document in ["T1\nOne. Two.", "T2\nThree.", "T3\nFour."] {
        assert_eq!(count(&sample.text, document), 1, "{}", sample.text);
    }
    assert_eq!(RulerTask::Qa2.rule().score("It was ann.", &["Ann".into()]), 1.0);
    for (text, read) in
        [("{}", QaSet::squad as fn(&_) -> _), ("[]", QaSet::hotpotqa), ("{\"data\": []}", QaSet::squad), ("[{", QaSet::hotpotqa)]
    {
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap_err().explain().code, "E607", "{text}");
    }
}

#[test]
fn the_heat_maps_needles_have_their_depth_and_company() {
    let needles_of = Needles::new(&Pieces, &OWN, 3, 4097).unwrap();
    let tokens = |text: &str| Pieces.encode(text).unwrap();
    let head = 1 + tokens(
        "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the number \
         afterwards.\n",
    )
    .len();
    let longest = (0..1000).map(|i| tokens(&format!(" {}", OWN.sentence(0, i))).len()).max().unwrap();
    let (marks, dot) = (tokens(" One of the special magic numbers"), tokens(".")[0]);
    let shortest = needles_of.shortest().unwrap();
    for length in [shortest, shortest + 1, 1000, 4097] {
        for index in 0..5 {
            let mut all = 0;
            // The needle's sentence ends where the depth lies, or behind it; from the last depth the filler's tokens are known.
            for depth in [1.0, 0.9, 0.5, 0.25, 0.0] {
                let q = needles_of.ask(length, depth, 1, index).unwrap();
                assert_eq!(q, needles_of.ask(length, depth, 1, index).unwrap());
                assert_eq!(q.length(), length);
                let stands: Vec<usize> = (0..q.tokens.len()).filter(|&i| q.tokens[i..].starts_with(&marks)).collect();
                assert_eq!(stands.len(), 4, "the needle and three others");
                assert!(stands.contains(&q.stated));
                assert!(q.tokens[q.stated..].windows(q.answer.len() - 1).any(|w| w == &q.answer[1..]), "it states the answer");
                let needle = |at: usize| 1 + q.tokens[at..].iter().position(|&token| token == dot).unwrap();
                let others: usize = stands.iter().filter(|&&at| at < q.stated).map(|&at| needle(at)).sum();
                let filler = q.stated - head - others;
                all = all.max(filler);
                let wanted = (depth * all as f64).round() as usize;
                assert!((wanted..(wanted + longest).min(all + 1)).contains(&filler), "{depth} of {length}: {filler} of {all}");
            }
        }
    }
    assert_eq!(needles_of.ask(60, 0.5, 1, 0).unwrap_err().explain().code, "E224");
}
