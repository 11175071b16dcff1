//! The emulation finds mistakes: kernels with one each, beside the same kernels without it.
#![allow(unsafe_code)] // launches kernels that no op has a launcher for

mod common;

use std::ffi::c_void;
use std::sync::Arc;

use half::bf16;
use ltrain::backend::device::{DeviceBuffer, KERNELS, Kernel, Launcher, Memory, Purpose};
use ltrain::backend::{Emu, EmuMode, Swizzle};
use ltrain::tensor::{Buffer, Dtype};

use common::backends::MODES;

/// The kernels of one file.
fn kernels(file: &str) -> impl Iterator<Item = &'static Kernel> + '_ {
    KERNELS.iter().copied().filter(move |k| k.file == file)
}

/// What a launch gave: its output, or what was found.
type Outcome = Result<Vec<f32>, String>;

fn launched(emu: &Emu, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<(), String> {
    assert_eq!(args.len(), kernel.params.len(), "{}", kernel.name);
    // SAFETY: every kernel of a file has the parameters that its test passes; memory faults come back as errors.
    let done = unsafe { emu.launch(kernel, grid, args) };
    done.map_err(|e| {
        use ltrain::error::Explain as _;
        format!("{e}; {}", e.explain().facts.join("; "))
    })
}

/// Runs a kernel of `bugs.cu`: so many rows that should be `x` rotated by the kernel's shift.
fn rotation(mode: EmuMode, kernel: &'static Kernel, rows: usize, x: &[f32]) -> Outcome {
    let emu = Arc::new(Emu::new(mode));
    let memory: Arc<dyn Memory> = Arc::clone(&emu) as _;
    let x = DeviceBuffer::uploaded(&memory, &Buffer::F32(x.to_vec()), Purpose::Activations).unwrap();
    let y = DeviceBuffer::empty(&memory, Dtype::F32, rows * x.len(), Purpose::Activations).unwrap();
    let (mut y_at, mut x_at, mut n) = (y.address(), x.address(), x.len() as i32);
    launched(&emu, kernel, [rows as u32, 1, 1], &mut [(&raw mut y_at).cast(), (&raw mut x_at).cast(), (&raw mut n).cast()])?;
    Ok(y.to_f32().unwrap())
}

/// Which modes find something: an error, or a result that is not the right one. Checks the words of every error.
fn finders(kernel: &Kernel, right: &[f32], run: impl Fn(EmuMode) -> Outcome) -> Vec<EmuMode> {
    let found = |mode: &EmuMode| match run(*mode) {
        Ok(result) => result != right,
        Err(said) => {
            assert!(said.contains(kernel.name) && said.contains("block"), "{} on {mode:?}: {said}", kernel.name);
            true
        }
    };
    MODES.into_iter().filter(|mode| found(mode)).collect()
}

/// Whether it holds a mistake, which somebody must have found, as nobody one in its correction.
fn is_mistake(kernel: &Kernel, finders: &[EmuMode]) -> bool {
    let right = kernel.name.ends_with("_right");
    assert_eq!(right, finders.is_empty(), "{}: found by {finders:?}", kernel.name);
    !right
}

#[test]
fn every_seeded_mistake_is_found_and_its_correction_passes() {
    let x: Vec<f32> = (0..128).map(|i| i as f32 + 0.5).collect();
    let right: Vec<f32> = (0..256).map(|i| x[(i % 128 + 37) % 128]).collect();
    let mut mistakes = 0;
    for kernel in kernels("bugs") {
        let finders = finders(kernel, &right, |mode| rotation(mode, kernel, 2, &x));
        mistakes += usize::from(is_mistake(kernel, &finders));
    }
    assert!(mistakes >= 12, "{mistakes} mistakes");
}

/// A matrix of small whole numbers, exact in bf16.
fn matrix(rows: usize, columns: usize, step: usize) -> Vec<bf16> {
    (0..rows * columns).map(|i| bf16::from_f32((i * step % 13) as f32 - 6.0)).collect()
}

/// Runs a kernel of the ring: `c = a·bᵀ` over `STEPS` tiles.
fn product(mode: EmuMode, kernel: &'static Kernel, [a, b]: [&[bf16]; 2]) -> Outcome {
    let emu = Arc::new(Emu::new(mode));
    let memory: Arc<dyn Memory> = Arc::clone(&emu) as _;
    let operand = |x: &[bf16]| DeviceBuffer::uploaded(&memory, &Buffer::Bf16(x.to_vec()), Purpose::Activations).unwrap();
    let (a, b) = (operand(a), operand(b));
    let c = DeviceBuffer::empty(&memory, Dtype::F32, TILE * TILE, Purpose::Activations).unwrap();
    let map = |x: &DeviceBuffer| {
        emu.tensor_map(x.address(), [TILE as u64, (TILE * STEPS) as u64], [TILE as u32; 2], Swizzle::Bytes128).unwrap()
    };
    let (mut c_at, mut a_map, mut b_map, mut steps) = (c.address(), map(&a), map(&b), STEPS as i32);
    let args = &mut [(&raw mut c_at).cast(), (&raw mut a_map).cast(), (&raw mut b_map).cast(), (&raw mut steps).cast()];
    launched(&emu, kernel, [1, 1, 1], args)?;
    Ok(c.to_f32().unwrap())
}

/// Runs a kernel that stores a tile by TMA.
fn stored(mode: EmuMode, kernel: &'static Kernel, x: &[bf16]) -> Outcome {
    let emu = Arc::new(Emu::new(mode));
    let memory: Arc<dyn Memory> = Arc::clone(&emu) as _;
    let x = DeviceBuffer::uploaded(&memory, &Buffer::Bf16(x.to_vec()), Purpose::Activations).unwrap();
    let y = DeviceBuffer::empty(&memory, Dtype::Bf16, x.len(), Purpose::Activations).unwrap();
    let mut y_map = emu.tensor_map(y.address(), [TILE as u64; 2], [TILE as u32; 2], Swizzle::None).unwrap();
    let mut x_at = x.address();
    launched(&emu, kernel, [1, 1, 1], &mut [(&raw mut x_at).cast(), (&raw mut y_map).cast()])?;
    Ok(y.to_f32().unwrap())
}

const TILE: usize = 64;
const STEPS: usize = 5;

#[test]
fn mistakes_with_the_instructions_of_hopper_are_found_too() {
    let (a, b) = (matrix(TILE, TILE * STEPS, 5), matrix(TILE, TILE * STEPS, 7));
    let dot = |i: usize, j: usize| {
        let row = |m: &[bf16], i: usize| m[i * TILE * STEPS..][..TILE * STEPS].iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        row(&a, i).iter().zip(row(&b, j)).map(|(a, b)| a * b).sum::<f32>()
    };
    let products: Vec<f32> = (0..TILE * TILE).map(|n| dot(n / TILE, n % TILE)).collect();
    let tile = matrix(TILE, TILE, 3);
    let copied: Vec<f32> = tile.iter().map(|v| v.to_f32()).collect();
    let mut mistakes = 0;
    for kernel in kernels("bugs_hopper") {
        let finders = match kernel.name.starts_with("ring_") {
            true => finders(kernel, &products, |mode| product(mode, kernel, [&a, &b])),
            false => finders(kernel, &copied, |mode| stored(mode, kernel, &tile)),
        };
        mistakes += usize::from(is_mistake(kernel, &finders));
    }
    assert!(mistakes >= 12, "{mistakes} mistakes");
}

/// However far beyond its end a stack is used first: nobody else's memory is touched.
#[test]
fn a_stack_that_is_too_small_is_named() {
    let kernel = kernels("bugs").find(|k| k.name == "stack_wrong").expect("bugs.cu has a kernel with a large array");
    for mode in MODES {
        let said = rotation(mode, kernel, 2, &[1.0; 128]).unwrap_err();
        assert!(said.contains("needs more than its 65536 bytes of stack"), "{mode:?}: {said}");
    }
}

#[test]
fn every_block_has_its_turn_whatever_the_seed() {
    let x: Vec<f32> = (0..128).map(|i| i as f32 + 0.5).collect();
    let right: Vec<f32> = (0..7 * 128).map(|i| x[(i % 128 + 37) % 128]).collect();
    let kernel = kernels("bugs").find(|k| k.name == "barrier_right").expect("bugs.cu has a kernel with its barrier");
    for seed in [0, u64::MAX / 2, u64::MAX - 5, u64::MAX] {
        assert!(rotation(EmuMode::Late { seed }, kernel, 7, &x).unwrap() == right, "seed {seed}");
    }
}

/// Twice the same seed, twice the same turns.
#[test]
fn a_seed_decides_the_order() {
    let x: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let wrong = kernels("bugs").find(|k| k.name == "barrier_wrong").expect("bugs.cu has a kernel without a barrier");
    let once = |seed| rotation(EmuMode::Late { seed }, wrong, 2, &x).map(|y| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    for seed in 1..4 {
        assert_eq!(once(seed), once(seed));
    }
    assert!((1..4).any(|seed| once(seed) != once(seed + 1)), "seeds make no difference");
}
