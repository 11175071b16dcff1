//! The CUDA driver as a launcher: one GPU, its primary context, one stream.
//!
//! Everything is queued on the stream and runs in the order it was queued in; only reading results back waits. So memory that
//! is given back can be handed out again at once: whoever gets it queues behind whoever had it.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

mod clock;
mod modules;
mod staging;

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, result, sys};

use self::staging::Staging;
use super::device::{Fault, Image, Kernel, Launcher, Memory, Purpose};
use super::gpu::{DeviceError, Usable, Version};
use crate::error::Result;

/// What the GPU keeps free when no limit is given: for pieces too small to use and for what other programs take meanwhile.
const MARGIN: u64 = 1 << 30;

/// Whether a launch waits for its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launches {
    /// Kernels are queued; one that fails shows later.
    Queued,
    /// Every kernel is waited for, so that the one that fails is the one that is named.
    Awaited,
}

/// One GPU.
#[derive(Debug)]
pub struct Cuda {
    functions: HashMap<&'static str, CudaFunction>,
    flight: Mutex<Flight>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    library: String,
    name: String,
    arch: &'static str,
    /// Bytes of shared memory that a block can have.
    most_shared: u32,
    free: u64,
    driver: Version,
    launches: Launches,
}

/// What is under way.
#[derive(Debug)]
struct Flight {
    /// Why no more calls are made.
    lost: Option<Fault>,
    /// The kernel queued last, if nobody waits or has waited for it.
    last: Option<(&'static Kernel, [u32; 3])>,
    staging: Staging,
}

impl Cuda {
    /// Starts a GPU. All kernels are loaded now and not at their first launch: what the driver refuses is known before anything
    /// is read, what is free afterwards is free, and no launch waits for a module.
    ///
    /// # Errors
    /// [`DeviceError`] with the driver's words.
    pub fn open(on: &Usable, images: &[Image], kernels: &[&'static Kernel], launches: Launches) -> Result<Self> {
        let starts = |e: DriverError| DeviceError::Driver { library: on.library.clone(), code: e.0 as i32 };
        let context = CudaContext::new(on.gpu.ordinal as usize).map_err(starts)?;
        let stream = context.new_stream().map_err(starts)?;
        keep_memory(&context, u64::MAX).map_err(starts)?;
        let shared = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let most_shared = context.attribute(shared).map_err(starts)?.unsigned_abs();
        let fitting: Vec<_> = kernels.iter().copied().filter(|kernel| kernel.shared <= most_shared).collect();
        let functions = modules::load(&context, on.arch, images, &fitting)?;
        let staging = Staging::new(&context).map_err(starts)?;
        let (free, _) = context.mem_get_info().map_err(starts)?;
        let flight = Mutex::new(Flight { lost: None, last: None, staging });
        let (library, name) = (on.library.clone(), on.gpu.name.clone());
        let (arch, free, driver) = (on.arch, free as u64, on.cuda);
        Ok(Self { functions, flight, stream, context, library, name, arch, most_shared, free, driver, launches })
    }

    /// Bytes that were free after the start.
    pub fn free_memory(&self) -> u64 {
        self.free
    }

    /// What tensors may use: `wanted`, or what is free less a margin. The driver's pool keeps no more than that from one wait to
    /// the next, even where pieces that fit nobody lie between those in use.
    ///
    /// # Errors
    /// [`DeviceError::Limit`] when more is wanted than is free.
    pub fn limit(&self, wanted: Option<u64>) -> Result<u64> {
        let limit = match (wanted, self.free) {
            (None, free) => free.saturating_sub(MARGIN),
            (Some(asked), free) if asked > free => {
                return Err(DeviceError::Limit { asked, free, gpu: self.name.clone() }.into());
            }
            (Some(asked), _) => asked,
        };
        let starts = |e: DriverError| DeviceError::Driver { library: self.library.clone(), code: e.0 as i32 };
        keep_memory(&self.context, limit).map_err(starts)?;
        Ok(limit)
    }

    /// Makes a call to the driver, unless one failed before. A call that fails is the last one: after most errors a context
    /// answers nothing else, and the first error is the one that tells what happened.
    fn call<T>(
        &self,
        fault: impl FnOnce(String) -> Fault,
        call: impl FnOnce(&mut Flight) -> std::result::Result<T, DriverError>,
    ) -> std::result::Result<T, Fault> {
        // What a panic leaves behind is true: a call is made or not.
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lost) = &flight.lost {
            return Err(lost.clone());
        }
        let done = self.context.bind_to_thread().and_then(|()| call(&mut flight));
        done.map_err(|error| {
            let fault = match flight.last {
                Some((kernel, grid)) if is_of_a_kernel(error) => {
                    Fault::Stopped { kernel: kernel.name, grid, reason: said(error) }
                }
                _ => fault(said(error)),
            };
            flight.lost = Some(fault.clone());
            fault
        })
    }

