//! Verifies an op, then times it.

use super::dims::Dims;
use super::inputs::{Inputs, Values};
use super::op::{Call, Op};
use crate::backend::device::Fault;
use crate::backend::selftest::difference;
use crate::backend::{Cpu, Device, Kernels, Meta};
use crate::error::{Error, Explain, Result};
use crate::tensor::{Tensor, TensorError};

/// Bytes of inputs and outputs that calls take turns on: more than three times the largest L2 of a GPU, so that none of it is
/// still there when its turn comes again.
const ROTATED: u64 = 256 << 20;
/// Most sets of inputs to take turns on.
const MOST_SETS: u64 = 64;
/// Calls before any counts.
const WARM_UP: usize = 3;
/// Fewest calls that count; as many as fit where one takes long.
const FEWEST: usize = 20;
const FEWEST_LONG: usize = 5;
const MOST: usize = 500;

/// Seconds of one call, sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct Times(Vec<f64>);

impl Times {
    fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// Calls.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// The time below which this share of calls stayed.
    pub fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }

    /// Half of the calls were faster.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// What came of one op at one size.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is right and takes this long.
    Timed(Times),
    /// Its inputs and results have no room.
    TooLarge {
        /// Bytes that they take.
        needs: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A result differs from the CPU's. Nothing was timed.
    Wrong {
        /// The result's number.
        output: usize,
        /// Largest difference over the CPU's largest value; infinite where one of them is not finite.
        error: f64,
        /// What roundings explain.
        allowed: f64,
    },
    /// The kernels do not work at this size, or not on this device. Nothing is wrong with what they do elsewhere.
    Refused(String),
    /// The backend failed, and can go on.
    Failed(String),
    /// The device stopped at it: nothing after it can be measured by this process.
    Lost(String),
}

/// What all measurements share.
pub struct Bench<'a> {
    /// What is measured.
    pub kernels: &'a dyn Kernels,
    /// What inputs are made of.
    pub values: &'a Values,
    /// Bytes that may be used.
    pub limit: u64,
    /// About how long each op is timed.
    pub seconds: f64,
}

impl Bench<'_> {
    /// Compares an op with the CPU on a small case; what came of it unless it is right.
    pub fn verify(&self, op: &Op, dims: &Dims) -> Option<Outcome> {
        self.verified(op, &dims.small()).unwrap_or_else(|error| Some(of(error)))
    }

    /// Times an op. A fault is its outcome. Whether another op can be measured after it is the fault's to say: one of the driver
    /// is the last that this process hears of the device.
    pub fn time(&self, op: &Op, dims: &Dims) -> Outcome {
        self.timed(op, dims).unwrap_or_else(of)
    }

    fn verified(&self, op: &Op, dims: &Dims) -> Result<Option<Outcome>> {
        let run = |kernels: &dyn Kernels| (op.inputs)(&Inputs::new(kernels, self.values), dims)?(kernels);
        let (want, got) = (run(&Cpu)?, run(self.kernels)?);
        assert_eq!([want.len(), got.len()], [op.allowed.len(); 2], "bench: results of {op:?}");
        for (output, ((got, want), &allowed)) in got.iter().zip(&want).zip(&op.allowed).enumerate() {
            let error = difference(got, want)?;
            if error > allowed {
                return Ok(Some(Outcome::Wrong { output, error, allowed }));
            }
        }
        Ok(None)
    }

    fn timed(&self, op: &Op, dims: &Dims) -> Result<Outcome> {
        let needs = needs(op, dims)?;
        if needs > self.limit {
            return Ok(Outcome::TooLarge { needs, free: self.limit });
        }
        let inputs = Inputs::new(self.kernels, self.values);
        let mut sets = vec![Set::new((op.inputs)(&inputs, dims)?)];
        let calls = |sets: &mut [Set], count: usize| -> Result<Times> {
            let turns = sets.len();
            Ok(Times::new(self.kernels.timed(count, &mut |i| sets[i % turns].call(self.kernels))?))
        };
        let first = calls(&mut sets, 1)?.median();
        let once = if first > self.seconds { first } else { calls(&mut sets, WARM_UP)?.at(0.0) };
        let fewest = if once * FEWEST as f64 <= 4.0 * self.seconds { FEWEST } else { FEWEST_LONG };
        let runs = ((self.seconds / once.max(1e-9)) as usize).clamp(fewest, MOST);
        let turns = ROTATED.div_ceil(needs.max(1)).min(self.limit / needs.max(1)).min(MOST_SETS).min(runs as u64);
        for _ in 1..turns {
            sets.push(Set::new((op.inputs)(&inputs, dims)?));
        }
        let turns = sets.len();
        calls(&mut sets, turns.max(WARM_UP))?;
        Ok(Outcome::Timed(calls(&mut sets, runs)?))
    }
}

/// What an error makes of a measurement.
fn of(error: Error) -> Outcome {
    match &error {
        Error::Fault(Fault::Memory { wanted, usage, .. }) => {
            Outcome::TooLarge { needs: usage.used.iter().sum::<u64>() + wanted, free: usage.limit }
        }
        Error::Fault(Fault::Unfit { .. }) | Error::Tensor(TensorError::Extent { .. }) => Outcome::Refused(told(&error)),
        Error::Fault(fault) if fault.ends_the_device() => Outcome::Lost(told(&error)),
        _ => Outcome::Failed(told(&error)),
    }
}

/// An error's sentence and facts in one line: a row has no room for its help.
fn told(error: &Error) -> String {
    std::iter::once(error.to_string()).chain(error.explain().facts).collect::<Vec<_>>().join("; ")
}

/// Inputs of one call and what came of it last, which stays as long as it would in training: the memory that the next call gets
/// is not the memory that this one still has in the cache.
struct Set {
    call: Call,
    last: Vec<Tensor>,
}

impl Set {
    fn new(call: Call) -> Self {
        Self { call, last: Vec::new() }
    }

    fn call(&mut self, kernels: &dyn Kernels) -> Result<()> {
        // First, so that what is changed in place has one owner.
        self.last.clear();
        self.last = (self.call)(kernels)?;
        Ok(())
    }
}

/// Bytes that one call takes at most, by making it on a device that only counts.
fn needs(op: &Op, dims: &Dims) -> Result<u64> {
    let device = Device::new(Meta::default(), u64::MAX);
    Set::new((op.inputs)(&Inputs::counted(&device), dims)?).call(&device)?;
    // It counts bf16 where the CPU has f32; what is f32 on both counts twice there.
    Ok(device.launcher().usage().peak() * dims.element as u64 / 2)
}
