//! PyTorch's zip checkpoints (`torch.save` since 1.6), read without running any of their code.
//!
//! The archive holds `ROOT/data.pkl`, a pickle that describes the tensors, and `ROOT/data/KEY`, the bytes of each
//! storage. Several tensors may look into one storage, with offsets and strides of their own. Format:
//! `torch/serialization.py` of PyTorch.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek};

use zip::result::ZipError;

use super::archive::Archive;
use super::pickle::{Pickle, PickleError, TensorRecord, Value};
use super::{NamedTensor, TensorData, WeightsFile, decoded_limit, shown};

/// The longest pickle that is read; a `state_dict` of a thousand tensors has about 0.1 MB.
const MAX_PICKLE: u64 = 16 << 20;
/// The entries of a training checkpoint that may hold its `state_dict`.
const STATE_DICT_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// A PyTorch checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PthError {
    /// The archive is broken.
    #[error("broken or truncated zip archive ({0}); copy or save the file again")]
    Zip(ZipError),
    /// Some other zip.
    #[error("a zip archive without `data.pkl`, so no PyTorch checkpoint; give a file written by torch.save")]
    NoPickle,
    /// An entry that cannot be read to its end, or whose checksum is wrong.
    #[error("entry `{entry}` cannot be read ({source}); copy or save the file again")]
    Entry {
        /// The entry's name in the archive.
        entry: String,
        /// The cause.
        source: std::io::Error,
    },
    /// An entry or the tensors together need more memory than an honest file does.
    #[error("{what} would take {bytes} bytes, the limit for this file is {limit}; save model.state_dict() alone")]
    TooLarge {
        /// The entry, or `its tensors`.
        what: String,
        /// What it takes.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A file without a zip around it that is broken.
    #[error("a checkpoint of before PyTorch 1.6 that {what}; copy it again, or save it anew in Python")]
    Legacy {
        /// What is wrong.
        what: &'static str,
    },
    /// `byteorder` is neither `little` nor `big`.
    #[error("the entry `byteorder` says `{0}`, known are `little` and `big`; save the file again")]
    ByteOrder(String),
    /// The pickle was refused.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The top value is no dictionary.
    #[error("it holds {kind} where a state_dict should be; save model.state_dict()")]
    NotADict {
        /// What it holds.
        kind: &'static str,
    },
    /// An entry of the dictionary is no tensor.
    #[error("entry `{key}` of the state_dict is {kind}, not a tensor; save model.state_dict() alone")]
    NotATensor {
        /// The entry.
        key: String,
        /// What it is.
        kind: &'static str,
    },
    /// No tensors at all.
    #[error("its state_dict is empty; save model.state_dict() of a model that has parameters")]
    NoTensors,
    /// A storage has no entry in the archive.
    #[error("tensor `{tensor}` needs the entry `{entry}`, which is not in the archive; save the file again")]
    NoStorage {
        /// The first tensor that needs it.
        tensor: String,
        /// The missing entry.
        entry: String,
    },
    /// A tensor reaches beyond its storage, or the storage's entry is too short.
    #[error(
        "tensor `{tensor}` of shape {shape:?} reaches beyond its storage of {bytes} bytes; the file is broken, save it again"
    )]
    OutOfStorage {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The bytes that there are.
        bytes: usize,
    },
}

/// Reads a checkpoint of `length` bytes: a `state_dict`, or a dictionary that holds one under `state_dict`,
/// `model_state_dict` or `model`. The tensors come in the dictionary's order, contiguous, whatever their strides were.
///
/// Memory stays near twice the file: one storage at a time is held beside the tensors that are done. Tensors that
/// would take more than twice the file (a view that repeats its elements can) are refused.
///
/// # Errors
/// [`PthError`]; a file of this kind never makes it panic, hang or run code.
pub fn read<R: Read + Seek>(reader: R, length: u64) -> Result<WeightsFile, PthError> {
    let limit = decoded_limit(length);
    let mut archive = Archive::open(reader, length, limit)?;
    let pickle_bytes = archive.entry("data.pkl", MAX_PICKLE)?.ok_or(PthError::NoPickle)?;
    let big_endian = match archive.entry("byteorder", 64)? {
        None => false,
        Some(order) => match order.trim_ascii() {
            b"little" => false,
            b"big" => true,
            other => return Err(PthError::ByteOrder(String::from_utf8_lossy(other).escape_default().to_string())),
        },
    };
    let pickle = Pickle::parse(&pickle_bytes)?;
    let named = state_dict(&pickle)?;

    let mut by_storage: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, (_, tensor)) in named.iter().enumerate() {
        by_storage.entry(pickle.text(tensor.storage.key)).or_default().push(i);
    }
    check_size(&named, limit)?;

    let mut data: Vec<Option<TensorData>> = vec![None; named.len()];
    for (key, users) in by_storage {
        let entry = format!("data/{key}");
        let bytes = archive.entry(&entry, limit)?;
        for i in users {
            let (name, tensor) = &named[i];
            let missing = || PthError::NoStorage { tensor: shown(name), entry: shown(&entry) };
            data[i] = Some(view_of(name, tensor, bytes.as_deref().ok_or_else(missing)?, big_endian)?);
        }
    }
    Ok(finish(named, data))
}

