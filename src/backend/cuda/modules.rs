//! From compiled kernels to functions that can be launched.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute;
use cudarc::driver::{CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;

use super::super::device::{Image, Kernel};
use super::super::gpu::DeviceError;
use super::said;

/// Every kernel that has an image for `arch`, by name.
pub fn load(
    context: &Arc<CudaContext>,
    arch: &'static str,
    images: &[Image],
    kernels: &[&'static Kernel],
) -> Result<HashMap<&'static str, CudaFunction>, DeviceError> {
    let mut functions = HashMap::new();
    for image in images.iter().filter(|image| image.arch == arch) {
        let refused = |e: DriverError| DeviceError::Refused { file: image.file, arch, reason: said(e) };
        let own = kernels.iter().filter(|kernel| kernel.file == image.file);
        functions.extend(load_one(context, image, own).map_err(refused)?);
    }
    Ok(functions)
}

fn load_one<'a>(
    context: &Arc<CudaContext>,
    image: &Image,
    kernels: impl Iterator<Item = &'a &'static Kernel>,
) -> Result<Vec<(&'static str, CudaFunction)>, DriverError> {
    let code = match image.arch.starts_with("sm_") {
        true => Ptx::from_binary(image.code.to_vec()),
        // The driver wants a zero behind the text, which this adds.
        false => Ptx::from_src(String::from_utf8_lossy(image.code)),
    };
    let module = context.load_module(code)?;
    let load = |kernel: &&'static Kernel| {
        let function = module.load_function(kernel.name)?;
        if kernel.shared > 0 {
            // Without this a kernel may use 48 KiB.
            let shared = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(shared, kernel.shared as i32)?;
        }
        Ok((kernel.name, function))
    };
    kernels.map(load).collect()
}
