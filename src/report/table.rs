//! The before/after comparison as text: one table for the terminal, the page and the model card.

use std::fmt::Write as _;
use std::ops::Range;

use super::record::{EvalRecord, Grid, Role};
use super::text;
use super::verdict;

/// Columns of a terminal beyond which a table goes on below.
const LINE: usize = 120;

/// Whether a terminal table may use escape sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI colours.
    Ansi,
}

/// How a cell stands out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// It does not.
    #[default]
    Plain,
    /// Best of its column.
    Best,
    /// A loss.
    Bad,
}

/// A formatted value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Its standard error, where one is known, without the unit.
    pub error: Option<String>,
    /// How it stands out.
    pub mark: Mark,
}

impl Cell {
    /// A value with its standard error; one that is no number is not known.
    pub fn measured(value: Option<(f64, f64)>, format: impl Fn(Option<f64>) -> String) -> Self {
        let error = value.map(|(_, error)| error).filter(|error| error.is_finite());
        let error = error.map(|e| format(Some(e)).trim_end_matches(" %").to_owned());
        Self { text: format(value.map(|v| v.0)), error, mark: Mark::Plain }
    }

    /// Both, in plain text.
    pub fn whole(&self) -> String {
        match &self.error {
            Some(error) => format!("{} ±{error}", self.text),
            None => self.text.clone(),
        }
    }
}

/// Columns that belong together under one heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The heading.
    pub title: String,
    /// One name per column.
    pub columns: Vec<String>,
}

/// Evaluations in rows; perplexities, accuracies, scores and the short-context change in columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// What the table is of, where its groups do not say it.
    pub caption: String,
    /// Column groups.
    pub groups: Vec<Group>,
    /// Name, role and one cell per column.
    pub rows: Vec<(String, Role, Vec<Cell>)>,
}

impl Comparison {
    /// Compares evaluations of a model with `context` tokens of original context.
    pub fn new(evaluations: &[EvalRecord], context: usize) -> Self {
        let before = evaluations.iter().rev().find(|e| e.role == Role::Before);
        let mut table = Self {
            caption: String::new(),
            groups: Vec::new(),
            rows: evaluations.iter().map(|e| (text::one_line(&e.name), e.role, Vec::new())).collect(),
        };
        let lengths = union(evaluations, |e| e.perplexity.iter().map(|s| s.length).collect());
        let less = |a: f64, b: f64| a < b;
        let more = |a: f64, b: f64| a > b;
        let ppl = lengths.iter().map(|&l| best(evaluations, |e| measured(e, l), text::perplexity, less));
        table.add("perplexity", &lengths, ppl.collect());
        for (title, grid) in GRIDS {
            let lengths = union(evaluations, |e| grid(e).map_or_else(Vec::new, |g| g.lengths.clone()));
            let found = lengths.iter().map(|&l| best(evaluations, |e| found(grid(e)?, l), text::percent, more));
            table.add(title, &lengths, found.collect());
        }
        let lengths = union(evaluations, |e| e.ruler.iter().map(|s| s.length).collect());
        let ruler = lengths.iter().map(|&l| best(evaluations, |e| e.ruler_at(l), text::score, more));
        table.add("RULER", &lengths, ruler.collect());
        if !lengths.is_empty() {
            let effective = evaluations.iter().map(|e| Cell { text: super::tasks::effective(e), ..Cell::default() });
            table.add_columns("RULER", vec!["effective".into()], vec![effective.collect()]);
        }
        let lengths = union(evaluations, |e| e.longbench.iter().map(|s| s.length).collect());
        let scores = lengths.iter().map(|&l| best(evaluations, |e| e.longbench_at(l), text::score, more));
        table.add("LongBench", &lengths, scores.collect());
        let change = |e: &EvalRecord| match before.filter(|_| e.role != Role::Before) {
            Some(base) => verdict::damage(base, e, context),
            None => None,
        };
        if evaluations.iter().any(|e| change(e).is_some()) {
            let column = evaluations.iter().map(|e| {
                let change = change(e);
                let mark = if change.is_some_and(|(ratio, _)| ratio > verdict::SHORT_SLACK) { Mark::Bad } else { Mark::Plain };
                let text = change.map_or_else(|| "–".into(), |(ratio, _)| text::change(ratio));
                Cell { text, error: change.and_then(|(ratio, error)| text::change_error(ratio, error)), mark }
            });
            let column = column.collect();
            table.add_columns("short context", vec!["change".into()], vec![column]);
        }
        table
    }

