//! The driver of `driver.cpp`, compiled and loaded where the real one is looked for.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use ltrain::backend::cuda::{Cuda, Launches};
use ltrain::backend::device::{Image, KERNELS, Kernel, Launcher as _, Memory as _, Purpose};
use ltrain::backend::gpu::{Gpu, Usable, Version};
use ltrain::backend::{Emu, EmuMode};

/// Compiles a shared library in a folder.
pub fn compile(folder: &Path, name: &str, soname: &str, words: &[&str]) {
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command.current_dir(folder).args(["-std=c++17", "-shared", "-fPIC", "-O1", "-o", name]);
    let output = command.arg(format!("-Wl,-soname,{soname}")).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The source of the driver.
pub const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda/driver.cpp");

/// The folder of the compiled driver. It goes by both names that libcuda is opened under: the second is empty and leads to the
/// first, so that both are one.
pub fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-driver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        compile(&folder, "libcuda.so", "libcuda.so", &[SOURCE]);
        std::fs::write(folder.join("empty.cpp"), "").unwrap();
        let words = ["-Wl,--no-as-needed", "empty.cpp", "-L.", "-l:libcuda.so", "-Wl,-rpath,$ORIGIN"];
        compile(&folder, "libcuda.so.1", "libcuda.so.1", &words);
        folder
    })
}

/// The emulation that kernels run on.
fn emu() -> &'static Emu {
    static EMU: OnceLock<Emu> = OnceLock::new();
    EMU.get_or_init(|| Emu::new(EmuMode::Eager))
}

extern "C" fn alloc(bytes: usize) -> *mut c_void {
    emu().alloc(bytes, Purpose::Activations).map_or(std::ptr::null_mut(), |address| address as *mut c_void)
}

extern "C" fn free(memory: *mut c_void) {
    // SAFETY: the driver gives back what `alloc` gave it, once.
    unsafe { emu().free(memory as u64, 0, Purpose::Activations) };
}

extern "C" fn launch(name: *const c_char, grid: *const [u32; 3], args: *mut *mut c_void) -> c_int {
    // SAFETY: the driver passes a function's name, a grid, and one pointer per parameter of that function.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    // A test's own kernels do nothing.
    let Some(kernel) = KERNELS.iter().find(|k| k.name == name) else { return 0 };
    // SAFETY: as above.
    let args = unsafe { std::slice::from_raw_parts_mut(args, kernel.params.len()) };
    // SAFETY: as above; the pointers among the arguments are the launch code's, which the emulation watches.
    match unsafe { emu().launch(kernel, *grid, args) } {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}", ltrain::error::Shown(&error));
            719
        }
    }
}

/// The driver, for one test at a time.
pub struct Driver {
    library: &'static Library,
    _alone: MutexGuard<'static, ()>,
}

impl Driver {
    /// Loads it under the names that will be asked for, and forgets what earlier tests left.
    pub fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let library = LIBRARY.get_or_init(|| {
            // SAFETY: these libraries were made above and do nothing when they are loaded.
            let open = |name: &str| unsafe { Library::open(Some(folder().join(name)), RTLD_NOW | RTLD_GLOBAL) }.unwrap();
            std::mem::forget(open("libcuda.so.1"));
            open("libcuda.so")
        });
        let driver = Self { library, _alone: alone };
        driver.reset();
        driver.get::<extern "C" fn(*const c_void, *const c_void, *const c_void)>("fake_runs_on")(
            alloc as *const c_void,
            free as *const c_void,
            launch as *const c_void,
        );
        driver
    }

    /// As if nothing had happened.
    pub fn reset(&self) {
        self.get::<extern "C" fn()>("fake_reset")();
    }

    fn get<F>(&self, name: &str) -> Symbol<F> {
        // SAFETY: every caller names the signature that driver.cpp declares.
        unsafe { self.library.get(name.as_bytes()) }.unwrap()
    }

    /// Lets the `nth` of these calls from now on fail; `kernel` is a kernel that runs.
    pub fn fail(&self, call: &str, nth: c_int, code: c_int) {
        let call = CString::new(call).unwrap();
        self.get::<extern "C" fn(*const c_char, c_int, c_int)>("fake_fail")(call.as_ptr(), nth, code);
    }

    /// The device's memory in bytes.
    pub fn capacity(&self, bytes: usize) {
        self.get::<extern "C" fn(usize)>("fake_capacity")(bytes);
    }

    /// How often a function was called.
    pub fn calls(&self, call: &str) -> c_int {
        let call = CString::new(call).unwrap();
        self.get::<extern "C" fn(*const c_char) -> c_int>("fake_calls")(call.as_ptr())
    }

    /// Bytes that the memory pool keeps.
    pub fn threshold(&self) -> u64 {
        self.get::<extern "C" fn() -> u64>("fake_threshold")()
    }

    /// Bytes that the memory pool has, in use or not.
    pub fn held(&self) -> usize {
        self.get::<extern "C" fn() -> usize>("fake_held")()
    }

    /// Things that were not given back.
    pub fn live(&self) -> c_int {
        self.get::<extern "C" fn() -> c_int>("fake_live")()
    }

    /// Starts the device with these kernels.
    pub fn open(&self, kernels: &[&'static Kernel], launches: Launches) -> ltrain::Result<Cuda> {
        Cuda::open(&usable(), &images(kernels), kernels, launches)
    }
}

/// The device that the driver shows.
pub fn usable() -> Usable {
    let gpu = Gpu { ordinal: 0, name: "NVIDIA Imaginary".into(), capability: Version { major: 8, minor: 0 }, memory: 80 << 30 };
    Usable { gpu, arch: "sm_80", cuda: Version { major: 13, minor: 0 }, library: "libcuda.so.1".into() }
}

/// What the driver takes for compiled kernels.
fn images(kernels: &[&'static Kernel]) -> Vec<Image> {
    let mut files: Vec<_> = kernels.iter().map(|k| k.file).collect();
    files.dedup();
    let image = |file: &'static str| {
        let line = |k: &&&Kernel| format!("{} {}\n", k.name, k.params.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
        let code: String = kernels.iter().filter(|k| k.file == file).map(|k| line(&k)).collect();
        Image { file, arch: "sm_80", code: format!("fake\n{code}\0").leak().as_bytes() }
    };
    files.into_iter().map(image).collect()
}
