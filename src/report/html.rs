//! `report.html`: one file, no scripts, nothing fetched; readable in both themes, on paper and on a phone.

use std::fmt::Write as _;

use super::figures;
use super::load;
use super::palette;
use super::record::{EvalRecord, Role, RunRecord};
use super::svg::Svg;
use super::table::{Comparison, Mark};
use super::tasks;
use super::text::{self, escape};
use super::verdict::{Claim, LONG_SLACK, Outcome, PASSKEY_WORKS, SHORT_SLACK, Tone, Verdict};
use crate::units::{format_bytes, format_count, format_duration};

/// The page.
pub fn page(run: &RunRecord) -> String {
    let title = format!("{}: {} → {}", run.model.name, text::length(run.model.context), text::length(run.method.target));
    let sections = [
        header(run),
        results(run),
        long_context(run),
        passkey(run),
        niah(run),
        task_scores(run),
        coverage(run),
        training(run),
        loading(run),
        settings(run),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"generator\" content=\"ltrain\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{}\
         </main>\n{}</body>\n</html>\n",
        escape(&title),
        palette::page_css(),
        sections.concat(),
        footer(run)
    )
}

fn header(run: &RunRecord) -> String {
    let (model, method) = (&run.model, &run.method);
    let verdict = Verdict::of(run);
    let tiles: String = verdict.claims.iter().map(tile).collect();
    let class = match verdict.outcome {
        Outcome::Extended => "good",
        Outcome::Partly => "warn",
        Outcome::NotExtended => "bad",
        Outcome::Unmeasured => "none",
    };
    format!(
        "<header>\n<p class=\"eyebrow\">ltrain run report</p>\n\
         <h1>{name} <span class=\"span\">{from} <span class=\"arrow\">→</span> {to}</span></h1>\n\
         <p class=\"lede\">{positions} positions · {rope} · {mode} training on rows of {row} tokens</p>\n\
         <section class=\"verdict v-{class}\">\n<p class=\"headline\"><span class=\"badge\">{label}</span> {sentence}.</p>\n\
         <div class=\"tiles\">{tiles}</div>\n</section>\n</header>\n",
        name = escape(&model.name),
        from = text::length(model.context),
        to = text::length(method.target),
        positions = escape(&method.positions),
        rope = escape(&method.rope),
        mode = escape(&method.mode),
        row = text::length(method.seq_len),
        label = verdict.outcome.label(),
        sentence = escape(&text::capital(&verdict.headline())),
    )
}

fn tile(claim: &Claim) -> String {
    let class = match claim.tone {
        Tone::Good => "good",
        Tone::Mixed => "warn",
        Tone::Bad => "bad",
    };
    let note = claim.note.as_deref().map(escape).unwrap_or_default();
    format!(
        "<div class=\"tile t-{class}\"><span class=\"label\">{}</span><span class=\"from\">{}</span>\
         <span class=\"to\">{}</span><span class=\"note\">{note}</span></div>",
        escape(&claim.label),
        escape(&claim.before),
        escape(&claim.after)
    )
}

fn results(run: &RunRecord) -> String {
    let table = Comparison::new(&run.evaluations, run.model.context);
    if table.rows.is_empty() || table.groups.is_empty() {
        return String::new();
    }
    let names: Vec<String> = run.evaluations.iter().map(row_name).collect();
    let rule = format!(
        "Best of each column in bold. Short context: change of perplexity at the longest measured length within the \
         original {}, with the standard error over the windows’ differences. “Extended” asks for all of: perplexity at long context at most {LONG_SLACK}\u{a0}×\u{a0}the base’s within its \
         own context, passkeys found {:.0}\u{a0}% or more where tried, short context at most {:.0}\u{a0}% worse.",
        text::length(run.model.context),
        PASSKEY_WORKS * 100.0,
        (SHORT_SLACK - 1.0) * 100.0
    );
    section(
        "Before and after",
        &format!("{}<p class=\"small\">{rule}</p>\n<p class=\"small\">{}</p>\n", table_of(&table, &names), small_print(run)),
    )
}

fn small_print(run: &RunRecord) -> String {
    escape(&tasks::notes(&run.evaluations).join(". "))
}

/// A row's heading: the evaluation's colour and name, and its rotation on hovering.
fn row_name(eval: &EvalRecord) -> String {
    let hover = if eval.rope.is_empty() { String::new() } else { format!(" title=\"measured with {}\"", escape(&eval.rope)) };
    let dot = format!("<span class=\"dot d{}\"></span>", figures::colour(eval.role));
    format!("<th scope=\"row\"{hover}>{dot}{}</th>", escape(&text::one_line(&eval.name)))
}

