//! README.md of a run: a model card that says what it is, how it was made and how to load it.

use std::fmt::Write as _;

use super::record::RunRecord;
use super::table::{Comparison, markdown_text};
use super::text;
use super::verdict::Verdict;
use super::{load, tasks};
use crate::units::format_count;

/// The card.
pub fn card(run: &RunRecord) -> String {
    let mut out = front_matter(run);
    let (model, method) = (&run.model, &run.method);
    let _ = writeln!(
        out,
        "# {}, {} → {} tokens\n",
        markdown_text(&model.name),
        text::length(model.context),
        text::length(method.target)
    );
    let verdict = Verdict::of(run);
    let _ = writeln!(
        out,
        "**{}**: {}. {}. Figures in [report.html](report.html).\n",
        text::capital(verdict.outcome.label()),
        verdict.headline(),
        text::capital(&verdict.sentence())
    );
    results(&mut out, run);
    made(&mut out, run);
    loading(&mut out, run);
    if !run.notes.is_empty() {
        out.push_str("## Notes\n\n");
        for note in &run.notes {
            let _ = writeln!(out, "{}\n", markdown_text(note));
        }
    }
    if !run.origin.command.is_empty() {
        let _ = writeln!(out, "## Again\n\n{}", fenced("sh", &run.origin.command));
    }
    out
}

fn front_matter(run: &RunRecord) -> String {
    let library = if run.export.merged.is_some() { "transformers" } else { "peft" };
    // JSON strings are YAML scalars.
    let base = serde_json::Value::from(run.export.base.as_str());
    format!(
        "---\nbase_model: {base}\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- long-context\n- ltrain\n---\n\n"
    )
}

fn results(out: &mut String, run: &RunRecord) {
    let table = Comparison::new(&run.evaluations, run.model.context).markdown();
    if table.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "## Results\n\nBy context length: perplexity (lower is better), keys found among filler (passkey) and among other needles (niah), \
         scores of RULER's tasks (higher is better), and the change of perplexity within the original context; those that were \
         measured.\n\n{table}"
    );
    for note in tasks::notes(&run.evaluations) {
        let _ = writeln!(out, "- {}", markdown_text(&note));
    }
    out.push('\n');
}

fn made(out: &mut String, run: &RunRecord) {
    let (model, method, origin) = (&run.model, &run.method, &run.origin);
    let rows = [
        ("base", run.export.base.clone()),
        ("parameters", format!("{} ({} trained)", format_count(model.parameters), format_count(model.trainable))),
        ("positions", method.positions.clone()),
        ("rope", format!("{} → {}", model.rope, method.rope)),
        ("trained", method.mode.clone()),
        ("data", method.data.clone()),
        (
            "budget",
            format!(
                "{} steps, {} tokens, rows of {}",
                format_count(method.steps),
                format_count(method.tokens),
                text::length(method.seq_len)
            ),
        ),
        ("device", origin.device.clone()),
        ("seed", origin.seed.to_string()),
        ("ltrain", origin.version.clone()),
        ("date", origin.date.clone()),
    ];
    out.push_str("## How it was made\n\n| | |\n|---|---|\n");
    for (key, value) in rows.iter().filter(|r| !r.1.is_empty()) {
        let _ = writeln!(out, "| {key} | {} |", markdown_text(value));
    }
    out.push('\n');
    if !run.settings.is_empty() {
        out.push_str("<details><summary>All settings</summary>\n\n| key | value |\n|---|---|\n");
        for s in &run.settings {
            let _ = writeln!(out, "| {} | {} |", markdown_text(&s.key), markdown_text(&s.value));
        }
        out.push_str("\n</details>\n\n");
    }
}

fn loading(out: &mut String, run: &RunRecord) {
    let snippets = load::snippets(run);
    if snippets.is_empty() {
        return;
    }
    out.push_str("## How to load it\n\n");
    for s in snippets {
        let _ = writeln!(out, "{}:\n\n{}", s.tool, fenced(s.language, &s.code));
        if let Some(note) = s.note {
            let _ = writeln!(out, "{}.\n", text::capital(note));
        }
    }
}

/// A code block whose fence is longer than any run of backticks inside.
fn fenced(language: &str, code: &str) -> String {
    let code: String = code.chars().filter(|&c| c == '\n' || !c.is_control()).collect();
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", code.trim_end())
}
