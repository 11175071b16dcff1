//! Finding a GPU: the driver is opened at run time, so the same program starts on machines without one.

mod driver;
mod error;

use std::str::FromStr;

use serde::Serialize;

use super::device::{IMAGES, Image};
use crate::units::format_bytes;

pub use driver::probe;
pub use error::DeviceError;

/// Where the driver is looked for after the system's loader path.
const FOLDERS: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/cuda/compat", "/usr/lib/wsl/lib"];
/// The driver's file name.
const LIBRARY: &str = "libcuda.so.1";
/// Names that the loader is asked for, in the order in which [`cudarc`] does it later: what is probed is what will be used. The
/// first is for linking; where it exists it leads to the driver, or to the toolkit's stub.
const NAMES: [&str; 2] = ["libcuda.so", LIBRARY];
/// Oldest CUDA version whose driver interface is used.
const NEEDED: Version = Version { major: 12, minor: 0 };
/// Oldest compute capability.
const CAPABILITY: Version = Version { major: 8, minor: 0 };

/// A CUDA version or a compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version {
    /// Before the point.
    pub major: u32,
    /// After the point.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number in the driver's order.
    pub ordinal: u32,
    /// Marketing name.
    pub name: String,
    /// Compute capability.
    pub capability: Version,
    /// Memory in bytes.
    pub memory: u64,
}

impl std::fmt::Display for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (compute capability {}, {})", self.name, self.capability, format_bytes(self.memory))
    }
}

/// A working driver and what it drives; at least one GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// The library that was opened.
    pub library: String,
    /// Newest CUDA version it supports.
    pub cuda: Version,
    /// The GPUs, in the driver's order.
    pub gpus: Vec<Gpu>,
}

/// What [`probe`] finds.
pub type GpuStatus = Result<Driver, DeviceError>;

/// `--gpus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gpus {
    /// One GPU where one can be used, else the CPU.
    #[default]
    Auto,
    /// This many; 0 is the CPU.
    Count(u32),
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Count).map_err(|_| format!("expected auto or a number of GPUs, got {text:?}")),
        }
    }
}

impl std::fmt::Display for Gpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(n) => write!(f, "{n}"),
        }
    }
}

/// A GPU that this build's kernels run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usable {
    /// The GPU.
    pub gpu: Gpu,
    /// Architecture of the kernels that it runs, as in [`Image::arch`].
    pub arch: &'static str,
    /// Newest CUDA version of its driver.
    pub cuda: Version,
    /// The driver's library.
    pub library: String,
}

impl std::fmt::Display for Usable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gpu {}: {}, driver for CUDA {}, kernels for {}", self.gpu.ordinal, self.gpu, self.cuda, self.arch)
    }
}

/// Where a run happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The CPU backend.
    Cpu {
        /// Why, for the first screen.
        reason: String,
    },
    /// A GPU.
    Gpu(Usable),
}

impl Place {
    /// Its name: results of two places of one name can be compared.
    pub fn name(&self) -> &str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Gpu(usable) => &usable.gpu.name,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu { reason } => write!(f, "cpu ({reason})"),
            Self::Gpu(usable) => usable.fmt(f),
        }
    }
}

/// Chooses where to run: an explicit number of GPUs never falls back to the CPU, `auto` says why it did.
///
/// # Errors
/// [`DeviceError`] when a GPU was asked for and none can be used.
pub fn select(gpus: Gpus) -> crate::Result<Place> {
    let found = || usable(&probe()?, IMAGES);
    match gpus {
        Gpus::Count(0) => Ok(Place::Cpu { reason: "--gpus 0".into() }),
        Gpus::Count(asked) if asked > 1 => Err(DeviceError::Several { asked }.into()),
        Gpus::Count(_) => Ok(Place::Gpu(found()?)),
        Gpus::Auto => Ok(found().map_or_else(|error| Place::Cpu { reason: error.reason() }, Place::Gpu)),
    }
}

/// The first GPU of a working driver that can run these kernels.
///
/// # Errors
/// Why the newest GPU cannot, when none can.
pub fn usable(driver: &Driver, images: &[Image]) -> Result<Usable, DeviceError> {
    let newest = driver.gpus.iter().max_by_key(|gpu| gpu.capability).expect("gpu: a probed driver has a GPU");
    let first = driver.gpus.iter().find(|gpu| fits(gpu, driver.cuda, images).is_ok()).unwrap_or(newest);
    let arch = fits(first, driver.cuda, images)?;
    Ok(Usable { gpu: first.clone(), arch, cuda: driver.cuda, library: driver.library.clone() })
}

/// The architecture of the kernels that this GPU runs under a driver for this CUDA version.
fn fits(gpu: &Gpu, cuda: Version, images: &[Image]) -> Result<&'static str, DeviceError> {
    let Some(arch) = arch_of(gpu.capability) else { return Err(DeviceError::TooSmall { gpu: gpu.clone() }) };
    if !images.iter().any(|image| image.arch == arch) {
        return Err(DeviceError::NoKernels { gpu: gpu.clone() });
    }
    // A driver takes machine code of any compiler of its generation, but PTX of no newer one than itself.
    let needs = toolkit(images).map(|t| if arch.starts_with("sm_") { Version { minor: 0, ..t } } else { t });
    match needs {
        Some(needs) if cuda < needs => Err(DeviceError::TooOld { supports: cuda, needs }),
        _ => Ok(arch),
    }
}

