//! The figures as SVG files, for slides and model cards.

use std::path::{Path, PathBuf};

use super::figures;
use super::record::{Role, RunRecord};
use crate::error::Result;
use crate::io::atomic::write_bytes_atomically;

/// Writes every figure the record has data for; returns the paths.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, run: &RunRecord) -> Result<Vec<PathBuf>> {
    let passkey = |role| run.evaluation(role).and_then(|eval| figures::passkey(run, eval));
    let niah = |role| run.evaluation(role).and_then(|eval| figures::niah(run, eval));
    let plots = [
        ("training_loss.svg", figures::training_loss(run)),
        ("perplexity.svg", figures::perplexity(run)),
        ("loss_by_position.svg", figures::loss_by_position(run)),
        ("passkey_before.svg", passkey(Role::Before)),
        ("passkey_rope_only.svg", passkey(Role::RopeOnly)),
        ("passkey_after.svg", passkey(Role::After)),
        ("passkey_control.svg", passkey(Role::Control)),
        ("niah_before.svg", niah(Role::Before)),
        ("niah_rope_only.svg", niah(Role::RopeOnly)),
        ("niah_after.svg", niah(Role::After)),
        ("niah_control.svg", niah(Role::Control)),
        ("coverage.svg", figures::coverage(run)),
        ("gradient_norm.svg", figures::gradient_norm(run)),
        ("learning_rate.svg", figures::learning_rate(run)),
        ("throughput.svg", figures::throughput(run)),
        ("memory.svg", figures::memory(run)),
    ];
    let mut written = Vec::new();
    for (name, plot) in plots {
        if let Some(svg) = plot {
            let path = dir.join(name);
            write_bytes_atomically(&path, svg.file().as_bytes())?;
            written.push(path);
        }
    }
    Ok(written)
}
