//! What a device can do wrong while it works.

use super::{Purpose, Usage};
use crate::error::{Explain, Explanation};
use crate::units::format_bytes;

/// A device that fails in the middle of its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kernel did not start, or stopped.
    #[error("the GPU kernel {kernel} failed on a grid of {}×{}×{}", grid[0], grid[1], grid[2])]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Its grid.
        grid: [u32; 3],
        /// What the driver said.
        reason: String,
    },
    /// A kernel that this GPU cannot run, now or later.
    #[error("the GPU kernel {kernel} does not run on this GPU")]
    Unfit {
        /// The kernel.
        kernel: &'static str,
        /// What it lacks.
        reason: String,
    },
    /// The device stopped while kernels were running. Kernels run after they are queued, so that the last one queued need not
    /// be the one that failed.
    #[error("the GPU stopped; the kernel queued last is {kernel} on a grid of {}×{}×{}", grid[0], grid[1], grid[2])]
    Stopped {
        /// The kernel.
        kernel: &'static str,
        /// Its grid.
        grid: [u32; 3],
        /// What the driver said.
        reason: String,
    },
    /// A copy between host and device failed.
    #[error("could not {action} {} of GPU memory", format_bytes(*bytes))]
    Copy {
        /// The verb.
        action: &'static str,
        /// How much.
        bytes: u64,
        /// What the driver said.
        reason: String,
    },
    /// The device does not say how long its work took.
    #[error("could not read the GPU's clock")]
    Clock {
        /// What the driver said.
        reason: String,
    },
    /// The driver has no memory left. The meter, which knows who holds it, makes [`Memory`](Self::Memory) of this.
    #[error("the GPU has no {} left", format_bytes(*bytes))]
    Refused {
        /// The request that failed.
        bytes: u64,
        /// What the driver said.
        reason: String,
    },
    /// No memory is left.
    #[error(
        "out of GPU memory: {} more are needed, {} of {} are in use",
        format_bytes(*wanted),
        format_bytes(usage.used.iter().sum()),
        format_bytes(usage.limit)
    )]
    Memory {
        /// The request that failed.
        wanted: u64,
        /// What is and may be in use.
        usage: Usage,
        /// What the driver said, where it refused what the limit allows.
        refused: Option<String>,
    },
}

impl Fault {
    /// Whether the device answers nothing after it: the driver ends the context of a process in which one of its calls failed.
    pub fn ends_the_device(&self) -> bool {
        match self {
            Self::Launch { .. } | Self::Stopped { .. } | Self::Copy { .. } | Self::Clock { .. } => true,
            Self::Unfit { .. } | Self::Refused { .. } | Self::Memory { .. } => false,
        }
    }
}

/// The way out where nothing trains.
const LESS: &str =
    "use shorter lengths, leave out --mem-limit, or use --gpus 0 to run on the CPU; `nvidia-smi` shows who else uses the GPU";

impl Explain for Fault {
    fn explain(&self) -> Explanation {
        let again = "run the same command again; if it fails again, check `nvidia-smi` and `ltrain doctor`";
        match self {
            Self::Launch { reason, .. } | Self::Copy { reason, .. } | Self::Clock { reason } => {
                Explanation::new("E504").fact(format!("driver: {reason}")).help(again)
            }
            Self::Unfit { reason, .. } => Explanation::new("E503").fact(reason).help(
                "use --gpus 0 to run on the CPU; `ltrain doctor` lists the kernels of this build and what they are compiled for",
            ),
            Self::Stopped { reason, .. } => Explanation::new("E504")
                .fact(format!("driver: {reason}"))
                .fact("it failed itself, or one that was queued before it did")
                .help(format!("{again}. With CUDA_LAUNCH_BLOCKING=1 in the environment the kernel that failed is named")),
            Self::Refused { reason, .. } => Explanation::new("E402").fact(format!("driver: {reason}")).help(LESS),
            Self::Memory { usage, refused, .. } => {
                let held = Purpose::ALL.into_iter().filter(|p| usage.used[*p as usize] > 0);
                let e = held.fold(Explanation::new("E402"), |e, purpose| {
                    e.fact(format!("{:<32} {:>10}", purpose.name(), format_bytes(usage.used[purpose as usize])))
                });
                let e = refused.iter().fold(e, |e, reason| e.fact(format!("driver: {reason}, within the limit")));
                e.help(LESS)
            }
        }
    }
}
