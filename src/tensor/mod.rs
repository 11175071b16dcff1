//! [`Tensor`]: a shape over a shared, immutable buffer.
//!
//! Row-major and contiguous always; a view that would need strides is an op. Activations are `(batch, seq_len, heads,
//! head_dim)` or `(batch, seq_len, hidden)`.

pub(crate) mod pool;
mod shape;

use std::sync::Arc;

use half::bf16;

pub use shape::Shape;

use crate::backend::device::DeviceBuffer;
use crate::error::{self, Explain, Explanation};

/// What an op can find wrong with its inputs.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TensorError {
    /// Wrong number of dimensions.
    #[error("{what}: expected {expected} dimensions, got shape {got}")]
    Rank {
        /// Op and argument, with its dims.
        what: &'static str,
        /// Dimensions expected.
        expected: usize,
        /// The shape that came.
        got: Shape,
    },
    /// Wrong extents.
    #[error("{what}: expected shape {expected}, got {got}")]
    Shape {
        /// Op and argument.
        what: &'static str,
        /// The shape that fits.
        expected: Shape,
        /// The shape that came.
        got: Shape,
    },
    /// Wrong storage type.
    #[error("expected {expected} storage, got {got}")]
    Dtype {
        /// The storage type that fits.
        expected: Dtype,
        /// The storage type that came.
        got: Dtype,
    },
    /// Wrong memory.
    #[error("expected a tensor {expected}, got one elsewhere")]
    Place {
        /// Where it should be.
        expected: &'static str,
    },
    /// An extent that the kernels cannot work with.
    #[error("{what} is {got}: the GPU kernels need {needed}")]
    Extent {
        /// The extent.
        what: &'static str,
        /// What would do.
        needed: &'static str,
        /// What came.
        got: usize,
    },
}

impl Explain for TensorError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Extent { .. } => Explanation::new("E503").help("run this model on the CPU with --gpus 0"),
            _ => Explanation::new("E101").help("this is a bug in ltrain; please report it with the command line"),
        }
    }
}

/// Storage types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// The upper half of a 32-bit float: weights and activations on a device.
    Bf16,
    /// 32-bit unsigned integer: token ids, positions.
    U32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::U32 => "u32",
        })
    }
}

/// The memory behind a tensor. Data is a closed set; only kernels are open.
#[derive(Debug, PartialEq)]
pub enum Buffer {
    /// Host floats.
    F32(Vec<f32>),
    /// Host halves, on their way to or from a device.
    Bf16(Vec<bf16>),
    /// Host integers.
    U32(Vec<u32>),
    /// Memory of a device.
    Device(DeviceBuffer),
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Self::F32(v) = self {
            pool::give(std::mem::take(v));
        }
    }
}

/// A shape over a shared buffer. Cloning is cheap; writing needs the only handle.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Arc<Buffer>,
}

impl Tensor {
    /// A float tensor. Panics when the element count is not the shape's.
    pub fn f32(data: Vec<f32>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(data.len(), shape.len(), "tensor of shape {shape}");
        Self { shape, data: Arc::new(Buffer::F32(data)) }
    }

    /// An integer tensor. Panics when the element count is not the shape's.
    pub fn u32(data: Vec<u32>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(data.len(), shape.len(), "tensor of shape {shape}");
        Self { shape, data: Arc::new(Buffer::U32(data)) }
    }

    /// A tensor of halves. Panics when the element count is not the shape's.
    pub fn bf16(data: Vec<bf16>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(data.len(), shape.len(), "tensor of shape {shape}");
        Self { shape, data: Arc::new(Buffer::Bf16(data)) }
    }

    /// A tensor in a device's memory. Panics when the buffer is not the shape's.
    pub fn device(buffer: DeviceBuffer, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        assert_eq!(buffer.len(), shape.len(), "tensor of shape {shape}");
        Self { shape, data: Arc::new(Buffer::Device(buffer)) }
    }

    /// The memory.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }

