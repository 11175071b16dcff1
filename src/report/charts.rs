//! Line charts and histograms.

use super::axis::{Axis, Fit, Scale, Unit, drawable};
use super::svg::{Anchor, Look, Shape, Svg};

/// Width of every chart in user units; pages scale it.
pub const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 50.0;
const LEGEND_ROW: f64 = 20.0;
/// Estimated advance of one character. On the wide side, because phones enlarge the text of a chart.
const ADVANCE: f64 = 7.2;

/// A line in a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Points by ascending x. One that is not finite breaks the line and is marked.
    pub points: Vec<(f64, f64)>,
    /// Which of the six colours and dashes.
    pub colour: usize,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// A line with a marker on every point.
    Marked,
    /// A solid line.
    Plain,
    /// A thin pale line behind the others.
    Faint,
}

/// A vertical line with a label.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Where it stands on the x axis.
    pub at: f64,
    /// What it says.
    pub label: String,
}

/// A line chart.
#[derive(Debug, Clone)]
pub struct LineChart {
    /// Title of the drawing.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Lines, the last one on top.
    pub series: Vec<Series>,
    /// Vertical lines.
    pub rules: Vec<Rule>,
}

/// A bar of a histogram over `lo..hi`.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Left end.
    pub lo: f64,
    /// Right end.
    pub hi: f64,
    /// Height; 0 is drawn as a gap in the data.
    pub value: f64,
    /// What a pointer resting on it reads.
    pub hover: String,
}

/// A histogram.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Title of the drawing.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Bars by ascending `lo`.
    pub bars: Vec<Bar>,
    /// Vertical lines.
    pub rules: Vec<Rule>,
}

/// The plotting area with its two fitted axes.
struct Frame {
    x: Fit,
    y: Fit,
    top: f64,
}

impl Frame {
    const BASE: f64 = HEIGHT - BOTTOM;

    fn px(&self, x: f64) -> f64 {
        LEFT + self.x.at(x) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        Self::BASE - self.y.at(y) * (Self::BASE - self.top)
    }

    fn draw(&self, svg: &mut Svg, x: &Axis, y: &Axis) {
        for (value, label) in &self.y.ticks {
            let at = self.py(*value);
            svg.line("c-grid", (LEFT, at), (WIDTH - RIGHT, at));
            svg.text("", Anchor::End, (LEFT - 8.0, at + 4.0), label);
        }
        for (value, label) in &self.x.ticks {
            let at = self.px(*value);
            svg.line("c-axis", (at, Self::BASE), (at, Self::BASE + 5.0));
            svg.text("", Anchor::Middle, (at, Self::BASE + 19.0), label);
        }
        svg.line("c-axis", (LEFT, Self::BASE), (WIDTH - RIGHT, Self::BASE));
        svg.text("", Anchor::Middle, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0), &x.label);
        svg.text_up("", (15.0, (self.top + Self::BASE) / 2.0), &y.label);
    }

    fn draw_rules(&self, svg: &mut Svg, rules: &[Rule]) {
        for (i, rule) in rules.iter().filter(|r| drawable(r.at) && self.x.contains(r.at)).enumerate() {
            let at = self.px(rule.at);
            svg.line("c-rule", (at, self.top), (at, Self::BASE));
            let room = rule.label.chars().count() as f64 * ADVANCE + 6.0;
            let row = self.top + 13.0 + 17.0 * (i % 2) as f64;
            let (anchor, x) = if at + room > WIDTH - RIGHT { (Anchor::End, at - 5.0) } else { (Anchor::Start, at + 5.0) };
            svg.text("c-ink", anchor, (x, row), &rule.label);
        }
    }
}

fn empty(title: &str) -> Svg {
    let mut svg = Svg::new(WIDTH, 120.0, title);
    svg.text("", Anchor::Middle, (WIDTH / 2.0, 64.0), "nothing finite was recorded");
    svg
}

impl LineChart {
    /// Draws it.
    pub fn draw(&self) -> Svg {
        let points = || self.series.iter().flat_map(|s| s.points.iter());
        let rules = self.rules.iter().map(|r| r.at).filter(|_| points().next().is_some());
        let x = Fit::new(&self.x, points().map(|p| p.0).chain(rules));
        let y = Fit::new(&self.y, points().map(|p| p.1));
        let (Some(x), Some(y)) = (x, y) else {
            return empty(&self.title);
        };
        let x = if self.x.scale == Scale::Log2 { x.pad(&self.x, 0.04) } else { x };
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.title);
        let legend = self.legend();
        let rows = legend.last().map_or(0.0, |l| l.1 + 1.0);
        let frame = Frame { x, y: y.pad(&self.y, 0.06), top: 12.0 + rows * LEGEND_ROW };
        frame.draw(&mut svg, &self.x, &self.y);
        frame.draw_rules(&mut svg, &self.rules);
        for series in &self.series {
            draw_lines(&mut svg, &frame, series);
        }
        for series in &self.series {
            draw_points(&mut svg, &frame, series, &self.x);
        }
        for (at, row, series) in legend {
            let y = 12.0 + row * LEGEND_ROW;
            svg.line(&line_class(series), (at, y), (at + 22.0, y));
            if series.stroke == Stroke::Marked {
                let c = series.colour % 6;
                svg.marker(&format!("c-m f{c}"), shape(c), (at + 11.0, y), 4.2, "");
            }
            svg.text("c-ink", Anchor::Start, (at + 29.0, y + 4.0), &series.name);
        }
        svg
    }

    /// Legend entries as (x, row, series); none for a single unnamed series.
    fn legend(&self) -> Vec<(f64, f64, &Series)> {
        let mut placed = Vec::new();
        let (mut at, mut row) = (LEFT, 0.0);
        for series in self.series.iter().filter(|s| !s.name.is_empty()) {
            let width = 29.0 + series.name.chars().count() as f64 * ADVANCE + 16.0;
            if at > LEFT && at + width > WIDTH {
                (at, row) = (LEFT, row + 1.0);
            }
            placed.push((at, row, series));
            at += width;
        }
        placed
    }
}

