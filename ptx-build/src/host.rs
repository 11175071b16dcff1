//! The same `.cu` files as host code: the emulation that tests run them on.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher as _};
use std::path::{Path, PathBuf};

use crate::kernels::{KernelFile, Kernels, remove, texts, with_ending, write};
use crate::parallel::in_parallel;
use crate::{Error, signature};

/// How the host's code is instrumented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Traps on misaligned vectors and on indices beyond an array.
    Plain,
    /// Every access is reported to the race detector; several times slower.
    Race,
}

impl Build {
    /// Name of the static library.
    fn library(self) -> &'static str {
        match self {
            Self::Plain => "ltrain_emu",
            Self::Race => "ltrain_emu_race",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"],
            Self::Race => &["-fsanitize=thread", "-DSIMT_SAN"],
        }
    }
}

/// One source file in one build.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    source: &'a PathBuf,
    build: Build,
    instrumented: bool,
}

/// The host's C++ compiler, with the flags of every file.
struct Compiler {
    cc: cc::Build,
    /// Its command, and what it says of its version.
    identity: String,
}

impl Kernels {
    /// Compiles the kernels and the emulation in the folder's `host/` for the host into static libraries in `out`, and tells
    /// cargo to link them.
    ///
    /// # Errors
    /// [`Error::Compile`] with the compiler's words.
    pub fn emulated(&self, out: &Path) -> Result<(), Error> {
        let compiler = self.compiler(cc::Build::new())?;
        let stubs = out.join("stubs");
        fs::create_dir_all(&stubs).map_err(|source| Error::Write { path: stubs.clone(), source })?;
        let mut generated = self.files.iter().map(|file| stub(file, &stubs)).collect::<Result<Vec<_>, _>>()?;
        generated.push(self.table(&stubs)?);
        let host = self.folder.join("host");
        let runtime = with_ending(&host, "cpp")?;
        let jobs: Vec<Job> = [Build::Plain, Build::Race]
            .into_iter()
            .flat_map(|build| {
                // The emulation itself is not instrumented: it looks at memory on the kernels' behalf.
                let kernels = generated.iter().map(move |source| Job { source, build, instrumented: true });
                kernels.chain(runtime.iter().map(move |source| Job { source, build, instrumented: false }))
            })
            .collect();
        let headers = [texts(&with_ending(&self.folder, "cuh")?)?, texts(&with_ending(&host, "h")?)?].concat();
        let kernels = texts(&self.files.iter().map(|f| f.path.clone()).collect::<Vec<_>>())?;
        let kernel_of = |job: &Job| self.files.iter().position(|f| job.source.file_stem() == f.path.file_stem());
        let objects = in_parallel(&jobs, |job| {
            let included = kernel_of(job).filter(|_| job.instrumented).map_or("", |n| kernels[n].as_str());
            self.object(&compiler, job, &(&headers, included), out)
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
        for build in [Build::Plain, Build::Race] {
            let of_build = jobs.iter().zip(&objects).filter(|(job, _)| job.build == build).map(|(_, object)| object);
            let mut archive = cc::Build::new();
            archive.cpp(true).objects(of_build).out_dir(out);
            archive.try_compile(build.library()).map_err(|error| self.refused(error))?;
        }
        Ok(())
    }

    fn refused(&self, error: cc::Error) -> Error {
        Error::Compile { file: self.folder.clone(), arch: "the host", output: error.to_string() }
    }

    fn compiler(&self, mut cc: cc::Build) -> Result<Compiler, Error> {
        cc.cpp(true).std("c++17").opt_level(2).debug(false).warnings(false);
        cc.include(&self.folder).include(self.folder.join("host"));
        // A frame larger than a page meets its guard page first, not what lies beyond it.
        cc.flag("-fno-omit-frame-pointer").flag("-fstack-clash-protection").flag("-Wno-psabi").flag("-Wno-unknown-pragmas");
        if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
            cc.flag("-mavx2").flag("-mfma");
        }
        // Tells cargo which variables decide.
        let mut command = cc.try_get_compiler().map_err(|error| self.refused(error))?.to_command();
        let done = command.arg("--version").output();
        let done = done.map_err(|source| Error::Start { compiler: command.get_program().into(), source })?;
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        let identity = format!("{words:?}: {}", String::from_utf8_lossy(&done.stdout));
        cc.cargo_metadata(false);
        Ok(Compiler { cc, identity })
    }

    /// The object file of one source; what has not changed since the last time, with all that it `includes`, is not compiled again.
    fn object(&self, compiler: &Compiler, job: &Job, includes: &impl Hash, out: &Path) -> Result<PathBuf, Error> {
        let folder = out.join(job.build.library());
        let text = texts(std::slice::from_ref(job.source))?;
        let mut hasher = DefaultHasher::new();
        (includes, text, &compiler.identity, job.build.flags(), job.source).hash(&mut hasher);
        let key = format!("{:016x}", hasher.finish());
        let name = job.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let record = folder.join(format!("{name}.key"));
        if let Ok(known) = fs::read_to_string(&record)
            && let Some(object) = known.strip_prefix(&key).map(|path| PathBuf::from(path.trim()))
            && object.exists()
        {
            return Ok(object);
        }
        // From here on the object may be anything until the record is back.
        remove(&record)?;
        let mut cc = compiler.cc.clone();
        cc.out_dir(&folder);
        for flag in job.build.flags() {
            if job.instrumented || flag.starts_with("-D") {
                cc.flag(flag);
            }
        }
        let objects = cc.file(job.source).try_compile_intermediates().map_err(|error| self.refused(error))?;
        let object = objects.into_iter().next().expect("host: one source gives one object");
        write(&record, &format!("{key} {}\n", object.display()))?;
        Ok(object)
    }

    /// The table that the emulation finds kernels in: static initialisers of a static library would be dropped by the linker.
    fn table(&self, stubs: &Path) -> Result<PathBuf, Error> {
        let declared: String = self.all().map(|k| format!("extern const Kernel simt_kernel_{};\n", k.name)).collect();
        let listed: String = self.all().map(|k| format!("    &simt_kernel_{},\n", k.name)).collect();
        let code = format!(
            "#include \"simt.h\"\nnamespace simt::SIMT_VARIANT {{\n{declared}extern const Kernel* const kernel_table[] = {{\n\
             {listed}    nullptr,\n}};\n}}\n"
        );
        let path = stubs.join("table.cpp");
        write(&path, &code)?;
        Ok(path)
    }
}

/// A translation unit that closes one `.cu` file off from the others and exports its kernels.
fn stub(file: &KernelFile, stubs: &Path) -> Result<PathBuf, Error> {
    let source = file.path.canonicalize().map_err(|source| Error::Read { path: file.path.clone(), source })?;
    let mut code = format!("#include \"ptx.cuh\"\nnamespace {{\n#include {:?}\n}}\n", source.display().to_string());
    for signature::Kernel { name, threads, shared, .. } in &file.kernels {
        code += &format!("SIMT_EXPORT({name}, {threads}, {shared})\n");
    }
    let path = stubs.join(format!("{}.cpp", file.name));
    write(&path, &code)?;
    Ok(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// The host's compiler with a version of its own, which counts its runs.
    const COUNTING: &str = "#!/bin/sh
case \"$*\" in
    *--version) echo VERSION; exit;;
    *a.cpp) echo run >> RUNS;;
esac
exec c++ \"$@\"
";

