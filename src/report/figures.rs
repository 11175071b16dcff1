//! From a record to its figures; page and files draw the same ones.

use super::axis::{Axis, drawable};
use super::charts::{Bar, Histogram, LineChart, Rule, Series, Stroke};
use super::heatmap;
use super::record::{CoverageRecord, EvalRecord, Role, RunRecord, StepRecord};
use super::svg::Svg;
use super::text;

/// The colour a role has in every figure.
pub(crate) fn colour(role: Role) -> usize {
    match role {
        Role::Before => 0,
        Role::RopeOnly => 1,
        Role::After => 2,
        Role::Control => 3,
        Role::Other => 4,
    }
}

/// Training and validation loss by step.
pub fn training_loss(run: &RunRecord) -> Option<Svg> {
    let raw: Vec<_> = run.steps.iter().map(|s| (s.step as f64, s.loss)).collect();
    if raw.is_empty() && run.validation.is_empty() {
        return None;
    }
    let mut series = Vec::new();
    if !raw.is_empty() {
        let smooth = smooth(&raw);
        series.push(line("each step", 2, Stroke::Faint, raw));
        series.push(line("smoothed", 2, Stroke::Plain, smooth));
    }
    if !run.validation.is_empty() {
        let points = run.validation.iter().map(|v| (v.step as f64, v.loss)).collect();
        series.push(line("validation", 1, Stroke::Marked, points));
    }
    Some(chart("training loss", Axis::linear("step"), Axis::log("loss (nats per token)"), series))
}

/// Learning rate by step.
pub fn learning_rate(run: &RunRecord) -> Option<Svg> {
    by_step(run, "learning rate", Axis::from_zero(""), |s| s.lr)
}

/// Gradient norm by step.
pub fn gradient_norm(run: &RunRecord) -> Option<Svg> {
    by_step(run, "gradient norm", Axis::log("norm before clipping"), |s| s.grad_norm)
}

/// Tokens per second by step.
pub fn throughput(run: &RunRecord) -> Option<Svg> {
    by_step(run, "throughput", Axis::from_zero("tokens per second"), |s| s.tokens_per_second)
}

/// Peak memory by step; none when it was never measured.
pub fn memory(run: &RunRecord) -> Option<Svg> {
    if run.steps.iter().all(|s| s.memory_bytes == 0) {
        return None;
    }
    let mib = |s: &StepRecord| s.memory_bytes as f64 / (1 << 20) as f64;
    if run.steps.iter().any(|s| s.memory_bytes >= 4 << 30) {
        by_step(run, "peak memory", Axis::from_zero("GiB"), move |s| mib(s) / 1024.0)
    } else {
        by_step(run, "peak memory", Axis::from_zero("MiB"), mib)
    }
}

