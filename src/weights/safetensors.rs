//! safetensors: an 8-byte header length, a JSON header, the tensors' bytes, little-endian.
//!
//! Reading goes through the `safetensors` crate, which checks the header against the buffer. Writing is done here:
//! the crate keeps metadata in a hash map, whose order changes from run to run, and two runs with the same seed must
//! end with the same file, bit for bit. Format: <https://github.com/huggingface/safetensors#format>.

use std::collections::BTreeMap;

use ::safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;

use super::{DType, NamedTensor, TensorData, WeightsFile, decoded_limit, seal, shown};

/// A safetensors file that cannot be read, or tensors that cannot be written as one.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    /// The header is broken, or does not fit the file (truncated, for one).
    #[error("broken or truncated safetensors file ({}); copy or save it again", describe(.0))]
    Malformed(SafeTensorError),
    /// The file holds a hash of itself ([`seal`]), and it is another one.
    #[error("the content is not what was written, the BLAKE3 in the file is another one; take a copy of it")]
    Damaged,
    /// An element type that has no place in the engine.
    #[error("tensor `{name}` has the element type {dtype:?}, which is not read; convert it to F32")]
    UnsupportedType {
        /// The tensor.
        name: String,
        /// Its type in the file.
        dtype: Dtype,
    },
    /// Small integers, which take eight times their bytes here.
    #[error("its tensors would take {bytes} bytes, the limit for this file is {limit}; convert integers to F32")]
    TooLarge {
        /// What they would take.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// To be written: the number of elements is not the product of the shape.
    #[error("tensor `{name}` has {len} elements, but its shape {shape:?} needs another number; fix the shape")]
    Length {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its elements.
        len: usize,
    },
    /// To be written: a name that the format keeps for itself, or that is there twice.
    #[error("the tensor name `{0}` is used twice or reserved by the format; rename the tensor")]
    Name(String),
}

/// The crate's message in this program's words, always one line.
fn describe(e: &SafeTensorError) -> String {
    match e {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            "the header is longer than the file".into()
        }
        SafeTensorError::MetadataIncompleteBuffer => "the tensors do not fill the file exactly".into(),
        SafeTensorError::TensorInvalidInfo => "a tensor's shape and its bytes disagree".into(),
        SafeTensorError::ValidationOverflow => "a tensor's shape overflows".into(),
        other => other.to_string().replace('\n', " "),
    }
}

/// Bytes of the header's length at the file's beginning.
pub(super) const LENGTH: usize = 8;

/// Reads a whole file; the tensors come in the order of their bytes.
///
/// F16, BF16, F32 and F64 become `f32`; I8 to I64 become `i64`; U8 and BOOL become `u8`. A hash of the file in its metadata is checked,
/// and then left out.
///
/// # Errors
/// [`SafetensorsError::Malformed`], [`SafetensorsError::Damaged`] and [`SafetensorsError::UnsupportedType`].
pub fn from_bytes(bytes: &[u8]) -> Result<WeightsFile, SafetensorsError> {
    use SafetensorsError::Malformed;
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(Malformed)?;
    let mut metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    if metadata.remove(seal::KEY).is_some() {
        seal::check(bytes, length)?;
    }
    let body = bytes.get(LENGTH + length..).unwrap_or_default();
    let infos = header.tensors();
    let mut order: Vec<_> = infos.iter().map(|(name, info)| (info.data_offsets, name.as_str())).collect();
    order.sort_unstable(); // tensors without elements share an offset: the name decides, not the hash map
    let mut tensors = Vec::with_capacity(order.len());
    let mut dtypes = Vec::with_capacity(order.len());
    let (mut taken, limit) = (0u64, decoded_limit(bytes.len() as u64));
    for ((start, end), name) in order {
        let Some(info) = infos.get(name) else { continue };
        let unsupported = || SafetensorsError::UnsupportedType { name: shown(name), dtype: info.dtype };
        let dtype = match info.dtype {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::I8 => DType::I8,
            Dtype::I16 => DType::I16,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            Dtype::U8 => DType::U8,
            Dtype::BOOL => DType::Bool,
            _ => return Err(unsupported()),
        };
        let raw = body.get(start..end).ok_or(Malformed(SafeTensorError::MetadataIncompleteBuffer))?;
        let count = raw.len() / dtype.size();
        taken = taken.saturating_add((count * dtype.decoded_size()) as u64);
        if taken > limit {
            return Err(SafetensorsError::TooLarge { bytes: taken, limit });
        }
        let data = dtype.decode(raw, false, 0..count, count).ok_or_else(unsupported)?;
        tensors.push(NamedTensor { name: name.to_owned(), shape: info.shape.clone(), data });
        dtypes.push(dtype);
    }
    Ok(WeightsFile { tensors, metadata, dtypes })
}

