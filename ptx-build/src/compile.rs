//! From `.cu` files to cubins and PTX.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kernels::{KernelFile, Kernels, remove, texts, with_ending, write};
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

/// What one kernel needs on one architecture, as far as the assembler said it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The kernel.
    pub kernel: String,
    /// Registers of a thread.
    pub registers: Option<u32>,
    /// Bytes of its stack frame.
    pub stack: Option<u32>,
    /// Bytes stored to and loaded from memory for want of registers.
    pub spilled: Option<u32>,
}

impl Kernels {
    /// Compiles every kernel for each of its file's targets into `out`, which exists, on all cores. What has not changed since
    /// the last time is not compiled again. Kernels whose names start with one of `hot` must live in registers.
    ///
    /// # Errors
    /// In [`Error::Found`] for an nvcc that nobody asked for: the first kernel that nvcc refuses or loses, or that is hot and spills, or does so for all that nvcc says.
    pub fn compile(&self, nvcc: &Nvcc, hot: &[&str], out: &Path) -> Result<Vec<Compiled>, Error> {
        let headers = texts(&with_ending(&self.folder, "cuh")?)?.concat();
        let jobs: Vec<_> = self.files.iter().flat_map(|file| file.targets.iter().map(move |target| (file, target))).collect();
        let compiled = in_parallel(&jobs, |(file, target)| {
            let output = out.join(format!("{}.{}.{}", file.name, target.arch, target.kind));
            let said = self.compile_one(nvcc, file, **target, &headers, &output)?;
            let image = Compiled { file: file.name.clone(), target: **target, output, resources: resources(&said) };
            check(file, &image, hot, &said).map(|()| image)
        });
        compiled.into_iter().collect::<Result<_, _>>().map_err(|error| match nvcc.asked {
            true => error,
            false => Error::Found { nvcc: nvcc.path.clone(), source: Box::new(error) },
        })
    }

    /// What nvcc says, now or the last time.
    fn compile_one(&self, nvcc: &Nvcc, file: &KernelFile, target: Target, headers: &str, output: &Path) -> Result<String, Error> {
        let Target { arch, kind } = target;
        let log = output.with_extension(format!("{kind}.log"));
        let text = texts(std::slice::from_ref(&file.path))?;
        // No fast-math: a kernel that wants an approximation says so where it uses it.
        let (kind, arch_is) = (format!("-{kind}"), format!("-arch={arch}"));
        let mut arguments: Vec<OsString> =
            ["-std=c++17", "-O3", "-lineinfo", &kind, &arch_is, "-Xptxas", "-v", "-I"].map(Into::into).into();
        arguments.extend([self.folder.as_os_str(), "-o".as_ref(), output.as_os_str(), file.path.as_os_str()].map(Into::into));

        let mut hasher = DefaultHasher::new();
        (text, headers, nvcc, &arguments).hash(&mut hasher);
        // At the log's end: half a log is none.
        let key = format!("\n{:016x}\n", hasher.finish());
        if let Ok(known) = fs::read_to_string(&log)
            && let Some(said) = known.strip_suffix(&key)
            && output.exists()
        {
            return Ok(said.into());
        }
        // From here on the output may be anything until the log is back.
        remove(&log)?;
        let done = Command::new(&nvcc.path).args(&arguments).output();
        let done = done.map_err(|source| Error::Start { compiler: nvcc.path.clone(), source })?;
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).trim_end().to_string();
        if !done.status.success() {
            return Err(Error::Compile { file: file.path.clone(), arch, output: said });
        }
        write(&log, &(said.clone() + &key))?;
        Ok(said)
    }
}

