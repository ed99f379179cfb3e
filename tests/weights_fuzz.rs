//! Truncated, corrupted and mutated weight files: an error or a sound file each time, no panic, and no more memory than the file
//! itself pays for.
//!
//! An allocator of this program's own counts what each reading holds at most. Beside the file's bytes, which the test holds, a reader may take
//! twice their number and `CONSTANT`.

#[path = "common/counting.rs"]
mod counting;
#[path = "common/mutate.rs"]
mod mutate;
mod weights_files;

use std::collections::BTreeMap;
use std::ops::Range;

use mutate::mutate;
use radiograd::rng::{Rng, Stream};
use radiograd::weights::{NamedTensor, TensorData, from_bytes, safetensors};
use weights_files::{Pickler, View, checkpoint, f32s};
use zip::CompressionMethod::{self, Deflated, Stored};

/// What a reader may take however small the file is: tables of names, buffers of the decompressor.
const CONSTANT: usize = 256 << 10;

/// What came of many files.
#[derive(Debug, Default)]
struct Tally {
    read: usize,
    refused: usize,
    /// The most bytes beyond twice the file.
    most: isize,
}

impl Tally {
    /// Reads one file, and checks what comes of it.
    fn file(&mut self, bytes: &[u8], what: &dyn Fn() -> String) {
        let (result, took) = counting::peak(|| from_bytes(bytes));
        self.most = self.most.max(took - 2 * bytes.len() as isize);
        assert!(took <= (2 * bytes.len() + CONSTANT) as isize, "{}: {took} bytes for {}", what(), bytes.len());
        match result {
            Ok(file) => {
                self.read += 1;
                for t in &file.tensors {
                    let elements = t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
                    let empty = t.shape.contains(&0) && t.data.is_empty();
                    assert!(empty || elements == Some(t.data.len()), "{}: {} {:?}", what(), t.name, t.shape);
                }
            }
            Err(e) => {
                self.refused += 1;
                let line = e.to_string();
                assert!(!line.is_empty() && !line.chars().any(char::is_control), "{}: {line}", what());
            }
        }
    }

    /// Every byte of a range flipped in turn: each of its bits, and all of them.
    fn flips(&mut self, bytes: &[u8], range: Range<usize>, wrap: &dyn Fn(&[u8]) -> Vec<u8>) {
        let mut changed = bytes.to_vec();
        for at in range {
            for mask in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                changed[at] ^= mask;
                self.file(&wrap(&changed), &|| format!("byte {at} ^ {mask:#x}"));
                changed[at] ^= mask;
            }
        }
    }

    /// Every length shorter than the whole, all of which must be refused.
    fn truncations(&mut self, bytes: &[u8], wrap: &dyn Fn(&[u8]) -> Vec<u8>) {
        let read = self.read;
        for n in 0..bytes.len() {
            self.file(&wrap(&bytes[..n]), &|| format!("{n} of {} bytes", bytes.len()));
            assert_eq!(self.read, read, "{n} of {} bytes are taken for a whole file", bytes.len());
        }
    }

    /// Random changes: bits, bytes, numbers that look dangerous, pieces moved, doubled and cut out.
    fn mutations(&mut self, bytes: &[u8], rounds: u32, seed: u32, wrap: &dyn Fn(&[u8]) -> Vec<u8>) {
        let mut rng = Rng::new(seed, 0, Stream::Sample as u32);
        for round in 0..rounds {
            let mut changed = bytes.to_vec();
            for _ in 0..=rng.below(4) {
                mutate(&mut changed, &mut rng);
            }
            self.file(&wrap(&changed), &|| format!("seed {seed}, round {round}"));
        }
    }
}

