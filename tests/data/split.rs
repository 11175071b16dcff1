//! No token on both sides.

use ltrain::data::{Corpus, Holdout, Split};

use super::{BOTH, Bytes, NEITHER, corpus, overlap, prose, told};

fn split(lengths: &[usize], holdout: &str) -> Split {
    Split::new(&corpus(BOTH, lengths), holdout.parse().unwrap(), 0).unwrap()
}

fn assert_partition(corpus: &Corpus, split: &Split) {
    for t in &split.train {
        assert!(!split.val.iter().any(|v| v.doc == t.doc && overlap(&v.tokens, &t.tokens)));
    }
    let covered: usize = split.train.iter().chain(&split.val).map(|p| p.tokens.len()).sum();
    assert_eq!(covered, corpus.tokens());
}

#[test]
fn sides_are_disjoint_and_cover_everything() {
    for lengths in [&[700][..], &[50, 60], &[10; 30], &[17; 500], &[5, 5, 5, 4000]] {
        for holdout in ["none", "1%", "30%", "99%", "1"] {
            // The same lengths give different texts, so that nothing is a copy.
            let corpus = corpus(BOTH, lengths);
            let split = Split::new(&corpus, holdout.parse().unwrap(), 0).unwrap();
            assert_partition(&corpus, &split);
            assert!(!split.train.is_empty());
            assert_eq!(split.val.is_empty(), holdout == "none", "{lengths:?} {holdout}");
        }
    }
}

#[test]
fn a_share_counts_documents_up_to_64() {
    assert_eq!(split(&[20; 300], "1%").val.len(), 3);
    assert_eq!(split(&[20; 300], "50%").val.len(), 64);
    assert_eq!(split(&[20; 300], "70").val.len(), 70);
}

#[test]
fn a_single_document_gives_its_tail() {
    let corpus = corpus(NEITHER, &[1000]);
    let tail = |holdout: &str, min| {
        let split = Split::new(&corpus, holdout.parse().unwrap(), min).unwrap();
        assert_partition(&corpus, &split);
        split.val[0].tokens.clone()
    };
    assert_eq!(tail("1%", 0), 990..1000);
    assert_eq!(tail("1%", 70), 930..1000);
    assert_eq!(tail("1%", 5000), 900..1000);
    assert_eq!(tail("30%", 0), 700..1000);
}

#[test]
fn one_of_a_few_long_documents_is_too_much() {
    let split = split(&[500, 900, 600], "1%");
    assert_eq!((split.train.len(), split.val.len()), (3, 1));
    assert_eq!(split.val[0].doc, 1);
}

#[test]
fn a_document_keeps_its_side_when_others_come_before_it() {
    let texts: Vec<_> = (0..200).map(|i| prose(i, 40 + i)).collect();
    let side = |texts: &[&str]| {
        let corpus = Corpus::from_texts(texts, &Bytes::default(), NEITHER).unwrap();
        let split = Split::new(&corpus, Holdout::Docs(5), 0).unwrap();
        split.val.iter().map(|p| corpus.doc(p.doc).to_vec()).collect::<std::collections::BTreeSet<_>>()
    };
    let forward: Vec<_> = texts.iter().map(String::as_str).collect();
    let backward: Vec<_> = forward.iter().rev().copied().collect();
    assert_eq!(side(&forward), side(&backward));
}

#[test]
fn copies_of_a_document_stay_together() {
    let texts: Vec<_> = (0..40).map(|i| prose(i % 20, 50)).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let corpus = Corpus::from_texts(&texts, &Bytes::default(), BOTH).unwrap();
    let split = Split::new(&corpus, Holdout::Docs(3), 0).unwrap();
    assert_eq!(split.val.len(), 6);
    for v in &split.val {
        assert!(!split.train.iter().any(|t| corpus.doc(t.doc) == corpus.doc(v.doc)));
    }
    let same = Corpus::from_texts(&["one text twice", "one text twice"], &Bytes::default(), BOTH).unwrap();
    let split = Split::new(&same, Holdout::Share(0.1), 0).unwrap();
    assert_eq!((split.train.len(), split.val.len()), (1, 1));
    assert!(split.train[0].tokens.end <= split.val[0].tokens.start);
}

#[test]
fn more_documents_than_there_are_is_an_error() {
    let corpus = corpus(BOTH, &[30, 40, 50]);
    let (what, _) = told(Split::new(&corpus, Holdout::Docs(3), 0).unwrap_err());
    assert_eq!(what, "--val 3: expected fewer than the 3 different documents of the data");
}

#[test]
fn holdouts_are_read_as_people_write_them() {
    assert_eq!("none".parse(), Ok(Holdout::None));
    assert_eq!("0%".parse(), Ok(Holdout::None));
    assert_eq!("2.5%".parse(), Ok(Holdout::Share(0.025)));
    assert_eq!("12".parse(), Ok(Holdout::Docs(12)));
    for bad in ["", "-1", "100%", "nan%", "1.5", "some"] {
        assert!(bad.parse::<Holdout>().is_err(), "{bad:?} was accepted");
    }
}
