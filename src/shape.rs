//! Shapes, element types and the typed errors of shape rules.

use std::fmt;
use std::ops::Deref;

/// The sizes of a tensor's axes, outermost first. Rank 0 is a scalar with one element.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// A shape from its axes.
    #[must_use]
    pub fn new(dims: &[usize]) -> Self {
        Self(dims.to_vec())
    }

    /// The rank-0 shape of one number.
    #[must_use]
    pub fn scalar() -> Self {
        Self(Vec::new())
    }

    /// Number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }

    /// The axes as a slice.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Row-major strides, in elements.
    #[must_use]
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.0.len()];
        for i in (1..self.0.len()).rev() {
            strides[i - 1] = strides[i] * self.0[i];
        }
        strides
    }

    /// The four axes of an image batch `[N, C, H, W]`.
    #[must_use]
    pub fn nchw(&self) -> Option<[usize; 4]> {
        <[usize; 4]>::try_from(self.0.as_slice()).ok()
    }

    /// PyTorch's broadcasting: axes are aligned at the right, and an axis of one repeats.
    #[must_use]
    pub fn broadcast(a: &Self, b: &Self) -> Option<Self> {
        let rank = a.len().max(b.len());
        let axis = |s: &Self, i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s.0[k]);
        (0..rank)
            .map(|i| match (axis(a, i), axis(b, i)) {
                (x, y) if x == y => Some(x),
                (1, y) => Some(y),
                (x, 1) => Some(x),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// Strides that walk this shape while the counter walks `to`: 0 along every axis that broadcasting repeats.
    #[must_use]
    pub fn broadcast_strides(&self, to: &Self) -> Vec<usize> {
        let own = self.strides();
        (0..to.len())
            .map(|i| match (i + self.len()).checked_sub(to.len()) {
                Some(k) if self.0[k] != 1 => own[k],
                _ => 0,
            })
            .collect()
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(dims: [usize; R]) -> Self {
        Self(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Floating point: `f32` on the GPU, `f32` or `f64` on the CPU.
    Float,
    /// Unsigned 32-bit integers: labels, indices, random seeds.
    U32,
    /// Bytes: pixels. On the GPU four of them share a word.
    U8,
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::U32 => "u32",
            Self::U8 => "u8",
        })
    }
}

/// Shape and element type of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Axes.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

impl Spec {
    /// A float tensor.
    #[must_use]
    pub fn float(shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), dtype: DType::Float }
    }

    /// A tensor of `u32`.
    #[must_use]
    pub fn u32(shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), dtype: DType::U32 }
    }

    /// A tensor of bytes.
    #[must_use]
    pub fn u8(shape: impl Into<Shape>) -> Self {
        Self { shape: shape.into(), dtype: DType::U8 }
    }

    /// Number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// Bytes on the GPU, rounded up to whole words.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self.dtype {
            DType::Float | DType::U32 => 4 * self.numel(),
            DType::U8 => self.numel().next_multiple_of(4),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            DType::Float => write!(f, "{}", self.shape),
            other => write!(f, "{other}{}", self.shape),
        }
    }
}

/// An op was given tensors that it cannot work on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Two tensors do not fit each other.
    #[error("{op}: {what}: {left} against {right}")]
    Mismatch {
        /// The op.
        op: &'static str,
        /// The rule that is broken.
        what: &'static str,
        /// One tensor.
        left: Spec,
        /// The other.
        right: Spec,
    },
    /// One tensor or parameter is out of range.
    #[error("{op}: {what} (input {input})")]
    Invalid {
        /// The op.
        op: &'static str,
        /// What is wrong.
        what: String,
        /// The tensor it was given.
        input: Spec,
    },
    /// Wrong number of inputs.
    #[error("{op}: takes {expected} inputs, got {got}")]
    Arity {
        /// The op.
        op: &'static str,
        /// How many it takes.
        expected: usize,
        /// How many it got.
        got: usize,
    },
    /// A derivative that does not exist was asked for.
    #[error("{op}: has no derivative with respect to its input {input}")]
    NoDerivative {
        /// The op.
        op: &'static str,
        /// Which input.
        input: usize,
    },
}

impl ShapeError {
    /// Shorthand for [`ShapeError::Mismatch`].
    #[must_use]
    pub fn mismatch(op: &'static str, what: &'static str, left: &Spec, right: &Spec) -> Self {
        Self::Mismatch { op, what, left: left.clone(), right: right.clone() }
    }

    /// Shorthand for [`ShapeError::Invalid`].
    #[must_use]
    pub fn invalid(op: &'static str, what: impl Into<String>, input: &Spec) -> Self {
        Self::Invalid { op, what: what.into(), input: input.clone() }
    }
}

/// Checks the number of inputs.
///
/// # Errors
/// [`ShapeError::Arity`].
pub fn arity(op: &'static str, inputs: &[&Spec], expected: usize) -> Result<(), ShapeError> {
    if inputs.len() == expected { Ok(()) } else { Err(ShapeError::Arity { op, expected, got: inputs.len() }) }
}

/// The axes of a float image batch, or an error that names the op.
///
/// # Errors
/// [`ShapeError::Invalid`] when the tensor is no float tensor of rank 4.
pub fn image(op: &'static str, spec: &Spec) -> Result<[usize; 4], ShapeError> {
    match spec.shape.nchw() {
        Some(dims) if spec.dtype == DType::Float => Ok(dims),
        _ => Err(ShapeError::invalid(op, "expects a float tensor [N, C, H, W]", spec)),
    }
}

/// The axes of a float matrix, or an error that names the op.
///
/// # Errors
/// [`ShapeError::Invalid`] when the tensor is no float tensor of rank 2.
pub fn matrix(op: &'static str, spec: &Spec) -> Result<[usize; 2], ShapeError> {
    match <[usize; 2]>::try_from(spec.shape.dims()) {
        Ok(dims) if spec.dtype == DType::Float => Ok(dims),
        _ => Err(ShapeError::invalid(op, "expects a float matrix [N, M]", spec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_aligns_at_the_right() {
        let a = Shape::from([2, 3, 4]);
        assert_eq!(Shape::broadcast(&a, &Shape::from([3, 1])), Some(a.clone()));
        assert_eq!(Shape::broadcast(&a, &Shape::scalar()), Some(a.clone()));
        assert_eq!(Shape::broadcast(&a, &Shape::from([2, 4])), None);
        assert_eq!(Shape::from([3, 1]).broadcast_strides(&a), vec![0, 1, 0]);
    }

    #[test]
    fn errors_name_the_op_and_both_shapes() {
        let e = ShapeError::mismatch("add", "shapes do not broadcast", &Spec::float([2, 3]), &Spec::float([4]));
        assert_eq!(e.to_string(), "add: shapes do not broadcast: [2, 3] against [4]");
    }
}
