//! What this machine has, and what of it ltrain can use.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::backend::gpu;
use crate::cli::DoctorArgs;
use crate::units::format_bytes;

/// One architecture: its class in `config.json` and what it needs.
const ARCHITECTURES: [(&str, &str); 4] = [
    ("LlamaForCausalLM", "rope default, linear, dynamic, yarn or llama3; biases as config.json says"),
    ("MistralForCausalLM", "sliding_window null"),
    ("Qwen2ForCausalLM", "use_sliding_window false; biases on q, k and v"),
    ("Qwen3ForCausalLM", "use_sliding_window false; a norm on every query and key head"),
];

/// The findings; an absent one could not be read.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of ltrain.
    pub version: &'static str,
    /// Operating system and instruction set.
    pub platform: String,
    /// The CPU.
    pub cpu: Cpu,
    /// Main memory in bytes.
    pub memory: Option<Memory>,
    /// Free bytes of the disk that the current folder is on.
    pub disk_free: Option<u64>,
    /// The CUDA driver and its GPUs.
    pub driver: Option<gpu::Driver>,
    /// Why no GPU is used.
    pub gpu_unused: String,
    /// GPU architectures that this build has kernels for.
    pub kernels: &'static [&'static str],
}

/// The CPU.
#[derive(Debug, Clone, Serialize)]
pub struct Cpu {
    /// Its name.
    pub model: Option<String>,
    /// Widest vector instructions.
    pub simd: &'static str,
    /// Threads that this process may use.
    pub threads: usize,
}

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What a new process can have without swapping.
    pub free: u64,
}

impl Report {
    /// Looks around.
    pub fn collect() -> Self {
        let probe = gpu::probe();
        let reason = match &probe {
            Ok(driver) => gpu::unusable(driver).reason(),
            Err(error) => error.reason(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: Cpu {
                model: proc_value("/proc/cpuinfo", "model name"),
                simd: simd(),
                threads: std::thread::available_parallelism().map_or(1, usize::from),
            },
            memory: memory(),
            disk_free: disk_free(Path::new(".")),
            driver: probe.ok(),
            gpu_unused: reason,
            kernels: &[],
        }
    }

    fn table(&self) -> String {
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
        let mut rows = vec![
            ("ltrain", format!("{} ({})", self.version, self.platform)),
            ("cpu", format!("{}, {}, {} threads", or_unknown(self.cpu.model.clone()), self.cpu.simd, self.cpu.threads)),
            ("memory", or_unknown(self.memory.map(|m| format!("{} free of {}", format_bytes(m.free), format_bytes(m.total))))),
            ("disk", or_unknown(self.disk_free.map(|free| format!("{} free here", format_bytes(free))))),
        ];
        if let Some(driver) = &self.driver {
            rows.push(("driver", format!("CUDA {} ({})", driver.cuda, driver.library)));
            rows.extend(driver.gpus.iter().map(|gpu| ("gpu", gpu.to_string())));
        }
        rows.push(("device", format!("cpu ({})", self.gpu_unused)));
        rows.push(("kernels", if self.kernels.is_empty() { "none in this build".into() } else { self.kernels.join(", ") }));
        rows.push(("models", ARCHITECTURES.map(|(class, _)| class.trim_end_matches("ForCausalLM")).join(", ")));
        lines(rows.into_iter())
    }
}

/// The page that `ltrain doctor` prints.
pub fn page(args: &DoctorArgs) -> String {
    match (args.architectures, args.json) {
        (true, false) => lines(ARCHITECTURES.into_iter().map(|(class, needs)| (class, needs.to_owned()))),
        (true, true) => json(&ARCHITECTURES.map(|(class, needs)| serde_json::json!({ "architecture": class, "needs": needs }))),
        (false, true) => json(&Report::collect()),
        (false, false) => Report::collect().table(),
    }
}

fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("doctor: strings and numbers are JSON");
    text + "\n"
}

/// Two columns.
fn lines<'a>(rows: impl Iterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name:<width$}  {value}").expect("doctor: a String takes any text");
        text
    })
}

/// The value of the first `name : value` line of a file in /proc.
fn proc_value(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn memory() -> Option<Memory> {
    let bytes = |name| proc_value("/proc/meminfo", name)?.strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024);
    Some(Memory { total: bytes("MemTotal")?, free: bytes("MemAvailable")? })
}

fn disk_free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        match () {
            _ if is_x86_feature_detected!("avx512f") => "AVX-512",
            _ if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "AVX2 with FMA",
            _ if is_x86_feature_detected!("avx") => "AVX",
            _ => "SSE2",
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        "NEON"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "no vector instructions"
    }
}
