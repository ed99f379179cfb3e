//! Element types of weight files, and their conversion to the few that the engine keeps.

use half::{bf16, f16};

/// The elements of a tensor as the engine keeps them.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Weights and statistics, whatever float type the file had.
    F32(Vec<f32>),
    /// Counters such as `num_batches_tracked`, and index tensors.
    I64(Vec<i64>),
    /// Bytes and truth values.
    U8(Vec<u8>),
}

impl TensorData {
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats, if these are floats.
    #[must_use]
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(v) => Some(v),
            _ => None,
        }
    }

    /// The integers, if these are 64-bit integers.
    #[must_use]
    pub fn as_i64(&self) -> Option<&[i64]> {
        match self {
            Self::I64(v) => Some(v),
            _ => None,
        }
    }
}

/// An element type that a weight file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the formats' own names")]
pub enum DType {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    Bool,
}

/// Decodes elements of one type; `None` when a position lies outside `bytes`.
macro_rules! gather {
    ($bytes:expr, $big:expr, $positions:expr, $count:expr, $ty:ty, $size:literal, $convert:expr) => {{
        let mut out = Vec::with_capacity($count);
        for position in $positions {
            let start = usize::checked_mul(position, $size)?;
            let raw: [u8; $size] = $bytes.get(start..start.checked_add($size)?)?.try_into().ok()?;
            let value = if $big { <$ty>::from_be_bytes(raw) } else { <$ty>::from_le_bytes(raw) };
            out.push($convert(value));
        }
        out
    }};
}

impl DType {
    /// Bytes of an element in the file.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Bytes of an element once it is decoded.
    #[must_use]
    pub fn decoded_size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 | Self::F32 | Self::F64 => 4,
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => 8,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Decodes the `count` elements at `positions` (counted in elements) of `bytes`.
    ///
    /// Floats become `f32` (rounded to nearest), signed integers `i64`, bytes and truth values `u8`. `None` when a
    /// position lies outside `bytes`. The caller bounds `count`.
    pub(super) fn decode(
        self,
        bytes: &[u8],
        big_endian: bool,
        positions: impl Iterator<Item = usize>,
        count: usize,
    ) -> Option<TensorData> {
        use TensorData::{F32, I64, U8};
        let big = big_endian;
        Some(match self {
            Self::F32 => F32(gather!(bytes, big, positions, count, f32, 4, |x| x)),
            Self::F16 => F32(gather!(bytes, big, positions, count, f16, 2, f16::to_f32)),
            Self::BF16 => F32(gather!(bytes, big, positions, count, bf16, 2, bf16::to_f32)),
            Self::F64 => F32(gather!(bytes, big, positions, count, f64, 8, |x| x as f32)),
            Self::I8 => I64(gather!(bytes, big, positions, count, i8, 1, i64::from)),
            Self::I16 => I64(gather!(bytes, big, positions, count, i16, 2, i64::from)),
            Self::I32 => I64(gather!(bytes, big, positions, count, i32, 4, i64::from)),
            Self::I64 => I64(gather!(bytes, big, positions, count, i64, 8, |x| x)),
            Self::U8 | Self::Bool => U8(gather!(bytes, big, positions, count, u8, 1, |x| x)),
        })
    }
}
