//! What a launcher is and what launches are made of.
#![allow(unsafe_code, reason = "declares the launch of device code")]

use std::ffi::c_void;
use std::fmt::Debug;
use std::marker::PhantomData;

use half::bf16;

use super::Memory;
use crate::backend::wall_time;
use crate::error::Result;
use crate::tensor::Dtype;

/// One kernel, as its `.cu` file declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the entry point.
    pub name: &'static str,
    /// The `.cu` file, without its ending.
    pub file: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Bytes of each parameter.
    pub params: &'static [u32],
}

/// A kernel file compiled for one architecture.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The `.cu` file, without its ending.
    pub file: &'static str,
    /// `sm_80` and the like are machine code, `compute_90` is PTX.
    pub arch: &'static str,
    /// What the driver loads.
    pub code: &'static [u8],
}

/// Runs kernels on memory of its own.
pub trait Launcher: Memory + Debug + 'static {
    /// Queues a kernel on `grid` blocks.
    ///
    /// # Safety
    /// `args` points to one value of the right type per parameter, and every pointer among them covers what the kernel touches.
    unsafe fn launch(&self, kernel: &'static Kernel, grid: [u32; 3], args: &mut [*mut c_void]) -> Result<()>;

    /// Calls `work` with `0..runs` and returns the seconds between the end of each call's work and that of the one before. What
    /// queues its work asks the device for them; by default launches are done when they return, and the wall's clock tells.
    fn timed(&self, runs: usize, work: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
        wall_time(runs, work)
    }
}

/// A box-wise view of a matrix that TMA copies by, made by the driver. So far only the emulation's own tests have one.
#[cfg(feature = "emu")]
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

/// What device memory can hold.
pub trait Element: Copy {
    /// The tensor's storage type.
    const DTYPE: Dtype;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

impl Element for u32 {
    const DTYPE: Dtype = Dtype::U32;
}

macro_rules! pointer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name<E>(u64, PhantomData<E>);

        impl<E> $name<E> {
            pub(super) fn new(address: u64) -> Self {
                Self(address, PhantomData)
            }

            /// Where it is.
            pub(super) fn address(self) -> u64 {
                self.0
            }

            /// The same memory from element `n` on.
            pub(super) fn from(self, n: usize) -> Self {
                Self::new(self.0 + (n * size_of::<E>()) as u64)
            }
        }

        impl<E> Clone for $name<E> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<E> Copy for $name<E> {}
    };
}

pointer! {
    /// Device memory that a kernel reads.
    In
}

pointer! {
    /// Device memory that a kernel writes.
    Out
}

impl<E> Out<E> {
    /// The same memory as another kernel's input.
    pub(super) fn as_input(self) -> In<E> {
        In::new(self.0)
    }
}