/// Every kernel of the file is there, and the hot ones have all they need.
fn check(file: &KernelFile, image: &Compiled, hot: &[&str], said: &str) -> Result<(), Error> {
    if image.target.kind != "cubin" {
        return Ok(());
    }
    let (path, arch) = (file.path.clone(), image.target.arch);
    for kernel in &file.kernels {
        let Some(found) = image.resources.iter().find(|r| r.kernel == kernel.name) else {
            return Err(Error::Lost { file: path, arch, kernel: kernel.name.clone() });
        };
        if !hot.iter().any(|h| kernel.name.starts_with(h)) {
            continue;
        }
        let kernel = kernel.name.clone();
        match (found.stack, found.spilled) {
            (Some(0), Some(0)) => {}
            (Some(stack), Some(spilled)) => return Err(Error::Spills { file: path, arch, kernel, stack, spilled }),
            _ => return Err(Error::Untold { file: path, arch, kernel, output: said.into() }),
        }
    }
    Ok(())
}

/// What `ptxas -v` said about each entry function.
fn resources(said: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    let before = |line: &str, unit: &str| -> Option<u32> { line.split_once(unit)?.0.split_whitespace().last()?.parse().ok() };
    // Of whom the next line tells stack and spills: of the kernel, or of a function that it calls.
    let mut about = "";
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            about = rest.split('\'').next().unwrap_or_default();
            all.push(Resources { kernel: about.into(), ..Resources::default() });
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            about = name.trim();
        } else if let Some(last) = all.last_mut() {
            if line.contains("bytes stack frame") && about == last.kernel {
                let (stores, loads) = (before(line, " bytes spill stores"), before(line, " bytes spill loads"));
                last.stack = before(line, " bytes stack frame");
                last.spilled = stores.zip(loads).map(|(stores, loads)| stores + loads);
            }
            last.registers = before(line, " registers").or(last.registers);
        }
    }
    all
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::Where;
    use crate::scratch::Scratch;

    /// Writes its arguments where nvcc would write the code and counts its runs; then refuses files that hold `bad`; says of
    /// every kernel in a file's `// says` lines what ptxas would.
    const FAKE: &str = "#!/bin/sh
all=\"$*\"
while [ $# -gt 0 ]; do
    case $1 in -o) out=$2; shift;; *.cu) cu=$1;; esac
    shift
