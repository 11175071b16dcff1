//! The driver's C interface, as far as finding a GPU needs it. [`cudarc`], which does the work afterwards, panics where there is
//! no driver and looks for it in fewer places; here every reason is an error of its own.
#![allow(unsafe_code, reason = "this module calls the CUDA driver")]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;

use libloading::Library;

use super::{DeviceError, Driver, FOLDERS, Gpu, GpuStatus, LIBRARY, NAMES, NEEDED, Version};

/// Opens the driver and asks it for its GPUs.
pub fn probe() -> GpuStatus {
    let (library, driver) = open()?;
    let call = Calls { library: &library, driver: &driver };
    match call.init()? {
        0 => {}
        100 => return Err(DeviceError::NoDevice { library, visible: visible() }),
        code => return Err(DeviceError::Driver { library, code }),
    }
    let cuda = call.version()?;
    if cuda < NEEDED {
        return Err(DeviceError::TooOld { supports: cuda, needs: NEEDED });
    }
    let gpus = (0..call.count()?).map(|ordinal| call.gpu(ordinal)).collect::<Result<Vec<_>, _>>()?;
    if gpus.is_empty() {
        return Err(DeviceError::NoDevice { library, visible: visible() });
    }
    // It stays loaded: whoever asks for one of its names later gets this one, wherever it was found.
    std::mem::forget(driver);
    Ok(Driver { library, cuda, gpus })
}

fn visible() -> Option<String> {
    std::env::var("CUDA_VISIBLE_DEVICES").ok()
}

/// The first driver library that the loader accepts, by its names and then by folder.
fn open() -> Result<(String, Library), DeviceError> {
    let mut refused = Vec::new();
    for name in NAMES {
        if let Ok(library) = load(name) {
            return Ok((name.to_owned(), library));
        }
    }
    for path in FOLDERS.iter().map(|folder| format!("{folder}/{LIBRARY}")).filter(|path| Path::new(path).exists()) {
        match load(&path) {
            Ok(library) => return Ok((path, library)),
            Err(error) => refused.push(format!("{path}: {error}")),
        }
    }
    Err(DeviceError::NoDriver { refused })
}

/// Opens one library.
fn load(name: &str) -> Result<Library, libloading::Error> {
    // SAFETY: the name is the NVIDIA driver's, from the system's loader path or a system folder; its initialisers are
    // made to run in any process and on any thread.
    unsafe { Library::new(name) }
}

/// The driver's functions, resolved by name on each call: the probe makes a dozen.
struct Calls<'a> {
    library: &'a str,
    driver: &'a Library,
}

impl Calls<'_> {
    fn function<F: Copy>(&self, function: &'static str) -> Result<F, DeviceError> {
        // SAFETY: every caller names the C signature that the CUDA driver API documents for this symbol, and the
        // copied pointer is used while `self.driver` keeps the library open.
        let symbol = unsafe { self.driver.get::<F>(function.as_bytes()) };
        symbol.map(|f| *f).map_err(|_| DeviceError::NotADriver { library: self.library.to_owned(), function })
    }

    fn checked(&self, code: c_int) -> Result<(), DeviceError> {
        match code {
            0 => Ok(()),
            code => Err(DeviceError::Driver { library: self.library.to_owned(), code }),
        }
    }

    fn init(&self) -> Result<c_int, DeviceError> {
        let f: unsafe extern "C" fn(c_uint) -> c_int = self.function("cuInit")?;
        // SAFETY: cuInit takes flags that must be 0 and touches no memory of ours.
        Ok(unsafe { f(0) })
    }

    fn version(&self) -> Result<Version, DeviceError> {
        let f: unsafe extern "C" fn(*mut c_int) -> c_int = self.function("cuDriverGetVersion")?;
        let mut n = 0;
        // SAFETY: `n` is one writable int, which is what the call fills.
        self.checked(unsafe { f(&mut n) })?;
        let n = n.unsigned_abs();
        Ok(Version { major: n / 1000, minor: n % 1000 / 10 })
    }

    fn count(&self) -> Result<c_int, DeviceError> {
        let f: unsafe extern "C" fn(*mut c_int) -> c_int = self.function("cuDeviceGetCount")?;
        let mut n = 0;
        // SAFETY: `n` is one writable int, which is what the call fills.
        self.checked(unsafe { f(&mut n) })?;
        Ok(n)
    }

    fn gpu(&self, ordinal: c_int) -> Result<Gpu, DeviceError> {
        let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = self.function("cuDeviceGet")?;
        let name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int = self.function("cuDeviceGetName")?;
        let memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int = self.function("cuDeviceTotalMem_v2")?;
        let (mut device, mut text, mut bytes) = (0, [0u8; 256], 0usize);
        // SAFETY: `device` is one writable int and `ordinal` is below the count.
        self.checked(unsafe { get(&mut device, ordinal) })?;
        // SAFETY: `text` has room for 255 characters and keeps a final zero.
        self.checked(unsafe { name(text.as_mut_ptr().cast(), 255, device) })?;
        // SAFETY: `bytes` is one writable size_t.
        self.checked(unsafe { memory(&mut bytes, device) })?;
        let name = CStr::from_bytes_until_nul(&text).map_or("?".into(), |s| s.to_string_lossy().into_owned());
        let capability = Version { major: self.attribute(75, device)?, minor: self.attribute(76, device)? };
        Ok(Gpu { ordinal: ordinal.unsigned_abs(), name, capability, memory: bytes as u64 })
    }

    /// 75 and 76 are the major and minor compute capability.
    fn attribute(&self, attribute: c_int, device: c_int) -> Result<u32, DeviceError> {
        let f: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int = self.function("cuDeviceGetAttribute")?;
        let mut value = 0;
        // SAFETY: `value` is one writable int; an unknown attribute is an error code, not a write.
        self.checked(unsafe { f(&mut value, attribute, device) })?;
        Ok(value.unsigned_abs())
    }
}
