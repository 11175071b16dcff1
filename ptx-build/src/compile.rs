//! From `.cu` files to cubins and PTX.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernels::{KernelFile, Kernels, texts, with_ending};
use crate::parallel::in_parallel;
use crate::{Error, Nvcc};

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// nvcc's `-arch`.
    pub arch: &'static str,
    /// What comes out: `cubin` runs on that architecture, `ptx` on newer ones too.
    pub kind: &'static str,
}

/// Machine code for A100 and H100, and PTX that the driver translates for what comes after them.
pub const TARGETS: [Target; 3] = [
    Target { arch: "sm_80", kind: "cubin" },
    Target { arch: "sm_90a", kind: "cubin" },
    Target { arch: "compute_90", kind: "ptx" },
];

/// One kernel file compiled for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Name of the `.cu` file, without folder and ending.
    pub file: String,
    /// What it was compiled for.
    pub target: Target,
    /// `<name>.<arch>.<kind>`.
    pub output: PathBuf,
    /// What the kernels need, as the assembler says; nothing for PTX.
    pub resources: Vec<Resources>,
}

/// What one kernel needs on one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of its stack frame.
    pub stack: u32,
    /// Bytes stored to and loaded from memory for want of registers.
    pub spilled: u32,
}

impl Kernels {
    /// Compiles every kernel for each of its file's targets into `out`, which exists, on all cores. What has not changed since
    /// the last time is not compiled again. Kernels whose names start with one of `hot` must live in registers.
    ///
    /// # Errors
    /// The first kernel that nvcc refuses or loses, or that spills though it is hot.
    pub fn compile(&self, nvcc: &Nvcc, hot: &[&str], out: &Path) -> Result<Vec<Compiled>, Error> {
        let headers = texts(&with_ending(&self.folder, "cuh")?)?.concat();
        let jobs: Vec<_> = self.files.iter().flat_map(|file| file.targets.iter().map(move |target| (file, target))).collect();
        let compiled = in_parallel(&jobs, |(file, target)| self.compile_one(nvcc, file, **target, &headers, out));
        let compiled = compiled.into_iter().collect::<Result<Vec<_>, _>>()?;
        for (file, image) in jobs.iter().map(|(file, _)| file).zip(&compiled) {
            check(file, image, hot)?;
        }
        Ok(compiled)
    }

    fn compile_one(&self, nvcc: &Nvcc, file: &KernelFile, target: Target, headers: &str, out: &Path) -> Result<Compiled, Error> {
        let Target { arch, kind } = target;
        let output = out.join(format!("{}.{arch}.{kind}", file.name));
        let log = output.with_extension(format!("{kind}.log"));
        let text = texts(std::slice::from_ref(&file.path))?;
        let mut hasher = DefaultHasher::new();
        (text, headers, arch, &nvcc.path).hash(&mut hasher);
        let key = format!("{:016x}\n", hasher.finish());
        let known = fs::read_to_string(&log).ok().and_then(|log| log.strip_prefix(&key).map(str::to_owned));
        let said = match known.filter(|_| output.exists()) {
            Some(said) => said,
            None => {
                let said = self.run_nvcc(nvcc, file, target, &output)?;
                crate::kernels::write(&log, &(key + &said))?;
                said
            }
        };
        Ok(Compiled { file: file.name.clone(), target, output, resources: resources(&said) })
    }

    fn run_nvcc(&self, nvcc: &Nvcc, file: &KernelFile, Target { arch, kind }: Target, output: &Path) -> Result<String, Error> {
        // No fast-math: a kernel that wants an approximation says so where it uses it.
        let done = Command::new(&nvcc.path)
            .args(["-std=c++17", "-O3", "-lineinfo", &format!("-{kind}"), &format!("-arch={arch}"), "-Xptxas", "-v", "-I"])
            .arg(&self.folder)
            .arg("-o")
            .args([output, &file.path])
            .output()
            .map_err(|source| Error::Start { compiler: nvcc.path.clone(), source })?;
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).trim_end().to_string();
        match done.status.success() {
            true => Ok(said),
            false => Err(Error::Compile { file: file.path.clone(), arch, output: said }),
        }
    }
}

/// Every kernel of the file is there, and the hot ones have all they need.
fn check(file: &KernelFile, image: &Compiled, hot: &[&str]) -> Result<(), Error> {
    if image.target.kind != "cubin" {
        return Ok(());
    }
    let (path, arch) = (file.path.clone(), image.target.arch);
    for kernel in &file.kernels {
        let Some(found) = image.resources.iter().find(|r| r.kernel == kernel.name) else {
            return Err(Error::Lost { file: path, arch, kernel: kernel.name.clone() });
        };
        if hot.iter().any(|h| kernel.name.starts_with(h)) && (found.stack > 0 || found.spilled > 0) {
            let Resources { stack, spilled, .. } = *found;
            return Err(Error::Spills { file: path, arch, kernel: kernel.name.clone(), stack, spilled });
        }
    }
    Ok(())
}

/// What `ptxas -v` said about each entry function.
fn resources(said: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    let before = |line: &str, unit: &str| -> u32 {
        let number = line.split(unit).next().and_then(|head| head.split_whitespace().last());
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    for line in said.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next()) {
            all.push(Resources { kernel: name.into(), ..Resources::default() });
        } else if let Some(last) = all.last_mut() {
            if line.contains("bytes stack frame") {
                last.stack = before(line, " bytes stack frame");
                last.spilled = before(line, " bytes spill stores") + before(line, " bytes spill loads");
            } else if line.contains(" registers") {
                last.registers = before(line, " registers");
            }
        }
    }
    all
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
    use crate::Where;
    use crate::scratch::Scratch;

    /// A process that starts while another test still writes its program keeps that program busy for a moment.
    fn one_at_a_time() -> MutexGuard<'static, ()> {
        static LOCK: Mutex<()> = Mutex::new(());
        LOCK.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes its arguments where nvcc would write the code and counts its runs; refuses files that hold `bad`; says of every
    /// kernel in a file's `// says` lines what ptxas would.
    const FAKE: &str = "#!/bin/sh
