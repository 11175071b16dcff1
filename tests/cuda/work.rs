//! A device at work: copies, kernels, memory, faults.

use std::ffi::c_void;

use crate::fake::Driver;
use ltrain::backend::cuda::{Cuda, Launches};
use ltrain::backend::device::{Fault, KERNELS, Kernel, Launcher as _, Memory, Metered, Purpose};
use ltrain::backend::selftest::{Check, self_test};
use ltrain::backend::{Device, Emu, EmuMode};
use ltrain::error::{Error, Explain as _, Shown};
use ltrain::tensor::{Buffer, Tensor};

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    (0..n as u64).map(|i| ((i * i + seed) >> 3) as u8).collect()
}

/// A kernel that does nothing on this driver.
static NOTHING: Kernel = Kernel { name: "nothing", file: "nothing", threads: 64, shared: 100 << 10, params: &[8, 4] };
static TOO_LARGE: Kernel = Kernel { name: "too_large", file: "nothing", threads: 64, shared: 200 << 10, params: &[8] };
static ELSEWHERE: Kernel = Kernel { name: "elsewhere", file: "elsewhere", threads: 64, shared: 0, params: &[8] };

fn launch(cuda: &Cuda, kernel: &'static Kernel, grid: [u32; 3]) -> ltrain::Result<()> {
    let (mut address, mut n) = (0u64, 7i32);
    let mut args: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut n).cast()];
    // SAFETY: these kernels take a pointer and a number and touch nothing.
    unsafe { cuda.launch(kernel, grid, &mut args) }
}

/// Memory of a device under test.
struct Block<'a> {
    memory: &'a dyn Memory,
    address: u64,
    len: usize,
    purpose: Purpose,
}

impl<'a> Block<'a> {
    fn new(memory: &'a dyn Memory, len: usize, purpose: Purpose) -> ltrain::Result<Self> {
        Ok(Self { memory, address: memory.alloc(len, purpose)?, len, purpose })
    }

    fn work(memory: &'a dyn Memory, len: usize) -> Self {
        Self::new(memory, len, Purpose::Activations).unwrap()
    }

    fn write(&self, content: &[u8]) -> ltrain::Result<()> {
        assert!(content.len() <= self.len);
        // SAFETY: the block has this many bytes.
        unsafe { self.memory.upload(self.address, content) }
    }

    fn read(&self) -> ltrain::Result<Vec<u8>> {
        let mut content = vec![1; self.len];
        // SAFETY: the block has this many bytes.
        unsafe { self.memory.download(self.address, &mut content)? };
        Ok(content)
    }

    fn zero(&self) -> ltrain::Result<()> {
        // SAFETY: the block has this many bytes.
        unsafe { self.memory.zero(self.address, self.len) }
    }

    fn copy_from(&self, other: &Block) -> ltrain::Result<()> {
        // SAFETY: both blocks have this many bytes and are two.
        unsafe { self.memory.copy(self.address, other.address, self.len.min(other.len)) }
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        // SAFETY: this is what `new` allocated.
        unsafe { self.memory.free(self.address, self.len, self.purpose) };
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Fault(fault) => fault,
        other => panic!("{}", Shown(&other)),
    }
}

#[test]
fn copies_arrive_whatever_their_size_and_however_late() {
    let driver = Driver::new();
    let cuda = driver.open(&[], Launches::Queued).unwrap();
    // More than the pinned memory holds, in one and in many pieces, all under way at once.
    let sizes = [1, 3, 255, 257, 70 << 20, 16 << 20, (16 << 20) + 1].into_iter().chain((0..3000).map(|i| 1 + i * 7 % 5000));
    let mut blocks = Vec::new();
    for (i, n) in sizes.enumerate() {
        let (block, content) = (Block::work(&cuda, n), bytes(n, i as u64));
        block.write(&content).unwrap();
        blocks.push((block, content));
    }
    for (block, content) in &blocks {
        assert!(block.read().unwrap() == *content, "{} bytes", content.len());
    }
    let [(a, content), (b, _)] = [&blocks[5], &blocks[6]];
    b.copy_from(a).unwrap();
    a.zero().unwrap();
    assert!(b.read().unwrap()[..content.len()] == *content);
    assert!(a.read().unwrap().iter().all(|&v| v == 0));
    drop(blocks);
    drop(cuda);
    assert_eq!(driver.live(), 0);
}