    /// A table of one kind of column: its caption, its columns, and its rows with their names.
    pub fn single(caption: String, columns: Vec<String>, rows: Vec<(String, Vec<Cell>)>) -> Self {
        let rows = rows.into_iter().map(|(name, cells)| (name, Role::Other, cells)).collect();
        Self { caption, groups: vec![Group { title: String::new(), columns }], rows }
    }

    /// Whether its groups have names.
    pub fn is_grouped(&self) -> bool {
        self.groups.iter().any(|group| !group.title.is_empty())
    }

    fn add(&mut self, title: &str, lengths: &[usize], columns: Vec<Vec<Cell>>) {
        if !lengths.is_empty() {
            self.add_columns(title, lengths.iter().map(|&l| text::length(l)).collect(), columns);
        }
    }

    fn add_columns(&mut self, title: &str, names: Vec<String>, columns: Vec<Vec<Cell>>) {
        self.groups.push(Group { title: title.into(), columns: names });
        for column in columns {
            for (row, cell) in self.rows.iter_mut().zip(column) {
                row.2.push(cell);
            }
        }
    }

    /// The table for a terminal: names left, numbers right, ending in a newline; empty without evaluations.
    pub fn terminal(&self, colour: Colour) -> String {
        if self.rows.is_empty() || self.groups.is_empty() {
            return String::new();
        }
        let name_width = self.rows.iter().map(|r| width(&r.0)).max().unwrap_or(0);
        let widths = self.group_widths();
        let parts: Vec<String> =
            parts(&widths, name_width).into_iter().map(|groups| self.part(groups, name_width, &widths, colour)).collect();
        let caption = if self.caption.is_empty() { String::new() } else { format!("{}\n", self.caption) };
        caption + &parts.join("\n")
    }

    /// Some of the groups, for all rows.
    fn part(&self, groups: Range<usize>, name_width: usize, widths: &[Vec<usize>], colour: Colour) -> String {
        let first: usize = widths[..groups.start].iter().map(Vec::len).sum();
        let (groups, widths) = (&self.groups[groups.clone()], &widths[groups]);
        let mut out = String::new();
        if self.is_grouped() {
            out.push_str(&" ".repeat(name_width));
            for (group, widths) in groups.iter().zip(widths) {
                let _ = write!(out, " │ {}", pad_right(&group.title, joined(widths)));
            }
            trim_line(&mut out);
        }
        out.push_str(&" ".repeat(name_width));
        for (group, widths) in groups.iter().zip(widths) {
            let names: Vec<_> = group.columns.iter().zip(widths).map(|(c, &w)| pad_left(c, w)).collect();
            let _ = write!(out, " │ {}", names.join("  "));
        }
        trim_line(&mut out);
        out.push_str(&"─".repeat(name_width));
        for widths in widths {
            let _ = write!(out, "─┼─{}", "─".repeat(joined(widths)));
        }
        out.push('\n');
        for (name, role, cells) in &self.rows {
            let name = pad_right(name, name_width);
            out.push_str(&if *role == Role::After { paint(&name, "1", colour) } else { name });
            let mut cells = cells.iter().skip(first);
            for widths in widths {
                let group: Vec<_> = widths.iter().zip(&mut cells).map(|(&w, c)| terminal_cell(c, w, colour)).collect();
                let _ = write!(out, " │ {}", group.join("  "));
            }
            trim_line(&mut out);
        }
        out
    }

    /// The table in Markdown, best values bold.
    pub fn markdown(&self) -> String {
        if self.rows.is_empty() || self.groups.is_empty() {
            return String::new();
        }
        let mut out = String::from("| |");
        for group in &self.groups {
            for column in &group.columns {
                let _ = write!(out, " {} {column} |", group.title);
            }
        }
        out.push_str("\n|---|");
        out.push_str(&"--:|".repeat(self.groups.iter().map(|g| g.columns.len()).sum()));
        out.push('\n');
        for (name, _, cells) in &self.rows {
            let _ = write!(out, "| {} |", markdown_text(name));
            for cell in cells {
                let bold = if cell.mark == Mark::Best { "**" } else { "" };
                let error = cell.error.as_ref().map_or_else(String::new, |e| format!(" ±{e}"));
                let _ = write!(out, " {bold}{}{bold}{error} |", cell.text);
            }
            out.push('\n');
        }
        out
    }

