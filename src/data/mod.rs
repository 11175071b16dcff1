//! From files to batches: [`source`] finds documents, [`corpus`] tokenises them once, [`split`] holds some back, [`rows`]
//! packs the rest into rows, [`batch`] gives every row its positions, [`prefetch`] does so ahead of time.

pub mod attend;
pub mod batch;
pub mod cache_folder;
pub mod corpus;
pub mod encode;
mod error;
pub mod impact;
pub mod prefetch;
pub mod rows;
pub mod selection;
pub mod skip;
pub mod source;
pub mod split;
pub mod synthetic;
mod token_file;

pub use attend::Attend;
pub use batch::{Batch, BatchBuilder, SyntheticBuilder};
pub use corpus::{CacheUse, Corpus, CorpusOptions, Progress};
pub use encode::{Encode, MASKED, Specials};
pub use error::{DataError, NotText};
pub use prefetch::Prefetch;
pub use rows::{Packing, RowOptions, RowSet};
pub use skip::{SkipReason, SkipReport};
pub use source::{Columns, Sources};
pub use split::{DocPart, Holdout, Split};
