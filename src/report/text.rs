//! Numbers and names as the report writes them.

use crate::units::{format_count, format_length};

/// Escapes text for XML and HTML, in elements and in quoted attributes; control characters, which XML forbids, vanish.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// One line without control characters: safe on a terminal and in a table cell.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// Perplexity with the digits that matter: `5.08`, `156.0`, `12,345`, `1.2e9`; `–` when it was not measured.
pub fn perplexity(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(v) if v.is_nan() => "–".into(),
        Some(v) if v.is_infinite() => "∞".into(),
        Some(v) if v.abs() < 10.0 => format!("{v:.2}"),
        Some(v) if v.abs() < 1000.0 => format!("{v:.1}"),
        Some(v) if (0.0..1e6).contains(&v) => format_count(v.round() as u64),
        Some(v) => format!("{v:.1e}"),
    }
}

/// A share as whole percent: `98 %`; `–` when it was not measured.
pub fn percent(share: Option<f64>) -> String {
    share.filter(|s| s.is_finite()).map_or_else(|| "–".into(), |s| format!("{:.0} %", s * 100.0))
}

/// A score of 0 to 1 as its tables write it, times 100: `85.6`; `–` when it was not measured.
pub fn score(share: Option<f64>) -> String {
    share.filter(|s| s.is_finite()).map_or_else(|| "–".into(), |s| format!("{:.1}", s * 100.0))
}

/// A relative change with its sign: `+4.5 %`; a change too small to show is `0.0 %`, one that is many times is a factor.
pub fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    match percent {
        p if !p.is_finite() => "–".into(),
        p if p.abs() < 0.05 => "0.0 %".into(),
        p if p.abs() >= 1000.0 => format!("×{ratio:.0}"),
        p if p < 0.0 => format!("−{:.1} %", p.abs()),
        p => format!("+{p:.1} %"),
    }
}

/// The standard error of a relative change in per cent, where it is known and [`change`] writes no factor.
pub fn change_error(ratio: f64, error: f64) -> Option<String> {
    (error.is_finite() && change(ratio).ends_with('%')).then(|| format!("{:.1}", 100.0 * error))
}

/// A token count as a length, or `?` when it is unknown.
pub fn length(tokens: usize) -> String {
    if tokens == 0 { "?".into() } else { format_length(tokens) }
}

/// A large count in words: `1.1 B`, `82.0 M`, `3.4 k`, `12`.
pub fn magnitude(n: u64) -> String {
    let v = n as f64;
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", v / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", v / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} B", v / 1e9),
        _ => format!("{:.2} T", v / 1e12),
    }
}

/// The text with its first letter in upper case.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>());
    first.unwrap_or_default() + chars.as_str()
}