fn as_it_is(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// A small network in safetensors: `long` decides how many bytes its tensors have.
fn a_safetensors_file(long: usize) -> Vec<u8> {
    let tensor = |name: &str, shape: &[usize], data| NamedTensor { name: name.into(), shape: shape.into(), data };
    let tensors = [
        tensor("conv1.weight", &[4, long], TensorData::F32((0..4 * long).map(|i| i as f32 * 0.25).collect())),
        tensor("conv1.bias", &[4], TensorData::F32(vec![1.0, -0.0, f32::MAX, 0.5])),
        tensor("bn1.num_batches_tracked", &[], TensorData::I64(vec![12])),
        tensor("mask", &[3], TensorData::U8(vec![0, 1, 2])),
        tensor("none", &[0, 7], TensorData::F32(Vec::new())),
    ];
    let metadata = BTreeMap::from([("radiograd.classes".to_owned(), "[\"a\", \"b\"]".to_owned())]);
    safetensors::to_bytes(&tensors, &metadata).expect("a file")
}

const VIEWS: [View<'static>; 3] = [
    View {
        name: "conv1.weight",
        storage: "FloatStorage",
        key: "0",
        len: 6,
        offset: 0,
        shape: &[2, 3],
        strides: &[3, 1],
    },
    View {
        name: "conv1.turned",
        storage: "FloatStorage",
        key: "0",
        len: 6,
        offset: 0,
        shape: &[3, 2],
        strides: &[1, 3],
    },
    View { name: "steps", storage: "LongStorage", key: "1", len: 1, offset: 0, shape: &[], strides: &[] },
];

fn a_pickle() -> Vec<u8> {
    Pickler::new().state_dict(&VIEWS).stop()
}

fn a_checkpoint(pickle: &[u8], method: CompressionMethod) -> Vec<u8> {
    let six = f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    checkpoint(pickle, &[("data/0", &six), ("data/1", &7i64.to_le_bytes()), ("byteorder", b"little")], method)
}

/// A checkpoint of before PyTorch 1.6, and where its elements begin.
fn a_legacy_file() -> (Vec<u8>, usize) {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec();
    file.extend(Pickler::new().raw(b"M\xe9\x03").stop());
    file.extend(Pickler::new().raw(b"}(").text("little_endian").raw(b"\x88u").stop());
    file.extend(a_pickle());
    file.extend(Pickler::new().raw(b"](").text("0").text("1").raw(b"e").stop());
    let header = file.len();
    file.extend(6u64.to_le_bytes());
    file.extend(f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    file.extend(1u64.to_le_bytes());
    file.extend(7i64.to_le_bytes());
    (file, header)
}

#[test]
fn safetensors_headers() {
    let bytes = a_safetensors_file(3);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut tally = Tally::default();
    tally.truncations(&bytes, &as_it_is);
    tally.flips(&bytes, 0..header, &as_it_is);
    assert!(tally.refused > 5 * header, "{tally:?}");
    eprintln!("safetensors headers: {tally:?}");
}

#[test]
fn zip_directories_and_pickles() {
    let pickle = a_pickle();
    let mut tally = Tally::default();
    for method in [Stored, Deflated] {
        let bytes = a_checkpoint(&pickle, method);
        let mut sound = Tally::default();
        sound.file(&bytes, &|| "the whole file".to_owned());
        assert_eq!(sound.read, 1);
        tally.truncations(&bytes, &as_it_is);
        // From the first central header (`PK 1 2`) to the end: the directory and its end record.
        let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
        tally.flips(&bytes, directory..bytes.len(), &as_it_is);
        // The local headers, and what they are about, with a checksum that no longer fits.
        tally.flips(&bytes, 0..directory, &as_it_is);
    }
    // The pickle in an archive whose checksums fit again.
    let wrap = |pickle: &[u8]| a_checkpoint(pickle, Stored);
    tally.truncations(&pickle, &wrap);
    tally.flips(&pickle, 0..pickle.len(), &wrap);
    assert!(tally.refused > 1000, "{tally:?}");
    eprintln!("zip directories and pickles: {tally:?}");
}

#[test]
fn files_of_before_the_zip() {
    let (bytes, header) = a_legacy_file();
    let mut sound = Tally::default();
    sound.file(&bytes, &|| "the whole file".to_owned());
    assert_eq!(sound.read, 1);
    let mut tally = Tally::default();
    tally.truncations(&bytes, &as_it_is);
    tally.flips(&bytes, 0..header + 8, &as_it_is);
    assert!(tally.refused > 1000, "{tally:?}");
    eprintln!("files of before the zip: {tally:?}");
}

#[test]
fn ten_thousand_mutations() {
    let pickle = a_pickle();
    let mut tally = Tally::default();
    tally.mutations(&a_safetensors_file(3), 3000, 1, &as_it_is);
    tally.mutations(&a_checkpoint(&pickle, Stored), 2000, 2, &as_it_is);
    tally.mutations(&a_checkpoint(&pickle, Deflated), 1000, 3, &as_it_is);
    tally.mutations(&pickle, 3000, 4, &|pickle| a_checkpoint(pickle, Stored));
    tally.mutations(&a_legacy_file().0, 1000, 5, &as_it_is);
    assert_eq!(tally.read + tally.refused, 10_000);
    assert!(tally.refused > 5000 && tally.read > 100, "{tally:?}");
    eprintln!("mutations: {tally:?}");
}

#[test]
fn entries_that_only_the_directory_claims_are_refused() {
    let long = vec![0; 200_000];
    let mut bytes = checkpoint(&a_pickle(), &[("data/0", &long), ("data/1", &7i64.to_le_bytes())], Stored);
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").expect("an end record");
    for claimed in [0xffff_u16, 0xfffe, 0x8000, 2000] {
        // Entries on this disk, in all, and bytes of the directory.
        bytes[end + 8..end + 10].copy_from_slice(&claimed.to_le_bytes());
        bytes[end + 10..end + 12].copy_from_slice(&claimed.to_le_bytes());
        bytes[end + 12..end + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut tally = Tally::default();
        tally.file(&bytes, &|| format!("{claimed} entries"));
        assert_eq!(tally.refused, 1, "{claimed}");
    }
}

#[test]
fn small_integers_that_would_grow_are_refused() {
    let header = r#"{"x":{"dtype":"I8","shape":[1000000],"data_offsets":[0,1000000]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![1; 1_000_000]].concat();
    let mut tally = Tally::default();
    tally.file(&bytes, &|| "eight-bit integers".to_owned());
    assert_eq!(tally.refused, 1);
}

#[test]
fn what_a_message_quotes_of_a_header_is_short_and_on_one_line() {
    for odd in ["F3\u{7f}", "F\\n32", "\u{9b}31m", &"F".repeat(100_000)] {
        let header = format!(r#"{{"x":{{"dtype":"{odd}","shape":[1],"data_offsets":[0,4]}}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        let line = from_bytes(&bytes).expect_err("no such type").to_string();
        assert!(line.len() < 400 && !line.contains(char::is_control), "{line:?}");
    }
}

/// In a file whose tensors are larger than the constant it shows whether memory follows the file.
#[test]
fn mutations_of_a_larger_file() {
    let mut tally = Tally::default();
    let tensors = a_safetensors_file(50_000);
    tally.mutations(&tensors, 60, 6, &as_it_is);
    let long: Vec<f32> = (0..200_000u32).map(|i| i as f32).collect();
    let view = View { key: "0", len: 200_000, shape: &[400, 500], strides: &[500, 1], ..VIEWS[0] };
    let pickle = Pickler::new().state_dict(&[view]).stop();
    let wrap = |pickle: &[u8]| checkpoint(pickle, &[("data/0", &f32s(&long))], Stored);
    tally.mutations(&pickle, 60, 7, &wrap);
    let whole = wrap(&pickle);
    tally.file(&whole, &|| "the whole file".to_owned());
    tally.mutations(&whole, 60, 8, &as_it_is);
    eprintln!("mutations of a larger file: {tally:?}");
}
