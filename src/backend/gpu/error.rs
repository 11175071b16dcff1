//! Why a GPU that was asked for is not used.

use super::{CAPABILITY, FOLDERS, Gpu, LIBRARY, Version};
use crate::error::{Explain, Explanation};
use crate::units::format_bytes;

/// The way out where `--gpus auto` finds nothing to use.
const WITHOUT: &str = "leave out --gpus to run on the CPU";
/// The way out where it finds something that does not work.
const ON_CPU: &str = "use --gpus 0 to run on the CPU";

/// A device that was asked for and cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
    /// The driver reports an error before any work was given to it.
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
    /// The driver is older than this program, or than the compiler of its kernels.
    #[error("driver supports CUDA {supports}, this build needs {needs} or newer")]
    TooOld {
        /// Newest CUDA version of the driver.
        supports: Version,
        /// Oldest that would do.
        needs: Version,
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
    /// The driver does not take the kernels of this build.
    #[error("the CUDA driver refuses the kernels of {file}.cu for {arch}")]
    Refused {
        /// The kernel file.
        file: &'static str,
        /// The architecture that was tried.
        arch: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// `--mem-limit` is more than there is.
    #[error("--mem-limit asks for {}, {gpu} has {} free", format_bytes(*asked), format_bytes(*free))]
    Limit {
        /// What was asked for.
        asked: u64,
        /// What is free.
        free: u64,
        /// The GPU's name.
        gpu: String,
    },
    /// More GPUs than one run can use.
    #[error("--gpus {asked} was given: this version trains on one device")]
    Several {
        /// What was asked for.
        asked: u32,
    },
    /// A kernel computes something else than the CPU.
    #[error("{op} on the GPU differs from the CPU: off by {error:.1e}, allowed {allowed:.1e}")]
    Wrong {
        /// The op.
        op: String,
        /// Largest difference, over the largest value.
        error: f64,
        /// What rounding explains.
        allowed: f64,
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
                e.help(format!(
                    "{WITHOUT}, or install the NVIDIA driver (525 or newer); the CUDA toolkit is not needed.\n\
                     In Docker start with: docker run --gpus all …"
                ))
            }
            Self::NoDevice { library, visible: Some(v) } => {
                e.fact(format!("{library}: works, but CUDA_VISIBLE_DEVICES is {v:?}")).help(format!(
                    "unset CUDA_VISIBLE_DEVICES or name a device in it (CUDA_VISIBLE_DEVICES=0), or {WITHOUT}"
                ))
            }
            Self::NoDevice { library, visible: None } => e.fact(format!("{library}: works, but reports no device")).help(format!(
                "check `nvidia-smi`; in a container pass the device on (docker run --gpus all …); or {WITHOUT}"
            )),
            Self::Driver { library, code: 2 } => e
                .fact(format!("from: {library}"))
                .help(format!("`nvidia-smi` shows who uses the GPU's memory; wait for it to end, or {ON_CPU}")),
            Self::Driver { library, code: 34 } => e.fact(format!("from: {library}, as LD_LIBRARY_PATH finds it")).help(format!(
                "take the toolkit's stubs folder (…/lib64/stubs) out of LD_LIBRARY_PATH: it is for linking, and hides the driver; or {ON_CPU}"
            )),
            Self::Driver { library, .. } => e
                .fact(format!("from: {library}"))
                .help(format!("check `nvidia-smi`: after a driver update a restart is needed; or {ON_CPU}")),
            Self::NotADriver { .. } => e.help(format!("reinstall the NVIDIA driver, or {ON_CPU}")),
            Self::TooOld { needs, .. } => e.help(format!(
                "install a newer NVIDIA driver ({} or newer), rebuild with an nvcc of the driver's version (LTRAIN_NVCC), or {WITHOUT}",
                driver_of(*needs)
            )),
            Self::TooSmall { .. } => e.help(WITHOUT),
            Self::NoKernels { gpu } => e.fact(format!("found: {gpu}")).help(format!(
                "rebuild where nvcc is found: LTRAIN_NVCC=$(scripts/setup_nvcc.sh) cargo build --release; or {WITHOUT}"
            )),
            Self::Refused { reason, .. } => e.fact(format!("driver: {reason}")).help(format!(
                "install a newer NVIDIA driver, rebuild with an nvcc of the driver's version (LTRAIN_NVCC), or {ON_CPU}"
            )),
            Self::Limit { .. } => {
                Explanation::new("E401").help("lower --mem-limit or leave it out; `nvidia-smi` shows who uses the GPU's memory")
            }
            Self::Several { .. } => Explanation::new("E502").help("use --gpus 1, or leave out --gpus to let ltrain choose"),
            Self::Wrong { .. } => Explanation::new("E505").help(
                "do not train on this GPU: check it with `nvidia-smi` and `ltrain doctor`, and report this with the latter's output",
            ),
        }
    }
}

/// First driver of a CUDA version.
fn driver_of(version: Version) -> &'static str {
    match version.major {
        ..=12 => "525",
        13 => "580",
        _ => "the newest",
    }
}

/// The driver's name of the codes that users meet.
fn name_of(code: i32) -> &'static str {
    match code {
        2 => " (CUDA_ERROR_OUT_OF_MEMORY: another process holds the GPU's memory)",
        34 => " (CUDA_ERROR_STUB_LIBRARY: the toolkit's stub, not the driver)",
        46 => " (CUDA_ERROR_DEVICE_UNAVAILABLE)",
        101 => " (CUDA_ERROR_INVALID_DEVICE)",
        801 => " (CUDA_ERROR_NOT_SUPPORTED: this GPU or driver has no memory pools)",
        802 => " (CUDA_ERROR_SYSTEM_NOT_READY: is the fabric manager running?)",
        803 => " (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: library and kernel module differ)",
        804 => " (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
        999 => " (CUDA_ERROR_UNKNOWN)",
        _ => "",
    }
}
