//! The CUDA driver layer on a driver without a GPU: order, memory, faults, and what is said when there is nothing to run on.
#![allow(unsafe_code, reason = "plays the driver")]

#[path = "../common/mod.rs"]
mod common;

mod fake;
mod faults;
mod missing;
mod work;
