//! As much filler as a length holds.

use std::ops::RangeInclusive;

use crate::error::Result;

/// The size in `sizes` at which a text has at most `budget` tokens and one size up has more; the largest size when all fit,
/// `None` when not even the smallest does.
///
/// Tokens grow nearly in proportion to the size, so a few counts are enough, each of which is an encoding of the whole text.
/// Where they shrink a little from one size to the next, any such place may be the answer.
pub fn fit(budget: usize, sizes: RangeInclusive<usize>, mut tokens: impl FnMut(usize) -> Result<usize>) -> Result<Option<usize>> {
    let (mut low, most) = sizes.into_inner();
    let mut at_low = tokens(low)?;
    if at_low > budget {
        return Ok(None);
    }
    let (mut high, mut at_high);
    let mut step = 64;
    loop {
        high = (low + step).min(most);
        at_high = tokens(high)?;
        if at_high > budget {
            break;
        }
        if high == most {
            return Ok(Some(most));
        }
        let per_size = (at_high as f64 - at_low as f64).max(0.1) / (high - low) as f64;
        // A little beyond where the budget should end, but never as far as a wrong slope says.
        step = (((budget - at_high) as f64 * 1.01 / per_size) as usize + 2).min(high * 64);
        (low, at_low) = (high, at_high);
    }
    while high - low > 1 {
        let width = high - low;
        // Where a straight line meets the budget, but not so near to an end that the other one would stay far away.
        let share = (budget - at_low) as f64 / (at_high - at_low) as f64;
        let margin = (width / 16).max(1);
        let middle = low + ((width as f64 * share) as usize).clamp(margin, width - margin);
        let there = tokens(middle)?;
        if there <= budget {
            (low, at_low) = (middle, there);
        } else {
            (high, at_high) = (middle, there);
        }
    }
    Ok(Some(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_is_the_last_size_within_the_budget_and_cheap() {
        for (budget, per_token) in [(10, 3), (1000, 4), (131_000, 5), (500_000, 1), (7, 1)] {
            let mut calls = 0;
            let tokens = |size: usize| {
                calls += 1;
                Ok(3 + size.div_ceil(per_token))
            };
            let size = fit(budget, 0..=10_000_000, tokens).unwrap().unwrap();
            assert_eq!(size, (budget - 3) * per_token, "{budget} tokens of {per_token}");
            assert!(calls <= 20, "{calls} calls for {budget} tokens of {per_token}");
        }
    }

    #[test]
    fn the_ends_are_respected() {
        let tokens = |size: usize| Ok(size * 2);
        assert_eq!(fit(9, 5..=100, tokens).unwrap(), None);
        assert_eq!(fit(11, 5..=100, tokens).unwrap(), Some(5));
        assert_eq!(fit(1000, 5..=100, tokens).unwrap(), Some(100));
        assert_eq!(fit(10, 5..=5, tokens).unwrap(), Some(5));
        assert_eq!(fit(10, 0..=100, |size| Ok(usize::from(size > 40) * 90)).unwrap(), Some(40));
    }
}
