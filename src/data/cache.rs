//! Decoded and resized pixels on disk, keyed by the contents of the files and the settings.
//!
//! One file a split and size: the pixels, then a trailer (key, counts, unreadable files, original sizes), then the BLAKE3
//! hash of all that. A file that is damaged, cut short or of another version is as good as absent. A folder that cannot be written
//! costs time, never the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::fsio;

/// Counts up whenever decoding, conversion to grey or resizing changes its results, or the file its form.
const VERSION: u32 = 2;
/// The oldest files go when the folder holds more than this.
const MAX_CACHE: u64 = 16 << 30;
const EXTENSION: &str = "rgcache";

/// Where decoded pixels are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// The folder that the environment variable `RADIOGRAD_CACHE` names, else `radiograd` in the user's cache folder.
    #[default]
    User,
    /// This folder.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

impl CachePolicy {
    /// The folder, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Off => None,
            Self::Folder(path) => Some(path.clone()),
            Self::User => match std::env::var_os("RADIOGRAD_CACHE") {
                Some(path) if !path.is_empty() => Some(path.into()),
                _ => dirs::cache_dir().map(|d| d.join("radiograd")),
            },
        }
    }
}

/// The pixels of a list of files, some of which could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The readable files' pixels, in the order of the list.
    pub pixels: Vec<u8>,
    /// Place in the list and reason of each unreadable file, ascending.
    pub failed: Vec<(usize, String)>,
    /// Width and height of each readable file before it was resized, in the order of `pixels`.
    pub sizes: Vec<(u32, u32)>,
}

/// What identifies decoded pixels: the content of every file in order (or why it could not be read), and the settings.
pub(crate) fn key(files: &[Result<blake3::Hash, String>], size: (usize, usize), channels: usize) -> blake3::Hash {
    let mut hash = blake3::Hasher::new();
    hash.update(b"radiograd pixels").update(&VERSION.to_le_bytes());
    for n in [size.0, size.1, channels, files.len()] {
        hash.update(&(n as u64).to_le_bytes());
    }
    for file in files {
        match file {
            Ok(content) => hash.update(&[1]).update(content.as_bytes()),
            Err(reason) => hash.update(&[0]).update(&(reason.len() as u64).to_le_bytes()).update(reason.as_bytes()),
        };
    }
    hash.finalize()
}

fn path_of(folder: &Path, key: &blake3::Hash) -> PathBuf {
    folder.join(format!("{}.{EXTENSION}", &key.to_hex()[..32]))
}

/// What the cache holds under `key`, if it is whole: `files` files of `stride` bytes each.
pub(crate) fn get(folder: &Path, key: &blake3::Hash, files: usize, stride: usize) -> Option<Decoded> {
    let path = path_of(folder, key);
    let found = read(&path, key, files, stride);
    if found.is_none() && path.exists() {
        // A damaged file is removed, so that a run that cannot rewrite it does not read it again and again.
        let _ = fs::remove_file(&path);
    }
    found
}

fn read(path: &Path, key: &blake3::Hash, files: usize, stride: usize) -> Option<Decoded> {
    let meta = fs::metadata(path).ok()?;
    // Reasons are short (see `put`), so nothing whole is larger than this.
    let most = (files as u64) * (stride as u64 + 12 + 8 + 1024) + 1024;
    if !meta.is_file() || meta.len() > most {
        return None;
    }
    let mut bytes = fsio::read(path).ok()?;
    let body = bytes.len().checked_sub(32)?;
    if blake3::hash(&bytes[..body]).as_bytes() != &bytes[body..] {
        return None;
    }
    let trailer_at = {
        let length = u64::from_le_bytes(bytes[..body].last_chunk::<8>().copied()?);
        (body - 8).checked_sub(usize::try_from(length).ok()?)?
    };
    let mut rest = &bytes[trailer_at..body - 8];
    let mut next = |n: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    if next(32)? != key.as_bytes() {
        return None;
    }
    let mut number = || Some(u64::from_le_bytes(next(8)?.try_into().ok()?) as usize);
    let (n, s, count) = (number()?, number()?, number()?);
    if (n, s) != (files, stride) || count > files || trailer_at != (files - count) * stride {
        return None;
    }
    let mut failed = Vec::with_capacity(count);
    for _ in 0..count {
        let index = u64::from_le_bytes(next(8)?.try_into().ok()?) as usize;
        let length = u32::from_le_bytes(next(4)?.try_into().ok()?) as usize;
        let reason = String::from_utf8(next(length)?.to_vec()).ok()?;
        if index >= files || failed.last().is_some_and(|(last, _)| *last >= index) {
            return None;
        }
        failed.push((index, reason));
    }
    let mut side = || Some(u32::from_le_bytes(next(4)?.try_into().ok()?));
    let sizes = (count..files).map(|_| Some((side()?, side()?))).collect::<Option<Vec<_>>>()?;
    bytes.truncate(trailer_at);
    Some(Decoded { pixels: bytes, failed, sizes })
}