#[test]
fn nothing_is_waited_for_until_results_are_read() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Queued).unwrap();
    let waits = || driver.calls("cuStreamSynchronize") + driver.calls("cuEventSynchronize");
    let before = waits();
    let block = Block::work(&cuda, 1000);
    for _ in 0..100 {
        block.write(&[1; 1000]).unwrap();
        launch(&cuda, &NOTHING, [3, 1, 1]).unwrap();
    }
    assert_eq!((driver.calls("cuLaunchKernel"), driver.calls("kernel")), (100, 0));
    assert_eq!(waits(), before);
    block.read().unwrap();
    assert_eq!((driver.calls("kernel"), waits()), (100, before + 1));
    assert_eq!(driver.threshold(), u64::MAX, "memory stays between steps");
}

#[test]
fn work_is_timed_by_the_device_and_waited_for_once() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Queued).unwrap();
    let before = driver.calls("cuStreamSynchronize");
    let mut work = |n| (0..=n).try_for_each(|_| launch(&cuda, &NOTHING, [1, 1, 1]));
    assert_eq!(cuda.timed(3, &mut work).unwrap(), [0.001, 0.002, 0.003]);
    assert_eq!(driver.calls("cuStreamSynchronize"), before + 1);
    let refused = fault(cuda.timed(3, &mut |n| if n == 1 { launch(&cuda, &TOO_LARGE, [1, 1, 1]) } else { Ok(()) }).unwrap_err());
    assert!(matches!(refused, Fault::Unfit { .. }), "{refused}");
    drop(cuda);
    assert_eq!(driver.live(), 0);
}

#[test]
fn awaited_launches_run_one_by_one() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Awaited).unwrap();
    for n in 1..=3 {
        launch(&cuda, &NOTHING, [1, 1, 1]).unwrap();
        assert_eq!(driver.calls("kernel"), n);
    }
}

#[test]
fn a_kernel_that_this_gpu_cannot_run_says_so_when_it_is_launched() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING, &TOO_LARGE], Launches::Queued).unwrap();
    for (kernel, says) in [
        (&TOO_LARGE, "it needs 204800 bytes of shared memory per block, NVIDIA Imaginary has 163840"),
        (&ELSEWHERE, "elsewhere.cu is not compiled for sm_80"),
    ] {
        let text = Shown(&launch(&cuda, kernel, [1, 1, 1]).unwrap_err()).to_string();
        assert!(text.starts_with("error[E503]") && text.contains(says), "{text}");
        assert!(text.contains("--gpus 0") && !text.contains("run the same command again"), "nothing changes: {text}");
    }
    launch(&cuda, &NOTHING, [1, 1, 1]).unwrap();
}

#[test]
fn a_launch_that_is_refused_is_named_with_its_grid() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Queued).unwrap();
    let error = fault(launch(&cuda, &NOTHING, [3, 70_000, 1]).unwrap_err());
    let reason = "CUDA_ERROR_INVALID_VALUE (as the test wanted)".into();
    assert_eq!(error, Fault::Launch { kernel: "nothing", grid: [3, 70_000, 1], reason });
    assert_eq!(error.explain().exit_code(), 5);
}

