//! Finding a GPU: the driver is opened at run time, so the same program starts on machines without one.

mod driver;

use std::str::FromStr;

use serde::Serialize;

use crate::error::{Explain, Explanation};
use crate::units::format_bytes;

pub use driver::probe;

/// Where the driver is looked for after the system's loader path.
const FOLDERS: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/cuda/compat", "/usr/lib/wsl/lib"];
/// The driver's file name.
const LIBRARY: &str = "libcuda.so.1";
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

/// Where a run happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The CPU backend.
    Cpu {
        /// Why, for the first screen.
        reason: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu { reason } => write!(f, "cpu ({reason})"),
        }
    }
}

/// A device that was asked for and is not there. `asked` is what `--gpus` said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The driver's library cannot be opened.
    #[error("--gpus 1 was given, but no usable CUDA device was found")]
    NoDriver {
        /// Files that exist and the loader's reason for refusing them.
        refused: Vec<String>,
    },
    /// The driver starts and drives nothing.
    #[error("--gpus 1 was given, but no usable CUDA device was found")]
    NoDevice {
        /// The library that was opened.
        library: String,
        /// `CUDA_VISIBLE_DEVICES`, if set.
        visible: Option<String>,
    },
    /// The driver reports an error.
    #[error("the CUDA driver does not start: error {code}{}", name_of(*code))]
    Driver {
        /// The library that was opened.
        library: String,
        /// The driver's code.
        code: i32,
    },
    /// The library lacks a function that every driver has.
    #[error("{library:?} is not a CUDA driver: it has no {function}")]
    NotADriver {
        /// The library that was opened.
        library: String,
        /// What it lacks.
        function: &'static str,
    },
    /// The driver is older than this program.
    #[error("driver supports CUDA {supports}, this build needs {NEEDED} or newer")]
    TooOld {
        /// Newest CUDA version of the driver.
        supports: Version,
    },
    /// Every GPU is older than the kernels.
    #[error("{gpu} is too old: expected compute capability {CAPABILITY} or newer")]
    TooSmall {
        /// The best one.
        gpu: Gpu,
    },
    /// A GPU is there and this build has nothing to run on it.
    #[error("this build has no GPU kernels")]
    NoKernels {
        /// The first GPU.
        gpu: Gpu,
    },
    /// More GPUs than one run can use.
    #[error("--gpus {asked} was given: this version trains on one device")]
    Several {
        /// What was asked for.
        asked: u32,
    },
}

impl DeviceError {
    /// The sentence's short form, for `device cpu (…)`.
    pub fn reason(&self) -> String {
        match self {
            Self::NoDriver { refused } if refused.is_empty() => format!("no CUDA driver: {LIBRARY} not found"),
            Self::NoDriver { refused } => format!("no CUDA driver: {}", refused[0]),
            Self::NoDevice { visible: Some(v), .. } => format!("the CUDA driver shows no device: CUDA_VISIBLE_DEVICES={v:?}"),
            Self::NoDevice { .. } => "the CUDA driver shows no device".into(),
            Self::NoKernels { gpu } => format!("{} found, but this build has no GPU kernels", gpu.name),
            other => other.to_string(),
        }
    }
}

impl Explain for DeviceError {
    fn explain(&self) -> Explanation {
        let e = Explanation::new("E501");
        match self {
            Self::NoDriver { refused } => {
                let searched = format!("{LIBRARY}: not found (searched: system loader path, {})", FOLDERS.join(", "));
                let e = match refused.is_empty() {
                    true => e.fact(searched),
                    false => refused.iter().fold(e, |e, line| e.fact(line)),
                };
                e.help(
                    "leave out --gpus to run on the CPU, or install the NVIDIA driver (525 or newer); the CUDA toolkit is not needed.\n\
                     In Docker start with: docker run --gpus all …",
                )
            }
            Self::NoDevice { library, visible: Some(v) } => e
                .fact(format!("{library}: works, but CUDA_VISIBLE_DEVICES is {v:?}"))
                .help("unset CUDA_VISIBLE_DEVICES or name a device in it (CUDA_VISIBLE_DEVICES=0), or leave out --gpus to run on the CPU"),
            Self::NoDevice { library, visible: None } => e
                .fact(format!("{library}: works, but reports no device"))
                .help("check `nvidia-smi`; in a container pass the device on (docker run --gpus all …); or leave out --gpus to run on the CPU"),
            Self::Driver { library, .. } => e
                .fact(format!("from: {library}"))
                .help("check `nvidia-smi`: after a driver update a restart is needed; or leave out --gpus to run on the CPU"),
            Self::NotADriver { .. } => {
                e.help("reinstall the NVIDIA driver, or leave out --gpus to run on the CPU")
            }
            Self::TooOld { .. } => e.help("install a newer NVIDIA driver (525 or newer), or leave out --gpus to run on the CPU"),
            Self::TooSmall { .. } => e.help("leave out --gpus to run on the CPU"),
            Self::NoKernels { gpu } => e
                .fact(format!("found: {gpu}"))
                .help("leave out --gpus to run on the CPU; GPU kernels come with a later version"),
            Self::Several { .. } => Explanation::new("E502").help("use --gpus 1, or leave out --gpus to let ltrain choose"),
        }
    }
}

