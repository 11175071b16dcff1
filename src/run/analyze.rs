//! `ltrain analyze`: which tokens an extended model predicts otherwise than its base.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Ending;
use super::base::{Base, load_on};
use super::commands::print;
use super::job::stop_flag;
use super::text;
use super::ui::Ui;
use crate::backend::Kernels;
use crate::backend::gpu::Place;
use crate::cli::AnalyzeArgs;
use crate::config::choices::Progress;
use crate::config::{ConfigError, Problem};
use crate::data::impact::{self, Change, Class, Impact};
use crate::data::selection::{ClassImpact, Selection, SelectionSource, TokenImpact};
use crate::data::{Batch, Encode};
use crate::error::Result;
use crate::eval::{EvalError, rows_of_a_pass};
use crate::io::tokenizer::{SpecialTokens, TOKENIZER};
use crate::units::{format_count, format_length};

/// Ids in the printed table.
const SHOWN: usize = 20;

/// What one model says of every token that has another in front of it, row after row.
struct Scores {
    logit: Vec<f32>,
    nll: Vec<f32>,
}

/// `ltrain analyze`.
pub fn analyze(args: &AnalyzeArgs, place: &Place, kernels: &dyn Kernels) -> Result<Ending> {
    let stop = stop_flag();
    let ui = Ui::new(Progress::Auto);
    let base = Base::open(&args.model, args.tokenizer.as_deref())?;
    let extended = super::base::open_dir(&args.against)?;
    let longest = args.seq_len.map_or(extended.config().context, |length| length.0);
    let docs = text::measured(args.data.as_deref(), &args.columns, &base, longest)?;
    if extended.tokenizer_files().has(TOKENIZER) {
        check_same_ids(args, &base, &docs, longest)?;
    }
    let rows = rows(&docs, longest);
    let Some(seq_len) = rows.first().map(|row| row.len()) else {
        let problem = Problem::new("data", "expected a text and rows of at least 2 tokens, got none")
            .help("give a longer text, or a larger --seq-len");
        return Err(ConfigError::Problems(vec![problem]).into());
    };
    ui.say(&format!("device  {place}"));
    // One model after the other: there may be no room for two.
    let Some(before) = scores(&base.dir, kernels, &rows, &stop, ui)? else { return Ok(Ending::Stopped) };
    let Some(after) = scores(&extended, kernels, &rows, &stop, ui)? else { return Ok(Ending::Stopped) };
    let ids = impact::by_token(&changes(&rows, &before, &after), args.share);
    let source = SelectionSource {
        base: args.model.to_string(),
        against: args.against.to_string(),
        data: args.data.as_ref().map_or("synthetic".into(), |path| path.display().to_string()),
        seq_len,
        tokens: before.logit.len() as u64,
    };
    let selection = selection(&base, args.share, &ids, source)?;
    selection.write(&args.out)?;
    print(&format!("{}{}\n", table(&selection), args.out.display()))?;
    Ok(Ending::Finished)
}

/// Both models must mean the same by an id: where their tokenizer files differ, what they make of the text must not.
fn check_same_ids(args: &AnalyzeArgs, base: &Base, docs: &[Vec<u32>], longest: usize) -> Result<()> {
    let extended = Base::open(&args.against, None)?;
    if extended.tokenizer.identity() == base.tokenizer.identity()
        || text::measured(args.data.as_deref(), &args.columns, &extended, longest)? == docs
    {
        return Ok(());
    }
    let problem = Problem::new("against", format!("{} splits the text into other tokens than {}", args.against, args.model))
        .help("compare a model with what was trained from it");
    Err(ConfigError::Problems(vec![problem]).into())
}

/// The text in rows of at most `seq_len` tokens, the longest first; a row of one token predicts nothing.
fn rows(docs: &[Vec<u32>], seq_len: usize) -> Vec<&[u32]> {
    let mut rows: Vec<&[u32]> = docs.iter().flat_map(|doc| doc.chunks(seq_len)).filter(|row| row.len() > 1).collect();
    rows.sort_by_key(|row| Reverse(row.len()));
    rows
}