/// A file's tensors out of storages that all lie in memory.
pub(super) fn assemble<'s>(
    named: Vec<(String, &TensorRecord)>,
    big_endian: bool,
    length: u64,
    storage: impl Fn(&TensorRecord) -> Option<&'s [u8]>,
) -> Result<WeightsFile, PthError> {
    check_size(&named, decoded_limit(length))?;
    let mut data = Vec::with_capacity(named.len());
    for (name, tensor) in &named {
        let missing = || PthError::Legacy { what: "lacks a storage" };
        data.push(Some(view_of(name, tensor, storage(tensor).ok_or_else(missing)?, big_endian)?));
    }
    Ok(finish(named, data))
}

/// Refuses tensors that together would take more than `limit` bytes.
fn check_size(named: &[(String, &TensorRecord)], limit: u64) -> Result<(), PthError> {
    let mut needed = 0u64;
    for (_, tensor) in named {
        let bytes = elements(tensor).and_then(|n| n.checked_mul(tensor.storage.dtype.decoded_size()));
        needed = needed.saturating_add(bytes.and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX));
    }
    if needed > limit {
        return Err(PthError::TooLarge { what: "its tensors".into(), bytes: needed, limit });
    }
    Ok(())
}

/// The elements of a tensor out of the bytes of its storage.
fn view_of(name: &str, tensor: &TensorRecord, bytes: &[u8], big_endian: bool) -> Result<TensorData, PthError> {
    view(tensor, bytes, big_endian).ok_or_else(|| PthError::OutOfStorage {
        tensor: shown(name),
        shape: tensor.shape.clone(),
        bytes: bytes.len(),
    })
}

fn finish(named: Vec<(String, &TensorRecord)>, data: Vec<Option<TensorData>>) -> WeightsFile {
    let dtypes = named.iter().map(|(_, t)| t.storage.dtype).collect();
    let tensors = named.into_iter().zip(data);
    let tensors = tensors
        .filter_map(|((name, t), data)| Some(NamedTensor { name, shape: t.shape.clone(), data: data? }))
        .collect();
    WeightsFile { tensors, metadata: BTreeMap::new(), dtypes }
}

/// The tensors of the state dictionary by name, in order.
pub(super) fn state_dict<'p>(pickle: &'p Pickle<'_>) -> Result<Vec<(String, &'p TensorRecord)>, PthError> {
    let Value::Dict(root) = pickle.root else {
        return Err(PthError::NotADict { kind: pickle.root.kind() });
    };
    let nested = STATE_DICT_KEYS.iter().find_map(|wanted| {
        pickle.dict(root).iter().rev().find_map(|&(key, value)| match (key, value) {
            (Value::Text(key), Value::Dict(i)) if pickle.text(key) == *wanted => Some(i),
            _ => None,
        })
    });
    let mut tensors: Vec<(String, &TensorRecord)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for &(key, value) in pickle.dict(nested.unwrap_or(root)) {
        let Value::Text(key) = key else {
            return Err(PthError::NotATensor { key: format!("({} as key)", key.kind()), kind: value.kind() });
        };
        let key = pickle.text(key);
        let tensor = match value {
            Value::Tensor(i) => pickle.tensor(i),
            _ => None,
        };
        let Some(tensor) = tensor else {
            return Err(PthError::NotATensor { key: shown(key), kind: value.kind() });
        };
        // As in Python, a key that is set again keeps its place and takes the new value.
        match places.get(key) {
            Some(&i) => tensors[i].1 = tensor,
            None => {
                places.insert(key, tensors.len());
                tensors.push((key.to_owned(), tensor));
            }
        }
    }
    if tensors.is_empty() { Err(PthError::NoTensors) } else { Ok(tensors) }
}

/// The number of elements; `None` when it overflows.
fn elements(t: &TensorRecord) -> Option<usize> {
    if t.shape.contains(&0) {
        return Some(0);
    }
    t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// The elements of a view in row-major order; `None` when it leaves the storage.
fn view(t: &TensorRecord, bytes: &[u8], big_endian: bool) -> Option<TensorData> {
    let count = elements(t)?;
    if count == 0 {
        return t.storage.dtype.decode(&[], big_endian, std::iter::empty(), 0);
    }
    let reach =
        t.shape.iter().zip(&t.strides).try_fold(t.offset, |sum, (&d, &s)| (d - 1).checked_mul(s)?.checked_add(sum));
    let available = t.storage.len.min(bytes.len() / t.storage.dtype.size());
    if reach? >= available {
        return None;
    }
    if is_contiguous(&t.shape, &t.strides) {
        return t.storage.dtype.decode(bytes, big_endian, t.offset..t.offset + count, count);
    }
    t.storage.dtype.decode(bytes, big_endian, Strided::new(t), count)
}

/// Whether the strides are those of a row-major block. The stride of an axis of length 1 does not matter.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected = expected.saturating_mul(d);
        fits
    })
}

/// The storage positions of a view in row-major order. The view must have passed the bounds check.
struct Strided<'a> {
    view: &'a TensorRecord,
    index: Vec<usize>,
    position: usize,
    left: usize,
}

impl<'a> Strided<'a> {
    fn new(view: &'a TensorRecord) -> Self {
        let left = view.shape.iter().product();
        Self { view, index: vec![0; view.shape.len()], position: view.offset, left }
    }
}

impl Iterator for Strided<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let current = self.position;
        for axis in (0..self.index.len()).rev() {
            let (extent, stride) = (self.view.shape[axis], self.view.strides[axis]);
            self.index[axis] += 1;
            if self.index[axis] < extent {
                self.position += stride;
                break;
            }
            self.position -= (extent - 1) * stride;
            self.index[axis] = 0;
        }
        Some(current)
    }
}
