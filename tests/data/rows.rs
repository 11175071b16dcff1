//! Rows cover every token, are full, and come in a fixed order.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use ltrain::data::{Corpus, Packing, RowOptions, RowSet, SkipReason, Specials};

use super::{BOS, BOTH, NEITHER, corpus, told, whole};

fn rows(corpus: &Arc<Corpus>, seq_len: usize, span: usize, packing: Packing) -> RowSet {
    let options = RowOptions { seq_len, span, packing };
    RowSet::new(Arc::clone(corpus), &whole(corpus), options).unwrap()
}

fn all_rows(set: &RowSet) -> std::ops::Range<usize> {
    0..set.rows_per_epoch() as usize
}

/// Every (document, token) that some row's plans may choose from.
fn reachable(set: &RowSet) -> BTreeSet<(usize, usize)> {
    all_rows(set)
        .flat_map(|i| set.row(i))
        .flat_map(|slot| slot.piece.tokens.clone().map(|t| (slot.piece.doc.unwrap(), t)))
        .collect()
}

const LENGTHS: &[usize] = &[3, 400, 17, 63, 64, 65, 1, 31, 5, 129, 62, 40, 40, 320, 321, 12];

#[test]
fn every_token_of_every_document_is_in_some_row_and_no_row_is_padded() {
    for specials in [BOTH, NEITHER, Specials { bos: Some(BOS), eos: None }] {
        let corpus = corpus(specials, LENGTHS);
        for (seq_len, span) in [(64, 320), (64, 64), (64, 100), (7, 35), (2, 2), (64, 1000)] {
            let set = rows(&corpus, seq_len, span, Packing::On);
            for i in all_rows(&set) {
                let wanted: usize = set.row(i).iter().map(|slot| slot.want).sum();
                assert_eq!(wanted, seq_len);
                assert!(set.row(i).iter().all(|s| 0 < s.want && s.want <= s.piece.len()));
                assert!(set.row(i).iter().all(|s| s.piece.len() <= span));
            }
            assert_eq!(reachable(&set).len(), corpus.tokens(), "{seq_len} {span}");
            assert_eq!(set.skipped().total(), 0);
        }
    }
}

#[test]
fn every_piece_begins_with_a_bos_when_there_is_one() {
    let corpus = corpus(BOTH, LENGTHS);
    for span in [64, 320] {
        let set = rows(&corpus, 64, span, Packing::On);
        for slot in all_rows(&set).flat_map(|i| set.row(i)) {
            assert_eq!(slot.piece.token(&corpus, 0), BOS, "{slot:?}");
            let inside = (1..slot.piece.len()).map(|i| slot.piece.token(&corpus, i));
            assert!(!inside.into_iter().any(|id| id == BOS));
        }
    }
}

#[test]
fn a_span_gives_as_many_rows_as_it_holds() {
    let corpus = corpus(NEITHER, &[1000]);
    // 1000 tokens in spans of at most 320 are four spans of 250, each ceil(250 / 64) = 4 rows.
    let set = rows(&corpus, 64, 320, Packing::On);
    assert_eq!(set.rows_per_epoch(), 16);
    let spans: BTreeSet<_> = all_rows(&set).map(|i| set.row(i)[0].piece.tokens.start).collect();
    assert_eq!(spans, BTreeSet::from([0, 250, 500, 750]));
    // Spans as long as a row tile the document; 1000 = 15·64 + 40, completed with 24 tokens from the beginning.
    let set = rows(&corpus, 64, 64, Packing::On);
    assert_eq!(set.rows_per_epoch(), 16);
    let last = set.row(15);
    assert_eq!((last[0].piece.tokens.clone(), last[1].piece.tokens.clone()), (960..1000, 0..24));
}

#[test]
fn short_documents_share_rows_first_fit_and_the_rest_is_a_cut() {
    let corpus = corpus(NEITHER, &[30, 50, 20, 60, 14]);
    let set = rows(&corpus, 64, 320, Packing::On);
    let packed: Vec<Vec<_>> =
        all_rows(&set).map(|i| set.row(i).iter().map(|s| (s.piece.doc.unwrap(), s.piece.tokens.clone())).collect()).collect();
    assert_eq!(packed, [vec![(0, 0..30), (2, 0..20), (4, 0..14)], vec![(1, 0..50), (3, 0..14)], vec![(3, 14..60), (0, 0..18)],]);
}

