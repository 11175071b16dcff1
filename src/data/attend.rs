//! Attention patterns as segment tables: the only place that knows what a pattern is.

use crate::ops::attention::Segments;

/// Which keys a query sees, before documents are taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attend {
    /// Every earlier token.
    Full,
    /// S²-Attn (LongLoRA, section 3.2): attention inside groups, which are shifted by half a group in the second half of
    /// the heads. The wrap-around of the released code, which lets tokens see their future, is left out: the first half
    /// group stands alone instead.
    Shifted {
        /// Tokens in a group.
        group: usize,
    },
}

impl Attend {
    /// The segment table of a batch.
    ///
    /// `doc_starts` holds, for every row, the places where a document piece begins, in rising order and with 0 first.
    /// Groups are counted from the start of the row.
    pub fn segments(&self, doc_starts: &[Vec<usize>], seq_len: usize) -> Segments {
        let half = |shifted: bool| {
            let mut starts = Vec::with_capacity(doc_starts.len() * seq_len);
            for row in doc_starts {
                debug_assert_eq!(row.first(), Some(&0), "attend: a row begins with a document");
                let mut pieces = row.iter().copied().peekable();
                let mut doc = 0;
                for query in 0..seq_len {
                    if let Some(start) = pieces.next_if_eq(&query) {
                        doc = start;
                    }
                    starts.push(doc.max(self.group_start(query, shifted)) as u32);
                }
            }
            starts
        };
        Segments { starts: [half(false), half(true)] }
    }

    /// First place of the group that `query` is in.
    fn group_start(&self, query: usize, shifted: bool) -> usize {
        match *self {
            Self::Full => 0,
            Self::Shifted { group } => {
                assert!(group > 0, "attend: a group has at least one token");
                let shift = if shifted { group / 2 } else { 0 };
                match query.checked_sub(shift) {
                    Some(beyond) => shift + beyond / group * group,
                    None => 0,
                }
            }
        }
    }
}