/// Machine code where this build has some for the generation, else PTX, which the driver compiles.
fn arch_of(capability: Version) -> Option<&'static str> {
    match (capability.major, capability.minor) {
        (8, _) => Some("sm_80"),
        (9, 0) => Some("sm_90a"),
        (9.., _) => Some("compute_90"),
        _ => None,
    }
}

/// The CUDA version of the nvcc that made the kernels, from the comment that opens its PTX.
pub fn toolkit(images: &[Image]) -> Option<Version> {
    let ptx = images.iter().find(|image| image.arch.starts_with("compute_"))?;
    let head = String::from_utf8_lossy(&ptx.code[..ptx.code.len().min(1000)]);
    let (major, rest) = head.split("release ").nth(1)?.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Explain;

    const V: fn(u32, u32) -> Version = |major, minor| Version { major, minor };

    fn gpu(major: u32, minor: u32) -> Gpu {
        Gpu { ordinal: major, name: "NVIDIA Test".into(), capability: V(major, minor), memory: 80 << 30 }
    }

    fn driver(cuda: Version, gpus: Vec<Gpu>) -> Driver {
        Driver { library: LIBRARY.into(), cuda, gpus }
    }

    const BUILT: [Image; 3] = [
        Image { file: "a", arch: "sm_80", code: b"" },
        Image { file: "a", arch: "sm_90a", code: b"" },
        Image { file: "a", arch: "compute_90", code: b"//\n// Cuda compilation tools, release 13.1, V13.1.80\n" },
    ];

    #[test]
    fn machine_code_runs_within_its_generation_and_ptx_on_newer_ones() {
        for (capability, arch) in
            [(V(8, 0), "sm_80"), (V(8, 9), "sm_80"), (V(9, 0), "sm_90a"), (V(10, 0), "compute_90"), (V(12, 1), "compute_90")]
        {
            let found = usable(&driver(V(13, 1), vec![gpu(capability.major, capability.minor)]), &BUILT).unwrap();
            assert_eq!(found.arch, arch, "{capability}");
        }
    }

    #[test]
    fn the_first_gpu_that_can_is_used_and_the_newest_decides_what_is_said() {
        let found = usable(&driver(V(13, 1), vec![gpu(7, 5), gpu(8, 6), gpu(9, 0)]), &BUILT).unwrap();
        assert_eq!(found.gpu, gpu(8, 6));
        let old = driver(V(13, 1), vec![gpu(7, 0), gpu(7, 5)]);
        assert_eq!(usable(&old, &BUILT), Err(DeviceError::TooSmall { gpu: gpu(7, 5) }));
        let good = driver(V(13, 1), vec![gpu(7, 5), gpu(9, 0)]);
        assert_eq!(usable(&good, &[]), Err(DeviceError::NoKernels { gpu: gpu(9, 0) }));
    }

    #[test]
    fn the_driver_must_know_the_compiler_of_the_kernels() {
        let on = |cuda, major| usable(&driver(cuda, vec![gpu(major, 0)]), &BUILT);
        let old = |supports, needs| Err(DeviceError::TooOld { supports, needs });
        assert_eq!(on(V(12, 9), 8), old(V(12, 9), V(13, 0)));
        assert!(on(V(13, 0), 8).is_ok(), "machine code of the same generation");
        assert_eq!(on(V(13, 0), 10), old(V(13, 0), V(13, 1)));
        assert!(on(V(14, 0), 10).is_ok());
    }

    #[test]
    fn every_error_has_a_code_of_its_class_and_a_way_out() {
        let errors = [
            (5, DeviceError::NoDriver { refused: vec![] }),
            (5, DeviceError::NoDriver { refused: vec!["/usr/lib64/libcuda.so.1: wrong ELF class".into()] }),
            (5, DeviceError::NoDevice { library: LIBRARY.into(), visible: Some(String::new()) }),
            (5, DeviceError::NoDevice { library: LIBRARY.into(), visible: None }),
            (5, DeviceError::Driver { library: LIBRARY.into(), code: 803 }),
            (5, DeviceError::NotADriver { library: LIBRARY.into(), function: "cuInit" }),
            (5, DeviceError::TooOld { supports: V(11, 8), needs: NEEDED }),
            (5, DeviceError::TooSmall { gpu: gpu(7, 5) }),
            (5, DeviceError::NoKernels { gpu: gpu(9, 0) }),
            (5, DeviceError::Refused { file: "rope", arch: "sm_80", reason: "CUDA_ERROR_INVALID_IMAGE".into() }),
            (4, DeviceError::Limit { asked: 80 << 30, free: 79 << 30, gpu: "NVIDIA Test".into() }),
            (5, DeviceError::Several { asked: 2 }),
            (5, DeviceError::Wrong { op: "rope".into(), error: 0.5, allowed: 0.1 }),
        ];
        for (class, error) in errors {
            let explanation = error.explain();
            assert_eq!(explanation.exit_code(), class, "{error:?}");
            assert!(explanation.help.is_some() && !error.reason().is_empty(), "{error:?}");
        }
    }

    #[test]
    fn numbers_of_gpus_read_back() {
        for gpus in [Gpus::Auto, Gpus::Count(0), Gpus::Count(1)] {
            assert_eq!(gpus.to_string().parse(), Ok(gpus));
        }
        assert!("-1".parse::<Gpus>().is_err());
    }
}
