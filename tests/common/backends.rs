//! Backends besides the CPU.

use std::sync::{Arc, OnceLock};

use ltrain::backend::gpu::{self, Gpus};
use ltrain::backend::{self, Device, Emu, EmuMode, Kernels};

/// Elements up to which the race detector watches every access: it is several times slower than the other modes.
const WATCHED: usize = 40_000;

/// Every way the emulation has of running a kernel, the race detector last.
pub const MODES: [EmuMode; 5] =
    [EmuMode::Eager, EmuMode::Late { seed: 1 }, EmuMode::Late { seed: 2 }, EmuMode::Late { seed: 3 }, EmuMode::Race];

/// An emulated device with memory without end.
pub fn emulated(mode: EmuMode) -> Device<Emu> {
    Device::new(Emu::new(mode), u64::MAX)
}

/// `LTRAIN_BACKENDS=cuda` leaves the emulation out and wants a GPU: for machines that are there for it.
pub fn gpu_alone() -> bool {
    std::env::var("LTRAIN_BACKENDS").is_ok_and(|only| only == "cuda")
}

/// This machine's GPU, started once.
fn gpu() -> Option<Arc<dyn Kernels>> {
    static GPU: OnceLock<Option<Arc<dyn Kernels>>> = OnceLock::new();
    let open = || match gpu::select(Gpus::Count(1)).and_then(|place| backend::open(&place, None)) {
        Ok(kernels) => Some(kernels.into()),
        Err(error) if gpu_alone() => panic!("{}", ltrain::error::Shown(&error)),
        Err(error) => {
            eprintln!("gpu tests: skipped ({error})");
            None
        }
    };
    GPU.get_or_init(open).clone()
}

/// The emulation in these modes, and the GPU where there is one, by name.
fn in_reach(modes: impl Iterator<Item = EmuMode>) -> Vec<(String, Arc<dyn Kernels>)> {
    let modes = modes.filter(|_| !gpu_alone());
    let emulations = modes.map(|mode| (format!("emu {mode:?}"), Arc::new(emulated(mode)) as Arc<dyn Kernels>));
    emulations.chain(gpu().map(|gpu| ("cuda".to_string(), gpu))).collect()
}

/// Every backend in reach for a test of that many elements: the emulation in all its modes, and the GPU.
pub fn backends(elements: usize) -> Vec<(String, Arc<dyn Kernels>)> {
    in_reach(MODES.into_iter().filter(|mode| *mode != EmuMode::Race || elements <= WATCHED))
}

/// One emulation and the GPU: for tests of whole models.
pub fn devices(mode: EmuMode) -> Vec<(String, Arc<dyn Kernels>)> {
    in_reach(std::iter::once(mode))
}
