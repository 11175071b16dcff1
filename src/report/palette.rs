//! The colours, once: CSS variables for the page, plain values for SVG files.
//!
//! Series colours follow Okabe and Ito, so that they stay apart for colour-blind readers and in both themes; dashes and
//! markers repeat the distinction.

/// Name, light value, dark value.
pub(crate) const COLOURS: [(&str, &str, &str); 19] = [
    ("page", "#f6f7f9", "#0d1117"),
    ("panel", "#ffffff", "#151b23"),
    ("ink", "#1b1f24", "#e6edf3"),
    ("muted", "#5b6470", "#9aa6b2"),
    ("line", "#d8dde3", "#2d3641"),
    ("grid", "#e9ecf0", "#232b35"),
    ("accent", "#0a5ea8", "#5cb0f0"),
    ("heat", "#0b4f96", "#6db3ff"),
    ("heat-text", "#ffffff", "#0b1016"),
    ("good", "#14713f", "#4fc98a"),
    ("warn", "#955800", "#e6b04a"),
    ("bad", "#b3261e", "#ff8a80"),
    ("code", "#f1f3f6", "#0d1219"),
    ("s0", "#6a7280", "#a3adb9"),
    ("s1", "#b97900", "#e8b44c"),
    ("s2", "#0068ad", "#5cb8f5"),
    ("s3", "#b0508a", "#e59cc4"),
    ("s4", "#00805c", "#3fcf9f"),
    ("s5", "#c04a00", "#ff9a5c"),
];

const CHART: &str = include_str!("style/chart.css");
const PAGE: &str = include_str!("style/page.css");

/// CSS of the page: variables for both themes, page rules, chart rules.
pub(crate) fn page_css() -> String {
    let block = |pick: fn(&(&str, &str, &str)) -> String| COLOURS.iter().map(pick).collect::<Vec<_>>().join("");
    let light = block(|(name, light, _)| format!("--{name}:{light};"));
    let dark = block(|(name, _, dark)| format!("--{name}:{dark};"));
    format!(
        ":root{{color-scheme:light dark;{light}}}\n\
         @media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{CHART}{PAGE}"
    )
}

/// CSS of an SVG file. Viewers that know neither variables nor media queries still get the light theme.
pub(crate) fn file_css() -> String {
    let fill = |pick: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        COLOURS.iter().fold(CHART.to_string(), |css, colour| css.replace(&format!("var(--{})", colour.0), pick(colour)))
    };
    let (light, dark) = (fill(|c| c.1), fill(|c| c.2));
    format!("{light}@media (prefers-color-scheme:dark){{\n{dark}}}\n")
}
