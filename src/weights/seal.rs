//! A safetensors file with a hash of itself.
//!
//! The metadata key [`KEY`] holds the BLAKE3 of all bytes of the file, taken with zeros in the place of its own 64 digits. So the hash covers
//! header and tensors, and other readers see one more line of free text. A file without the key is not checked.

use std::collections::BTreeMap;
use std::ops::Range;

use super::NamedTensor;
use super::safetensors::{LENGTH, SafetensorsError, to_bytes};

/// The metadata key of the hash.
pub const KEY: &str = "radiograd.blake3";
/// What stands in the place of the hash while it is computed.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// As [`to_bytes`], with the hash.
///
/// # Errors
/// As [`to_bytes`].
pub fn to_sealed_bytes(
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SafetensorsError> {
    let mut metadata = metadata.clone();
    metadata.insert(KEY.to_owned(), BLANK.to_owned());
    let mut bytes = to_bytes(tensors, &metadata)?;
    let length = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n) as usize);
    let digits = digits(&bytes, length).ok_or(SafetensorsError::Damaged)?;
    let hash = blake3::hash(&bytes).to_hex();
    bytes[digits].copy_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// Where the digits stand in a file whose header has `length` bytes. Quotes within a text of the header have backslashes before them, so
/// that no other text looks like the key.
fn digits(bytes: &[u8], length: usize) -> Option<Range<usize>> {
    let key = format!("\"{KEY}\":\"");
    let header = bytes.get(LENGTH..LENGTH.checked_add(length)?)?;
    let start = LENGTH + header.windows(key.len()).position(|w| w == key.as_bytes())? + key.len();
    bytes.get(start..start + BLANK.len())?;
    Some(start..start + BLANK.len())
}

/// Checks a file whose metadata has the key.
pub(super) fn check(bytes: &[u8], length: usize) -> Result<(), SafetensorsError> {
    let digits = digits(bytes, length).ok_or(SafetensorsError::Damaged)?;
    let mut hash = blake3::Hasher::new();
    hash.update(&bytes[..digits.start]).update(BLANK.as_bytes()).update(&bytes[digits.end..]);
    match hash.finalize().to_hex().as_bytes() == &bytes[digits] {
        true => Ok(()),
        false => Err(SafetensorsError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::super::TensorData;
    use super::super::safetensors::from_bytes;
    use super::*;

    fn sample() -> (Vec<NamedTensor>, BTreeMap<String, String>) {
        let tensor = NamedTensor { name: "w".into(), shape: vec![3], data: TensorData::F32(vec![1.0, -2.0, 0.5]) };
        let text = format!("a text with \"{KEY}\":\"in it");
        (vec![tensor], BTreeMap::from([("another".to_owned(), text), ("z".to_owned(), "1".to_owned())]))
    }

    #[test]
    fn a_sealed_file_reads_as_it_was_written() {
        let (tensors, metadata) = sample();
        let bytes = to_sealed_bytes(&tensors, &metadata).unwrap();
        assert_eq!(bytes, to_sealed_bytes(&tensors, &metadata).unwrap());
        let file = from_bytes(&bytes).unwrap();
        assert_eq!((file.tensors, file.metadata), (tensors, metadata), "the key is gone once it was checked");
    }

    /// Any bit of the file but those of the key's own name, without which it counts as a file without a hash.
    #[test]
    fn no_flipped_bit_goes_unseen() {
        let (tensors, metadata) = sample();
        let good = to_sealed_bytes(&tensors, &metadata).unwrap();
        let mut unsealed = 0;
        for i in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[i / 8] ^= 1 << (i % 8);
            if let Ok(file) = from_bytes(&bytes) {
                assert_eq!(file.tensors, tensors, "bit {i}");
                assert_eq!(file.metadata.len(), metadata.len() + 1, "bit {i}");
                unsealed += 1;
            }
        }
        assert!(unsealed <= KEY.len() * 8, "{unsealed}");
    }
}
