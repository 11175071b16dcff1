//! A kernel and what runs it: the emulation in each of its modes, and this machine's GPU.

use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ltrain::backend::cuda::Launches;
use ltrain::backend::device::{DeviceBuffer, IMAGES, KERNELS, Kernel, Launcher, Memory, Purpose, TensorMap};
use ltrain::backend::gpu::{self, Gpus, Place, Usable};
use ltrain::backend::{Cuda, Emu, Swizzle};
use ltrain::error::Shown;
use ltrain::tensor::{Buffer, Dtype};

use crate::common::backends::{MODES, gpu_alone};

/// One kernel on one device.
pub struct Target {
    kernel: &'static Kernel,
    name: String,
    launcher: Arc<dyn Launcher>,
    emu: Option<Arc<Emu>>,
}

/// A parameter, as a test passes it.
pub enum Arg<'a> {
    /// Words that the kernel reads.
    In(&'a [u32]),
    /// Words that it changes.
    InOut(&'a [u32]),
    /// So many words that it writes.
    Out(usize),
    /// A number of 32 bits.
    Number(u32),
    /// A bf16 matrix, through a tensor map.
    Map(&'a Matrix),
}

/// A bf16 matrix in memory and the boxes that it is copied by.
pub struct Matrix {
    /// Two elements each.
    pub words: Vec<u32>,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Rows and columns of a box.
    pub boxes: [usize; 2],
    /// How a box lies in shared memory.
    pub swizzle: Swizzle,
}

/// What no test expects and nobody wrote.
const UNWRITTEN: u32 = 0xA5A5_5A5A;

/// The GPU, started once, and the architecture of the kernels that it runs.
fn gpu() -> Option<&'static (Arc<Cuda>, &'static str)> {
    static GPU: OnceLock<Option<(Arc<Cuda>, &'static str)>> = OnceLock::new();
    // Awaited, so that a kernel that fails is the one that is named.
    let start = |on: &Usable| Cuda::open(on, IMAGES, KERNELS, Launches::Awaited).map(|cuda| (Arc::new(cuda), on.arch));
    let open = || match gpu::select(Gpus::Count(1)) {
        Ok(Place::Gpu(on)) => Some(start(&on).unwrap_or_else(|error| panic!("{on}: {}", Shown(&error)))),
        Ok(Place::Cpu { reason }) => unreachable!("a GPU was asked for: {reason}"),
        Err(error) if gpu_alone() => panic!("{}", Shown(&error)),
        Err(error) => {
            eprintln!("conformance on a GPU: skipped ({error})");
            None
        }
    };
    GPU.get_or_init(open).as_ref()
}

/// Everything in reach that runs a kernel.
pub fn targets(kernel: &str) -> Vec<Target> {
    let kernel = *KERNELS.iter().find(|k| k.name == kernel).unwrap_or_else(|| panic!("there is no kernel {kernel}"));
    let mut targets = Vec::new();
    for mode in MODES.into_iter().filter(|_| !gpu_alone()) {
        let emu = Arc::new(Emu::new(mode));
        targets.push(Target { kernel, name: format!("emu {mode:?}"), launcher: Arc::clone(&emu) as _, emu: Some(emu) });
    }
    if let Some((cuda, arch)) = gpu() {
        match IMAGES.iter().any(|image| image.file == kernel.file && image.arch == *arch) {
            true => targets.push(Target { kernel, name: "cuda".into(), launcher: Arc::clone(cuda) as _, emu: None }),
            false => eprintln!("{} on the GPU: skipped ({}.cu is not compiled for {arch})", kernel.name, kernel.file),
        }
    }
    targets
}

/// As [`targets`], where tensor maps can be made: the driver layer has none yet.
pub fn targets_with_maps(kernel: &str) -> Vec<Target> {
    let (with, without): (Vec<_>, Vec<_>) = targets(kernel).into_iter().partition(|target| target.emu.is_some());
    for target in without {
        eprintln!("{target}: skipped (the CUDA driver layer makes no tensor maps yet)");
    }
    with
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.kernel.name, self.name)
    }
}

/// A parameter, as the kernel gets it.
enum Value {
    Plain(u64),
    Map(TensorMap),
}