#[test]
fn a_kernel_that_fails_later_stops_everything_and_is_told_once_and_for_all() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Queued).unwrap();
    let block = Block::work(&cuda, 64);
    driver.fail("kernel", 2, 700);
    for grid in [[1, 1, 1], [2, 1, 1], [3, 1, 1]] {
        launch(&cuda, &NOTHING, grid).unwrap();
    }
    let first = fault(block.read().unwrap_err());
    let reason = "CUDA_ERROR_ILLEGAL_ADDRESS (as the test wanted)".to_string();
    assert_eq!(first, Fault::Stopped { kernel: "nothing", grid: [3, 1, 1], reason });
    let text = Shown(&first.clone().into()).to_string();
    assert!(text.contains("CUDA_LAUNCH_BLOCKING=1") && text.contains("3×1×1"), "{text}");
    assert!(text.contains("run the same command again") && !text.contains("checkpoint"), "nothing trains here: {text}");

    let calls = driver.calls("cuMemAllocAsync");
    assert_eq!(fault(cuda.alloc(64, Purpose::Loss).unwrap_err()), first);
    assert_eq!(fault(launch(&cuda, &NOTHING, [1, 1, 1]).unwrap_err()), first);
    assert_eq!(fault(block.write(&[0; 64]).unwrap_err()), first);
    drop(block);
    drop(cuda);
    assert_eq!((driver.calls("cuMemAllocAsync"), driver.calls("cuMemFreeAsync")), (calls, 0), "a lost device is asked nothing");
}

#[test]
fn an_awaited_kernel_that_fails_is_the_one_that_is_named() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Awaited).unwrap();
    driver.fail("kernel", 2, 700);
    launch(&cuda, &NOTHING, [1, 1, 1]).unwrap();
    let reason = "CUDA_ERROR_ILLEGAL_ADDRESS (as the test wanted)".into();
    let error = fault(launch(&cuda, &NOTHING, [2, 1, 1]).unwrap_err());
    assert_eq!(error, Fault::Launch { kernel: "nothing", grid: [2, 1, 1], reason });
}

#[test]
fn a_copy_that_fails_by_itself_is_named() {
    let driver = Driver::new();
    let cuda = driver.open(&[&NOTHING], Launches::Queued).unwrap();
    let block = Block::work(&cuda, 64);
    launch(&cuda, &NOTHING, [1, 1, 1]).unwrap();
    driver.fail("cuMemcpyDtoHAsync_v2", 1, 1);
    let reason = "CUDA_ERROR_INVALID_VALUE (as the test wanted)".into();
    let error = fault(block.read().unwrap_err());
    assert_eq!(error, Fault::Copy { action: "read", bytes: 64, reason });
}

#[test]
fn memory_is_limited_before_the_driver_is_asked() {
    let driver = Driver::new();
    let cuda = Metered::new(driver.open(&[], Launches::Queued).unwrap(), 4096);
    let _weights = Block::new(&cuda, 2000, Purpose::Weights).unwrap();
    let calls = driver.calls("cuMemAllocAsync");
    let error = cuda.alloc(3000, Purpose::Activations).unwrap_err();
    let text = Shown(&error).to_string();
    assert!(text.starts_with("error[E402]: out of GPU memory: 3.0 KiB more are needed, 2.0 KiB of 4.0 KiB are in use"), "{text}");
    assert!(text.contains("weights (bf16)") && text.contains("use shorter lengths"), "{text}");
    assert_eq!((error.explain().exit_code(), driver.calls("cuMemAllocAsync")), (4, calls));
    // Nothing is lost.
    Block::work(&cuda, 2000);
}

#[test]
fn a_driver_without_memory_is_asked_twice_and_then_quoted() {
    let driver = Driver::new();
    driver.capacity(1 << 20);
    let cuda = Metered::new(driver.open(&[], Launches::Queued).unwrap(), u64::MAX);
    // Freed pieces of other sizes are in the way until they are given back.
    drop((0..8).map(|_| Block::work(&cuda, 100_000)).collect::<Vec<_>>());
    let large = Block::work(&cuda, 900_000);
    let error = cuda.alloc(900_000, Purpose::Loss).unwrap_err();
    let text = Shown(&error).to_string();
    assert!(text.contains("driver: CUDA_ERROR_OUT_OF_MEMORY") && text.contains("879.0 KiB of"), "{text}");
    assert_eq!(error.explain().code, "E402");
    drop(large);
    Block::work(&cuda, 900_000);
}

