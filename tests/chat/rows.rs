//! Conversations stay whole: what a row holds, what is left out, what is held back.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use ltrain::data::rows::Long;
use ltrain::data::{
    Attend, BatchBuilder, CacheUse, ChatError, Conversation, Corpus, CorpusOptions, DocPart, Encode, Holdout, MASKED, Packing,
    Reading, RowOptions, RowSet, SkipReason, Sources, Specials, Split,
};
use ltrain::error::{Explain, Result};
use ltrain::ops::cross_entropy::IGNORE;
use ltrain::positions::Mix;
use serde_json::json;

const EOS: u32 = 257;

/// One token per byte, and one at the end of every answer; what users say is masked.
struct Letters;

impl Encode for Letters {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn conversation(&self, conversation: &Conversation) -> std::result::Result<Vec<u32>, ChatError> {
        let mut ids = Vec::new();
        for message in &conversation.messages {
            let content = message["content"].as_str().unwrap().bytes().map(u32::from);
            match message["role"] == "assistant" {
                true => ids.extend(content.chain([EOS])),
                false => ids.extend(content.map(|id| id | MASKED)),
            }
        }
        Ok(ids)
    }
    fn bos(&self) -> Option<u32> {
        Some(256)
    }
    fn eos(&self) -> Option<u32> {
        Some(EOS)
    }
    fn identity(&self) -> String {
        "letters".into()
    }
}

/// Conversations of a question and an answer of these lengths, the answer's end not counted; no answer where it is 0.
fn corpus_in(dir: &tempfile::TempDir, lengths: &[(usize, usize)]) -> Corpus {
    let letters = |seed: usize, n: usize| (0..n).map(|i| char::from(b'a' + ((seed * 7 + i * i) % 26) as u8)).collect::<String>();
    let row = |(i, &(question, answer)): (usize, &(usize, usize))| {
        let mut messages = vec![json!({"role": "user", "content": letters(i, question)})];
        messages.extend((answer > 0).then(|| json!({"role": "assistant", "content": letters(i + 3, answer)})));
        json!({"messages": messages}).to_string()
    };
    let rows: Vec<_> = lengths.iter().enumerate().map(row).collect();
    fs::write(dir.path().join("chat.jsonl"), rows.join("\n")).unwrap();
    let options =
        CorpusOptions { reading: Reading::default(), specials: Specials::of(&Letters), cache: vec![dir.path().join("cache")] };
    Corpus::open(&Sources::collect(&[dir.path().join("chat.jsonl")]).unwrap(), &Letters, &options, &|_| {}).unwrap()
}

fn corpus(lengths: &[(usize, usize)]) -> Arc<Corpus> {
    Arc::new(corpus_in(&tempfile::tempdir().unwrap(), lengths))
}

fn row_set(corpus: &Arc<Corpus>, long: Long) -> Result<RowSet> {
    let whole: Vec<_> = (0..corpus.docs()).map(|doc| DocPart { doc, tokens: 0..corpus.doc(doc).len() }).collect();
    RowSet::new(Arc::clone(corpus), &whole, RowOptions { seq_len: 32, span: 160, packing: Packing::Whole(long) })
}

const LENGTHS: &[(usize, usize)] = &[(10, 5), (3, 27), (20, 11), (1, 1), (6, 6), (2, 20), (15, 16), (4, 1), (9, 9)];

#[test]
fn every_conversation_is_whole_in_one_row_and_the_rest_is_one_padding() {
    let corpus = corpus(LENGTHS);
    let set = row_set(&corpus, Long::Skip).unwrap();
    let mut seen = BTreeSet::new();
    for i in 0..set.rows_per_epoch() as usize {
        let row = set.row(i);
        assert_eq!(row.iter().map(|slot| slot.want).sum::<usize>(), 32);
        for (n, slot) in row.iter().enumerate() {
            assert_eq!(slot.want, slot.piece.len());
            match slot.piece.doc {
                Some(doc) => {
                    assert_eq!(slot.piece.tokens, 0..corpus.doc(doc).len());
                    assert!(seen.insert(doc), "document {doc} twice");
                }
                None => {
                    assert_eq!(n, row.len() - 1, "padding is last");
                    assert!(n > 0, "a row of padding alone");
                    assert!(slot.piece.text(&corpus).iter().all(|&id| id == EOS | MASKED));
                }
            }
        }
    }
    assert_eq!(seen.len(), LENGTHS.len());
    assert_eq!(set.skipped().total(), 0);
    // 3 + 27 + 1 and 15 + 16 + 1 tokens leave nothing to others but a row of 31 and one of 32.
    assert!(set.rows_per_epoch() < LENGTHS.len() as u64, "nothing shares a row");
}

#[test]
fn only_answers_are_predicted_and_padding_sees_itself_alone() {
    let corpus = corpus(LENGTHS);
    let set = Arc::new(row_set(&corpus, Long::Skip).unwrap());
    let builder = BatchBuilder { rows: Arc::clone(&set), method: Mix::natural(), seed: 4, attention: Attend::Full };
    let rows = set.rows_per_epoch();
    let batch = builder.batch(0, rows as usize);
    let (ids, targets) = (batch.ids.as_u32().unwrap(), batch.targets.ids.as_u32().unwrap());
    assert!(ids.iter().all(|&id| id & MASKED == 0));
    let mut padding = 0;
    for i in 0..rows {
        let mut start = 32 * i as usize;
        for slot in set.row(set.order(4, 0, i)) {
            let end = start + slot.want;
            let stored = slot.piece.text(&corpus);
            let wanted = stored.iter().skip(1).map(|&id| if id & MASKED == 0 { id } else { IGNORE }).chain([IGNORE]);
            assert_eq!(targets[start..end], wanted.collect::<Vec<_>>());
            for half in &batch.segments.starts {
                assert!(half[start..end].iter().all(|&first| first as usize == start % 32), "a stranger is seen");
            }
            padding += if slot.piece.doc.is_none() { slot.want } else { 0 };
            start = end;
        }
    }
    assert!(padding > 0, "these lengths need padding");
    let answers: usize = LENGTHS.iter().map(|(_, answer)| answer + 1).sum();
    assert_eq!((batch.target_count(), corpus.targets()), (answers, answers));
}

