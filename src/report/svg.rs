//! SVG by hand: a drawing that can be placed in a page or stand alone as a file.

use std::fmt::Write as _;

use super::palette;
use super::text::escape;

/// Where text is fixed to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Text begins at the point.
    Start,
    /// Text is centred on it.
    Middle,
    /// Text ends at it.
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A drawing. Coordinates are user units, y downwards; it scales to the width it is given.
#[derive(Debug, Clone)]
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Room for the title above the drawing in a file; a page writes its own heading.
const TITLE_ROOM: f64 = 36.0;

impl Svg {
    /// An empty drawing. `title` is its accessible name and the heading of the file.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width, height, title: title.into(), body: String::new() }
    }

    /// The title, unescaped.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            Num(from.0),
            Num(from.1),
            Num(to.0),
            Num(to.1)
        ));
    }

    /// A rectangle with what a pointer resting on it reads.
    pub fn rect(&mut self, class: &str, at: (f64, f64), size: (f64, f64), look: Look) {
        let opacity = match look.opacity {
            Some(o) => format!(" fill-opacity=\"{}\"", Num(o)),
            None => String::new(),
        };
        let round = if look.round > 0.0 { format!(" rx=\"{}\"", Num(look.round)) } else { String::new() };
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{round}{opacity}>{}</rect>",
            Num(at.0),
            Num(at.1),
            Num(size.0.max(0.0)),
            Num(size.1.max(0.0)),
            hover(&look.hover)
        ));
    }

    /// A path from its `d`, made with [`Svg::polyline`] or by hand.
    pub fn path(&mut self, class: &str, d: &str) {
        if !d.is_empty() {
            self.put(format_args!("<path class=\"{class}\" d=\"{d}\"/>"));
        }
    }

    /// The `d` of a line through these points.
    pub fn polyline(points: &[(f64, f64)]) -> String {
        let mut d = String::new();
        for (i, &(x, y)) in points.iter().enumerate() {
            let op = if i == 0 { 'M' } else { 'L' };
            // Writing to a String cannot fail.
            let _ = write!(d, "{op}{} {}", Num(x), Num(y));
        }
        d
    }

    /// A shape with hover text: the marker of a point.
    pub fn marker(&mut self, class: &str, shape: Shape, at: (f64, f64), radius: f64, text: &str) {
        let (x, y, r) = (at.0, at.1, radius);
        let hover = hover(text);
        match shape {
            Shape::Circle => self.put(format_args!(
                "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\">{hover}</circle>",
                Num(x),
                Num(y),
                Num(r)
            )),
            Shape::Square => self.polygon(class, &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)], at, r, &hover),
            Shape::Triangle => self.polygon(class, &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)], at, r, &hover),
            Shape::Diamond => self.polygon(class, &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)], at, r, &hover),
        }
    }

    fn polygon(&mut self, class: &str, corners: &[(f64, f64)], at: (f64, f64), r: f64, hover: &str) {
        let points: Vec<_> = corners.iter().map(|&(x, y)| (at.0 + r * x, at.1 + r * y)).collect();
        let d = Self::polyline(&points);
        self.put(format_args!("<path class=\"{class}\" d=\"{d}Z\">{hover}</path>"));
    }

    /// Text on one line.
    pub fn text(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str) {
        self.put(format_args!(
            "<text class=\"{class}\" text-anchor=\"{}\" x=\"{}\" y=\"{}\">{}</text>",
            anchor.name(),
            Num(at.0),
            Num(at.1),
            escape(text)
        ));
    }

    /// Text read from bottom to top.
    pub fn text_up(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (Num(at.0), Num(at.1));
        self.put(format_args!(
            "<text class=\"{class}\" text-anchor=\"middle\" transform=\"translate({x} {y}) rotate(-90)\">{}</text>",
            escape(text)
        ));
    }

    /// The drawing for a page that carries the stylesheet.
    pub fn inline(&self) -> String {
        format!(
            "<svg class=\"c\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>",
            Num(self.width),
            Num(self.height),
            escape(&self.title),
            self.body
        )
    }

    /// The drawing as a file: own stylesheet, background and heading; it follows the viewer's theme.
    pub fn file(&self) -> String {
        let (w, h) = (self.width, self.height + TITLE_ROOM);
        let title = escape(&self.title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"c\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 -{TITLE_ROOM} {w} {h}\" role=\"img\" aria-label=\"{title}\">\n<style>\n{}</style>\n\
             <rect class=\"c-bg\" x=\"0\" y=\"-{TITLE_ROOM}\" width=\"{w}\" height=\"{h}\"/>\n\
             <text class=\"c-title\" x=\"14\" y=\"-12\">{title}</text>\n{}</svg>\n",
            palette::file_css(),
            self.body,
            w = Num(w),
            h = Num(h),
        )
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }
}

/// What a rectangle looks like besides its class.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Fill opacity, when the class does not say.
    pub opacity: Option<f64>,
    /// Corner radius.
    pub round: f64,
    /// What a pointer resting on it reads; nothing when empty.
    pub hover: String,
}

/// Markers, told apart by form as well as by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle, point up.
    Triangle,
    /// A square on its corner.
    Diamond,
}

fn hover(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<title>{}</title>", escape(text)) }
}

/// A coordinate: at most two decimals, never `-0`, never `NaN`.
struct Num(f64);

impl std::fmt::Display for Num {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Charts drop what is not finite; a slip there must not make the whole file unreadable.
        debug_assert!(self.0.is_finite(), "svg: coordinate is not finite");
        let v = if self.0.is_finite() { self.0 } else { 0.0 };
        let hundredths = (v * 100.0).round() + 0.0;
        write!(f, "{}", hundredths / 100.0)
    }
}