/// A table whose rows begin with these headings.
fn table_of(table: &Comparison, names: &[String]) -> String {
    let mut head = String::from("<thead><tr>");
    if table.is_grouped() {
        head.push_str("<th rowspan=\"2\"></th>");
        for group in &table.groups {
            let _ = write!(head, "<th class=\"group\" colspan=\"{}\">{}</th>", group.columns.len(), escape(&group.title));
        }
        head.push_str("</tr><tr>");
    } else {
        let _ = write!(head, "<th scope=\"col\">{}</th>", escape(&table.caption));
    }
    for group in &table.groups {
        for (i, column) in group.columns.iter().enumerate() {
            let _ = write!(head, "<th class=\"num{}\">{}</th>", first(i), escape(column));
        }
    }
    head.push_str("</tr></thead>");
    let mut body = String::new();
    for ((_, role, cells), name) in table.rows.iter().zip(names) {
        let class = if *role == Role::After { " class=\"after\"" } else { "" };
        let _ = write!(body, "<tr{class}>{name}");
        let starts = table.groups.iter().flat_map(|g| 0..g.columns.len());
        for (cell, i) in cells.iter().zip(starts) {
            let mark = match cell.mark {
                Mark::Plain => "",
                Mark::Best => " best",
                Mark::Bad => " worse",
            };
            let error = cell.error.as_ref().map_or_else(String::new, |e| format!(" <small>±{}</small>", escape(e)));
            let _ = write!(body, "<td class=\"num{}{mark}\">{}{error}</td>", first(i), escape(&cell.text));
        }
        body.push_str("</tr>\n");
    }
    format!("<div class=\"scroll\"><table class=\"results\">{head}<tbody>\n{body}</tbody></table></div>\n")
}

/// Scores task by task.
fn task_scores(run: &RunRecord) -> String {
    let plain = |name: &str| format!("<th scope=\"row\">{}</th>", escape(name));
    let one = |table: &Comparison| table_of(table, &table.rows.iter().map(|row| plain(&row.0)).collect::<Vec<_>>());
    let tables: String = tasks::scores(&run.evaluations).iter().map(one).collect();
    if tables.is_empty() { tables } else { section("Tasks", &format!("{tables}<p class=\"small\">{}</p>\n", small_print(run))) }
}

fn niah(run: &RunRecord) -> String {
    let one = |eval: &EvalRecord| figures::niah(run, eval).map_or_else(String::new, |map| titled(&eval.name, &map, ""));
    let maps: String = run.evaluations.iter().map(one).collect();
    if maps.is_empty() {
        return String::new();
    }
    let text = "<p class=\"small\">One of several keys is asked for, whose number hides at a depth of a long text; the others stand \
                anywhere. A cell says how often the model repeats the right one, in percent.</p>\n";
    section("Needles in a haystack", &format!("<div class=\"figures three\">{maps}</div>\n{text}"))
}

fn first(column: usize) -> &'static str {
    if column == 0 { " first" } else { "" }
}

fn long_context(run: &RunRecord) -> String {
    let figures = [
        figure(
            figures::perplexity(run),
            "A model that cannot use a length shows it as a curve that rises; one that can stays flat or falls.",
        ),
        figure(figures::loss_by_position(run), "The same text, token by token: how well position after position is predicted."),
    ];
    grid_section("Long context", "two", &figures.concat())
}

fn passkey(run: &RunRecord) -> String {
    let one = |eval: &EvalRecord| figures::passkey(run, eval).map_or_else(String::new, |map| titled(&eval.name, &map, ""));
    let maps: String = run.evaluations.iter().map(one).collect();
    if maps.is_empty() {
        return String::new();
    }
    let text = "<p class=\"small\">A number hides at a depth of a long text; a cell says how often the model \
                repeats it, in percent. Lengths right of the dashed line are beyond the original context.</p>\n";
    section("Passkey retrieval", &format!("<div class=\"figures three\">{maps}</div>\n{text}"))
}