#[test]
fn the_limit_is_what_is_free_less_a_margin_and_never_more_than_is_free() {
    let driver = Driver::new();
    driver.capacity(3 << 30);
    let cuda = driver.open(&[], Launches::Queued).unwrap();
    assert_eq!(cuda.limit(None).unwrap(), 2 << 30);
    assert_eq!(cuda.limit(Some(5 << 29)).unwrap(), 5 << 29);
    let error = cuda.limit(Some(4 << 30)).unwrap_err();
    let text = Shown(&error).to_string();
    assert!(text.starts_with("error[E401]: --mem-limit asks for 4.0 GiB, NVIDIA Imaginary has 3.0 GiB free"), "{text}");
}

#[test]
fn freed_pieces_are_kept_up_to_the_limit_and_no_longer_than_to_the_next_wait() {
    let driver = Driver::new();
    let cuda = driver.open(&[], Launches::Queued).unwrap();
    cuda.limit(Some(1 << 20)).unwrap();
    let kept = Block::work(&cuda, 1000);
    drop(Block::work(&cuda, 900_000));
    kept.read().unwrap();
    assert_eq!(driver.held(), 901_000, "within the limit");
    // Another size: the first piece is no use.
    drop(Block::work(&cuda, 800_000));
    kept.read().unwrap();
    assert_eq!(driver.held(), 1000);
}

#[test]
fn a_device_that_does_not_start_says_where() {
    let driver = Driver::new();
    for (call, code, says) in [
        ("cuDevicePrimaryCtxRetain", 2, "error 2 (CUDA_ERROR_OUT_OF_MEMORY: another process"),
        ("cuStreamCreate", 46, "error 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)"),
        ("cuMemPoolSetAttribute", 801, "this GPU or driver has no memory pools"),
        ("cuModuleLoadData", 222, "the CUDA driver refuses the kernels of nothing.cu for sm_80"),
        ("cuModuleGetFunction", 500, "the CUDA driver refuses the kernels of nothing.cu for sm_80"),
        ("cuMemHostAlloc", 2, "error 2"),
    ] {
        driver.fail(call, 1, code);
        let error = driver.open(&[&NOTHING], Launches::Queued).unwrap_err();
        let text = Shown(&error).to_string();
        assert!(text.starts_with("error[E501]") && text.contains(says), "{call}: {text}");
        driver.reset();
    }
}

#[test]
fn every_op_agrees_with_the_cpu_through_the_driver() {
    let driver = Driver::new();
    let device = Device::new(driver.open(KERNELS, Launches::Awaited).unwrap(), u64::MAX);
    let checks = self_test(&device).unwrap();
    for check in &checks {
        println!("{:<32} {:.1e} of {:.1e}", check.op, check.error, check.allowed);
    }
    assert!(checks.len() > 30 && checks.iter().all(Check::passed));
    drop(device);
    assert_eq!(driver.live(), 0);
}

#[test]
fn kernels_give_the_same_bits_through_the_driver_as_on_the_emulation() {
    let driver = Driver::new();
    let cuda = Device::new(driver.open(KERNELS, Launches::Queued).unwrap(), u64::MAX);
    let emu = Device::new(Emu::new(EmuMode::Eager), u64::MAX);
    let value = |i: usize| (0.37 * i as f64).sin() as f32;
    let ramp = |n: usize, shape: &[usize]| Tensor::f32((0..n).map(value).collect(), shape.to_vec());
    let (x, w) = (ramp(37 * 136, &[37, 136]), ramp(136, &[136]));
    let run = |k: &dyn ltrain::backend::Kernels| {
        let (x, w) = (k.place(&x).unwrap(), k.place(&w).unwrap());
        let (y, rstd) = k.rms_norm_fwd(&x, &w, 1e-5).unwrap();
        let (dx, dw) = k.rms_norm_bwd(&y, &x, &w, &rstd, Some(&x), true).unwrap();
        [y, rstd, dx, dw.unwrap()].map(|t| {
            assert!(matches!(t.buffer(), Buffer::Device(_)));
            t.to_host_f32().unwrap()
        })
    };
    assert_eq!(run(&cuda), run(&emu));
    drop(cuda);
    assert_eq!(driver.live(), 0, "everything is given back");
}
