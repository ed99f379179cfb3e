//! Numbers in JSON: bytes and `f32` as base64, and pictures rounded to bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Bytes; in JSON a text in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// Numbers to the last bit. In JSON `{"n": count, "f32": little-endian bytes in base64}`. Where many are zero there is also
/// `"mask"`: one bit a number, lowest first, that says which are not; `f32` then holds those alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floats(pub Vec<f32>);

impl Serialize for Floats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // -0 is no zero here: its bits would be lost.
        let kept: Vec<f32> = self.0.iter().copied().filter(|v| v.to_bits() != 0).collect();
        let sparse = kept.len() + self.0.len() / 32 < self.0.len();
        let bytes = |v: &[f32]| STANDARD.encode(v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        let mut out = serializer.serialize_struct("Floats", if sparse { 3 } else { 2 })?;
        out.serialize_field("n", &self.0.len())?;
        if sparse {
            let byte =
                |eight: &[f32]| eight.iter().enumerate().fold(0u8, |b, (i, v)| b | (u8::from(v.to_bits() != 0) << i));
            let mask: Vec<u8> = self.0.chunks(8).map(byte).collect();
            out.serialize_field("mask", &STANDARD.encode(mask))?;
            out.serialize_field("f32", &bytes(&kept))?;
        } else {
            out.serialize_field("f32", &bytes(&self.0))?;
        }
        out.end()
    }
}

/// A picture rounded to bytes: byte `b` stands for `low + b / 255 * (high - low)`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quantised {
    /// What byte 0 stands for.
    pub low: f32,
    /// What byte 255 stands for.
    pub high: f32,
    /// The bytes.
    pub data: Bytes,
}

/// The smallest and the largest of some numbers; 0 and 0 of none.
#[must_use]
pub fn range(values: &[f32]) -> (f32, f32) {
    let first = values.first().copied().unwrap_or_default();
    values.iter().fold((first, first), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Appends `values` as bytes between `low` and `high`.
pub(super) fn push_bytes(values: &[f32], (low, high): (f32, f32), out: &mut Vec<u8>) {
    let scale = if high > low { 255.0 / (f64::from(high) - f64::from(low)) } else { 0.0 };
    out.extend(values.iter().map(|&v| ((f64::from(v) - f64::from(low)) * scale).round() as u8));
}

/// How many pixels a side become one, so that no side has more than `most`.
pub(super) fn factor([h, w]: [usize; 2], most: usize) -> usize {
    h.max(w).div_ceil(most).max(1)
}

/// Each pixel the mean of a square; those at the right and lower edge of what is left of one.
pub(super) fn shrink(map: &[f32], [h, w]: [usize; 2], by: usize) -> Vec<f32> {
    if by == 1 {
        return map.to_vec();
    }
    let mut out = Vec::with_capacity(h.div_ceil(by) * w.div_ceil(by));
    for top in (0..h).step_by(by) {
        for left in (0..w).step_by(by) {
            let (rows, columns) = (top..(top + by).min(h), left..(left + by).min(w));
            let count = rows.len() * columns.len();
            let sum: f64 =
                rows.flat_map(|r| &map[r * w + columns.start..r * w + columns.end]).map(|&v| f64::from(v)).sum();
            out.push((sum / count as f64) as f32);
        }
    }
    out
}

impl Quantised {
    /// Of numbers, over their own range.
    #[must_use]
    pub fn of(values: &[f32]) -> Self {
        let (low, high) = range(values);
        let mut bytes = Vec::with_capacity(values.len());
        push_bytes(values, (low, high), &mut bytes);
        Self { low, high, data: Bytes(bytes) }
    }

    /// A picture of `size` pixels, shrunk.
    pub(super) fn shrunk(&self, size: [usize; 2], by: usize) -> Self {
        if by == 1 { self.clone() } else { Self::of(&shrink(&self.values(), size, by)) }
    }

    /// The numbers that the bytes stand for.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        self.data.0.iter().map(|&b| self.low + f32::from(b) / 255.0 * (self.high - self.low)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_bits_with_and_without_a_mask() {
        let dense: Vec<f32> = (0..50).map(|i| (i as f32 - 20.5) * 1e-7).collect();
        let mut sparse = vec![0.0f32; 50];
        (sparse[3], sparse[41], sparse[49]) = (-0.0, f32::MIN_POSITIVE / 4.0, 1.0 / 3.0);
        for (values, masked) in [(dense, false), (sparse, true), (Vec::new(), false)] {
            let json = serde_json::to_value(Floats(values.clone())).unwrap();
            assert_eq!(json.get("mask").is_some(), masked);
            assert_eq!(json["n"], values.len());
            let raw = STANDARD.decode(json["f32"].as_str().unwrap()).unwrap();
            let mut kept = raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let mask = json.get("mask").map(|m| STANDARD.decode(m.as_str().unwrap()).unwrap());
            let back: Vec<f32> = (0..values.len())
                .map(|i| match &mask {
                    Some(mask) if mask[i / 8] >> (i % 8) & 1 == 0 => 0.0,
                    _ => kept.next().unwrap(),
                })
                .collect();
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&values));
        }
    }

    #[test]
    fn shrunk_maps_hold_means() {
        let map: Vec<f32> = (0..15).map(|i| i as f32).collect();
        assert_eq!(shrink(&map, [3, 5], 2), [3.0, 5.0, 6.5, 10.5, 12.5, 14.0]);
        assert_eq!(shrink(&map, [3, 5], 1), map);
    }

    #[test]
    fn rounding_errs_by_half_a_step() {
        let values: Vec<f32> = (0..300).map(|i| (i as f32 * 0.37).sin() * 5.0 - 1.0).collect();
        let picture = Quantised::of(&values);
        let step = (picture.high - picture.low) / 255.0;
        for (a, b) in picture.values().iter().zip(&values) {
            assert!((a - b).abs() <= 0.51 * step, "{a} {b}");
        }
        assert_eq!(Quantised::of(&[2.5; 4]).values(), [2.5; 4]);
        assert_eq!(Quantised::of(&[]), Quantised::default());
    }
}