fn coverage(run: &RunRecord) -> String {
    let share = run.covered_share.map(|share| {
        format!(
            " This run saw {} of the distances between {} and {}.",
            text::percent(Some(share)),
            text::length(run.model.context),
            text::length(run.method.target)
        )
    });
    let row = text::length(run.method.seq_len);
    // Rows longer than the original context show long distances by themselves.
    let beyond = if run.method.seq_len <= run.model.context {
        format!(
            "every bar right of it is a distance that rows of {row} tokens could show only because their positions were spread out"
        )
    } else {
        format!("right of it are those that rows of {row} tokens added")
    };
    let caption = format!(
        "Attention only learns distances it meets. Left of the rule are those the base was trained with; {beyond}. Shaded \
         columns were never seen.{}",
        share.unwrap_or_default()
    );
    grid_section("What training could teach", "wide", &figure(figures::coverage(run), &caption))
}

fn training(run: &RunRecord) -> String {
    let figures = [
        figures::training_loss(run),
        figures::gradient_norm(run),
        figures::learning_rate(run),
        figures::throughput(run),
        figures::memory(run),
    ];
    let mut facts = Vec::new();
    if run.method.steps > 0 {
        let (steps, tokens) = (format_count(run.method.steps), text::magnitude(run.method.tokens));
        facts.push(format!("{steps} steps, {tokens} tokens"));
    }
    if let Some(last) = run.steps.last().filter(|s| s.seconds.is_finite()) {
        facts.push(format_duration(last.seconds));
    }
    if let Some(peak) = run.steps.iter().map(|s| s.memory_bytes).max().filter(|&m| m > 0) {
        facts.push(format!("peak memory {}", format_bytes(peak)));
    }
    let facts =
        if facts.is_empty() { String::new() } else { format!("<p class=\"small\">{}</p>\n", escape(&facts.join(" · "))) };
    let figures: Vec<_> = figures.into_iter().flatten().map(|f| figure(Some(f), "")).collect();
    if figures.is_empty() {
        return String::new();
    }
    // Five leave a hole in two columns.
    let class = if figures.len() == 5 { "five" } else { "two" };
    section("Training", &format!("{facts}<div class=\"figures {class}\">{}</div>\n", figures.concat()))
}

fn loading(run: &RunRecord) -> String {
    let snippets: String = load::snippets(run)
        .iter()
        .map(|s| {
            let note = s.note.map(|n| format!("<p class=\"small\">{}</p>", escape(n))).unwrap_or_default();
            format!("<div><h3>{}</h3><pre><code>{}</code></pre>{note}</div>\n", escape(s.tool), escape(&s.code))
        })
        .collect();
    grid_section("How to load it", "two code", &snippets)
}

fn settings(run: &RunRecord) -> String {
    let (model, origin) = (&run.model, &run.origin);
    let mut rows = vec![
        ("base", run.export.base.clone()),
        ("parameters", format!("{} ({} trained)", text::magnitude(model.parameters), text::magnitude(model.trainable))),
        ("rope", format!("{} → {}", model.rope, run.method.rope)),
        ("data", run.method.data.clone()),
        ("device", origin.device.clone()),
        ("seed", origin.seed.to_string()),
        ("command", origin.command.clone()),
    ];
    rows.extend(run.settings.iter().map(|s| (s.key.as_str(), s.value.clone())));
    let row = |(key, value): &(&str, String)| {
        format!("<tr><th scope=\"row\">{}</th><td><code>{}</code></td></tr>\n", escape(key), escape(value))
    };
    let rows: String = rows.iter().filter(|r| !r.1.is_empty()).map(row).collect();
    let notes: String = run.notes.iter().map(|n| format!("<p>{}</p>\n", escape(n))).collect();
    let notes = if notes.is_empty() { notes } else { section("Notes", &notes) };
    let table = format!("<div class=\"scroll\"><table class=\"settings\"><tbody>\n{rows}</tbody></table></div>\n");
    notes + &section("Settings", &table)
}

fn footer(run: &RunRecord) -> String {
    let parts = [run.origin.version.as_str(), run.origin.date.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|p| !p.is_empty()).map(escape).collect();
    format!("<footer>{}</footer>\n", parts.join(" · "))
}

fn figure(svg: Option<Svg>, caption: &str) -> String {
    svg.map_or_else(String::new, |svg| titled(svg.title(), &svg, caption))
}

fn titled(title: &str, svg: &Svg, caption: &str) -> String {
    let caption = if caption.is_empty() { String::new() } else { format!("<p class=\"small\">{}</p>", escape(caption)) };
    format!("<figure><figcaption>{}</figcaption>\n{}{caption}</figure>\n", escape(title), svg.inline())
}

fn grid_section(title: &str, class: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    section(title, &format!("<div class=\"figures {class}\">{content}</div>\n"))
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n{content}</section>\n", escape(title))
}
