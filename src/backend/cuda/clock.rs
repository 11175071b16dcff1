//! How long queued work takes, by the device's own clock.

use cudarc::driver::{CudaEvent, sys};

use super::super::device::Fault;
use super::super::gpu::{DeviceError, Version};
use super::Cuda;
use crate::error::Result;

/// First driver whose clock is read the way the bindings do.
const NEEDED: Version = Version { major: 12, minor: 8 };

fn reading(reason: String) -> Fault {
    Fault::Clock { reason }
}

impl Cuda {
    /// Seconds between the ends of calls that follow each other without a wait: events stand between them in the queue. When a
    /// call's work begins, the one before has just ended, so that what the host needs to queue it shows only where the device is
    /// faster than that.
    pub(super) fn timed_by_events(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        if self.driver < NEEDED {
            return Err(DeviceError::TooOld { supports: self.driver, needs: NEEDED }.into());
        }
        let new = |_| self.call(reading, |_| self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)));
        let marks = (0..=runs).map(new).collect::<std::result::Result<Vec<CudaEvent>, Fault>>()?;
        let mark = |i: usize| self.call(reading, |_| marks[i].record(&self.stream));
        mark(0)?;
        for i in 0..runs {
            work(i)?;
            mark(i + 1)?;
        }
        self.call(reading, |flight| self.wait(flight))?;
        let between = |pair: &[CudaEvent]| self.call(reading, |_| pair[0].elapsed_ms(&pair[1]));
        let seconds = |pair| between(pair).map(|ms| f64::from(ms) / 1e3);
        Ok(marks.windows(2).map(seconds).collect::<std::result::Result<_, Fault>>()?)
    }
}