all=\"$*\"
while [ $# -gt 0 ]; do
    case $1 in -o) out=$2; shift;; *.cu) cu=$1;; esac
    shift
done
if grep -q bad \"$cu\"; then echo \"$cu(1): error: bad\" >&2; exit 2; fi
echo \"$all\" > \"$out\"
echo run >> \"$out.runs\"
sed -n 's|^// says ||p' \"$cu\" >&2
";

    fn nvcc(scratch: &Scratch) -> Nvcc {
        Nvcc { path: scratch.program("bin/nvcc", FAKE) }
    }

    fn says(kernel: &str, stack: u32, stores: u32) -> String {
        format!(
            "// says ptxas info    : Compiling entry function '{kernel}' for 'sm_80'\n\
             // says ptxas info    : Function properties for {kernel}\n\
             // says     {stack} bytes stack frame, {stores} bytes spill stores, 4 bytes spill loads\n\
             // says ptxas info    : Used 37 registers, used 1 barriers, 400 bytes cmem[0]\n"
        )
    }

    #[test]
    fn every_kernel_is_compiled_for_every_target_and_once() {
        let _lock = one_at_a_time();
        let s = Scratch::new("compile");
        s.file("kernels/a.cu", &(says("a", 8, 0) + "KERNEL(32) a(int n) {}\n"));
        s.file("kernels/b.cu", "");
        s.file("kernels/ptx.cuh", "bad: a header is not compiled by itself");
        s.file("out/keep", "");
        let kernels = Kernels::in_dir(s.path("kernels")).unwrap();
        let compiled = kernels.compile(&nvcc(&s), &["b"], &s.path("out")).unwrap();
        let names: Vec<_> = compiled.iter().map(|c| c.output.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["a.sm_80.cubin", "a.sm_90a.cubin", "a.compute_90.ptx", "b.sm_80.cubin", "b.sm_90a.cubin", "b.compute_90.ptx"]
        );
        assert_eq!(compiled[0].resources, [Resources { kernel: "a".into(), registers: 37, stack: 8, spilled: 4 }]);
        let said = fs::read_to_string(s.path("out/b.compute_90.ptx")).unwrap();
        assert!(said.contains(" -ptx -arch=compute_90 -Xptxas -v -I "), "{said}");

        let runs = || fs::read_to_string(s.path("out/a.sm_80.cubin.runs")).unwrap().lines().count();
        assert_eq!(kernels.compile(&nvcc(&s), &["b"], &s.path("out")).unwrap(), compiled);
        assert_eq!(runs(), 1);
        s.file("kernels/ptx.cuh", "changed");
        kernels.compile(&nvcc(&s), &["b"], &s.path("out")).unwrap();
        assert_eq!(runs(), 2);
    }

    #[test]
    fn a_file_for_hopper_is_compiled_for_it_alone_and_one_for_the_emulation_not_at_all() {
        let _lock = one_at_a_time();
        let s = Scratch::new("hopper");
        s.file("kernels/a_hopper.cu", "");
        s.file("kernels/bugs/b.cu", "KERNEL(32) b(int n) {}\n");
        let kernels = Kernels::in_dir(s.path("kernels")).unwrap().and(s.path("kernels/bugs"), Where::Emulation).unwrap();
        let compiled = kernels.compile(&nvcc(&s), &[], &s.path("")).unwrap();
        let names: Vec<_> = compiled.iter().map(|c| c.output.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a_hopper.sm_90a.cubin"]);
        assert_eq!(kernels.all().count(), 1);
    }

    #[test]
    fn a_broken_kernel_is_named_with_all_that_nvcc_said() {
        let _lock = one_at_a_time();
        let s = Scratch::new("broken");
        let bad = s.file("kernels/x.cu", "bad");
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), &[], &s.path("")).unwrap_err();
        let expected = format!("{0} does not compile for sm_80:\n{0}(1): error: bad", bad.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_lost_kernel_and_a_hot_one_that_spills_stop_the_build() {
        let _lock = one_at_a_time();
        let s = Scratch::new("lost");
        let file = s.file("kernels/x.cu", &(says("hot_one", 0, 16) + "KERNEL(32) hot_one(int n) {}\n"));
        let compile = |hot: &[&str]| Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), hot, &s.path(""));
        assert!(compile(&["cold"]).is_ok());
        let expected = "hot_one does not fit into the registers of sm_80: 0 bytes of stack, 20 bytes spilled";
        assert_eq!(compile(&["hot_"]).unwrap_err().to_string(), format!("{}: {expected}", file.display()));
        s.file("kernels/x.cu", "KERNEL(32) hot_one(int n) {}\n");
        let error = compile(&[]).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: nvcc made no hot_one for sm_80", file.display()));
    }

    #[test]
    fn an_nvcc_that_cannot_start_is_named() {
        let _lock = one_at_a_time();
        let s = Scratch::new("start");
        s.file("kernels/a.cu", "");
        let nvcc = Nvcc { path: s.path("gone") };
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc, &[], &s.path("")).unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{error}");
    }
}
