//! Counter-based random numbers: every draw is a function of `(seed, stream, index)`, so a resumed run has nothing to restore.

/// Names the purpose of a stream, so that two purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Which positions a training row gets.
    Positions = 1,
    /// The order of the training rows within an epoch.
    Order = 2,
    /// Initial weights.
    Init = 3,
    /// Evaluation prompts.
    Eval = 4,
    /// Token sampling in `generate`.
    Sample = 5,
    /// Synthetic text.
    Text = 6,
    /// Inputs of benchmarks.
    Bench = 7,
    /// Rotation scales that rows or steps draw (E²-LLM).
    Scale = 8,
}

/// A small generator (SplitMix64) positioned by its three coordinates: with SplitMix64's increment `γ` and output function `mix`, it
/// starts from `mix(mix(mix(seed + γ) ^ stream·γ) ^ mix(index + γ))`, modulo 2^64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of draw `index` of `stream` under `seed`.
    pub fn at(seed: u64, stream: Stream, index: u64) -> Self {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut state = mix(seed.wrapping_add(GOLDEN));
        state = mix(state ^ (stream as u64).wrapping_mul(GOLDEN));
        Self(mix(state ^ mix(index.wrapping_add(GOLDEN))))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `0..n`: the upper 64 bits of `bits · n`; `n` must be positive.
    pub fn below(&mut self, n: u64) -> u64 {
        debug_assert!(n > 0, "below(0)");
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        debug_assert!(low <= high, "between({low}, {high})");
        low + self.below((high - low) as u64 + 1) as usize
    }

    /// Uniform in `[0, 1)`: the upper 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box–Muller; one of the pair is dropped).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher–Yates): each item from the last to the second changes places with one of `0..=its place`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_coordinate_and_on_nothing_else() {
        let first = |seed, stream, index| Rng::at(seed, stream, index).bits();
        assert_eq!(first(1, Stream::Order, 2), first(1, Stream::Order, 2));
        assert_ne!(first(1, Stream::Order, 2), first(2, Stream::Order, 2));
        assert_ne!(first(1, Stream::Order, 2), first(1, Stream::Init, 2));
        assert_ne!(first(1, Stream::Order, 2), first(1, Stream::Order, 3));
    }

    #[test]
    fn uniform_integers_fill_their_range_evenly() {
        let mut rng = Rng::at(7, Stream::Eval, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.between(3, 9) - 3] += 1;
        }
        // Each count is binomial(70000, 1/7): sigma = 93, so 500 is more than five of them.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 500), "{counts:?}");
    }
}
