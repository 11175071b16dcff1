//! The same `.cu` files as host code: the emulation that tests run them on.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher as _};
use std::path::{Path, PathBuf};

use crate::kernels::{KernelFile, Kernels, texts, with_ending, write};
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

impl Kernels {
    /// Compiles the kernels and the emulation in the folder's `host/` for the host into static libraries in `out`, and tells
    /// cargo to link them.
    ///
    /// # Errors
    /// [`Error::Compile`] with the compiler's words.
    pub fn emulated(&self, out: &Path) -> Result<(), Error> {
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
            self.object(job, &(&headers, included), out)
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

    /// The object file of one source; what has not changed since the last time, with all that it `includes`, is not compiled again.
    fn object(&self, job: &Job, includes: &impl Hash, out: &Path) -> Result<PathBuf, Error> {
        let folder = out.join(job.build.library());
        let text = texts(std::slice::from_ref(job.source))?;
        let mut hasher = DefaultHasher::new();
        (includes, text, job.build.flags(), job.source).hash(&mut hasher);
        let key = format!("{:016x}", hasher.finish());
        let name = job.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let record = folder.join(format!("{name}.key"));
        if let Ok(known) = fs::read_to_string(&record)
            && let Some(object) = known.strip_prefix(&key).map(|path| PathBuf::from(path.trim()))
            && object.exists()
        {
            return Ok(object);
        }
        let mut cc = cc::Build::new();
        cc.cpp(true)
            .std("c++17")
            .opt_level(2)
            .debug(false)
            .warnings(false)
            .include(&self.folder)
            .include(self.folder.join("host"));
        cc.flag("-fno-omit-frame-pointer").flag_if_supported("-Wno-psabi").flag_if_supported("-Wno-unknown-pragmas");
        cc.cargo_metadata(false).out_dir(&folder);
        if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
            cc.flag("-mavx2").flag("-mfma");
        }
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
