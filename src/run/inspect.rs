//! `ltrain data inspect`: rows as training sees them, token by token.

use std::fmt::Write;
use std::ops::Range;

use super::Ending;
use super::base::Found;
use super::commands::print;
use super::job::colour;
use super::text::{self, Rows};
use crate::config::{ConfigError, Problem, RunConfig};
use crate::data::rows::Slot;
use crate::data::{Batch, BatchBuilder, SkipReport};
use crate::error::Result;
use crate::io::TextTokenizer;
use crate::ops::cross_entropy::IGNORE;
use crate::report::table::Colour;
use crate::units::format_count;

/// Tokens shown at either end of a long run.
const SHOWN: usize = 24;

/// Prints what the settings' text holds, and the first `rows` rows that are trained on.
///
/// # Errors    Those of the text; synthetic text, which has no files to look at.
pub fn inspect(config: &RunConfig, rows: u64) -> Result<Ending> {
    let found = Found::of_run(config)?;
    let text = text::open(config, &found.tokenizer, found.config.vocab, &|_| {})?;
    let Rows::Corpus(builder) = &text.rows else {
        let problem = Problem::new("data", format!("expected files to look at, got {}", text.summary)).help("give --data PATH");
        return Err(ConfigError::Problems(vec![problem]).into());
    };
    print(&statistics(builder, &text.summary))?;
    for i in 0..rows.min(builder.rows.rows_per_epoch()) {
        let slots = builder.rows.row(builder.rows.order(builder.seed, 0, i));
        print(&format!("\n{}", View { tokenizer: &found.tokenizer, colour: colour() }.row(i, slots, &builder.batch(i, 1))?))?;
    }
    Ok(Ending::Finished)
}

fn statistics(builder: &BatchBuilder, summary: &str) -> String {
    let (rows, corpus) = (&builder.rows, builder.rows.corpus());
    let count = |n: usize| format_count(n as u64);
    let number = rows.rows_per_epoch() as usize;
    let padding: usize =
        (0..number).flat_map(|i| rows.row(i)).filter(|slot| slot.piece.doc.is_none()).map(|slot| slot.want).sum();
    let mut skipped = SkipReport::default();
    skipped.merge(&corpus.skipped);
    skipped.merge(rows.skipped());
    format!(
        "data     {summary}\n\
         learned  {} of {} tokens ({:.1} %)\n\
         longest  {} tokens\n\
         skipped  {skipped}\n\
         rows     {} of {} tokens, {:.1} % padding\n",
        count(corpus.targets()),
        count(corpus.tokens()),
        100.0 * corpus.targets() as f64 / corpus.tokens() as f64,
        count(corpus.longest()),
        count(number),
        count(rows.seq_len()),
        100.0 * padding as f64 / (number * rows.seq_len()) as f64,
    )
}

/// How a row is shown.
struct View<'a> {
    tokenizer: &'a TextTokenizer,
    colour: Colour,
}

/// A row of a batch, on the host.
struct Row<'a> {
    ids: &'a [u32],
    positions: &'a [u32],
    /// Whether each token is predicted by the one before it.
    learned: Vec<bool>,
}

impl View<'_> {
    /// The `i`-th row, which was made of `slots`.
    fn row(&self, i: u64, slots: &[Slot], batch: &Batch) -> Result<String> {
        let targets = batch.targets.ids.as_u32()?;
        let learned = std::iter::once(false).chain(targets.iter().map(|&id| id != IGNORE)).take(targets.len()).collect();
        let row = Row { ids: batch.ids.as_u32()?, positions: batch.positions.as_u32()?, learned };
        let documents = slots.iter().filter(|slot| slot.piece.doc.is_some()).count();
        let learned = row.learned.iter().filter(|&&learned| learned).count();
        let mut out = format!("row {}: {} tokens, {documents} documents, {learned} learned\n", i + 1, row.ids.len());
        let mut start = 0;
        for slot in slots {
            let span = start..start + slot.want;
            start = span.end;
            let Some(doc) = slot.piece.doc else {
                let _ = writeln!(out, "  padding, {} tokens", span.len());
                continue;
            };
            let _ = writeln!(out, "  document {}, {} tokens", doc + 1, span.len());
            for run in row.runs(span) {
                out += &self.run(&row, run)?;
            }
        }
        Ok(out)
    }

    /// One line for tokens that are alike.
    fn run(&self, row: &Row, run: Range<usize>) -> Result<String> {
        let (word, code) = if row.learned[run.start] { ("learned", "32") } else { ("masked ", "2") };
        let positions = format!("{}-{}", row.positions[run.start], row.positions[run.end - 1]);
        let shown = match run.len() > 2 * SHOWN {
            true => {
                let hidden = format_count((run.len() - 2 * SHOWN) as u64);
                let (head, tail) = (run.start..run.start + SHOWN, run.end - SHOWN..run.end);
                format!("{} … {hidden} more … {}", self.tokens(&row.ids[head])?, self.tokens(&row.ids[tail])?)
            }
            false => self.tokens(&row.ids[run])?,
        };
        Ok(match self.colour {
            Colour::Ansi => format!("    \x1b[{code}m{word} {positions:<15} {shown}\x1b[0m\n"),
            Colour::Never => format!("    {word} {positions:<15} {shown}\n"),
        })
    }

    /// Every token's text, with a line between them and control characters written out.
    fn tokens(&self, ids: &[u32]) -> Result<String> {
        let mut out = String::new();
        for id in ids {
            out.push('|');
            for c in self.tokenizer.piece(*id)?.chars() {
                match c.is_control() {
                    true => out.extend(c.escape_default()),
                    false => out.push(c),
                }
            }
        }
        out.push('|');
        Ok(out)
    }
}

impl Row<'_> {
    /// Stretches of `span` that are learned or masked as a whole and stand at consecutive positions.
    fn runs(&self, span: Range<usize>) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for i in span {
            match runs.last_mut() {
                Some(run) if self.learned[i] == self.learned[i - 1] && self.positions[i] == self.positions[i - 1] + 1 => {
                    run.end = i + 1;
                }
                _ => runs.push(i..i + 1),
            }
        }
        runs
    }
}