    /// Float zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self::f32(pool::zeroed(shape.len()), shape)
    }

    /// A float scalar, shape `[]`.
    pub fn scalar(value: f32) -> Self {
        Self::f32(vec![value], [])
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The storage type.
    pub fn dtype(&self) -> Dtype {
        match &*self.data {
            Buffer::F32(_) => Dtype::F32,
            Buffer::Bf16(_) => Dtype::Bf16,
            Buffer::U32(_) => Dtype::U32,
            Buffer::Device(buffer) => buffer.dtype(),
        }
    }

    /// Bytes of storage.
    pub fn bytes(&self) -> u64 {
        (self.shape.len() * self.dtype().bytes()) as u64
    }

    /// The dims by name: `let [b, t, h, d] = q.dims("attention: q (B,T,H,D)")?`.
    pub fn dims<const N: usize>(&self, what: &'static str) -> Result<[usize; N], TensorError> {
        self.shape.dims().try_into().map_err(|_| TensorError::Rank { what, expected: N, got: self.shape.clone() })
    }

    /// Leading dims flattened to rows, and the last dim: `(…, C)` → `[rows, C]`.
    pub fn rows_cols(&self, what: &'static str) -> Result<[usize; 2], TensorError> {
        match self.shape.dims().split_last() {
            Some((&cols, lead)) => Ok([lead.iter().product(), cols]),
            None => Err(TensorError::Rank { what, expected: 1, got: self.shape.clone() }),
        }
    }

    /// Checks the exact shape.
    pub fn expect(&self, what: &'static str, shape: impl Into<Shape>) -> Result<(), TensorError> {
        let expected = shape.into();
        if self.shape == expected { Ok(()) } else { Err(TensorError::Shape { what, expected, got: self.shape.clone() }) }
    }

    /// The host floats.
    pub fn as_f32(&self) -> Result<&[f32], TensorError> {
        match &*self.data {
            Buffer::F32(v) => Ok(v),
            _ => Err(self.is_not(Dtype::F32)),
        }
    }

    /// The host integers.
    pub fn as_u32(&self) -> Result<&[u32], TensorError> {
        match &*self.data {
            Buffer::U32(v) => Ok(v),
            _ => Err(self.is_not(Dtype::U32)),
        }
    }

    /// The host floats for writing; copies first when the buffer is shared.
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32], TensorError> {
        let wrong = self.is_not(Dtype::F32);
        if Arc::get_mut(&mut self.data).is_none()
            && let Buffer::F32(v) = &*self.data
        {
            self.data = Arc::new(Buffer::F32(pool::copied(v)));
        }
        match Arc::get_mut(&mut self.data) {
            Some(Buffer::F32(v)) => Ok(v),
            _ => Err(wrong),
        }
    }

    /// The device memory.
    pub fn as_device(&self) -> Result<&DeviceBuffer, TensorError> {
        match &*self.data {
            Buffer::Device(buffer) => Ok(buffer),
            _ => Err(TensorError::Place { expected: "on a device" }),
        }
    }

    /// The device memory for writing; copies first when the buffer is shared.
    pub fn as_device_mut(&mut self) -> error::Result<&mut DeviceBuffer> {
        if Arc::get_mut(&mut self.data).is_none() {
            self.data = Arc::new(Buffer::Device(self.as_device()?.copied()?));
        }
        match Arc::get_mut(&mut self.data) {
            Some(Buffer::Device(buffer)) => Ok(buffer),
            _ => Err(TensorError::Place { expected: "on a device" }.into()),
        }
    }

    /// The same values as host floats: from a device, from halves, or the tensor itself.
    pub fn to_host_f32(&self) -> error::Result<Self> {
        let data = match &*self.data {
            Buffer::F32(_) => return Ok(self.clone()),
            Buffer::Bf16(v) => v.iter().map(|v| v.to_f32()).collect(),
            Buffer::U32(_) => return Err(self.is_not(Dtype::F32).into()),
            Buffer::Device(buffer) => buffer.to_f32()?,
        };
        Ok(Self::f32(data, &self.shape))
    }

    fn is_not(&self, expected: Dtype) -> TensorError {
        match (&*self.data, self.dtype()) {
            (Buffer::Device(_), _) => TensorError::Place { expected: "on the host" },
            (_, got) => TensorError::Dtype { expected, got },
        }
    }

    /// The same buffer under another shape of the same size.
    pub fn reshape(&self, what: &'static str, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let expected = shape.into();
        if expected.len() != self.shape.len() {
            return Err(TensorError::Shape { what, expected, got: self.shape.clone() });
        }
        Ok(Self { shape: expected, data: Arc::clone(&self.data) })
    }

    /// A copy of one row of a batch of floats: `(B, …)` → `(1, …)`. Panics when there is no such row.
    pub fn row(&self, row: usize) -> error::Result<Self> {
        let dims = self.shape.dims();
        let [batch, rest] = [dims[0], dims[1..].iter().product()];
        assert!(row < batch, "row {row} of {batch}");
        let shape: Vec<usize> = std::iter::once(1).chain(dims[1..].iter().copied()).collect();
        Ok(match &*self.data {
            Buffer::Device(buffer) => Self::device(buffer.part(row * rest, rest)?, shape),
            _ => Self::f32(pool::copied(&self.as_f32()?[row * rest..][..rest]), shape),
        })
    }

    /// A copy of a `(1, T, …)` tensor of floats with room for `rows` along dim 1 in all: up to there [`append`](Self::append) moves
    /// nothing.
    pub fn with_room(&self, rows: usize) -> error::Result<Self> {
        let row: usize = self.shape.dims()[2..].iter().product();
        let room = self.shape.len().max(rows * row);
        let data = match &*self.data {
            Buffer::Device(buffer) => Buffer::Device(buffer.with_room(room)?),
            _ => {
                let mut floats = Vec::with_capacity(room);
                floats.extend_from_slice(self.as_f32()?);
                Buffer::F32(floats)
            }
        };
        Ok(Self { shape: self.shape.clone(), data: Arc::new(data) })
    }

    /// `(1, T, …)` tensors one behind the other along dim 1. Panics without any.
    pub fn joined(parts: Vec<Self>) -> error::Result<Self> {
        let mut parts = parts.into_iter();
        let mut all = parts.next().expect("join: a tensor");
        parts.try_for_each(|part| all.append(&part))?;
        Ok(all)
    }

    /// Appends `rows` along dim 1 of a `(1, T, …)` tensor: the growth step of a key/value cache.
    pub fn append(&mut self, rows: &Tensor) -> error::Result<()> {
        let what = "append: rows (1,T,…)";
        let tail = |s: &Shape| s.dims().get(2..).map(<[usize]>::to_vec);
        if self.shape.dims().first() != Some(&1)
            || rows.shape.dims().first() != Some(&1)
            || tail(&self.shape) != tail(&rows.shape)
        {
            return Err(TensorError::Shape { what, expected: self.shape.clone(), got: rows.shape.clone() }.into());
        }
        if let Buffer::Device(_) = &*self.data {
            self.as_device_mut()?.append(rows.as_device()?)?;
        } else {
            self.as_f32_mut()?;
            match Arc::get_mut(&mut self.data) {
                Some(Buffer::F32(v)) => v.extend_from_slice(rows.as_f32()?),
                _ => unreachable!("as_f32_mut leaves the only handle of host floats"),
            }
        }
        let mut dims = self.shape.dims().to_vec();
        dims[1] += rows.shape.dims()[1];
        self.shape = Shape::from(dims);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_never_changes_another_handle() {
        let a = Tensor::f32(vec![1.0, 2.0], [2]);
        let mut b = a.clone();
        b.as_f32_mut().unwrap()[0] = 9.0;
        assert_eq!(a.as_f32().unwrap(), [1.0, 2.0]);
        assert_eq!(b.as_f32().unwrap(), [9.0, 2.0]);
    }

    #[test]
    fn a_wrong_shape_is_named_with_both_shapes() {
        let t = Tensor::zeros([2, 3]);
        let error = t.dims::<3>("rope: x (B,T,C)").unwrap_err();
        assert_eq!(error.to_string(), "rope: x (B,T,C): expected 3 dimensions, got shape [2, 3]");
        assert!(t.reshape("r", [7]).is_err());
    }
}
