//! What this machine has, and what of it ltrain can use.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::backend::device::{IMAGES, KERNELS};
use crate::backend::gpu::{self, DeviceError, Usable};
use crate::backend::selftest::{self, Check};
use crate::backend::{Device, cuda};
use crate::cli::DoctorArgs;
use crate::error::{Result, Shown};
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
    /// The driver's own version, such as 580.95.05.
    pub driver_version: Option<String>,
    /// The GPU that would be used.
    pub gpu: Option<Usable>,
    /// Why none would be.
    pub gpu_unused: Option<String>,
    /// The GPU kernels of this build.
    pub kernels: Vec<KernelFile>,
    /// CUDA version of their compiler.
    pub nvcc: Option<gpu::Version>,
}

/// One file of GPU kernels.
#[derive(Debug, Clone, Serialize)]
pub struct KernelFile {
    /// Its name without ending.
    pub file: &'static str,
    /// Architectures that it was compiled for.
    pub archs: Vec<&'static str>,
    /// What it holds.
    pub kernels: Vec<&'static str>,
}

/// What comparing a GPU's kernels with the CPU gave.
#[derive(Debug, Clone, Serialize)]
pub struct SelfTest {
    /// How long it took, the GPU's start included.
    pub seconds: f64,
    /// Bytes of GPU memory that were free.
    pub free_memory: u64,
    /// Every result of every op.
    pub checks: Vec<Check>,
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
        let driver = gpu::probe();
        let found = driver.as_ref().map_err(Clone::clone).and_then(|driver| gpu::usable(driver, IMAGES));
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
            driver: driver.ok(),
            driver_version: driver_version(),
            gpu_unused: found.as_ref().err().map(DeviceError::reason),
            gpu: found.ok(),
            kernels: kernels(),
            nvcc: gpu::toolkit(IMAGES),
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
            let version = self.driver_version.as_ref().map_or_else(String::new, |v| format!("{v}, "));
            rows.push(("driver", format!("{version}CUDA {} ({})", driver.cuda, driver.library)));
            rows.extend(driver.gpus.iter().map(|gpu| ("gpu", gpu.to_string())));
        }
        let unused = self.gpu_unused.as_deref().unwrap_or_default();
        rows.push(("device", self.gpu.as_ref().map_or_else(|| format!("cpu ({unused})"), Usable::to_string)));
        rows.extend(self.kernels.iter().map(|k| ("kernels", format!("{} for {}", k.file, k.archs.join(", ")))));
        match self.nvcc {
            Some(version) => rows.push(("nvcc", format!("CUDA {version} made the kernels"))),
            None => rows.push(("kernels", "none in this build".into())),
        }
        rows.push(("models", ARCHITECTURES.map(|(class, _)| class.trim_end_matches("ForCausalLM")).join(", ")));
        lines(rows.into_iter())
    }
}

/// The files of [`IMAGES`], in their order.
fn kernels() -> Vec<KernelFile> {
    let mut files: Vec<KernelFile> = Vec::new();
    for image in IMAGES {
        match files.iter_mut().find(|known| known.file == image.file) {
            Some(known) => known.archs.push(image.arch),
            None => {
                let kernels = KERNELS.iter().filter(|k| k.file == image.file).map(|k| k.name).collect();
                files.push(KernelFile { file: image.file, archs: vec![image.arch], kernels });
            }
        }
    }
    files
}

/// Compares a GPU's kernels with the CPU, one launch at a time so that a fault names its kernel.
fn self_test(on: &Usable) -> Result<SelfTest> {
    let started = std::time::Instant::now();
    let cuda = cuda::Cuda::open(on, IMAGES, KERNELS, cuda::Launches::Awaited)?;
    let free_memory = cuda.free_memory();
    let checks = selftest::self_test(&Device::new(cuda, u64::MAX))?;
    Ok(SelfTest { seconds: started.elapsed().as_secs_f64(), free_memory, checks })
}

impl SelfTest {
    /// An error unless every result is right.
    fn verdict(&self) -> Result<()> {
        self.checks.iter().try_for_each(Check::verdict)
    }

    fn table(&self) -> String {
        let wrong = self.checks.iter().filter(|c| !c.passed());
        let wrong = wrong.map(|c| ("wrong", format!("{}: off by {:.1e}, allowed {:.1e}", c.op, c.error, c.allowed)));
        let of = self.checks.len();
        let right = self.checks.iter().filter(|c| c.passed()).count();
        let summary = [
            ("gpu memory", format!("{} free", format_bytes(self.free_memory))),
            ("self-test", format!("{right} of {of} results agree with the CPU ({:.1} s)", self.seconds)),
        ];
        lines(summary.into_iter().chain(wrong))
    }
}

/// What is known of this machine without trying it: `env.json` of a run.
pub fn machine() -> String {
    json(&Report::collect())
}

/// The page that `ltrain doctor` prints, and whether all is well with the GPU, where there is one.
pub fn page(args: &DoctorArgs) -> (String, Result<()>) {
    if args.architectures {
        let page = match args.json {
            false => lines(ARCHITECTURES.into_iter().map(|(class, needs)| (class, needs.to_owned()))),
            true => json(&ARCHITECTURES.map(|(class, needs)| serde_json::json!({ "architecture": class, "needs": needs }))),
        };
        return (page, Ok(()));
    }
    let report = Report::collect();
    let test = report.gpu.as_ref().map(self_test).transpose();
    let page = match args.json {
        false => {
            let outcome = match &test {
                Ok(test) => test.as_ref().map_or(String::new(), SelfTest::table),
                Err(error) => format!("{}\n", Shown(error)),
            };
            report.table() + &outcome
        }
        true => {
            let mut page = serde_json::to_value(&report).expect("doctor: strings and numbers are JSON");
            page["self_test"] = match &test {
                Ok(test) => serde_json::json!(test),
                Err(error) => serde_json::json!({ "error": Shown(error).to_string() }),
            };
            json(&page)
        }
    };
    (page, test.and_then(|test| test.map_or(Ok(()), |test| test.verdict())))
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

/// The first word of the kernel module's line that is digits and points.
fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.lines().next()?.split_whitespace().find(version).map(str::to_owned)
}

/// Main memory, as far as the system tells.
pub fn memory() -> Option<Memory> {
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
