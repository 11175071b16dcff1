//! Backends besides the CPU.

use ltrain::backend::{Device, Emu, EmuMode, Kernels};

/// Elements up to which the race detector watches every access: it is several times slower than the other modes.
const WATCHED: usize = 40_000;

/// An emulated device with memory without end.
pub fn emulated(mode: EmuMode) -> Device<Emu> {
    Device::new(Emu::new(mode), u64::MAX)
}

/// Every backend in reach for a test of that many elements, by name: the emulation in all its modes.
pub fn backends(elements: usize) -> Vec<(String, Box<dyn Kernels>)> {
    let late = (1..=3).map(|seed| EmuMode::Late { seed });
    let race = (elements <= WATCHED).then_some(EmuMode::Race);
    let modes = std::iter::once(EmuMode::Eager).chain(late).chain(race);
    modes.map(|mode| (format!("emu {mode:?}"), Box::new(emulated(mode)) as Box<dyn Kernels>)).collect()
}
