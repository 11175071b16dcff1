//! What rates are compared with: a copy in the device's memory and a large matrix product.

use crate::backend::selftest::{F32, ROUNDING};
use crate::bench::op::{Cost, Op};
use crate::error::Result;
use crate::tensor::{Buffer, Tensor};
use crate::units::format_bytes;

/// Writing to a shared tensor copies it first.
fn copied(of: &Tensor) -> Result<Tensor> {
    let mut copy = of.clone();
    match of.buffer() {
        Buffer::Device(_) => drop(copy.as_device_mut()?),
        _ => drop(copy.as_f32_mut()?),
    }
    Ok(copy)
}

/// Bytes read and bytes written both count.
pub fn copy() -> Op {
    let bytes = |d: &crate::bench::Dims| d.limits[0] * d.element;
    Op::new(
        "copy",
        move |d| format_bytes(bytes(d) as u64),
        move |d| Cost::Bytes(2.0 * bytes(d) as f64),
        [0.0],
        |i, d| {
            let from = i.normal([d.limits[0]], 1.0)?;
            Ok(Box::new(move |_| Ok(vec![copied(&from)?])))
        },
    )
    .of_the_model()
}

/// `n` rows, columns and depth.
pub fn gemm() -> Op {
    Op::new(
        "gemm",
        |d| format!("{0}x{0}x{0}", d.limits[1]),
        |d| Cost::Flops(2.0 * (d.limits[1] as f64).powi(3)),
        [ROUNDING + F32],
        |i, d| {
            let n = d.limits[1];
            let (x, w) = (i.normal([n, n], 1.0)?, i.normal([n, n], 1.0)?);
            Ok(Box::new(move |k| Ok(vec![k.linear_fwd(&x, &w)?])))
        },
    )
    .of_the_model()
}