/// The driver's name of the codes that users meet.
fn name_of(code: i32) -> &'static str {
    match code {
        34 => " (CUDA_ERROR_STUB_LIBRARY: the toolkit's stub, not the driver)",
        46 => " (CUDA_ERROR_DEVICE_UNAVAILABLE)",
        101 => " (CUDA_ERROR_INVALID_DEVICE)",
        802 => " (CUDA_ERROR_SYSTEM_NOT_READY: is the fabric manager running?)",
        803 => " (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: library and kernel module differ)",
        804 => " (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
        999 => " (CUDA_ERROR_UNKNOWN)",
        _ => "",
    }
}

/// Chooses where to run: an explicit number of GPUs never falls back to the CPU, `auto` says why it did.
///
/// # Errors
/// [`DeviceError`] when a GPU was asked for and none can be used.
pub fn select(gpus: Gpus) -> crate::Result<Place> {
    match gpus {
        Gpus::Count(0) => Ok(Place::Cpu { reason: "--gpus 0".into() }),
        Gpus::Count(asked) if asked > 1 => Err(DeviceError::Several { asked }.into()),
        Gpus::Count(_) => Err(unusable(&probe()?).into()),
        Gpus::Auto => {
            let error = probe().map_or_else(|e| e, |driver| unusable(&driver));
            Ok(Place::Cpu { reason: error.reason() })
        }
    }
}

/// Why this build cannot use the best GPU of a working driver.
pub fn unusable(driver: &Driver) -> DeviceError {
    let best = driver.gpus.iter().max_by_key(|gpu| gpu.capability);
    match best.expect("gpu: a probed driver has a GPU").clone() {
        gpu if gpu.capability < CAPABILITY => DeviceError::TooSmall { gpu },
        gpu => DeviceError::NoKernels { gpu },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(major: u32) -> Gpu {
        Gpu { name: "NVIDIA Test".into(), capability: Version { major, minor: 5 }, memory: 80 << 30 }
    }

    #[test]
    fn the_best_gpu_decides_what_is_said() {
        let driver = |gpus| Driver { library: LIBRARY.into(), cuda: NEEDED, gpus };
        assert_eq!(unusable(&driver(vec![gpu(7)])), DeviceError::TooSmall { gpu: gpu(7) });
        assert_eq!(unusable(&driver(vec![gpu(7), gpu(9)])), DeviceError::NoKernels { gpu: gpu(9) });
    }

    #[test]
    fn every_error_has_a_code_of_the_device_class_and_a_way_out() {
        let errors = [
            DeviceError::NoDriver { refused: vec![] },
            DeviceError::NoDriver { refused: vec!["/usr/lib64/libcuda.so.1: wrong ELF class".into()] },
            DeviceError::NoDevice { library: LIBRARY.into(), visible: Some(String::new()) },
            DeviceError::NoDevice { library: LIBRARY.into(), visible: None },
            DeviceError::Driver { library: LIBRARY.into(), code: 803 },
            DeviceError::NotADriver { library: LIBRARY.into(), function: "cuInit" },
            DeviceError::TooOld { supports: Version { major: 11, minor: 8 } },
            DeviceError::TooSmall { gpu: gpu(7) },
            DeviceError::NoKernels { gpu: gpu(9) },
            DeviceError::Several { asked: 2 },
        ];
        for error in errors {
            let explanation = error.explain();
            assert_eq!(explanation.exit_code(), 5, "{error:?}");
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
