//! The text of a run: what it trains on and what it is measured on.

use std::path::Path;
use std::sync::Arc;

use super::base::Base;
use super::words;
use crate::config::text::Source;
use crate::config::{ConfigError, Problem, RunConfig};
use crate::data::corpus::tokens;
use crate::data::synthetic::{STAGES, Stage, tokenizer_identity};
use crate::data::{
    Batch, BatchBuilder, CacheUse, ChatTokenizer, Columns, Corpus, CorpusOptions, DataError, Encode, Format, Loss, MASKED,
    Packing, Progress, Reading, RowOptions, RowSet, SkipReport, Sources, Specials, Split, SyntheticBuilder, cache_folder,
};
use crate::error::Result;
use crate::io::TextTokenizer;
use crate::positions::{EndPrompt, LongRecipe, Method as _, Mix, Retrieval};
use crate::units::format_count;

/// Where training rows come from.
#[derive(Clone)]
pub enum Rows {
    /// A tokenised corpus.
    Corpus(BatchBuilder),
    /// Documents written as they are needed.
    Synthetic(SyntheticBuilder),
}

impl Rows {
    /// The batch of `rows` rows that begins with the run's row `first`.
    pub fn batch(&self, first: u64, rows: usize) -> Result<Batch> {
        match self {
            Self::Corpus(builder) => Ok(builder.batch(first, rows)),
            Self::Synthetic(builder) => builder.batch(first, rows),
        }
    }

    /// The same rows at other positions.
    pub fn with_method(&self, method: Mix) -> Self {
        match self.clone() {
            Self::Corpus(builder) => Self::Corpus(BatchBuilder { method, ..builder }),
            Self::Synthetic(builder) => Self::Synthetic(SyntheticBuilder { method, ..builder }),
        }
    }

    /// Rows of one pass over the data; `None` when the text never ends.
    pub fn per_epoch(&self) -> Option<u64> {
        match self {
            Self::Corpus(builder) => Some(builder.rows.rows_per_epoch()),
            Self::Synthetic(_) => None,
        }
    }
}

/// Training rows, evaluation text, and what to say about them.
pub struct RunText {
    /// Training rows.
    pub rows: Rows,
    /// Evaluation documents.
    pub eval: Vec<Vec<u32>>,
    /// One line for the first screen.
    pub summary: String,
    /// Changes when the training text or its tokens change.
    pub hash: String,
}

/// Synthetic documents that the built-in model is measured on: as long as the longest length, where no stage is.
fn long_stage(longest: usize) -> Stage {
    let long = STAGES.into_iter().filter(|s| s.name.starts_with("long-"));
    let longest_stage = long.clone().max_by_key(|s| s.length).expect("synthetic: there is a long stage");
    let fitting = long.filter(|s| s.length >= longest).min_by_key(|s| s.length);
    fitting.unwrap_or(Stage { length: longest, ..longest_stage })
}

/// Documents of the evaluation: enough for three windows of the longest length.
const SYNTHETIC_DOCS: u64 = 6;

/// Tokenises or finds the run's text for a model of `vocab` tokens. `progress` hears about tokenising.
pub fn open(config: &RunConfig, tokenizer: &TextTokenizer, vocab: usize, progress: &dyn Fn(Progress)) -> Result<RunText> {
    let words = words::gather(config, tokenizer, vocab)?;
    let method = config.positions.plan(&words).map_err(|e| ConfigError::Problems(vec![Problem::from_error(&e)]))?;
    let longest = config.eval.at.iter().copied().max().unwrap_or(config.positions.target);
    let (seed, attention, seq_len) = (config.train.seed, config.positions.attend, config.data.seq_len);
    let synthetic = config.data.train.iter().find_map(Source::stage);
    let chat = ChatTokenizer::new(tokenizer, config.data.chat_template.as_deref(), config.data.loss.unwrap_or_default())?;
    let given = match &config.data.eval {
        Some(path) => Some(eval_file(path, &config.data.reading, &chat)?),
        None => None,
    };
    // The selection's content counts, not where it lies.
    let marked = config.positions.select.is_some().then(|| words.marked.iter().map(|&marked| marked.into()).collect::<Vec<u8>>());
    let with_selection = |hash: String| match &marked {
        Some(marked) => format!("{hash}-{}", blake3::hash(marked).to_hex()),
        None => hash,
    };
    if let Some(stage) = synthetic {
        let rows = Rows::Synthetic(SyntheticBuilder { stage, method, seed, attention, seq_len });
        let eval = given.map_or_else(|| synthetic_eval(longest), Ok)?;
        let summary = format!("{stage}, written as it is needed");
        return Ok(RunText { rows, eval, summary, hash: with_selection(stage.to_string()) });
    }
    let paths: Vec<_> = config
        .data
        .train
        .iter()
        .filter_map(|s| match s {
            Source::Path(path) => Some(path.clone()),
            Source::Synthetic(_) => None,
        })
        .collect();
    let sources = Sources::collect(&paths)?;
    let options = CorpusOptions {
        reading: config.data.reading.clone(),
        specials: Specials::of(tokenizer),
        cache: cache_folder::cache_folders(config.data.cache.as_deref(), &|k| std::env::var_os(k), &config.first_out()),
    };
    let corpus = Arc::new(Corpus::open(&sources, &chat, &options, progress)?);
    let packing = packing(config, &corpus)?;
    let split = Split::new(&corpus, config.data.val, config.positions.target)?;
    let span = method.span_rows() * seq_len;
    let rows = RowSet::new(Arc::clone(&corpus), &split.train, RowOptions { seq_len, span, packing })?;
    let mut skipped = corpus.skipped.clone();
    skipped.merge(rows.skipped());
    // One stream: held-back documents are usually shorter than the lengths to be measured.
    let held_back =
        || vec![split.val.iter().flat_map(|p| corpus.doc(p.doc)[p.tokens.clone()].iter().map(|id| id & !MASKED)).collect()];
    let eval = given.unwrap_or_else(held_back);
    let cached = if matches!(corpus.cache, CacheUse::Hit(_)) { " (cached)" } else { "" };
    let mut summary = format!("{}{cached}", contents(&corpus));
    if skipped.total() > 0 {
        summary += &format!(", skipped {skipped}");
    }
    // A template says nothing about text.
    let identity = if corpus.conversations() { chat.identity() } else { tokenizer.identity() };
    let hash = with_selection(format!("{}-{identity}", sources.hash()?.to_hex()));
    let rows = Rows::Corpus(BatchBuilder { rows: Arc::new(rows), method, seed, attention });
    Ok(RunText { rows, eval, summary, hash: blake3::hash(hash.as_bytes()).to_hex()[..16].to_string() })
}

