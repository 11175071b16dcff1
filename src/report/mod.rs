//! What a run leaves to look at: one [`RunRecord`] in; a page, plots, tables, a model card and logs out.
//!
//! Read in this order: [`record`], [`verdict`], [`svg`], [`axis`], [`charts`], [`figures`], [`html`]. The logs that grow
//! during training ([`log`], [`tensorboard`]) need no record.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{IoContext, Result};
use crate::io::atomic::write_bytes_atomically;

pub mod axis;
pub mod charts;
pub mod clock;
pub mod csv;
pub mod figures;
pub mod heatmap;
pub mod html;
pub mod load;
pub mod log;
pub mod palette;
pub mod plots;
pub mod record;
pub mod run_readme;
pub mod svg;
pub mod table;
pub mod tasks;
pub mod tensorboard;
pub mod text;
pub mod verdict;

pub use record::RunRecord;

/// Writes `report.json`, `report.html`, `README.md`, plots and tables into `dir`; returns what was written, in that order.
///
/// # Errors
/// The folder cannot be created or written.
pub fn write(dir: &Path, run: &RunRecord) -> Result<Vec<PathBuf>> {
    let page = dir.join("report.html");
    write_bytes_atomically(&page, html::page(run).as_bytes())?;
    let card = dir.join("README.md");
    write_bytes_atomically(&card, run_readme::card(run).as_bytes())?;
    let plots = plots::write(dir, run)?;
    let tables = csv::write(&dir.join("eval"), &run.evaluations)?;
    // Last: where it is, everything is.
    let json = dir.join("report.json");
    run.save(&json)?;
    Ok([json, page, card].into_iter().chain(plots).chain(tables).collect())
}

/// Anything serialisable, written in one step: indented JSON with a final newline.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(std::io::Error::from).context("serialise", path)?;
    text.push('\n');
    write_bytes_atomically(path, text.as_bytes())
}
