//! Attention patterns as segment tables: the only place that knows what a pattern is.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::ops::attention::Segments;
use crate::units::{format_length, parse_length};

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
        group: Group,
    },
}

/// The size of S²-Attn's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// So many tokens, counted from the start of the row.
    Tokens(usize),
    /// Every document is cut into so many groups, rounded up, counted from its own start: packed in a row or alone, it sees the
    /// same. LongLoRA's ratio of 1/4 is 4.
    Parts(usize),
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = |t: &str| t.trim().parse().ok().filter(|n| *n > 0).map(Self::Parts);
        let read = match text.strip_prefix("1/") {
            Some(rest) => parts(rest),
            None => parse_length(text).ok().filter(|n| *n > 0).map(Self::Tokens),
        };
        read.ok_or_else(|| format!("expected a length such as 2k or a share such as 1/4, got {text:?}"))
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(n) => f.write_str(&format_length(*n)),
            Self::Parts(n) => write!(f, "1/{n}"),
        }
    }
}

impl Attend {
    /// The segment table of a batch.
    ///
    /// `doc_starts` holds, for every row, the places where a document piece begins, in rising order and with 0 first.
    pub fn segments(&self, doc_starts: &[Vec<usize>], seq_len: usize) -> Segments {
        let half = |shifted: bool| {
            let mut starts = Vec::with_capacity(doc_starts.len() * seq_len);
            for row in doc_starts {
                debug_assert_eq!(row.first(), Some(&0), "attend: a row begins with a document");
                let ends = row.iter().skip(1).copied().chain([seq_len]);
                for (&start, end) in row.iter().zip(ends) {
                    starts.extend((start..end).map(|query| start.max(self.group_start(query, start..end, shifted)) as u32));
                }
            }
            starts
        };
        Segments { starts: [half(false), half(true)] }
    }

    /// First place of the group of `query`, which is in the document that takes the places `doc`.
    fn group_start(&self, query: usize, doc: Range<usize>, shifted: bool) -> usize {
        let (from, group) = match *self {
            Self::Full => return 0,
            Self::Shifted { group: Group::Tokens(group) } => (0, group),
            Self::Shifted { group: Group::Parts(parts) } => (doc.start, doc.len().div_ceil(parts)),
        };
        let first = from + if shifted { group / 2 } else { 0 };
        match query.checked_sub(first) {
            Some(beyond) => first + beyond / group * group,
            None => from,
        }
    }
}
