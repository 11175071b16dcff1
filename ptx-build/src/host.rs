//! The same `.cu` files as host code: the emulation that tests run them on.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kernels::{KernelFile, Kernels, write};
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
        let list = fs::read_dir(&host).map_err(|source| Error::Read { path: host.clone(), source })?;
        let mut runtime: Vec<_> =
            list.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "cpp")).collect();
        runtime.sort();
        for build in [Build::Plain, Build::Race] {
            self.library(build, &generated, &runtime, out)?;
        }
        Ok(())
    }

    /// One static library. The emulation itself is not instrumented: it looks at memory on the kernels' behalf.
    fn library(&self, build: Build, kernels: &[PathBuf], runtime: &[PathBuf], out: &Path) -> Result<(), Error> {
        let compile = |files: &[PathBuf], instrumented: bool| {
            let mut cc = cc::Build::new();
            cc.cpp(true)
                .std("c++17")
                .opt_level(2)
                .debug(false)
                .warnings(false)
                .include(&self.folder)
                .include(self.folder.join("host"));
            cc.flag("-fno-omit-frame-pointer").flag_if_supported("-Wno-psabi").flag_if_supported("-Wno-unknown-pragmas");
            cc.cargo_metadata(false).out_dir(out.join(build.library()));
            if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
                cc.flag("-mavx2").flag("-mfma");
            }
            for flag in build.flags() {
                if instrumented || flag.starts_with("-D") {
                    cc.flag(flag);
                }
            }
            cc.files(files).try_compile_intermediates().map_err(|error| Error::Compile {
                file: self.folder.clone(),
                arch: "the host",
                output: error.to_string(),
            })
        };
        let objects = [compile(kernels, true)?, compile(runtime, false)?].concat();
        let mut archive = cc::Build::new();
        archive.cpp(true).objects(objects).out_dir(out);
        archive.try_compile(build.library()).map_err(|error| Error::Compile {
            file: self.folder.clone(),
            arch: "the host",
            output: error.to_string(),
        })
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