/// Runs a model under its own rotation over all rows. `None` when stopped.
fn scores(
    dir: &crate::io::ModelDir,
    kernels: &dyn Kernels,
    rows: &[&[u32]],
    stop: &AtomicBool,
    ui: Ui,
) -> Result<Option<Scores>> {
    let model = load_on(dir, kernels)?;
    EvalError::check_tokens(&model, rows)?;
    let total: u64 = rows.iter().map(|row| row.len() as u64).sum();
    let bar = ui.bar(&format!("analyze {}", dir.path().display()), total);
    let mut scores = Scores { logit: Vec::new(), nll: Vec::new() };
    let mut done = 0;
    for batch in rows.chunk_by(|a, b| a.len() == b.len()).flat_map(|equal| equal.chunks(rows_of_a_pass(equal[0].len()))) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let seq_len = batch[0].len();
        let [logit, nll] = model.target_scores(kernels, &Batch::contiguous(batch))?;
        for (logit, nll) in logit.chunks_exact(seq_len).zip(nll.chunks_exact(seq_len)) {
            // The last place has no next token.
            let (logit, nll) = (&logit[..seq_len - 1], &nll[..seq_len - 1]);
            if let Some(at) = logit.iter().zip(nll).position(|(l, n)| !(l.is_finite() && n.is_finite())) {
                return Err(EvalError::NotFinite { tokens: at + 1 }.into());
            }
            scores.logit.extend(logit);
            scores.nll.extend(nll);
        }
        done += (batch.len() * seq_len) as u64;
        bar.at(done, total, format!("{} tokens", format_count(done)));
    }
    Ok(Some(scores))
}

fn changes(rows: &[&[u32]], before: &Scores, after: &Scores) -> Vec<Change> {
    let places = rows.iter().flat_map(|row| row.iter().copied().enumerate().skip(1));
    let change = |(i, (place, token)): (usize, (usize, u32))| Change {
        token,
        place,
        logit: f64::from(after.logit[i]) - f64::from(before.logit[i]),
        log_prob: f64::from(before.nll[i]) - f64::from(after.nll[i]),
    };
    places.enumerate().map(change).collect()
}

fn selection(base: &Base, share: f64, ids: &BTreeMap<u32, Impact>, source: SelectionSource) -> Result<Selection> {
    let all = ids.values().copied().fold(Impact::default(), Impact::join);
    let order = impact::ranked(ids, all.share());
    let chosen = impact::covering(ids, &order, share);
    let covered = chosen.iter().map(|id| ids[id].count).sum::<u64>() as f64 / all.count as f64;
    let mut tokens = chosen.to_vec();
    tokens.sort_unstable();
    let row = |&id: &u32| {
        let text = base.tokenizer.decode(&[id], SpecialTokens::Keep)?;
        Ok(TokenImpact { id, class: Class::of(&text), text, impact: ids[&id] })
    };
    let ids = order.iter().map(row).collect::<Result<Vec<_>>>()?;
    let mut classes: BTreeMap<Class, Impact> = BTreeMap::new();
    for token in &ids {
        let joined = classes.entry(token.class).or_default();
        *joined = joined.join(token.impact);
    }
    let classes = classes.into_iter().map(|(class, impact)| ClassImpact { class, impact }).collect();
    Ok(Selection { tokenizer: base.tokenizer.identity(), share, tokens, covered, source, classes, ids })
}

/// Classes, then the most impactful ids.
fn table(selection: &Selection) -> String {
    let Selection { source, share, tokens, covered, classes, ids, .. } = selection;
    let numbers = |i: &Impact| {
        format!("{:>10}  {:>8.1} %  {:>+8.3}  {:>+9.3}", format_count(i.count), 100.0 * i.share(), i.logit, i.log_prob)
    };
    let head = |first: &str| format!("{first:<28}{:>10}  {:>10}  {:>8}  {:>9}\n", "tokens", "impactful", "logit", "log prob");
    let mut out = format!(
        "{} tokens in rows of up to {}; impactful: the {:.1} % at each place whose logit grew most; changes are means\n\n",
        format_count(source.tokens),
        format_length(source.seq_len),
        100.0 * share,
    );
    out += &head("class");
    for row in classes {
        out += &format!("{:<28}{}\n", row.class.to_string(), numbers(&row.impact));
    }
    out += &format!("\n{}", head("token"));
    for row in ids.iter().take(SHOWN) {
        out += &format!("{:>7} {:<20}{}\n", row.id, format!("{:?}", row.text), numbers(&row.impact));
    }
    out += &format!("\n{} of {} ids chosen, {:.1} % of all tokens\n", tokens.len(), ids.len(), 100.0 * covered);
    out
}