/// Perplexity by context length for every evaluation.
pub fn perplexity(run: &RunRecord) -> Option<Svg> {
    let series: Vec<_> = run
        .evaluations
        .iter()
        .filter(|e| !e.perplexity.is_empty())
        .map(|e| {
            let measured = e.perplexity.iter().filter(|s| s.windows > 0);
            let mut points: Vec<_> = measured.map(|s| (s.length as f64, s.ppl)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            line(&e.name, colour(e.role), Stroke::Marked, points)
        })
        .collect();
    compared(run, "perplexity by context length", Axis::lengths("context length"), Axis::log("perplexity"), series)
}

/// Loss by position at the longest measured length.
pub fn loss_by_position(run: &RunRecord) -> Option<Svg> {
    let measured = || run.evaluations.iter().filter(|e| !e.buckets.is_empty());
    let series: Vec<_> = measured()
        .map(|e| {
            let points = e.buckets.iter().map(|b| ((b.lo + b.hi) as f64 / 2.0, b.nll)).collect();
            line(&e.name, colour(e.role), Stroke::Marked, points)
        })
        .collect();
    let geometric = measured().any(|e| grows(e.buckets.iter().map(|b| b.hi.saturating_sub(b.lo) as f64)));
    let lengths = Axis::lengths("position");
    let x = if geometric { lengths } else { even(lengths) };
    compared(run, "loss by position", x, Axis::linear("loss (nats per token)"), series)
}

/// Passkey retrieval of one evaluation.
pub fn passkey(run: &RunRecord, eval: &EvalRecord) -> Option<Svg> {
    let grid = eval.passkey.as_ref()?;
    Some(heatmap::draw(&format!("passkey: {}", eval.name), grid, run.model.context))
}

/// Retrieval of one key among others.
pub fn niah(run: &RunRecord, eval: &EvalRecord) -> Option<Svg> {
    let grid = eval.niah.as_ref()?;
    Some(heatmap::draw(&format!("needles: {}", eval.name), grid, run.model.context))
}

/// Which distances training saw: pairs per distance.
pub fn coverage(run: &RunRecord) -> Option<Svg> {
    let bins = run.coverage.as_ref().filter(|bins| !bins.is_empty())?;
    let geometric = grows(bins.iter().map(|b| width(b) as f64));
    let lengths = Axis::lengths("distance between two tokens");
    let bar = |b: &CoverageRecord| Bar {
        // Distance 0 has no place on a logarithmic axis.
        lo: if geometric { b.distance_lo.max(1) as f64 } else { b.distance_lo as f64 },
        hi: b.distance_hi as f64,
        value: b.pairs as f64 / width(b).max(1) as f64,
        hover: format!(
            "distance {} to {}: {} pairs in {} rows",
            b.distance_lo,
            b.distance_hi.saturating_sub(1),
            text::magnitude(b.pairs),
            text::magnitude(b.covered_rows)
        ),
    };
    let histogram = Histogram {
        title: "distances seen in training".into(),
        x: if geometric { lengths } else { even(lengths) },
        y: Axis::log("pairs per distance"),
        bars: bins.iter().map(bar).collect(),
        rules: vec![rule(run.model.context, "original context")],
    };
    Some(histogram.draw())
}

fn width(b: &CoverageRecord) -> u64 {
    b.distance_hi.saturating_sub(b.distance_lo)
}

/// Whether bin widths grow enough to ask for a logarithmic axis.
fn grows(widths: impl Iterator<Item = f64>) -> bool {
    let (narrow, wide) = widths.fold((f64::INFINITY, 0f64), |(lo, hi), w| (lo.min(w.max(1.0)), hi.max(w)));
    wide > 4.0 * narrow
}

fn even(axis: Axis) -> Axis {
    Axis { scale: super::axis::Scale::Linear, ..axis }
}

fn rule(at: usize, label: &str) -> Rule {
    let label = format!("{label} {}", text::length(at));
    // A length of 0 is an unknown one; it has no place on any axis.
    let at = if at == 0 { f64::NAN } else { at as f64 };
    Rule { at, label }
}

fn compared(run: &RunRecord, title: &str, x: Axis, y: Axis, series: Vec<Series>) -> Option<Svg> {
    if series.is_empty() {
        return None;
    }
    let rules = vec![rule(run.model.context, "original context"), rule(run.method.target, "target")];
    let chart = LineChart { title: title.into(), x, y, series, rules };
    Some(chart.draw())
}

fn by_step(run: &RunRecord, title: &str, y: Axis, value: impl Fn(&StepRecord) -> f64) -> Option<Svg> {
    let points: Vec<_> = run.steps.iter().map(|s| (s.step as f64, value(s))).collect();
    if points.is_empty() {
        return None;
    }
    Some(chart(title, Axis::linear("step"), y, vec![line("", 2, Stroke::Plain, points)]))
}

fn chart(title: &str, x: Axis, y: Axis, series: Vec<Series>) -> Svg {
    LineChart { title: title.into(), x, y, series, rules: Vec::new() }.draw()
}

fn line(name: &str, colour: usize, stroke: Stroke, points: Vec<(f64, f64)>) -> Series {
    Series { name: text::one_line(name), points, colour, stroke }
}

/// Centred mean over about a thirtieth of the run, so that the curve does not lag; narrower at the ends, gaps stay gaps.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0)];
    let (mut sum, mut count) = (0.0, 0.0);
    for &(_, y) in points {
        if drawable(y) {
            (sum, count) = (sum + y, count + 1.0);
        }
        sums.push((sum, count));
    }
    let mean = |(i, &(x, y)): (usize, &(f64, f64))| {
        let half = (points.len() / 60).min(i).min(points.len() - 1 - i);
        let (from, to) = (sums[i - half], sums[i + half + 1]);
        (x, if drawable(y) { (to.0 - from.0) / (to.1 - from.1) } else { f64::NAN })
    };
    points.iter().enumerate().map(mean).collect()
}