impl Target {
    /// Runs the kernel and returns what it left in every [`Arg::InOut`], [`Arg::Out`] and [`Arg::Map`], in order.
    pub fn run<const N: usize>(&self, grid: [u32; 3], args: &[Arg]) -> [Vec<u32>; N] {
        let sizes: Vec<u32> = args.iter().map(Arg::size).collect();
        assert_eq!(sizes, self.kernel.params, "{self}: sizes of the parameters");
        let buffers: Vec<_> = args.iter().map(|arg| self.buffer(arg)).collect();
        let mut values: Vec<_> = args.iter().zip(&buffers).map(|(arg, buffer)| self.value(arg, buffer.as_ref())).collect();
        let mut pointers: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| match value {
                Value::Plain(value) => std::ptr::from_mut(value).cast(),
                Value::Map(map) => std::ptr::from_mut(map).cast(),
            })
            .collect();
        // SAFETY: there is a value of the right size per parameter, and each test passes memory as large as its kernel's comment
        // says. The values live until the launch returns.
        let done = unsafe { self.launcher.launch(self.kernel, grid, &mut pointers) };
        done.unwrap_or_else(|error| panic!("{self}: {}", Shown(&error)));
        let kept = args.iter().zip(&buffers).filter(|(arg, _)| !matches!(arg, Arg::In(_) | Arg::Number(_)));
        let left: Vec<_> = kept.filter_map(|(_, buffer)| buffer.as_ref()).map(|buffer| self.words(buffer)).collect();
        left.try_into().unwrap_or_else(|left: Vec<_>| panic!("{self} leaves {} arrays, not {N}", left.len()))
    }

    fn memory(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.launcher) as _
    }

    /// The memory that a parameter points to.
    fn buffer(&self, arg: &Arg) -> Option<DeviceBuffer> {
        let words = match arg {
            Arg::In(words) | Arg::InOut(words) => words.to_vec(),
            Arg::Out(len) => vec![UNWRITTEN; *len],
            Arg::Map(matrix) => matrix.words.clone(),
            Arg::Number(_) => return None,
        };
        let buffer = DeviceBuffer::uploaded(&self.memory(), &Buffer::U32(words), Purpose::Activations);
        Some(buffer.unwrap_or_else(|error| panic!("{self}: {}", Shown(&error))))
    }

    fn value(&self, arg: &Arg, buffer: Option<&DeviceBuffer>) -> Value {
        match (arg, buffer) {
            (Arg::Number(number), _) => Value::Plain(u64::from(*number)),
            (Arg::Map(matrix), Some(buffer)) => {
                let emu = self.emu.as_ref().expect("only the emulation makes tensor maps");
                let map = emu.tensor_map(
                    buffer.address(),
                    matrix.size.map(|n| n as u64),
                    matrix.boxes.map(|n| n as u32),
                    matrix.swizzle,
                );
                Value::Map(map.unwrap_or_else(|error| panic!("{self}: {}", Shown(&error))))
            }
            (_, buffer) => Value::Plain(buffer.expect("a pointer has its memory").address()),
        }
    }

    fn words(&self, buffer: &DeviceBuffer) -> Vec<u32> {
        assert_eq!(buffer.dtype(), Dtype::U32);
        let mut words = vec![0u32; buffer.len()];
        // SAFETY: the buffer has exactly these bytes.
        let read = unsafe { self.launcher.download(buffer.address(), bytemuck::cast_slice_mut(&mut words)) };
        read.unwrap_or_else(|error| panic!("{self}: {}", Shown(&error)));
        words
    }

    /// Panics on the first word that is not as expected.
    pub fn same(&self, what: &str, got: &[u32], want: &[u32]) {
        assert_eq!(got.len(), want.len(), "{self}: {what}: length");
        if let Some(i) = (0..got.len()).find(|&i| got[i] != want[i]) {
            let wrong = (0..got.len()).filter(|&i| got[i] != want[i]).count();
            panic!("{self}: {what}[{i}] is {:#010x}, not {:#010x}; {wrong} of {} differ", got[i], want[i], got.len());
        }
    }
}

impl Arg<'_> {
    fn size(&self) -> u32 {
        match self {
            Self::In(_) | Self::InOut(_) | Self::Out(_) => 8,
            Self::Number(_) => 4,
            Self::Map(_) => 128,
        }
    }
}

/// Words without a pattern.
pub fn noise(len: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 16) as u32
    };
    (0..len).map(|_| next()).collect()
}

/// Whole numbers from -most to most.
pub fn whole(len: usize, most: u32, seed: u64) -> Vec<f32> {
    noise(len, seed).into_iter().map(|word| (word % (2 * most + 1)) as f32 - most as f32).collect()
}

/// The bits of floats.
pub fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|v| v.to_bits()).collect()
}

/// Pairs of values in bf16, which has them exactly.
pub fn bf16_pairs(values: &[f32]) -> Vec<u32> {
    let upper = |v: f32| {
        assert_eq!(v.to_bits() & 0xffff, 0, "{v} is not exact in bf16");
        v.to_bits() >> 16
    };
    values.chunks_exact(2).map(|pair| upper(pair[0]) | upper(pair[1]) << 16).collect()
}
