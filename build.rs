//! Compiles the CUDA kernels where nvcc is found; without kernels there is nothing to do.

use std::error::Error;

fn main() {
    if let Err(error) = kernels() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn kernels() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=kernels");
    let kernels = ptx_build::Kernels::in_dir("kernels")?;
    if kernels.is_empty() {
        return Ok(());
    }
    for name in ["LTRAIN_NVCC", "CUDA_HOME", "VIRTUAL_ENV"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match ptx_build::find(&|name| std::env::var_os(name)) {
        Ok(nvcc) => drop(kernels.compile(&nvcc, std::env::var("OUT_DIR")?)?),
        Err(error) if error.asked => return Err(error.into()),
        Err(error) => println!("cargo::warning=no GPU kernels in this build: {error}"),
    }
    Ok(())
}