done
echo \"$all\" > \"$out\"
echo run >> \"$out.runs\"
if grep -q bad \"$cu\"; then echo \"$cu(1): error: bad\" >&2; exit 2; fi
sed -n 's|^// says ||p' \"$cu\" >&2
";

    fn nvcc(scratch: &Scratch) -> Nvcc {
        Nvcc { path: scratch.program("bin/nvcc", FAKE), version: "release 13.0".into(), asked: true }
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
        let expected = Resources { kernel: "a".into(), registers: Some(37), stack: Some(8), spilled: Some(4) };
        assert_eq!(compiled[0].resources, [expected]);
        let said = fs::read_to_string(s.path("out/b.compute_90.ptx")).unwrap();
        assert!(said.contains(" -ptx -arch=compute_90 -Xptxas -v -I "), "{said}");

        let runs = || fs::read_to_string(s.path("out/a.sm_80.cubin.runs")).unwrap().lines().count();
        assert_eq!(kernels.compile(&nvcc(&s), &["b"], &s.path("out")).unwrap(), compiled);
        assert_eq!(runs(), 1);
        s.file("kernels/ptx.cuh", "changed");
        kernels.compile(&nvcc(&s), &["b"], &s.path("out")).unwrap();
        assert_eq!(runs(), 2);
        let newer = Nvcc { version: "release 13.1".into(), ..nvcc(&s) };
        kernels.compile(&newer, &["b"], &s.path("out")).unwrap();
        assert_eq!(runs(), 3);
        let kernels = Kernels { folder: s.path("elsewhere/../kernels"), ..kernels };
        s.file("elsewhere/keep", "");
        kernels.compile(&newer, &["b"], &s.path("out")).unwrap();
        assert_eq!(runs(), 4, "with other arguments");
    }

    #[test]
    fn what_a_compile_left_that_did_not_end_is_not_taken_for_done() {
        let s = Scratch::new("killed");
        let compile = |text: &str| {
            s.file("kernels/a_hopper.cu", text);
            Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), &[], &s.path(""))
        };
        let runs = || fs::read_to_string(s.path("a_hopper.sm_90a.cubin.runs")).unwrap().lines().count();
        compile("// one\n").unwrap();
        compile("// bad\n").unwrap_err();
        compile("// one\n").unwrap();
        assert_eq!(runs(), 3);
        let log = s.path("a_hopper.sm_90a.cubin.log");
        let half = fs::read_to_string(&log).unwrap();
        fs::write(&log, &half[..half.len() / 2]).unwrap();
        compile("// one\n").unwrap();
        assert_eq!(runs(), 4);
    }

    #[test]
    fn a_file_for_hopper_is_compiled_for_it_alone_and_one_for_the_emulation_not_at_all() {
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
        let s = Scratch::new("broken");
        let bad = s.file("kernels/x.cu", "bad");
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), &[], &s.path("")).unwrap_err();
        let expected = format!("{0} does not compile for sm_80:\n{0}(1): error: bad", bad.display());
        assert_eq!(error.to_string(), expected);

        let found = Nvcc { asked: false, ..nvcc(&s) };
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&found, &[], &s.path("")).unwrap_err();
        let way_out = format!(
            "\n{} was found, not asked for: LTRAIN_NVCC names another, LTRAIN_NVCC=none builds without GPU kernels",
            found.path.display()
        );
        assert_eq!(error.to_string(), expected + &way_out);
    }

    #[test]
    fn a_lost_kernel_and_a_hot_one_that_spills_stop_the_build() {
        let s = Scratch::new("lost");
        let file = s.file("kernels/x.cu", &(says("hot_one", 0, 16) + "KERNEL(32) hot_one(int n) {}\n"));
        let compile = |hot: &[&str]| Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), hot, &s.path(""));
        assert!(compile(&["cold"]).is_ok());
        let expected = "hot_one does not fit into the registers of sm_80: 0 bytes of stack, 20 bytes spilled";
        assert_eq!(compile(&["hot_"]).unwrap_err().to_string(), format!("{}: {expected}", file.display()));
        let other = "// says ptxas info    : Function properties for other\n\
                     // says     64 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n";
        s.file("kernels/x.cu", &(says("hot_one", 0, 16) + other + "KERNEL(32) hot_one(int n) {}\n"));
        assert_eq!(compile(&["hot_"]).unwrap_err().to_string(), format!("{}: {expected}", file.display()), "another's numbers");

        s.file("kernels/x.cu", "KERNEL(32) hot_one(int n) {}\n");
        let error = compile(&[]).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: nvcc made no hot_one for sm_80", file.display()));
    }

    #[test]
    fn a_hot_kernel_of_which_nvcc_does_not_say_that_it_fits_stops_the_build() {
        let s = Scratch::new("untold");
        let fits = "// says ptxas info    : Compiling entry function 'hot_one' for 'sm_80'\n\
                    // says ptxas info    : Function properties for hot_one\n\
                    // says     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n";
        let compile = |says: &str, hot: &[&str]| {
            s.file("kernels/x.cu", &(says.to_string() + "KERNEL(32) hot_one(int n) {}\n"));
            Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc(&s), hot, &s.path(""))
        };
        compile(fits, &["hot_"]).unwrap();
        for (word, other) in [
            ("// says     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n", ""),
            ("0 bytes stack frame", "stack frame of 0 bytes"),
            ("0 bytes stack frame", "no bytes stack frame"),
            ("0 bytes spill loads", "0 bytes of spill loads"),
            ("properties for hot_one", "properties for other"),
        ] {
            let says = fits.replace(word, other);
            compile(&says, &[]).unwrap();
            let error = compile(&says, &["hot_"]).unwrap_err().to_string();
            let said = says.replace("// says ", "");
            assert!(error.contains("x.cu: nvcc does not say what stack and spills hot_one has on sm_80"), "{error}");
            assert!(error.ends_with(said.trim_end()), "{error}");
        }
    }

    #[test]
    fn an_nvcc_that_cannot_start_is_named() {
        let s = Scratch::new("start");
        s.file("kernels/a.cu", "");
        let nvcc = Nvcc { path: s.path("gone"), ..nvcc(&s) };
        let error = Kernels::in_dir(s.path("kernels")).unwrap().compile(&nvcc, &[], &s.path("")).unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{error}");
    }
}
