//! What a device can do wrong while it works.

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
    /// No memory is left.
    #[error("out of GPU memory: {} more are needed, {} of {} are in use", format_bytes(*wanted), format_bytes(*used), format_bytes(*limit))]
    Memory {
        /// The request that failed.
        wanted: u64,
        /// What is allocated.
        used: u64,
        /// What may be allocated.
        limit: u64,
    },
}

impl Explain for Fault {
    fn explain(&self) -> Explanation {
        match self {
            Self::Launch { reason, .. } | Self::Copy { reason, .. } => Explanation::new("E504")
                .fact(format!("driver: {reason}"))
                .help("checkpoints are intact: run the same command again; if it fails again, check `nvidia-smi` and `ltrain doctor`"),
            Self::Memory { .. } => {
                Explanation::new("E402").help("train on shorter chunks (--chunk), with --recompute layers, or on fewer rows at once (--micro-batch)")
            }
        }
    }
}
