//! Weight files: safetensors (read and written) and PyTorch's checkpoints, with a zip around them or, of before 1.6, without (read,
//! without running their pickle).
//!
//! [`load`] tells the format by the file's content. [`matching::match_tensors`] then says which tensor of the file
//! belongs to which parameter of a model, and [`adopt`] takes weights over that were trained for something else.

pub mod adopt;
mod archive;
pub mod download;
pub mod dtype;
mod legacy;
pub mod matching;
pub mod pickle;
pub mod pth;
pub mod published;
pub mod safetensors;
pub mod seal;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::fsio::FsError;

pub use adopt::{AdoptError, Grey, Rename};
pub use dtype::{DType, TensorData};
pub use matching::{How, MatchError, Matching, Pair, match_tensors};
pub use pth::PthError;
pub use safetensors::SafetensorsError;

/// A tensor of a weight file: row-major, `data.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The name in the file, such as `features.0.weight`.
    pub name: String,
    /// The extent of each axis, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

/// What a weight file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightsFile {
    /// The tensors in the order of the file.
    pub tensors: Vec<NamedTensor>,
    /// Free text by key; only safetensors files have any.
    pub metadata: BTreeMap<String, String>,
    /// The element types in the file, one for each of the tensors that were read; empty for what comes from no file.
    pub dtypes: Vec<DType>,
}

impl WeightsFile {
    /// The tensor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The element type that the tensor at this place had in the file.
    #[must_use]
    pub fn dtype(&self, place: usize) -> Option<DType> {
        let own = |t: &NamedTensor| match t.data {
            TensorData::F32(_) => DType::F32,
            TensorData::I64(_) => DType::I64,
            TensorData::U8(_) => DType::U8,
        };
        self.dtypes.get(place).copied().or_else(|| self.tensors.get(place).map(own))
    }

    /// The class names, where a training here wrote the file.
    #[must_use]
    pub fn classes(&self) -> Option<Vec<String>> {
        serde_json::from_str(self.metadata.get("radiograd.classes")?).ok()
    }
}

/// Bytes that are no weight file this program reads.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// No bytes at all.
    #[error("the file is empty; save the weights again")]
    Empty,
    /// Some other pickle.
    #[error(
        "a pickle that torch.save did not write is not read; re-save it in Python with \
         torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
    )]
    Pickle,
    /// Neither magic fits.
    #[error("neither a safetensors file nor a PyTorch zip checkpoint; give one of these two")]
    Unknown,
    /// A broken safetensors file.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A broken or unsupported PyTorch checkpoint.
    #[error(transparent)]
    Pth(#[from] PthError),
}

/// A weight file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A folder, a pipe or a device in the place of a file.
    #[error("cannot read weights from {}: it is not a regular file; give a .safetensors or .pth file", path.display())]
    NotAFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The content does not do.
    #[error("weights {}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
}

/// Reads a weight file; the content decides the format, not the extension.
///
/// # Errors
/// [`WeightsError`] with the path: unreadable, of an unknown format, broken, or holding what is refused.
pub fn load(path: impl AsRef<Path>) -> Result<WeightsFile, WeightsError> {
    let path = path.as_ref();
    let fs = |e| FsError::new("read", path, e);
    // Opening a pipe could wait for ever, and a device has no end: ask before opening.
    let length = match std::fs::metadata(path).map_err(fs)? {
        m if m.is_file() => m.len(),
        _ => return Err(WeightsError::NotAFile { path: path.to_owned() }),
    };
    let mut file = File::open(path).map_err(fs)?;
    let mut magic = Vec::with_capacity(MAGIC);
    file.by_ref().take(MAGIC as u64).read_to_end(&mut magic).map_err(fs)?;
    file.seek(SeekFrom::Start(0)).map_err(fs)?;
    let parsed = match detect(&magic) {
        Ok(Format::Pth) => pth::read(BufReader::new(file), length).map_err(FormatError::from),
        Ok(format) => {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX)).map_err(|e| fs(e.into()))?;
            file.take(length).read_to_end(&mut bytes).map_err(fs)?;
            whole(&format, &bytes)
        }
        Err(e) => Err(e),
    };
    parsed.map_err(|source| WeightsError::Format { path: path.to_owned(), source })
}

/// Reads a weight file that is already in memory.
///
/// # Errors
/// [`FormatError`].
pub fn from_bytes(bytes: &[u8]) -> Result<WeightsFile, FormatError> {
    whole(&detect(&bytes[..bytes.len().min(MAGIC)])?, bytes)
}

fn whole(format: &Format, bytes: &[u8]) -> Result<WeightsFile, FormatError> {
    match format {
        Format::Pth => Ok(pth::read(Cursor::new(bytes), bytes.len() as u64)?),
        Format::Legacy => Ok(legacy::from_bytes(bytes)?),
        Format::Safetensors => Ok(safetensors::from_bytes(bytes)?),
    }
}

/// Writes safetensors atomically; see [`safetensors::to_bytes`].
///
/// # Errors
/// [`WeightsError`] with the path; the old file is then as it was.
pub fn save(
    path: impl AsRef<Path>,
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let path = path.as_ref();
    let bytes = safetensors::to_bytes(tensors, metadata)
        .map_err(|e| WeightsError::Format { path: path.to_owned(), source: e.into() })?;
    Ok(crate::fsio::write_atomic(path, &bytes)?)
}

/// As [`save`], with a hash of the file in it ([`seal`]), and what lay at `path` before under the name `previous`, where that is given.
///
/// # Errors
/// As [`save`].
pub fn save_sealed(
    path: impl AsRef<Path>,
    tensors: &[NamedTensor],
    metadata: &BTreeMap<String, String>,
    previous: Option<&Path>,
) -> Result<(), WeightsError> {
    let path = path.as_ref();
    let bytes = seal::to_sealed_bytes(tensors, metadata)
        .map_err(|e| WeightsError::Format { path: path.to_owned(), source: e.into() })?;
    Ok(crate::fsio::write_rotating(path, &bytes, previous)?)
}

/// What a file of so many bytes may decode to: twice that, as half precision does, and a little for small files.
fn decoded_limit(length: u64) -> u64 {
    length.saturating_mul(2).saturating_add(128 << 10)
}

/// A name out of a file, which may be anything, as a message shows it: on one line, and not for ever.
fn shown(name: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    name.chars().take(80).map(escaped).collect()
}

/// As many leading bytes as [`detect`] looks at.
const MAGIC: usize = 16;

enum Format {
    Safetensors,
    Pth,
    Legacy,
}

/// Tells the format by the first bytes.
fn detect(head: &[u8]) -> Result<Format, FormatError> {
    match head {
        [] => Err(FormatError::Empty),
        // A safetensors header may be any length, also one whose bytes look like another magic: its `{` decides first.
        [_, _, _, _, _, _, _, _, b'{', ..] => Ok(Format::Safetensors),
        [b'P', b'K', 3, 4, ..] => Ok(Format::Pth),
        _ if head.starts_with(legacy::MAGIC) => Ok(Format::Legacy),
        [0x80, 0..=5, ..] => Err(FormatError::Pickle),
        _ => Err(FormatError::Unknown),
    }
}