#[test]
fn without_packing_short_documents_are_counted_and_the_rest_is_covered() {
    let corpus = corpus(BOTH, LENGTHS);
    let set = rows(&corpus, 64, 64, Packing::Off);
    assert!(all_rows(&set).all(|i| set.row(i).len() == 1));
    let short = (0..corpus.docs()).filter(|&i| corpus.doc(i).len() < 64);
    let short: Vec<_> = short.collect();
    assert_eq!(set.skipped().count(SkipReason::ShorterThanRow), short.len() as u64);
    let kept: usize = (0..corpus.docs()).filter(|i| !short.contains(i)).map(|i| corpus.doc(i).len()).sum();
    assert_eq!(reachable(&set).len(), kept);
}

#[test]
fn too_little_text_is_message_e304() {
    let corpus = corpus(NEITHER, &[3120, 12, 700]);
    let refused = |packing| {
        let options = RowOptions { seq_len: 8192, span: 5 * 8192, packing };
        told(RowSet::new(Arc::clone(&corpus), &whole(&corpus), options).unwrap_err())
    };
    let (what, e) = refused(Packing::Off);
    assert_eq!(what, "none of the 3 documents has as many tokens as one training sequence (8192); the longest has 3,120");
    assert_eq!(e.code, "E304");
    assert!(e.help.unwrap().starts_with("--seq-len 3k for this data"));
    let (what, _) = refused(Packing::On);
    assert_eq!(
        what,
        "all 3 documents together have fewer tokens (3,832) than one training sequence (8192); the longest has 3,120"
    );
}

#[test]
fn packing_is_the_same_every_time() {
    let corpus = corpus(BOTH, LENGTHS);
    let all = |set: &RowSet| all_rows(set).map(|i| set.row(i).to_vec()).collect::<Vec<_>>();
    let [a, b] = [(); 2].map(|()| rows(&corpus, 32, 160, Packing::On));
    assert_eq!(all(&a), all(&b));
}

#[test]
fn the_order_is_a_permutation_of_its_own_in_every_epoch() {
    let corpus = corpus(NEITHER, &[4000]);
    let set = rows(&corpus, 64, 64, Packing::On);
    let n = set.rows_per_epoch();
    let order = |seed, epoch| (0..n).map(|i| set.order(seed, epoch, i)).collect::<Vec<_>>();
    for epoch in 0..3 {
        let seen: BTreeSet<_> = order(1, epoch).into_iter().collect();
        assert_eq!(seen.len() as u64, n);
    }
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    assert_eq!(order(1, 0), order(1, 0));
}

proptest! {
    #[test]
    fn any_corpus_gives_full_rows_that_reach_every_token(
        lengths in prop::collection::vec(1usize..200, 1..40),
        seq_len in 2usize..90,
        more in 0usize..400,
        bos: bool,
        pack: bool,
    ) {
        let specials = if bos { BOTH } else { NEITHER };
        let corpus = corpus(specials, &lengths);
        let packing = if pack { Packing::On } else { Packing::Off };
        let fits = |i: &usize| pack || corpus.doc(*i).len() >= seq_len;
        let expected: usize = (0..corpus.docs()).filter(fits).map(|i| corpus.doc(i).len()).sum();
        let options = RowOptions { seq_len, span: seq_len + more, packing };
        let set = RowSet::new(Arc::clone(&corpus), &whole(&corpus), options);
        if expected < seq_len {
            prop_assert!(set.is_err());
            return Ok(());
        }
        let set = set.unwrap();
        for i in all_rows(&set) {
            let slots = set.row(i);
            prop_assert_eq!(slots.iter().map(|s| s.want).sum::<usize>(), seq_len);
            for slot in slots {
                prop_assert!(0 < slot.want && slot.want <= slot.piece.len());
                prop_assert!(slot.piece.len() <= seq_len + more);
                prop_assert!(!bos || slot.piece.token(&corpus, 0) == BOS);
            }
        }
        prop_assert_eq!(reachable(&set).len(), expected);
    }
}
