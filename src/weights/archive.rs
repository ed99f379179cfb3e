//! The zip archive around a checkpoint, read with no more memory than its size pays for.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

use super::pth::PthError;
use super::shown;
use crate::zip_directory;

/// An archive and the folder in it that all entries share.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    root: String,
    /// What may still be read. Entries can overlap in a crafted archive, so that a small one holds any number of large
    /// entries: the sum is bounded, not only each.
    budget: u64,
    /// Bytes of the archive.
    length: u64,
}

impl<R: Read + Seek> Archive<R> {
    pub(super) fn open(mut reader: R, length: u64, budget: u64) -> Result<Self, PthError> {
        check_directory(&mut reader, length, budget)?;
        let zip = ZipArchive::new(reader).map_err(PthError::Zip)?;
        let pickle = (0..zip.len()).find_map(|i| {
            let name = zip.name_for_index(i)?.ok()?;
            let root = name.strip_suffix("data.pkl")?;
            let one_folder = root.strip_suffix('/').is_some_and(|r| !r.contains('/'));
            (root.is_empty() || one_folder).then(|| root.to_owned())
        });
        let root = pickle.ok_or(PthError::NoPickle)?;
        Ok(Self { zip, root, budget, length })
    }

    /// The bytes of an entry; `None` when there is none of this name.
    pub(super) fn entry(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, PthError> {
        let full = format!("{}{name}", self.root);
        let limit = limit.min(self.budget);
        let mut file = match self.zip.by_name(&full) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(PthError::Zip(e)),
        };
        let too_large = |bytes| PthError::TooLarge { what: format!("entry `{}`", shown(&full)), bytes, limit };
        if file.size() > limit {
            return Err(too_large(file.size()));
        }
        let mut bytes = Vec::new();
        // PyTorch stores its entries as they are. What is compressed may claim any size, so it grows as it comes.
        let room = file.size().min(self.length);
        let reserved = usize::try_from(room).ok().and_then(|n| bytes.try_reserve_exact(n).ok());
        reserved.ok_or_else(|| too_large(file.size()))?;
        // The declared size may lie: the limit holds for what really comes.
        let read = file.by_ref().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| PthError::Entry { entry: shown(&full), source })?;
        let len = bytes.len() as u64;
        self.budget = self.budget.checked_sub(len).filter(|_| len <= limit).ok_or_else(|| too_large(len))?;
        Ok(Some(bytes))
    }
}

/// Bytes that the directory takes in memory for each of its entries, at least.
const ENTRY: u64 = 400;

/// Refuses an archive whose end record claims more entries than its size pays for: room for all of them is made before the first is read.
fn check_directory<R: Read + Seek>(reader: &mut R, length: u64, limit: u64) -> Result<(), PthError> {
    let claimed = zip_directory::claimed(reader, length).map_err(|e| PthError::Zip(ZipError::Io(e)))?;
    let entries = claimed.ok_or(PthError::Zip(ZipError::InvalidArchive("its end records are apart".into())))?;
    let bytes = entries.saturating_mul(ENTRY);
    if bytes > limit {
        return Err(PthError::TooLarge { what: "its directory".into(), bytes, limit });
    }
    Ok(())
}
