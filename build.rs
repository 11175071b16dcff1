//! Binds the CUDA kernels, compiles them where nvcc is found, and builds their host emulation for tests.

use std::error::Error;
use std::path::PathBuf;

/// Kernels whose speed the product stands on: a spill stops the build.
const HOT: [&str; 2] = ["attention_", "matmul_"];

fn main() {
    if let Err(error) = kernels() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn kernels() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=kernels");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let emulated = std::env::var_os("CARGO_FEATURE_EMU").is_some();
    let mut kernels = ptx_build::Kernels::in_dir("kernels")?;
    if emulated {
        // For tests alone: a program without the emulation holds none of these.
        kernels = kernels.and("kernels/conformance", ptx_build::Where::Everywhere)?;
        kernels = kernels.and("kernels/host/tests", ptx_build::Where::Emulation)?;
    }
    let watched = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        std::env::var_os(name)
    };
    let images = match ptx_build::find(&watched) {
        Ok(Some(nvcc)) => {
            println!("cargo::rerun-if-changed={}", nvcc.path.display());
            kernels.compile(&nvcc, &HOT, &out)?
        }
        Ok(None) => Vec::new(),
        Err(error) if error.asked => return Err(error.into()),
        // The places are not watched: to cargo a file that is missing has always changed, and every build would start again.
        Err(error) => {
            println!("cargo::warning=no GPU kernels in this build: {error}");
            Vec::new()
        }
    };
    kernels.write_bindings(&images, &out)?;
    if emulated {
        kernels.emulated(&out)?;
    }
    Ok(())
}