#[test]
fn a_long_conversation_is_left_out_or_cut_and_counted() {
    let corpus = corpus(&[(10, 5), (10, 30), (40, 5), (3, 3)]);
    let skipped = row_set(&corpus, Long::Skip).unwrap();
    assert_eq!(skipped.skipped().to_string(), "2 longer than a row");
    let cut = row_set(&corpus, Long::Cut).unwrap();
    assert_eq!(cut.skipped().to_string(), "1 without an answer", "a beginning without an answer teaches nothing");
    let lengths: BTreeSet<_> = (0..cut.rows_per_epoch() as usize)
        .flat_map(|i| cut.row(i))
        .filter_map(|slot| Some((slot.piece.doc?, slot.piece.tokens.clone().collect::<Vec<_>>().len())))
        .collect();
    assert_eq!(lengths, BTreeSet::from([(0, 16), (1, 32), (3, 7)]));
}

#[test]
fn where_nothing_fits_the_length_that_would_is_named() {
    let corpus = corpus(&[(10, 30), (40, 5)]);
    let error = row_set(&corpus, Long::Skip).unwrap_err();
    assert_eq!(error.to_string(), "no conversation fits into a row of 32 tokens with something to learn; the longest has 46");
    let e = error.explain();
    assert_eq!((e.code, &e.facts[..]), ("E304", &["skipped: 2 longer than a row".to_string()][..]));
    let help = e.help.unwrap();
    assert!(help.starts_with("--seq-len 46 for this data") && help.contains("--long cut"), "{help}");
    // What is cut already has no use for being cut.
    let questions = self::corpus(&[(35, 5), (40, 3)]);
    let help = row_set(&questions, Long::Cut).unwrap_err().explain().help.unwrap();
    assert!(help.starts_with("--seq-len 44 for this data") && !help.contains("--long"), "{help}");
    // The longest may have been held back.
    let part = [DocPart { doc: 1, tokens: 0..44 }];
    let options = RowOptions { seq_len: 32, span: 160, packing: Packing::Whole(Long::Skip) };
    let longer = self::corpus(&[(90, 5), (40, 3)]);
    let error = RowSet::new(longer, &part, options).unwrap_err();
    assert!(error.to_string().ends_with("the longest has 44"), "{error}");
}

#[test]
fn conversations_without_an_answer_are_counted() {
    let corpus = corpus(&[(10, 5), (7, 0), (9, 0)]);
    assert_eq!((corpus.docs(), corpus.skipped.count(SkipReason::NoAnswer)), (1, 2));
}

#[test]
fn conversations_are_held_back_whole() {
    let many = corpus(LENGTHS);
    for holdout in ["10%", "30%", "2"] {
        let split = Split::new(&many, holdout.parse::<Holdout>().unwrap(), 8).unwrap();
        assert!(!split.val.is_empty() && split.train.len() + split.val.len() == LENGTHS.len(), "{holdout}: {split:?}");
        let whole = |part: &DocPart| part.tokens == (0..many.doc(part.doc).len());
        assert!(split.train.iter().chain(&split.val).all(whole), "{holdout}: {split:?}");
    }
    let one = corpus(&[(10, 5)]);
    let split = Split::new(&one, Holdout::default(), 8).unwrap();
    assert_eq!((split.train.len(), split.val.len()), (1, 0));
}

#[test]
fn a_conversation_that_is_much_of_the_data_is_not_held_back_unasked() {
    let split = |lengths: &[(usize, usize)], holdout: &str| Split::new(&corpus(lengths), holdout.parse().unwrap(), 8);
    assert!(split(LENGTHS, "1%").unwrap().val.is_empty());
    assert_eq!(split(LENGTHS, "1").unwrap().val.len(), 1);
    // One of thirty is three percent.
    assert_eq!(split(&[(10, 5); 30], "1%").unwrap().val.len(), 1);
    let error = split(&[(10, 5)], "1").unwrap_err();
    assert_eq!(error.to_string(), "--val 1: expected fewer than the 1 different documents of the data");
    assert_eq!(error.explain().code, "E326");
}

#[test]
fn the_cache_keeps_masks_formats_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let lengths = [(10, 5), (7, 0), (3, 3)];
    let [built, read] = [(); 2].map(|()| corpus_in(&dir, &lengths));
    assert!(matches!((&built.cache, &read.cache), (CacheUse::Built(_), CacheUse::Hit(_))), "{:?} {:?}", built.cache, read.cache);
    let all = |corpus: &Corpus| (0..corpus.docs()).map(|i| corpus.doc(i).to_vec()).collect::<Vec<_>>();
    assert_eq!(all(&built), all(&read));
    assert_eq!((&built.skipped, &built.formats, built.targets()), (&read.skipped, &read.formats, read.targets()));
    assert!(read.conversations());
}
