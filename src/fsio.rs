//! Files that are either whole or not there: every write goes through a temporary file beside the target.

use std::fs::{self, File, TryLockError};
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
    write_rotating(path, bytes, None)
}

/// As [`write_atomic`]; the file that was there before is then called `previous`, in the same folder. Whoever dies between the two
/// renames leaves no `path`, but the new file as a temporary one and the old one as `previous`.
///
/// # Errors
/// [`FsError`] with the path.
pub fn write_rotating(path: &Path, bytes: &[u8], previous: Option<&Path>) -> Result<(), FsError> {
    let fail = |e: io::Error| FsError::new("write", path, e);
    let mut file = temporary_for(path)?;
    file.as_file_mut().write_all(bytes).map_err(fail)?;
    let Some(previous) = previous else { return persist(file, path) };
    // Whole on disk before the old one gives its name up.
    file.as_file().sync_all().map_err(fail)?;
    match fs::rename(path, previous) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    rename(file, path).inspect_err(|_| {
        // Best effort: the error that came first is the one to report.
        if !path.exists() {
            let _ = fs::rename(previous, path);
        }
    })
}

/// Writes a file in a place that nobody looks at yet, such as a folder that is renamed when it is whole: no rename, but an fsync.
///
/// # Errors
/// [`FsError`] with the path.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let fail = |e: io::Error| FsError::new("write", path, e);
    let mut file = File::create(path).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)
}

/// Renames a whole folder, and makes sure that the rename survives a crash.
///
/// # Errors
/// [`FsError`] with the new path.
pub fn rename_dir(from: &Path, to: &Path) -> Result<(), FsError> {
    fs::rename(from, to).map_err(|e| FsError::new("write", to, e))?;
    sync_folder(folder_of(to)).map_err(|e| FsError::new("write", to, e))
}

/// Makes sure that what happened to the names in a folder survives a crash. A folder that cannot be opened for that, or a file system that
/// knows no such thing, is no failure.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let Ok(dir) = File::open(folder) else { return Ok(()) };
    match dir.sync_all() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        // Windows opens folders for nobody.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// That files can be written into a folder, or that it can be created where it is not there yet. Nothing is left behind.
///
/// # Errors
/// [`FsError`] with the path.
pub fn check_writable(folder: &Path) -> Result<(), FsError> {
    let there = folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() {
        return Err(FsError::new("create the folder", folder, io::ErrorKind::NotADirectory.into()));
    }
    tempfile::tempfile_in(there).map(drop).map_err(|e| FsError::new("write into", folder, plain(e)))
}

/// Removes temporary files that processes have left in a folder which were killed while they wrote. For a folder in which nobody else
/// writes: see [`lock_dir`].
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && path.is_file() {
            // Best effort: one that stays does no harm.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a folder is empty but for temporary files; also where it is not there.
#[must_use]
pub fn is_bare(folder: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else { return !folder.exists() };
    entries.all(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with(PREFIX)))
}

/// A lock on a folder, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _dir: Option<File>,
}

/// Locks a folder, so that no two processes write into it; `None` where another one has it. Systems and file systems without such locks
/// give one that keeps nobody out.
#[must_use]
pub fn lock_dir(folder: &Path) -> Option<DirLock> {
    let Ok(dir) = File::open(folder) else { return Some(DirLock { _dir: None }) };
    match dir.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => Some(DirLock { _dir: None }),
        Ok(()) => Some(DirLock { _dir: Some(dir) }),
    }
}

/// The names of temporary files.
const PREFIX: &str = ".radiograd-";
const SUFFIX: &str = ".tmp";

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
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; the finished one gets what the umask leaves of 0666.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(|e| FsError::new("write", path, plain(e)))
}

/// What the system said, without the name of a temporary file that nobody asked for.
fn plain(e: io::Error) -> io::Error {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match e.kind() {
        kind @ (PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) => kind.into(),
        _ => e,
    }
}

/// Gives a whole temporary file its place, as [`write_atomic`] does.
///
/// # Errors
/// [`FsError`] with the path.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<(), FsError> {
    file.as_file().sync_all().map_err(|e| FsError::new("write", path, e))?;
    rename(file, path)
}

/// Gives a temporary file that is on disk its place.
fn rename(file: NamedTempFile, path: &Path) -> Result<(), FsError> {
    let fail = |e: io::Error| FsError::new("write", path, e);
    file.persist(path).map_err(|e| fail(e.error))?;
    // The rename itself must survive a crash too.
    sync_folder(folder_of(path)).map_err(fail)
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
    fn the_file_before_keeps_its_bytes_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, previous) = (dir.path().join("a.bin"), dir.path().join("b.bin"));
        for (round, before) in [(b"one", None), (b"two", Some(b"one")), (b"six", Some(b"two"))] {
            write_rotating(&path, round, Some(&previous)).unwrap();
            assert_eq!(read(&path).unwrap(), round);
            assert_eq!(read(&previous).ok().as_deref(), before.map(|b: &[u8; 3]| &b[..]));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_killed_writers_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_bare(dir.path()) && is_bare(&dir.path().join("nowhere")));
        for name in [".radiograd-abc.tmp", ".radiograd-notes", "mine.tmp", "a.bin"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert!(!is_bare(dir.path()));
        sweep(dir.path());
        assert!(!dir.path().join(".radiograd-abc.tmp").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock_dir(dir.path());
        assert!(lock.is_some() && lock_dir(dir.path()).is_none());
        drop(lock);
        assert!(lock_dir(dir.path()).is_some());
        check_writable(&dir.path().join("a/b")).unwrap();
        assert!(is_bare(dir.path()));
    }

    #[test]
    fn names_the_path_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("a.bin");
        let error = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("missing") && error.starts_with("cannot write"), "{error}");
    }
}
