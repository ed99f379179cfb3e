//! Files that are either whole or not there: every write goes through a temporary file beside the target.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file or folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}; check the path, its permissions and the free space", path.display())]
pub struct FsError {
    /// What was tried: `read`, `write`, `create the folder`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// Says which path an [`io::Error`] is about.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }
}

/// Reads a whole file. What is no regular file is refused before it is opened: a pipe may never give a byte, and a device may never
/// end.
///
/// # Errors
/// [`FsError`] with the path.
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    let fail = |e| FsError::new("read", path, e);
    let meta = fs::metadata(path).map_err(fail)?;
    if meta.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    if !meta.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device, not a file")));
    }
    fs::read(path).map_err(fail)
}

/// As [`read`], of a file that has at most `limit` bytes.
///
/// # Errors
/// [`FsError`] with the path, also for a larger file.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, FsError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() > limit => {
            let what = format!("it has {} bytes, and at most {limit} are read", meta.len());
            Err(FsError::new("read", path, io::Error::new(io::ErrorKind::FileTooLarge, what)))
        }
        _ => read(path),
    }
}

/// Creates a folder and its parents.
///
/// # Errors
/// [`FsError`] with the path.
pub fn create_dir(path: &Path) -> Result<(), FsError> {
    fs::create_dir_all(path).map_err(|e| FsError::new("create the folder", path, e))
}

/// Creates a folder and its parents, and makes sure that files can be written there.
///
/// # Errors
/// [`FsError`] with the path.
pub fn create_writable_dir(path: &Path) -> Result<(), FsError> {
    create_dir(path)?;
    tempfile::tempfile_in(path).map(drop).map_err(|e| FsError::new("write into", path, e))
}

/// Replaces `path` by `bytes`: temporary file in the same folder, fsync, rename, fsync of the folder.
/// After an error or a crash the old file is as it was.
///
/// # Errors
/// [`FsError`] with the path.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = temporary_for(path)?;
    file.write_all(bytes).map_err(|e| FsError::new("write", path, e))?;
    persist(file, path)
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// A temporary file beside `path`, for [`persist`]; without that it is gone when dropped.
///
/// # Errors
/// [`FsError`] with the path.
pub fn temporary_for(path: &Path) -> Result<NamedTempFile, FsError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".radiograd-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; the finished one gets what the umask leaves of 0666.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(|e| FsError::new("write", path, e))
}

/// Gives a whole temporary file its place, as [`write_atomic`] does.
///
/// # Errors
/// [`FsError`] with the path.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<(), FsError> {
    let fail = |e: io::Error| FsError::new("write", path, e);
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    // The rename itself must survive a crash too; a folder that cannot be opened for that is no failure of the write.
    if let Ok(dir) = File::open(folder_of(path)) {
        let _ = dir.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_the_path_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("a.bin");
        let error = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("missing") && error.starts_with("cannot write"), "{error}");
    }
}
