//! Memory of a device, owned.
#![allow(unsafe_code, reason = "owns device memory and keeps copies inside it")]

use std::fmt::Debug;
use std::sync::Arc;

use half::bf16;

use super::Purpose;
use crate::error::Result;
use crate::tensor::{Buffer, Dtype, TensorError};

/// A device's memory. Addresses are the device's own.
pub trait Memory: Debug + Send + Sync {
    /// Memory of any content; 16-byte aligned at least. The purpose is for the accounts.
    fn alloc(&self, bytes: usize, purpose: Purpose) -> Result<u64>;
    /// Gives memory back.
    ///
    /// # Safety
    /// Address, size and purpose come from one [`alloc`](Self::alloc), and nobody uses the memory again.
    unsafe fn free(&self, address: u64, bytes: usize, purpose: Purpose);
    /// Copies from the host.
    ///
    /// # Safety
    /// `bytes.len()` bytes from `address` on belong to the caller.
    unsafe fn upload(&self, address: u64, bytes: &[u8]) -> Result<()>;
    /// Copies to the host, after everything queued before.
    ///
    /// # Safety
    /// As [`upload`](Self::upload).
    unsafe fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    /// Sets bytes to zero.
    ///
    /// # Safety
    /// As [`upload`](Self::upload).
    unsafe fn zero(&self, address: u64, bytes: usize) -> Result<()>;
    /// Copies within the device.
    ///
    /// # Safety
    /// Both ranges belong to the caller and do not overlap.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;
}

/// Elements in a device's memory, and perhaps room for more; freed on drop.
#[derive(Debug)]
pub struct DeviceBuffer {
    memory: Arc<dyn Memory>,
    address: u64,
    dtype: Dtype,
    len: usize,
    room: usize,
    purpose: Purpose,
}

/// Two buffers are equal when they are the same memory: values are compared on the host.
impl PartialEq for DeviceBuffer {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.len == other.len && self.dtype == other.dtype
    }
}

impl DeviceBuffer {
    /// Memory of any content.
    pub fn empty(memory: &Arc<dyn Memory>, dtype: Dtype, len: usize, purpose: Purpose) -> Result<Self> {
        let address = memory.alloc(len * dtype.bytes(), purpose)?;
        Ok(Self { memory: Arc::clone(memory), address, dtype, len, room: len, purpose })
    }

    /// A copy of host memory.
    pub fn uploaded(memory: &Arc<dyn Memory>, host: &Buffer, purpose: Purpose) -> Result<Self> {
        let (dtype, bytes): (_, &[u8]) = match host {
            Buffer::F32(v) => (Dtype::F32, bytemuck::cast_slice(v)),
            Buffer::Bf16(v) => (Dtype::Bf16, bytemuck::cast_slice(v)),
            Buffer::U32(v) => (Dtype::U32, bytemuck::cast_slice(v)),
            Buffer::Device(_) => return Err(TensorError::Place { expected: "on the host" }.into()),
        };
        let buffer = Self::empty(memory, dtype, bytes.len() / dtype.bytes(), purpose)?;
        // SAFETY: the buffer was made for exactly these bytes.
        unsafe { memory.upload(buffer.address, bytes)? };
        Ok(buffer)
    }

    /// A copy in the same memory.
    pub fn copied(&self) -> Result<Self> {
        self.part(0, self.len)
    }

    /// A copy of `len` elements from `first` on. Panics when there are not as many.
    pub fn part(&self, first: usize, len: usize) -> Result<Self> {
        assert!(first + len <= self.len, "elements {first} to {} of {}", first + len, self.len);
        let part = Self::empty(&self.memory, self.dtype, len, self.purpose)?;
        let from = self.address + (first * self.dtype.bytes()) as u64;
        // SAFETY: the elements are inside this buffer, and the other is new and as large as they are.
        unsafe { self.memory.copy(part.address, from, part.bytes())? };
        Ok(part)
    }

    /// A copy in memory for `room` elements, which are as many as these at least.
    pub fn with_room(&self, room: usize) -> Result<Self> {
        let mut larger = Self::empty(&self.memory, self.dtype, room.max(self.len), self.purpose)?;
        larger.len = self.len;
        // SAFETY: the new buffer has room for these bytes.
        unsafe { self.memory.copy(larger.address, self.address, self.bytes())? };
        Ok(larger)
    }

    /// Adds `other`'s elements at the end. What has no room moves to memory with half as much to spare, so that elements that
    /// come one by one are copied three times in the mean, however many there will be.
    pub fn append(&mut self, other: &Self) -> Result<()> {
        if self.dtype != other.dtype {
            return Err(TensorError::Dtype { expected: self.dtype, got: other.dtype }.into());
        }
        let len = self.len + other.len;
        if len > self.room {
            *self = self.with_room(len.max(self.room / 2 * 3))?;
        }
        // SAFETY: there is room behind this buffer's bytes for those of the other, which is another buffer.
        unsafe { self.memory.copy(self.address + self.bytes() as u64, other.address, other.bytes())? };
        self.len = len;
        Ok(())
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Storage type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> usize {
        self.len * self.dtype.bytes()
    }

    /// Sets every element to zero.
    pub fn zero(&mut self) -> Result<()> {
        // SAFETY: the buffer has exactly these bytes.
        unsafe { self.memory.zero(self.address, self.bytes()) }
    }

    fn download<E: bytemuck::Pod>(&self) -> Result<Vec<E>> {
        let mut host = vec![E::zeroed(); self.len];
        // SAFETY: the buffer has exactly as many bytes as the elements of its type.
        unsafe { self.memory.download(self.address, bytemuck::cast_slice_mut(&mut host))? };
        Ok(host)
    }

    /// The values on the host.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match self.dtype {
            Dtype::F32 => self.download(),
            Dtype::Bf16 => Ok(self.download::<bf16>()?.into_iter().map(bf16::to_f32).collect()),
            Dtype::U32 => Err(TensorError::Dtype { expected: Dtype::F32, got: Dtype::U32 }.into()),
        }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: this is what `empty` allocated, and its only owner goes away.
        unsafe { self.memory.free(self.address, self.room * self.dtype.bytes(), self.purpose) };
    }
}