    fn group_widths(&self) -> Vec<Vec<usize>> {
        let mut first = 0;
        let mut widths = Vec::new();
        for group in &self.groups {
            let column = |(i, name): (usize, &String)| {
                let cells = self.rows.iter().filter_map(|r| r.2.get(first + i)).map(|c| width(&c.whole()));
                cells.max().unwrap_or(0).max(width(name))
            };
            let mut group_widths: Vec<usize> = group.columns.iter().enumerate().map(column).collect();
            let missing = width(&group.title).saturating_sub(joined(&group_widths));
            if let Some(last) = group_widths.last_mut() {
                *last += missing;
            }
            first += group.columns.len();
            widths.push(group_widths);
        }
        widths
    }
}

/// Groups that stand side by side: as many as [`LINE`] holds, one at least.
fn parts(widths: &[Vec<usize>], name_width: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut first, mut line) = (0, name_width);
    for (group, widths) in widths.iter().enumerate() {
        let wide = " │ ".chars().count() + joined(widths);
        if group > first && line + wide > LINE {
            parts.push(first..group);
            (first, line) = (group, name_width);
        }
        line += wide;
    }
    parts.push(first..widths.len());
    parts
}

/// Text that Markdown takes literally, also inside a table.
pub(crate) fn markdown_text(text: &str) -> String {
    let mut out = String::new();
    for c in text::one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn union(evaluations: &[EvalRecord], lengths: impl Fn(&EvalRecord) -> Vec<usize>) -> Vec<usize> {
    let mut all: Vec<usize> = evaluations.iter().flat_map(lengths).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// One of an evaluation's grids.
type GridOf = fn(&EvalRecord) -> Option<&Grid>;

/// The grids of an evaluation, by name.
pub(super) const GRIDS: [(&str, GridOf); 2] = [("passkey", |e| e.passkey.as_ref()), ("niah", |e| e.niah.as_ref())];

/// Mean over the depths at one length, and its standard error.
fn found(grid: &Grid, length: usize) -> Option<(f64, f64)> {
    let share = grid.mean_at(length)?;
    Some((share, grid.error_of(share, grid.depths.len())))
}

/// Perplexity as it was measured: infinite is a result, NaN is none. Its standard error follows from that of the loss.
fn measured(eval: &EvalRecord, length: usize) -> Option<(f64, f64)> {
    let score = eval.score_at(length)?;
    (!score.ppl.is_nan()).then_some((score.ppl, score.ppl * score.error))
}

fn best(
    evaluations: &[EvalRecord],
    value: impl Fn(&EvalRecord) -> Option<(f64, f64)>,
    format: impl Fn(Option<f64>) -> String,
    better: impl Fn(f64, f64) -> bool,
) -> Vec<Cell> {
    let values: Vec<_> = evaluations.iter().map(value).collect();
    let finite = || values.iter().flatten().map(|v| v.0).filter(|v| v.is_finite());
    let top = finite().reduce(|a, b| if better(b, a) { b } else { a });
    let shown = top.map(|t| format(Some(t)));
    // With one contender, or all alike as printed, nobody won.
    let contest = finite().any(|v| Some(format(Some(v))) != shown);
    let cell = |v: &Option<(f64, f64)>| {
        let cell = Cell::measured(*v, &format);
        let won = contest && v.is_some() && Some(&cell.text) == shown.as_ref();
        Cell { mark: if won { Mark::Best } else { Mark::Plain }, ..cell }
    };
    values.iter().map(cell).collect()
}

fn terminal_cell(cell: &Cell, width: usize, colour: Colour) -> String {
    let text = pad_left(&cell.whole(), width);
    match cell.mark {
        Mark::Plain => text,
        Mark::Best => paint(&text, "1;32", colour),
        Mark::Bad => paint(&text, "33", colour),
    }
}

fn paint(text: &str, code: &str, colour: Colour) -> String {
    match colour {
        Colour::Never => text.into(),
        Colour::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
    }
}

fn trim_line(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

fn joined(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad_left(text: &str, to: usize) -> String {
    " ".repeat(to.saturating_sub(width(text))) + text
}

fn pad_right(text: &str, to: usize) -> String {
    text.to_string() + &" ".repeat(to.saturating_sub(width(text)))
}