fn line_class(series: &Series) -> String {
    let extra = match series.stroke {
        Stroke::Marked => "",
        Stroke::Plain => " c-solid",
        Stroke::Faint => " c-solid c-faint",
    };
    format!("c-l l{}{extra}", series.colour % 6)
}

fn shape(colour: usize) -> Shape {
    [Shape::Square, Shape::Triangle, Shape::Circle, Shape::Diamond][colour % 4]
}

fn draw_lines(svg: &mut Svg, frame: &Frame, series: &Series) {
    let mut d = String::new();
    for run in series.points.split(|p| !drawable(p.0) || !drawable(p.1)) {
        let placed: Vec<_> = run.iter().map(|p| (frame.px(p.0), frame.py(p.1))).collect();
        match placed.as_slice() {
            [] => {}
            // A lone point between gaps has no line; a short dash keeps it visible.
            [(x, y)] => d.push_str(&Svg::polyline(&[(x - 1.0, *y), (x + 1.0, *y)])),
            many => d.push_str(&Svg::polyline(&thin(many))),
        }
    }
    svg.path(&line_class(series), &d);
}

/// Keeps lowest and highest point of every user unit of width, so that long runs draw fast and spikes stay.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * WIDTH as usize {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = (column.iter().min_by(by_height), column.iter().max_by(by_height));
        let (Some(&low), Some(&high)) = ends else { continue };
        kept.extend(if low.0 <= high.0 { [low, high] } else { [high, low] });
    }
    kept
}

fn draw_points(svg: &mut Svg, frame: &Frame, series: &Series, axis: &Axis) {
    if series.stroke == Stroke::Faint {
        return;
    }
    let c = series.colour % 6;
    let every = series.points.len().div_ceil(160).max(1);
    for (i, &(x, y)) in series.points.iter().enumerate().filter(|p| drawable(p.1.0)) {
        let wanted = i % every == 0 || i + 1 == series.points.len();
        let hover = format!("{}\n{}: {}", series.name, at_label(axis, x), value_label(y));
        if !drawable(y) {
            cross(svg, frame.px(x), &hover);
        } else if series.stroke == Stroke::Marked {
            svg.marker(&format!("c-m f{c}"), shape(c), (frame.px(x), frame.py(y)), 4.2, &hover);
        } else if wanted {
            let at = (frame.px(x), frame.py(y));
            svg.marker("c-hit", Shape::Circle, at, 6.0, &hover);
        }
    }
}

/// A value that could not be drawn: a cross on the axis.
fn cross(svg: &mut Svg, x: f64, hover: &str) {
    let y = Frame::BASE - 7.0;
    svg.path(
        "c-gap",
        &(Svg::polyline(&[(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)]) + &Svg::polyline(&[(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)])),
    );
    svg.marker("c-hit", Shape::Circle, (x, y), 6.0, hover);
}

fn at_label(axis: &Axis, x: f64) -> String {
    match axis.unit {
        Unit::Length => format!("{} {}", axis.label, crate::units::format_length(x.max(0.0).round() as usize)),
        Unit::Number => format!("{} {x}", axis.label),
    }
}

fn value_label(y: f64) -> String {
    match y.abs() {
        s if !s.is_finite() => "not finite".into(),
        s if s != 0.0 && !(1e-3..1e6).contains(&s) => format!("{y:.3e}"),
        s if s < 1000.0 => format!("{y:.4}"),
        _ => format!("{y:.0}"),
    }
}

impl Histogram {
    /// Draws it.
    pub fn draw(&self) -> Svg {
        let drawn = || self.bars.iter().filter(|b| drawable(b.lo) && drawable(b.hi) && b.hi > b.lo);
        let ends = drawn().flat_map(|b| [b.lo, b.hi]).chain(self.rules.iter().map(|r| r.at));
        let heights = drawn().map(|b| b.value).filter(|&v| drawable(v) && v > 0.0);
        let (Some(x), Some(y)) = (Fit::new(&self.x, ends), Fit::new(&self.y, heights)) else {
            return empty(&self.title);
        };
        let mut svg = Svg::new(WIDTH, HEIGHT, &self.title);
        let frame = Frame { x, y: y.pad(&self.y, 0.1), top: 14.0 };
        frame.draw(&mut svg, &self.x, &self.y);
        for bar in drawn() {
            let (left, right) = (frame.px(bar.lo), frame.px(bar.hi));
            // A hairline between bars, unless they are too thin for one.
            let width = if right - left > 3.0 { right - left - 1.0 } else { right - left };
            let seen = drawable(bar.value) && bar.value > 0.0;
            let (class, top) = if seen { ("c-bar", frame.py(bar.value)) } else { ("c-none", frame.top) };
            let look = Look { hover: bar.hover.clone(), ..Look::default() };
            svg.rect(class, (left, top), (width, Frame::BASE - top), look);
        }
        frame.draw_rules(&mut svg, &self.rules);
        svg
    }
}