/// Keeps `decoded` under `key`. Failure is no failure of the caller: the reason is returned for the log.
pub(crate) fn put(
    folder: &Path,
    key: &blake3::Hash,
    files: usize,
    stride: usize,
    decoded: &mut Decoded,
) -> Result<(), fsio::FsError> {
    fsio::create_dir(folder)?;
    // The trailer stands behind the pixels so that they need no copy.
    let pixels = decoded.pixels.len();
    let bytes = &mut decoded.pixels;
    bytes.extend_from_slice(key.as_bytes());
    for n in [files, stride, decoded.failed.len()] {
        bytes.extend_from_slice(&(n as u64).to_le_bytes());
    }
    for (index, reason) in &decoded.failed {
        let reason = &reason[..reason.floor_char_boundary(1024)];
        bytes.extend_from_slice(&(*index as u64).to_le_bytes());
        bytes.extend_from_slice(&(reason.len() as u32).to_le_bytes());
        bytes.extend_from_slice(reason.as_bytes());
    }
    for (width, height) in &decoded.sizes {
        bytes.extend_from_slice(&width.to_le_bytes());
        bytes.extend_from_slice(&height.to_le_bytes());
    }
    let trailer = (bytes.len() - pixels) as u64;
    bytes.extend_from_slice(&trailer.to_le_bytes());
    let hash = blake3::hash(bytes);
    bytes.extend_from_slice(hash.as_bytes());
    let path = path_of(folder, key);
    let written = fsio::write_atomic(&path, bytes);
    bytes.truncate(pixels);
    written?;
    prune(folder, &path, MAX_CACHE);
    Ok(())
}

/// Removes the oldest cache files until the folder holds at most `limit` bytes of them; `keep` stays.
fn prune(folder: &Path, keep: &Path, limit: u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == EXTENSION))
        .filter_map(|p| {
            let meta = fs::metadata(&p).ok()?;
            Some((meta.modified().ok()?, meta.len(), p))
        })
        .collect();
    let mut total: u64 = files.iter().map(|f| f.1).sum();
    files.sort();
    for (_, size, path) in files.iter().filter(|f| f.2 != keep) {
        if total <= limit {
            return;
        }
        if fs::remove_file(path).is_ok() {
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (blake3::Hash, Decoded) {
        let files = [Ok(blake3::hash(b"a")), Err("gone".to_owned()), Ok(blake3::hash(b"b"))];
        let failed = vec![(1, "gone".to_owned())];
        (key(&files, (2, 2), 1), Decoded { pixels: (0..8).collect(), failed, sizes: vec![(9, 7), (1024, 768)] })
    }

    #[test]
    fn keeps_and_finds_and_notices_every_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (key, mut decoded) = sample();
        put(dir.path(), &key, 3, 4, &mut decoded).unwrap();
        assert_eq!(decoded.pixels.len(), 8, "the trailer is taken off again");
        assert_eq!(get(dir.path(), &key, 3, 4).as_ref(), Some(&decoded));
        let path = path_of(dir.path(), &key);
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(get(dir.path(), &key, 3, 4), None, "byte {i}");
            fs::write(&path, &whole[..i]).unwrap();
            assert_eq!(get(dir.path(), &key, 3, 4), None, "cut at {i}");
        }
        assert!(!path.exists(), "damaged files are removed");
    }

    #[test]
    fn the_key_depends_on_content_order_and_settings() {
        let (a, b) = (Ok(blake3::hash(b"a")), Ok(blake3::hash(b"b")));
        let base = key(&[a.clone(), b.clone()], (2, 2), 1);
        assert_ne!(base, key(&[b.clone(), a.clone()], (2, 2), 1));
        assert_ne!(base, key(&[a.clone(), b.clone()], (2, 3), 1));
        assert_ne!(base, key(&[a.clone(), b], (2, 2), 3));
        assert_ne!(base, key(&[a, Err("b".into())], (2, 2), 1));
    }

    #[test]
    fn an_unwritable_folder_is_reported_and_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let (key, mut decoded) = sample();
        let before = decoded.clone();
        assert!(put(&file.join("cache"), &key, 3, 4, &mut decoded).is_err());
        assert_eq!(decoded, before);
        assert_eq!(get(&file.join("cache"), &key, 3, 4), None);
    }

    #[test]
    fn the_oldest_files_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (age, name) in ["new", "old", "older"].iter().enumerate() {
            let path = dir.path().join(format!("{name}.{EXTENSION}"));
            fs::write(&path, [0; 100]).unwrap();
            let time = now - std::time::Duration::from_secs(1000 * age as u64);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        fs::write(dir.path().join("theirs.txt"), [0; 1000]).unwrap();
        prune(dir.path(), &dir.path().join("older.rgcache"), 250);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new.rgcache", "older.rgcache", "theirs.txt"]);
    }
}