    #[test]
    fn an_object_is_compiled_again_for_another_compiler_other_flags_and_after_a_compile_that_did_not_end() {
        let s = Scratch::new("host");
        let source = s.file("a.cpp", "");
        let kernels = Kernels { folder: s.path("kernels"), files: Vec::new() };
        let object = |version: &str, flag: &str| {
            let script = COUNTING.replace("VERSION", version).replace("RUNS", s.path("runs").to_str().unwrap());
            let mut cc = cc::Build::new();
            let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            cc.compiler(s.program("bin/c++", &script)).target(&triple).host(&triple).out_dir(s.path("")).flag(flag);
            let compiler = kernels.compiler(cc).unwrap();
            let job = Job { source: &source, build: Build::Plain, instrumented: true };
            kernels.object(&compiler, &job, &"", &s.path("out"))
        };
        let runs = || fs::read_to_string(s.path("runs")).unwrap().lines().count();
        object("1", "-DA").unwrap();
        object("1", "-DA").unwrap();
        assert_eq!(runs(), 1);
        object("2", "-DA").unwrap();
        assert_eq!(runs(), 2);
        object("2", "-DB").unwrap();
        assert_eq!(runs(), 3);
        s.file("a.cpp", "#error");
        object("2", "-DB").unwrap_err();
        s.file("a.cpp", "");
        object("2", "-DB").unwrap();
        assert_eq!(runs(), 5);
    }
}
