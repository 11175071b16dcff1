//! The learning rate as a pure function of the step.

use std::f64::consts::PI;
use std::str::FromStr;

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The peak until the end.
    Constant,
    /// A straight line down to the floor.
    Linear,
    /// Half a cosine down to the floor.
    Cosine,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            _ => Err(format!("expected constant, linear or cosine, got {text:?}")),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

/// Linear warm-up over `warmup` steps, then `shape` from `peak` to `floor·peak` at step `steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
    /// What follows the warm-up.
    pub shape: Shape,
    /// Last learning rate as a share of the peak; not used by [`Shape::Constant`].
    pub floor: f64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0: the first step of a warm-up of `w` uses `peak / w`.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let left = match self.shape {
            Shape::Constant => return self.peak,
            Shape::Linear => 1.0 - done,
            Shape::Cosine => 0.5 * (1.0 + (PI * done).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn the_peak_is_reached_at_the_end_of_the_warm_up_and_the_floor_at_the_end() {
        for shape in [Shape::Linear, Shape::Cosine] {
            let s = Schedule { peak: 2.0, warmup: 4, steps: 24, shape, floor: 0.1 };
            assert_eq!(s.at(0), 0.5);
            assert_eq!(s.at(3), 2.0);
            assert_eq!(s.at(4), 2.0);
            assert_relative_eq!(s.at(24), 0.2, max_relative = 1e-12);
            // Half way down at half time.
            assert_relative_eq!(s.at(14), 0.2 + 1.8 * 0.5, max_relative = 1e-12);
        }
    }
}
