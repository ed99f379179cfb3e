//! Host tensors: a shape and its numbers.

use crate::shape::{DType, Shape, Spec};

/// The numbers of a host tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision; executors in `f32` round it.
    F64(Vec<f64>),
    /// Labels, indices, seeds.
    U32(Vec<u32>),
    /// Pixels.
    U8(Vec<u8>),
}

impl Data {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }

    /// True without elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type as a graph sees it.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) | Self::F64(_) => DType::Float,
            Self::U32(_) => DType::U32,
            Self::U8(_) => DType::U8,
        }
    }
}

/// A tensor in host memory, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

/// The number of elements does not fit the shape.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("a tensor of shape {shape} has {} elements, got {got}", shape.numel())]
pub struct LengthError {
    /// The shape.
    pub shape: Shape,
    /// The number of elements given.
    pub got: usize,
}

impl Tensor {
    /// A tensor from its parts.
    ///
    /// # Errors
    /// [`LengthError`] when the count of elements is not the shape's.
    pub fn new(shape: impl Into<Shape>, data: Data) -> Result<Self, LengthError> {
        let shape = shape.into();
        if shape.numel() == data.len() { Ok(Self { shape, data }) } else { Err(LengthError { shape, got: data.len() }) }
    }

    /// A tensor of `f32`.
    ///
    /// # Errors
    /// [`LengthError`] as in [`Tensor::new`].
    pub fn f32(shape: impl Into<Shape>, data: Vec<f32>) -> Result<Self, LengthError> {
        Self::new(shape, Data::F32(data))
    }

    /// A tensor of zeros.
    #[must_use]
    pub fn zeros(spec: &Spec) -> Self {
        let n = spec.numel();
        let data = match spec.dtype {
            DType::Float => Data::F32(vec![0.0; n]),
            DType::U32 => Data::U32(vec![0; n]),
            DType::U8 => Data::U8(vec![0; n]),
        };
        Self { shape: spec.shape.clone(), data }
    }

    /// Axes.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Elements.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Shape and element type.
    #[must_use]
    pub fn spec(&self) -> Spec {
        Spec { shape: self.shape.clone(), dtype: self.data.dtype() }
    }

    /// The elements as `f64`, whatever they are stored as.
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// The elements as `f32`, whatever they are stored as.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            Data::F64(v) => v.iter().map(|&x| x as f32).collect(),
            Data::U32(v) => v.iter().map(|&x| x as f32).collect(),
            Data::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
        }
    }
}

/// `||a - b|| / ||b||`, the measure by which kernels are compared; `||a||` where `b` is zero.
/// NaN or infinity on either side gives infinity.
#[must_use]
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let (mut diff, mut norm) = (0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        diff += (x - y) * (x - y);
        norm += y * y;
    }
    let error = if norm > 0.0 { (diff / norm).sqrt() } else { diff.sqrt() };
    if error.is_finite() { error } else { f64::INFINITY }
}
