//! From files to batches: [`source`] finds documents, [`format`](mod@format) and [`chat`] make conversations of rows, [`corpus`] tokenises them once, [`split`] holds some back, [`rows`]
//! packs the rest into rows, [`batch`] gives every row its positions, [`prefetch`] does so ahead of time.

pub mod attend;
pub mod batch;
pub mod cache_folder;
pub mod chat;
pub mod corpus;
pub mod encode;
mod error;
pub mod format;
pub mod prefetch;
pub mod rows;
pub mod skip;
pub mod source;
pub mod split;
pub mod synthetic;
mod token_file;

pub use attend::Attend;
pub use batch::{Batch, BatchBuilder, SyntheticBuilder};
pub use chat::{ChatError, ChatTokenizer, Loss};
pub use corpus::{CacheUse, Corpus, CorpusOptions, Progress};
pub use encode::{Encode, MASKED, Specials};
pub use error::{DataError, NotText};
pub use format::{Conversation, Example, Format};
pub use prefetch::Prefetch;
pub use rows::{Long, Packing, RowOptions, RowSet};
pub use skip::{SkipReason, SkipReport};
pub use source::{Columns, Reading, Sources};
pub use split::{DocPart, Holdout, Split};
