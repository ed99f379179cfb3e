//! PyTorch's checkpoints of before 1.6, which have no zip around them; the published DenseNets are of this kind.
//!
//! One after another stand five pickles (a magic number, the format's version, the writer's sizes and byte order, the object, the keys of
//! its storages), then each storage in the order of the keys: the number of its elements in eight bytes, and the elements. Format:
//! `torch/serialization.py` of PyTorch, `_legacy_save`. The pickles are read as those of [`super::pth`] are, and no code is run.

use std::collections::{BTreeMap, HashMap};

use super::WeightsFile;
use super::pickle::{Pickle, TensorRecord, Value};
use super::pth::{PthError, assemble, state_dict};

/// The pickle of the magic number.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The version that every such file has.
const VERSION: i64 = 1001;

/// Reads a whole file.
///
/// # Errors
/// [`PthError`], as for [`super::pth::read`].
pub(super) fn from_bytes(bytes: &[u8]) -> Result<WeightsFile, PthError> {
    let broken = |what: &'static str| PthError::Legacy { what };
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(broken("does not begin as one"))?;
    let mut next = || -> Result<Pickle<'_>, PthError> {
        let pickle = Pickle::parse(rest)?;
        rest = rest.get(pickle.length()..).unwrap_or_default();
        Ok(pickle)
    };
    if next()?.root != Value::Int(VERSION) {
        return Err(broken("has an unknown version"));
    }
    let system = next()?;
    let Value::Dict(fields) = system.root else { return Err(broken("does not say how it was written")) };
    let little = system.dict(fields).iter().find_map(|&(key, value)| match (key, value) {
        (Value::Text(key), Value::Bool(little)) if system.text(key) == "little_endian" => Some(little),
        _ => None,
    });
    let big_endian = !little.unwrap_or(true);
    let object = next()?;
    let keys = next()?;
    let Value::List(keys_of) = keys.root else { return Err(broken("has no list of storages")) };
    let named = state_dict(&object)?;

    // An element's size is known from the tensors alone; a storage that none of them uses ends what can be read.
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for (_, tensor) in &named {
        sizes.insert(object.text(tensor.storage.key), tensor.storage.dtype.size());
    }
    for (key, size) in object.storages() {
        sizes.entry(key).or_insert(size);
    }
    let mut storages: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for &key in keys.list(keys_of) {
        let Value::Text(key) = key else { return Err(broken("has a storage without a name")) };
        let key = keys.text(key);
        let size = *sizes.get(key).ok_or(broken("has a storage of an unknown type"))?;
        let (count, data) = rest.split_first_chunk().ok_or(broken("ends before its storages do"))?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(size));
        let (data, after) =
            length.and_then(|n| data.split_at_checked(n)).ok_or(broken("ends before its storages do"))?;
        storages.insert(key, data);
        rest = after;
    }
    let storage = |tensor: &TensorRecord| storages.get(object.text(tensor.storage.key)).copied();
    assemble(named, big_endian, bytes.len() as u64, storage)
}