/// `1,204 documents, 96,000 tokens`; of conversations also their formats and how much of them is learned.
fn contents(corpus: &Corpus) -> String {
    let (docs, tokens) = (format_count(corpus.docs() as u64), format_count(corpus.tokens() as u64));
    if !corpus.conversations() {
        return format!("{docs} documents, {tokens} tokens");
    }
    let formats: Vec<_> = corpus.formats.iter().map(ToString::to_string).collect();
    let learned = 100.0 * corpus.targets() as f64 / corpus.tokens() as f64;
    format!("{docs} conversations ({}), {tokens} tokens, {learned:.1} % of them learned", formats.join(", "))
}

/// How rows are filled: as the settings say, which must fit what the files turned out to hold.
fn packing(config: &RunConfig, corpus: &Corpus) -> Result<Packing> {
    let data = &config.data;
    let only_with =
        |key: &str, what: &str| Problem::new(key, format!("has an effect only with {what}")).help(format!("leave out {key}"));
    let problems: Vec<_> = match corpus.conversations() {
        true => {
            let cuts =
                [EndPrompt::NAME, LongRecipe::NAME, Retrieval::NAME].into_iter().find(|name| config.positions.method.has(name));
            let cuts = cuts.map(|name| {
                Problem::new("positions", format!("{name} takes tokens out of its text, and conversations are to stay whole"))
                    .help("train on conversations with natural, pose, uniform, random or e2-llm")
            });
            let packing =
                (data.packing == Packing::Off).then(|| only_with("no_pack", "text: conversations are never cut to fill a row"));
            vec![cuts, packing]
        }
        false => vec![
            (!matches!(data.reading.format, Format::Auto | Format::Text) && !data.eval.as_deref().is_some_and(is_jsonl))
                .then(|| only_with("format", "rows of .jsonl files")),
            data.chat_template.is_some().then(|| only_with("chat_template", "conversations")),
            (data.loss == Some(Loss::Answers)).then(|| only_with("loss", "conversations")),
            data.long.is_some().then(|| only_with("long", "conversations")),
        ],
    };
    let problems: Vec<_> = problems.into_iter().flatten().collect();
    match (problems.is_empty(), corpus.conversations()) {
        (false, _) => Err(ConfigError::Problems(problems).into()),
        (true, true) => Ok(Packing::Whole(data.long.unwrap_or_default())),
        (true, false) => Ok(data.packing),
    }
}

fn is_jsonl(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"))
}

/// Evaluation documents never share numbers with training documents, whatever the run's seed.
const EVAL_SEED: u64 = 0x0E7A_1DA7_A000_0001;

/// What a command other than training measures a model on: a file, else the built-in model's language, where that is the model's.
pub fn measured(data: Option<&Path>, columns: &Columns, base: &Base, longest: usize) -> Result<Vec<Vec<u32>>> {
    match data {
        Some(path) => {
            let reading = Reading { columns: columns.clone(), ..Reading::default() };
            eval_file(path, &reading, &ChatTokenizer::new(&base.tokenizer, None, Loss::All)?)
        }
        None if base.tokenizer.identity() == tokenizer_identity() => synthetic_eval(longest),
        None => {
            let problem = Problem::new("data", "perplexity needs text")
                .help("add --data FILE; ltrain eval can also measure --tasks passkey alone");
            Err(ConfigError::Problems(vec![problem]).into())
        }
    }
}

/// A text file, or the rows of a .jsonl file, as tokens, all of which are scored. Each text begins as Transformers begins one: with
/// the tokenizer's first token, if it has one; conversations begin as their template says.
pub fn eval_file(path: &Path, reading: &Reading, encode: &dyn Encode) -> Result<Vec<Vec<u32>>> {
    let mut docs = Vec::new();
    let mut without_tokens = SkipReport::default();
    let specials = Specials { bos: encode.bos(), eos: None };
    let mut skipped = Sources::file(path)?.read(reading, &mut |document| {
        match tokens(&document, encode, specials)? {
            Err(reason) => without_tokens.add(reason),
            Ok((ids, _)) => docs.push(ids.into_iter().map(|id| id & !MASKED).collect()),
        }
        Ok(())
    })?;
    if docs.is_empty() {
        skipped.skipped.merge(&without_tokens);
        return Err(DataError::Empty { files: 1, skipped: skipped.skipped }.into());
    }
    Ok(docs)
}

/// Documents of the built-in model's language for `ltrain eval`.
pub fn synthetic_eval(longest: usize) -> Result<Vec<Vec<u32>>> {
    let long = long_stage(longest);
    (0..SYNTHETIC_DOCS).map(|i| Ok(long.document(EVAL_SEED, i)?.tokens)).collect()
}
