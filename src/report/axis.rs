//! Axes: from values to a range, ticks and their labels.

use crate::units::format_length;

/// How values are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By logarithm; falls back to [`Scale::Linear`] when a value is not positive.
    Log,
    /// By logarithm, with ticks at powers of two.
    Log2,
}

/// How tick labels are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Decimal: `0.5`, `20k`, `3M`, `2e-5`.
    Number,
    /// Lengths: `512`, `8k` (k = 1024).
    Length,
}

/// What an axis shows.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Its label.
    pub label: String,
    /// How values are spread.
    pub scale: Scale,
    /// How ticks are written.
    pub unit: Unit,
}

impl Axis {
    /// An axis of plain numbers, evenly spread.
    pub fn linear(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Linear, unit: Unit::Number }
    }

    /// An axis of plain numbers by logarithm.
    pub fn log(label: &str) -> Self {
        Self { scale: Scale::Log, ..Self::linear(label) }
    }

    /// An axis of lengths by powers of two.
    pub fn lengths(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Log2, unit: Unit::Length }
    }
}

/// A value that can be drawn. Past 1e30 a range would overflow, and no measurement here is that large.
pub fn drawable(v: f64) -> bool {
    v.is_finite() && v.abs() < 1e30
}

/// An axis fitted to its values.
#[derive(Debug, Clone)]
pub struct Fit {
    lo: f64,
    hi: f64,
    scale: Scale,
    /// Value and label, ascending.
    pub ticks: Vec<(f64, String)>,
}

impl Fit {
    /// Fits `axis` to the drawable values; `None` if there are none.
    pub fn new(axis: &Axis, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.into_iter().filter(|&v| drawable(v)) {
            (lo, hi) = (lo.min(v), hi.max(v));
        }
        if lo > hi {
            return None;
        }
        let scale = if lo <= 1e-30 { Scale::Linear } else { axis.scale };
        if scale == Scale::Linear {
            if hi - lo < 1e-12 * hi.abs().max(1e-9) {
                let pad = if lo == 0.0 { 1.0 } else { 0.1 * lo.abs() };
                (lo, hi) = (lo - pad, hi + pad);
            }
        } else if hi / lo < 1.0 + 1e-9 {
            (lo, hi) = (lo / 1.5, hi * 1.5);
        }
        let mut fit = Self { lo, hi, scale, ticks: Vec::new() };
        fit.ticks = fit.make_ticks(axis.unit);
        Some(fit)
    }

    /// Widens the range by this share of its drawn length on both sides.
    pub fn pad(mut self, axis: &Axis, share: f64) -> Self {
        if self.scale == Scale::Linear {
            let by = (self.hi - self.lo) * share;
            // A quantity that is never negative should not get a negative tick from padding.
            let floor = if self.lo >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
            (self.lo, self.hi) = ((self.lo - by).max(floor), self.hi + by);
        } else {
            let by = (self.hi / self.lo).powf(share);
            (self.lo, self.hi) = (self.lo / by, self.hi * by);
        }
        self.ticks = self.make_ticks(axis.unit);
        self
    }

