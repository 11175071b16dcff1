//! Accuracy of retrieval by depth and length as a heat map.

use super::record::Grid;
use super::svg::{Anchor, Look, Svg};
use super::text;

const WIDTH: f64 = 300.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 8.0;
const ROW: f64 = 30.0;
/// Fill above which dark ink on the cell is harder to read than light.
const INK_FLIPS: f64 = 0.66;

/// Draws one grid; columns past `context` tokens are set off by a rule.
pub fn draw(title: &str, grid: &Grid, context: usize) -> Svg {
    let (rows, columns) = (grid.depths.len(), grid.lengths.len());
    if rows == 0 || columns == 0 {
        let mut svg = Svg::new(WIDTH, 90.0, title);
        svg.text("", Anchor::Middle, (WIDTH / 2.0, 48.0), "nothing was measured");
        return svg;
    }
    let base = TOP + ROW * rows as f64;
    let cell = (WIDTH - LEFT - 8.0) / columns as f64;
    let mut svg = Svg::new(WIDTH, base + 82.0, title);
    let every = rows.div_ceil(12);
    for (d, depth) in grid.depths.iter().enumerate() {
        let y = TOP + ROW * d as f64;
        if d % every == 0 {
            svg.text("", Anchor::End, (LEFT - 7.0, y + ROW / 2.0 + 4.0), &text::percent(Some(*depth)));
        }
        for (l, length) in grid.lengths.iter().enumerate() {
            let at = (LEFT + cell * l as f64 + 1.0, y + 1.0);
            draw_cell(&mut svg, at, (cell - 2.0, ROW - 2.0), grid.cell(d, l), || {
                let (depth, length) = (text::percent(Some(*depth)), text::length(*length));
                let found = text::percent(grid.cell(d, l));
                let error = grid.cell(d, l).map_or_else(String::new, |share| format!(" ±{:.0}", 100.0 * grid.error_of(share, 1)));
                format!("length {length}, depth {depth}: {found}{error} of {} prompts", grid.samples)
            });
        }
    }
    let every = ((columns as f64 * 38.0) / (WIDTH - LEFT)).ceil().max(1.0) as usize;
    for (l, length) in grid.lengths.iter().enumerate().filter(|(l, _)| l % every == 0) {
        let x = LEFT + cell * (l as f64 + 0.5);
        svg.text("", Anchor::Middle, (x, base + 17.0), &text::length(*length));
    }
    let within = grid.lengths.iter().filter(|&&l| l <= context).count();
    if within > 0 && within < columns && grid.lengths.is_sorted() {
        let x = LEFT + cell * within as f64;
        svg.line("c-rule", (x, TOP - 6.0), (x, base + 22.0));
    }
    svg.text("", Anchor::Middle, ((LEFT + WIDTH) / 2.0, base + 36.0), "context length");
    svg.text_up("", (11.0, (TOP + base) / 2.0), "depth");
    draw_ramp(&mut svg, base + 54.0);
    svg
}

fn draw_cell(svg: &mut Svg, at: (f64, f64), size: (f64, f64), share: Option<f64>, hover: impl Fn() -> String) {
    let look = |opacity| Look { opacity, round: 3.0, hover: hover() };
    svg.rect("c-cell0", at, size, look(None));
    if let Some(share) = share {
        svg.rect("c-cell", at, size, look(Some(share)));
    }
    if size.0 >= 24.0 {
        let label = share.map_or("–".into(), |s| format!("{:.0}", s * 100.0));
        let on = if share.is_some_and(|s| s > INK_FLIPS) { "c-num on" } else { "c-num" };
        svg.text(on, Anchor::Middle, (at.0 + size.0 / 2.0, at.1 + size.1 / 2.0 + 4.0), &label);
    }
}

fn draw_ramp(svg: &mut Svg, y: f64) {
    const STEPS: usize = 20;
    let width = 110.0 / STEPS as f64;
    let left = (LEFT + WIDTH) / 2.0 - 55.0;
    for i in 0..STEPS {
        let look = Look { opacity: Some(i as f64 / (STEPS - 1) as f64), ..Look::default() };
        svg.rect("c-cell", (left + width * i as f64, y), (width + 0.2, 9.0), look);
    }
    svg.text("", Anchor::End, (left - 7.0, y + 9.0), "0 %");
    svg.text("", Anchor::Start, (left + 117.0, y + 9.0), "100 %");
}