/// The key of the format's free text.
const METADATA_KEY: &str = "__metadata__";

#[derive(Serialize)]
#[serde(untagged)]
enum HeaderEntry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor { dtype: &'static str, shape: &'a [usize], data_offsets: [usize; 2] },
}

/// The file's bytes: a function of the tensors and the metadata alone, whatever order the tensors come in.
///
/// As in the reference writer, wide element types come first, then the names in byte order, so that each tensor lies
/// aligned; the header is padded with spaces to eight bytes.
///
/// # Errors
/// [`SafetensorsError::Length`] and [`SafetensorsError::Name`].
pub fn to_bytes(tensors: &[NamedTensor], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, SafetensorsError> {
    let mut order: Vec<(&NamedTensor, &'static str, usize)> = Vec::with_capacity(tensors.len());
    for t in tensors {
        let elements = t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if elements != Some(t.data.len()) {
            let (name, shape) = (t.name.clone(), t.shape.clone());
            return Err(SafetensorsError::Length { name, shape, len: t.data.len() });
        }
        let (dtype, size) = match t.data {
            TensorData::F32(_) => ("F32", 4),
            TensorData::I64(_) => ("I64", 8),
            TensorData::U8(_) => ("U8", 1),
        };
        order.push((t, dtype, size));
    }
    order.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.name.cmp(&b.0.name)));

    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert(METADATA_KEY, HeaderEntry::Metadata(metadata));
    }
    let mut end = 0;
    for &(t, dtype, size) in &order {
        let start = end;
        end += t.data.len() * size;
        let entry = HeaderEntry::Tensor { dtype, shape: &t.shape, data_offsets: [start, end] };
        if t.name == METADATA_KEY || header.insert(&t.name, entry).is_some() {
            return Err(SafetensorsError::Name(t.name.clone()));
        }
    }
    let mut json =
        serde_json::to_vec(&header).map_err(|e| SafetensorsError::Malformed(SafeTensorError::JsonError(e)))?;
    json.resize(json.len().next_multiple_of(8), b' ');

    let mut bytes = Vec::with_capacity(8 + json.len() + end);
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&json);
    for (t, ..) in order {
        match &t.data {
            TensorData::F32(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
            TensorData::I64(v) => v.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes())),
            TensorData::U8(v) => bytes.extend_from_slice(v),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<NamedTensor>, BTreeMap<String, String>) {
        let tensor = |name: &str, shape: &[usize], data| NamedTensor { name: name.into(), shape: shape.into(), data };
        let tensors = vec![
            tensor("b", &[2, 3], TensorData::F32(vec![1.0, -2.5, f32::MIN_POSITIVE, 0.0, -0.0, 3.0e38])),
            tensor("flags", &[3], TensorData::U8(vec![0, 1, 255])),
            tensor("a", &[], TensorData::F32(vec![7.0])),
            tensor("empty", &[0, 4], TensorData::F32(vec![])),
            tensor("steps", &[1], TensorData::I64(vec![-9_007_199_254_740_993])),
        ];
        let metadata = (0..9).map(|i| (format!("key{i}"), format!("value \"{i}\"\n"))).collect();
        (tensors, metadata)
    }

    #[test]
    fn round_trip_keeps_every_bit_in_a_fixed_order() {
        let (tensors, metadata) = sample();
        let bytes = to_bytes(&tensors, &metadata).unwrap();
        let back = from_bytes(&bytes).unwrap();
        assert_eq!(back.metadata, metadata);
        let names: Vec<&str> = back.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["steps", "a", "b", "empty", "flags"]);
        for t in &tensors {
            assert_eq!(back.get(&t.name), Some(t));
        }
        // The same content in another order gives the same file.
        let mut shuffled = tensors.clone();
        shuffled.reverse();
        assert_eq!(to_bytes(&shuffled, &metadata).unwrap(), bytes);
        assert_eq!(to_bytes(&back.tensors, &back.metadata).unwrap(), bytes);
    }

    #[test]
    fn other_element_types_are_converted() {
        let f16s = [half::f16::from_f32(1.5), half::f16::from_f32(-0.25)].map(half::f16::to_le_bytes).concat();
        let bf16s = [half::bf16::from_f32(1.5), half::bf16::from_f32(-2.0)].map(half::bf16::to_le_bytes).concat();
        let f64s = [0.1f64, 1e-300].map(f64::to_le_bytes).concat();
        let i32s = [i32::MIN, 5].map(i32::to_le_bytes).concat();
        let cases = [
            ("F16", f16s, TensorData::F32(vec![1.5, -0.25])),
            ("BF16", bf16s, TensorData::F32(vec![1.5, -2.0])),
            ("F64", f64s, TensorData::F32(vec![0.1, 0.0])),
            ("I32", i32s, TensorData::I64(vec![i64::from(i32::MIN), 5])),
            ("I8", vec![0xff, 1], TensorData::I64(vec![-1, 1])),
            ("BOOL", vec![1, 0], TensorData::U8(vec![1, 0])),
        ];
        for (dtype, payload, want) in cases {
            let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{}]}}}}"#, payload.len());
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &payload].concat();
            assert_eq!(from_bytes(&bytes).unwrap().tensors[0].data, want, "{dtype}");
        }
        let header = r#"{"x":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
        let error = from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains("U64"), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let (tensors, metadata) = sample();
        let bytes = to_bytes(&tensors, &metadata).unwrap();
        for n in 0..bytes.len() {
            let error = from_bytes(&bytes[..n]).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{n}: {error}");
        }
    }

    #[test]
    fn damaged_files_never_panic_and_never_give_wrong_sizes() {
        let (tensors, metadata) = sample();
        let good = to_bytes(&tensors, &metadata).unwrap();
        let mut rng = crate::rng::Rng::new(21, 0, crate::rng::Stream::Sample as u32);
        let mut refused = 0;
        for round in 0..5000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u32) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.next_u32() as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"0123456789[]{},:\"\\"[rng.below(18) as usize]),
                }
            }
            match from_bytes(&bytes) {
                Ok(file) => {
                    for t in file.tensors {
                        assert_eq!(t.shape.iter().product::<usize>(), t.data.len(), "round {round}");
                    }
                }
                Err(e) => {
                    assert!(!e.to_string().contains('\n'), "round {round}: {e}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn nonsense_is_not_written() {
        let none = BTreeMap::new();
        let x = NamedTensor { name: "x".into(), shape: vec![2], data: TensorData::F32(vec![1.0]) };
        assert!(matches!(to_bytes(std::slice::from_ref(&x), &none), Err(SafetensorsError::Length { .. })));
        let ok = NamedTensor { shape: vec![1], ..x };
        assert!(matches!(to_bytes(&[ok.clone(), ok.clone()], &none), Err(SafetensorsError::Name(_))));
        let reserved = NamedTensor { name: METADATA_KEY.into(), ..ok };
        assert!(matches!(to_bytes(&[reserved], &none), Err(SafetensorsError::Name(_))));
    }
}