    /// Where a value lies, 0 (low end) to 1; beyond the range it is clamped.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.scale == Scale::Linear {
            (value - self.lo) / (self.hi - self.lo)
        } else if value <= 0.0 {
            0.0
        } else {
            (value / self.lo).ln() / (self.hi / self.lo).ln()
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Whether a value lies in the range.
    pub fn contains(&self, value: f64) -> bool {
        (self.lo..=self.hi).contains(&value)
    }

    fn make_ticks(&self, unit: Unit) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Log2 => self.powers_of_two(),
            Scale::Log => self.decades().unwrap_or_else(|| self.even(unit)),
            Scale::Linear => self.even(unit),
        }
    }

    fn powers_of_two(&self) -> Vec<(f64, String)> {
        let first = (self.lo.log2() - 1e-9).ceil() as i32;
        let last = (self.hi.log2() + 1e-9).floor() as i32;
        let every = ((last - first) / 8).max(0) as usize + 1;
        let ticks: Vec<_> = (first..=last)
            .step_by(every)
            .map(|p| 2f64.powi(p))
            .map(|v| (v, if v >= 1.0 { format_length(v as usize) } else { number(v, v) }))
            .collect();
        if ticks.len() >= 2 { ticks } else { self.even(Unit::Length) }
    }

    /// 1, 2, 5 of each decade, thinned to at most eight; `None` when the range holds fewer than three of them.
    fn decades(&self) -> Option<Vec<(f64, String)>> {
        let first = self.lo.log10().floor() as i32;
        let last = self.hi.log10().ceil() as i32;
        for digits in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let ticks: Vec<f64> = (first..=last)
                .flat_map(|p| digits.iter().map(move |d| d * 10f64.powi(p)))
                .filter(|v| (self.lo * (1.0 - 1e-9)..=self.hi * (1.0 + 1e-9)).contains(v))
                .collect();
            if ticks.len() < 3 {
                return None;
            }
            if ticks.len() <= 8 {
                return Some(ticks.into_iter().map(|v| (v, number(v, v))).collect());
            }
        }
        let every = ((last - first) as usize).div_ceil(7).max(1);
        let ticks = (first..=last).step_by(every).map(|p| 10f64.powi(p)).filter(|v| (self.lo..=self.hi).contains(v));
        Some(ticks.map(|v| (v, number(v, v))).collect())
    }

    fn even(&self, unit: Unit) -> Vec<(f64, String)> {
        let step = match unit {
            Unit::Number => nice_step((self.hi - self.lo) / 5.0),
            Unit::Length => ((self.hi - self.lo) / 5.0).max(1.0).log2().ceil().exp2(),
        };
        let first = (self.lo / step - 1e-9).ceil() as i64;
        let last = (self.hi / step + 1e-9).floor() as i64;
        (first..=last)
            .take(12)
            .map(|i| i as f64 * step)
            .map(|v| match unit {
                Unit::Length if v >= 0.0 => (v, format_length(v.round() as usize)),
                _ => (v, number(v, step)),
            })
            .collect()
    }
}

/// The step of 1, 2 or 5 times a power of ten that is nearest above.
fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|d| d * power >= rough * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * power
}

/// A tick label with the decimals its neighbours at distance `step` need.
fn number(v: f64, step: f64) -> String {
    let (size, step) = (v.abs(), step.abs());
    if v == 0.0 {
        return "0".into();
    }
    let (scaled, step, suffix) = match size {
        s if s < 1e-3 || s >= 1e12 => return exponent(v),
        s if s >= 1e9 => (v / 1e9, step / 1e9, "G"),
        s if s >= 1e6 => (v / 1e6, step / 1e6, "M"),
        s if s >= 1e4 || (s >= 1e3 && step >= 1e3) => (v / 1e3, step / 1e3, "k"),
        _ => (v, step, ""),
    };
    let decimals = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
    // 1.5-like steps cannot come from `nice_step`, so one decimal more is never needed.
    format!("{scaled:.decimals$}{suffix}")
}

fn exponent(v: f64) -> String {
    let short = format!("{v:.0e}");
    let exact = short.parse::<f64>().is_ok_and(|s| (s / v - 1.0).abs() < 1e-6);
    if exact { short } else { format!("{v:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, values: &[f64]) -> Vec<String> {
        let fit = Fit::new(axis, values.iter().copied()).expect("values are drawable");
        fit.ticks.into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_the_ones_a_person_would_choose() {
        assert_eq!(labels(&Axis::linear("x"), &[0.0, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Axis::linear("x"), &[0.0, 2e6]), ["0", "500k", "1M", "1.5M", "2M"].map(|s| s));
        assert_eq!(labels(&Axis::log("x"), &[4.0, 150.0]), ["5", "10", "20", "50", "100"]);
        assert_eq!(labels(&Axis::lengths("x"), &[512.0, 8192.0]), ["512", "1k", "2k", "4k", "8k"]);
        assert_eq!(labels(&Axis::linear("x"), &[0.0, 2e-5]), ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]);
    }

    #[test]
    fn any_two_values_make_a_readable_axis() {
        let odd = [0.0, -1.0, 1e-320, 1e-9, 3.3, 7.0, 1e29, -1e29, f64::NAN, f64::INFINITY];
        for a in odd {
            for b in odd {
                for axis in [Axis::linear("x"), Axis::log("x"), Axis::lengths("x")] {
                    let Some(fit) = Fit::new(&axis, [a, b]).map(|f| f.pad(&axis, 0.05)) else {
                        assert!(!drawable(a) && !drawable(b));
                        continue;
                    };
                    assert!(fit.ticks.len() <= 12, "{a} {b}: {:?}", fit.ticks);
                    assert!((0.0..=1.0).contains(&fit.at(a)) && fit.lo < fit.hi, "{a} {b}");
                }
            }
        }
    }
}
