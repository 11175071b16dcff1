//! Rows of documents that exist only as lengths.

use std::sync::Arc;

use ltrain::data::{Corpus, DocPart, Encode, Packing, RowOptions, RowSet, Specials};

/// One token per letter, `a` being 0.
struct Letters;

impl Encode for Letters {
    fn encode(&self, text: &str) -> ltrain::Result<Vec<u32>> {
        Ok(text.bytes().map(|byte| u32::from(byte - b'a')).collect())
    }
    fn bos(&self) -> Option<u32> {
        None
    }
    fn eos(&self) -> Option<u32> {
        None
    }
    fn identity(&self) -> String {
        "letters".into()
    }
}

/// Rows of documents of these lengths, whose tokens are below 26; short ones share a row, long ones are one span each.
pub fn rows(lengths: &[usize], seq_len: usize) -> Arc<RowSet> {
    let letter = |i: usize| char::from(b'a' + ((i * i + 3 * i) % 26) as u8);
    let texts: Vec<String> = lengths.iter().enumerate().map(|(doc, &n)| (doc..doc + n).map(letter).collect()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let corpus = Corpus::from_texts(&texts, &Letters, Specials::default()).unwrap();
    let whole: Vec<_> = (0..corpus.docs()).map(|doc| DocPart { doc, tokens: 0..corpus.doc(doc).len() }).collect();
    let options = RowOptions { seq_len, span: corpus.longest(), packing: Packing::On };
    Arc::new(RowSet::new(Arc::new(corpus), &whole, options).unwrap())
}
