//! The header of a `.npy` array, as the NumPy format description gives it (versions 1.0, 2.0 and 3.0).
//!
//! A library for this would bring a dozen crates for one line of text.

use std::io::Read;

/// The longest header that is read; NumPy's own are below 1 KiB.
const MAX_HEADER: usize = 64 << 10;

/// Element type and shape of an array in C order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `u` (unsigned), `i` (signed), `b` (boolean), `f` (floating point), ...
    pub kind: char,
    /// Bytes an element.
    pub size: usize,
    /// Most significant byte first.
    pub big_endian: bool,
    /// The dimensions.
    pub shape: Vec<u64>,
    /// The type as the file writes it, such as `|u1`.
    pub descr: String,
    /// Bytes of magic number, version and header.
    pub length: u64,
}

impl Header {
    /// Bytes of all elements; `None` beyond 64 bits.
    #[must_use]
    pub fn data_bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.size as u64, |n, &d| n.checked_mul(d))
    }
}

/// Reads the header; the reader then stands at the first element.
///
/// # Errors
/// What is wrong, in one line.
pub fn read_header(reader: &mut impl Read) -> Result<Header, String> {
    let mut take = |n: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; n];
        reader.read_exact(&mut bytes).map_err(|e| format!("the array's header cannot be read: {e}"))?;
        Ok(bytes)
    };
    let start = take(8)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err("not a .npy array".into());
    }
    let (length_bytes, length) = match start[6] {
        1 => (2, take(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))),
        2 | 3 => (4, take(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))),
        v => return Err(format!("version {v} of the .npy format is not known")),
    };
    if length > MAX_HEADER {
        return Err(format!("the header claims {length} bytes, more than {MAX_HEADER}"));
    }
    let text = String::from_utf8(take(length)?).map_err(|_| "the header is no text".to_owned())?;
    parse(&text, (8 + length_bytes + length) as u64)
}

fn parse(text: &str, length: u64) -> Result<Header, String> {
    let value = |key: &str| {
        ["'", "\""]
            .iter()
            .find_map(|q| text.split_once(&format!("{q}{key}{q}")))
            .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
            .map(str::trim_start)
            .ok_or_else(|| format!("the header has no {key}"))
    };
    let descr = value("descr")?;
    let quote = descr.chars().next().filter(|c| "'\"".contains(*c)).ok_or("records are not supported")?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let mut chars = descr.chars();
    let (order, kind) = match chars.next() {
        Some(c @ ('<' | '>' | '|' | '=')) => (c, chars.next().unwrap_or(' ')),
        Some(c) => ('=', c),
        None => return Err("the header's type is empty".into()),
    };
    let size: usize = chars.as_str().parse().map_err(|_| format!("the type {descr:?} is not supported"))?;
    let fortran = value("fortran_order")?;
    if !fortran.starts_with("False") {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let shape = value("shape")?
        .strip_prefix('(')
        .and_then(|s| s.split_once(')'))
        .map(|s| s.0)
        .ok_or("the header's shape is no tuple")?
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse::<u64>().map_err(|_| format!("the header's shape has {s:?}")))
        .collect::<Result<Vec<u64>, String>>()?;
    let big_endian = order == '>' || (order == '=' && cfg!(target_endian = "big"));
    Ok(Header { kind, size, big_endian, shape, descr: descr.to_owned(), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, text: &str) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        let n = (text.len() as u32).to_le_bytes();
        out.extend_from_slice(if version == 1 { &n[..2] } else { &n });
        out.extend(text.as_bytes());
        out
    }

    #[test]
    fn reads_what_numpy_writes() {
        let bytes = file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (4708, 28, 28), }    \n");
        let h = read_header(&mut &bytes[..]).unwrap();
        assert_eq!((h.kind, h.size, h.big_endian, h.length), ('u', 1, false, bytes.len() as u64));
        assert_eq!(h.shape, [4708, 28, 28]);
        assert_eq!(h.data_bytes(), Some(4708 * 784));
        let h = read_header(&mut &file(2, "{'descr': '>i8', 'fortran_order': False, 'shape': (3,)}")[..]).unwrap();
        assert_eq!((h.kind, h.size, h.big_endian, h.shape), ('i', 8, true, vec![3]));
        let h = read_header(&mut &file(3, "{'descr': '<f4', 'fortran_order': False, 'shape': ()}")[..]).unwrap();
        assert_eq!((h.kind, h.shape.len(), h.descr.as_str()), ('f', 0, "<f4"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (bytes, part) in [
            (b"PK\x03\x04....".to_vec(), "not a .npy"),
            (file(9, ""), "version 9"),
            (file(1, "{}"), "no descr"),
            (file(1, "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,)}"), "records"),
            (file(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (3,)}"), "Fortran"),
            (file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}"), "-3"),
            (file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': 3}"), "tuple"),
            (file(1, "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"), "not supported"),
            (file(1, "{'descr': 'é', 'fortran_order': False, 'shape': (3,)}"), "not supported"),
            (file(1, "{'descr': '', 'fortran_order': False, 'shape': (3,)}"), "empty"),
            (file(2, "x")[..11].to_vec(), "cannot be read"),
            ([&b"\x93NUMPY\x02\x00"[..], &[255; 4]].concat(), "claims"),
            (vec![], "cannot be read"),
        ] {
            let error = read_header(&mut &bytes[..]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_giant_shape_has_no_size() {
        let bytes = file(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 9999999999, 28), }");
        assert_eq!(read_header(&mut &bytes[..]).unwrap().data_bytes(), None);
    }
}
