//! The host emulation as a launcher: the kernels of `kernels/*.cu`, compiled by the host's C++ compiler, for tests.
//!
//! What it checks and what it cannot is told in `kernels/README.md`. A kernel that does something wrong comes back as an error
//! that names kernel, block and thread.
#![allow(unsafe_code, reason = "calls the emulation, which is C++")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::device::{Fault, Kernel, Launcher, Memory, Purpose, TensorMap};
use crate::error::Result;

#[repr(C)]
struct SimtMode {
    seed: u64,
    random: u32,
    lazy: u32,
    threads: u32,
}

macro_rules! simt {
    ($build:ident: $launch:ident $last_error:ident $malloc:ident $free:ident $check_range:ident $tensor_map:ident) => {
        unsafe extern "C" {
            fn $launch(
                name: *const c_char,
                grid: *const u32,
                params: *mut *mut c_void,
                count: u32,
                sizes: *const u32,
                mode: *const SimtMode,
            ) -> c_int;
            fn $last_error() -> *const c_char;
            fn $malloc(bytes: usize) -> *mut c_void;
            fn $free(memory: *mut c_void) -> c_int;
            fn $check_range(memory: *const c_void, bytes: usize, write: c_int) -> c_int;
            fn $tensor_map(
                map: *mut c_void,
                base: *mut c_void,
                element_size: u32,
                columns: u64,
                rows: u64,
                row_stride: u64,
                box_columns: u32,
                box_rows: u32,
                swizzle: u32,
            ) -> c_int;
        }

        const $build: Calls = Calls {
            launch: $launch,
            last_error: $last_error,
            malloc: $malloc,
            free: $free,
            check_range: $check_range,
            tensor_map: $tensor_map,
        };
    };
}

simt!(PLAIN: simt_launch simt_last_error simt_malloc simt_free simt_check_range simt_tensor_map);
simt!(RACE: simt_race_launch simt_race_last_error simt_race_malloc simt_race_free simt_race_check_range simt_race_tensor_map);

/// The functions of one build of the emulation.
#[derive(Debug, Clone, Copy)]
struct Calls {
    launch: unsafe extern "C" fn(*const c_char, *const u32, *mut *mut c_void, u32, *const u32, *const SimtMode) -> c_int,
    last_error: unsafe extern "C" fn() -> *const c_char,
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
    check_range: unsafe extern "C" fn(*const c_void, usize, c_int) -> c_int,
    tensor_map: unsafe extern "C" fn(*mut c_void, *mut c_void, u32, u64, u64, u64, u32, u32, u32) -> c_int,
}

/// How the emulation runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmuMode {
    /// Threads in order, copies at once: the fastest.
    #[default]
    Eager,
    /// Background copies as late as they may be, with NaN in their place until then; lanes, warps and blocks in the order that
    /// this seed draws.
    Late {
        /// Of the order.
        seed: u64,
    },
    /// Every access is watched: two that no barrier orders are an error.
    Race,
}

/// How TMA scatters the rows of a box over the banks of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swizzle {
    /// Not at all.
    None = 0,
    /// Within 128 bytes.
    Bytes128 = 3,
}

/// The emulated device.
#[derive(Debug)]
pub struct Emu {
    mode: EmuMode,
    calls: Calls,
}

impl Emu {
    /// A device that runs kernels in one way.
    pub fn new(mode: EmuMode) -> Self {
        Self { mode, calls: if mode == EmuMode::Race { RACE } else { PLAIN } }
    }

    /// A view of a bf16 matrix `(rows, columns)` at `address`, in boxes of `(rows, columns)`; swizzled by 128 bytes or not.
    pub fn tensor_map(&self, address: u64, [rows, columns]: [u64; 2], boxes: [u32; 2], swizzle: Swizzle) -> Result<TensorMap> {
        let [box_rows, box_columns] = boxes;
        let mut map = TensorMap([0; 16]);
        let to = (&raw mut map).cast();
        // SAFETY: the map has the 128 bytes that are written; the address is only kept in it.
        match unsafe {
            (self.calls.tensor_map)(
                to,
                address as *mut c_void,
                2,
                columns,
                rows,
                columns * 2,
                box_columns,
                box_rows,
                swizzle as u32,
            )
        } {
            0 => Ok(map),
            _ => Err(Fault::Copy { action: "describe", bytes: rows * columns * 2, reason: self.last_error() }.into()),
        }
    }

    fn last_error(&self) -> String {
        // SAFETY: the emulation returns a text that ends in zero and lives until this thread's next call.
        let text = unsafe { CStr::from_ptr((self.calls.last_error)()) };
        text.to_string_lossy().into_owned()
    }

    /// Whether a copy stays inside one allocation.
    fn check(&self, action: &'static str, address: u64, bytes: usize) -> Result<()> {
        let write = c_int::from(action == "write");
        // SAFETY: the emulation looks the address up and does not touch it.
        match unsafe { (self.calls.check_range)(address as *const c_void, bytes, write) } {
            0 => Ok(()),
            _ => Err(Fault::Copy { action, bytes: bytes as u64, reason: self.last_error() }.into()),
        }
    }
}

impl Memory for Emu {
    fn alloc(&self, bytes: usize, _: Purpose) -> Result<u64> {
        // SAFETY: any size may be asked for; what comes back is checked.
        let memory = unsafe { (self.calls.malloc)(bytes.max(1)) };
        match memory.is_null() {
            true => Err(Fault::Refused { bytes: bytes as u64, reason: self.last_error() }.into()),
            false => Ok(memory as u64),
        }
    }

    unsafe fn free(&self, address: u64, _: usize, _: Purpose) {
        // SAFETY: the caller owns this allocation. An unknown address would be an error code, not a crash.
        let code = unsafe { (self.calls.free)(address as *mut c_void) };
        debug_assert_eq!(code, 0, "emu: freed what was not allocated");
    }

    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.check("write", address, bytes.len())?;
        // SAFETY: the range is one live allocation's, and emulated device memory is plain host memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.check("read", address, bytes.len())?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        self.check("write", address, bytes)?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.check("read", from, bytes)?;
        self.check("write", to, bytes)?;
        // SAFETY: as in `upload`, for both ranges, which the caller keeps apart.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }
}

impl Launcher for Emu {
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<()> {
        let (seed, late) = match self.mode {
            EmuMode::Late { seed } => (seed, 1),
            EmuMode::Eager | EmuMode::Race => (0, 0),
        };
        let mode = SimtMode { seed, random: late, lazy: late, threads: 0 };
        let name = CString::new(kernel.name).expect("emu: names of kernels have no zeros");
        let (count, sizes) = (kernel.params.len() as u32, kernel.params.as_ptr());
        // SAFETY: `args` has one pointer per parameter, as the generated launcher made it; memory faults come back as an error.
        let code = unsafe { (self.calls.launch)(name.as_ptr(), grid.as_ptr(), args.as_mut_ptr(), count, sizes, &mode) };
        match code {
            0 => Ok(()),
            _ => Err(Fault::Launch { kernel: kernel.name, grid, reason: self.last_error() }.into()),
        }
    }
}
