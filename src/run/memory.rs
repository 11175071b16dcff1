//! How much memory a run takes, part by part: what an evaluation took says nothing about training.

use std::cell::Cell;

use crate::backend::Kernels;

/// The device's memory, or this process's where there is no device.
pub struct Memory<'a> {
    kernels: &'a dyn Kernels,
    most: Cell<u64>,
}

impl<'a> Memory<'a> {
    /// Counts from now on.
    pub fn new(kernels: &'a dyn Kernels) -> Self {
        kernels.take_peak();
        Self { kernels, most: Cell::new(0) }
    }

    /// Ends a part of the run: most that was in use at once since the last one ended. A process's memory is counted from its
    /// start; the system knows no parts.
    pub fn part(&self) -> u64 {
        let peak = self.kernels.take_peak().unwrap_or_else(process_peak);
        self.most.set(self.most.get().max(peak));
        peak
    }

    /// Most that was in use at once in any part.
    pub fn most(&self) -> u64 {
        self.part();
        self.most.get()
    }
}

/// 0 where the system does not say.
fn process_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(0, |k| k * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Device, Meta};

    #[test]
    fn parts_are_counted_by_themselves_and_what_came_before_is_none() {
        let device = Device::new(Meta::default(), u64::MAX);
        // As by the comparison of kernels with the CPU.
        drop(device.reserve([5000]).unwrap());
        let memory = Memory::new(&device);
        drop(device.reserve([1000]).unwrap());
        assert_eq!(memory.part(), 2048);
        let _kept = device.reserve([500]).unwrap();
        assert_eq!(memory.part(), 1024);
        assert_eq!(memory.most(), 2048);
    }
}