    /// Why a kernel was not loaded.
    fn lacks(&self, kernel: &Kernel) -> String {
        match kernel.shared > self.most_shared {
            true => {
                format!("it needs {} bytes of shared memory per block, {} has {}", kernel.shared, self.name, self.most_shared)
            }
            false => format!("{}.cu is not compiled for {}", kernel.file, self.arch),
        }
    }

    /// Waits for everything queued.
    fn wait(&self, flight: &mut Flight) -> std::result::Result<(), DriverError> {
        self.stream.synchronize()?;
        flight.last = None;
        Ok(())
    }

    /// Memory, or `None` when the driver has none left.
    fn allocated(&self, bytes: usize) -> std::result::Result<Option<u64>, DriverError> {
        // SAFETY: the stream is open, and all work is queued on it.
        match unsafe { result::malloc_async(self.stream.cu_stream(), bytes) } {
            Ok(address) => Ok(Some(address)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Memory that is given back stays with this process, up to so many bytes with what is in use: without this, every wait would
/// hand it to the system and every step would fetch it again.
fn keep_memory(context: &CudaContext, mut most: u64) -> std::result::Result<(), DriverError> {
    // SAFETY: the context's device is a device, and the threshold is one 64-bit number, which the call reads.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut most).cast()).result()
    }
}

/// Gives unused memory back to the system, so that it can be had in other pieces.
fn trim(context: &CudaContext) -> std::result::Result<(), DriverError> {
    // SAFETY: the context's device is a device, and its pool lives as long as that.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        sys::cuMemPoolTrimTo(pool, 0).result()
    }
}

/// Whether this error is a running kernel's, and not the call's that returned it.
fn is_of_a_kernel(error: DriverError) -> bool {
    use sys::CUresult::*;
    matches!(
        error.0,
        CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_UNKNOWN
    )
}

/// The driver's name and description of an error.
fn said(error: DriverError) -> String {
    let text = |t: std::result::Result<&std::ffi::CStr, _>| t.map(|t| t.to_string_lossy().into_owned()).ok();
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
        _ => format!("error {}", error.0 as u32),
    }
}

fn copying(action: &'static str, bytes: usize) -> impl FnOnce(String) -> Fault {
    move |reason| Fault::Copy { action, bytes: bytes as u64, reason }
}

impl Memory for Cuda {
    fn alloc(&self, bytes: usize, _: Purpose) -> Result<u64> {
        // The driver has no empty memory.
        let bytes = bytes.max(1);
        let found = self.call(copying("allocate", bytes), |flight| {
            if let Some(address) = self.allocated(bytes)? {
                return Ok(Some(address));
            }
            self.wait(flight)?;
            trim(&self.context)?;
            self.allocated(bytes)
        })?;
        let reason = || said(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        Ok(found.ok_or_else(|| Fault::Refused { bytes: bytes as u64, reason: reason() })?)
    }

    unsafe fn free(&self, address: u64, bytes: usize, _: Purpose) {
        // SAFETY: the caller owns this allocation, and everything that uses it was queued before.
        let free = || unsafe { result::free_async(address, self.stream.cu_stream()) };
        // Nobody can be told here. The next call is: after an error every call returns it.
        let _ = self.call(copying("free", bytes), |_| free());
    }

    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.call(copying("write", bytes.len()), |flight| {
            // SAFETY: the caller owns this many bytes at the address.
            unsafe { flight.staging.upload(&self.stream, address, bytes) }
        })?)
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        Ok(self.call(copying("read", bytes.len()), |flight| {
            // SAFETY: the caller owns this many bytes at the address, and the slice is borrowed until the wait is over. A wait
            // that fails ends the context and with it the copy.
            unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream())? };
            self.wait(flight)
        })?)
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns this many bytes at the address.
        let zero = || unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) };
        Ok(self.call(copying("zero", bytes), |_| zero())?)
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller owns this many bytes at both addresses, and they do not overlap.
        let copy = || unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) };
        Ok(self.call(copying("copy", bytes), |_| copy())?)
    }
}

impl Launcher for Cuda {
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<()> {
        let fault = |reason| Fault::Launch { kernel: kernel.name, grid, reason };
        let Some(function) = self.functions.get(kernel.name) else {
            return Err(Fault::Unfit { kernel: kernel.name, reason: self.lacks(kernel) }.into());
        };
        let [x, y, z] = grid;
        Ok(self.call(fault, |flight| {
            flight.last = (self.launches == Launches::Queued).then_some((kernel, grid));
            // SAFETY: the module of the function lives in `self`. The caller promises that `args` are the kernel's parameters;
            // the driver copies them before it returns.
            unsafe {
                let (function, stream) = (function.cu_function(), self.stream.cu_stream());
                result::launch_kernel(function, (x, y, z), (kernel.threads, 1, 1), kernel.shared, stream, args)?;
            }
            match self.launches {
                Launches::Queued => Ok(()),
                Launches::Awaited => self.wait(flight),
            }
        })?)
    }

    fn timed(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        self.timed_by_events(runs, work)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Copies from pinned memory may be under way. An error here was told before or concerns nobody any more.
        let _ = self.stream.synchronize();
    }
}
