//! Fetching a file over HTTP into its place: whole and with the right checksum, or not at all.
//!
//! The transport is the program `curl`, which macOS, Windows and nearly every Linux bring along. A TLS library inside this program
//! would make it a tenth larger (ureq with rustls: 1.9 MB) for a command that few people call more than once, and `curl` takes the
//! certificates and proxies that the system is set up with, as hospital networks need it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::fsio::{self, FsError};

/// No weight file that is known is longer than a quarter of this.
const MAX_BYTES: u64 = 1 << 30;
/// Bytes of the head of an answer, at most.
const MAX_HEAD: u64 = 1 << 16;
/// Bytes taken at once.
const CHUNK: usize = 1 << 16;

/// A file that could not be fetched. What lay in its place before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no `curl`.
    #[error("the program curl is needed to fetch {url}, and is not there: install it, or put the file into {}", path.display())]
    NoCurl {
        /// What was asked for.
        url: String,
        /// Where it belongs.
        path: PathBuf,
    },
    /// No address, or one whose answer others on the way could change.
    #[error("{url}: an address begins with https:// (or http://localhost); correct --url")]
    Address {
        /// What was asked for.
        url: String,
    },
    /// No answer came, or it broke off.
    #[error("cannot fetch {url}: {why}; check the network and the proxy, or name another place with --url")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What `curl` says.
        why: String,
    },
    /// The server does not have it.
    #[error("{url}: the server answered {status}; check the address, or name another place with --url")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer's status.
        status: u16,
    },
    /// The transfer ended early.
    #[error("{url}: the transfer ended after {got} of {of} bytes, and nothing was kept; try again")]
    Truncated {
        /// What was asked for.
        url: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        of: u64,
    },
    /// More than any weight file has.
    #[error("{url}: gives more than {MAX_BYTES} bytes, and nothing was kept; check the address")]
    TooLarge {
        /// What was asked for.
        url: String,
    },
    /// Another file than the one that was published.
    #[error(
        "{url}: the file's SHA-256 begins with {got}, that of the published one with {expected}; nothing was kept: try again, or name another place with --url"
    )]
    Checksum {
        /// What was asked for.
        url: String,
        /// The first digits that it should have.
        expected: String,
        /// Those that it has.
        got: String,
    },
    /// Asked to stop.
    #[error("stopped, and nothing was kept: the same command begins anew")]
    Interrupted,
    /// The disk.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// Fetches `url` to `path`, whose folder is made where it is missing. The SHA-256 must begin with `checksum`. `progress` is told how many bytes
/// have come, and of how many where the server says so. The bytes go to a temporary file, which takes the place of `path` once they are
/// checked. Raising `stop` ends the transfer, and so does a server that sends nothing for a minute.
///
/// # Errors
/// [`DownloadError`]; an older file at `path` is then as it was, and nothing new is left behind.
pub fn fetch(
    url: &str,
    path: &Path,
    checksum: &str,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched, DownloadError> {
    let named = || url.to_owned();
    let protocols = protocols(url).ok_or_else(|| DownloadError::Address { url: named() })?;
    if let Some(folder) = path.parent() {
        fsio::create_writable_dir(folder)?;
    }
    let mut file = fsio::temporary_for(path)?;
    let mut transfer = Transfer::start(url, protocols, path)?;
    let broken = |e: std::io::Error| DownloadError::Unreachable { url: named(), why: e.to_string() };
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0u64, vec![0; CHUNK]);
    let head = transfer.head().map_err(broken)?;
    progress(0, head.length);
    loop {
        let n = transfer.body.read(&mut buffer).map_err(broken)?;
        if stop.load(Ordering::Relaxed) {
            return Err(DownloadError::Interrupted);
        }
        let Some(chunk) = buffer.get(..n).filter(|chunk| !chunk.is_empty()) else { break };
        bytes += n as u64;
        if bytes > MAX_BYTES {
            return Err(DownloadError::TooLarge { url: named() });
        }
        hash.update(chunk);
        file.write_all(chunk).map_err(|e| FsError::new("write", path, e))?;
        progress(bytes, head.length);
    }
    let ended = transfer.end().map_err(broken)?;
    if stop.load(Ordering::Relaxed) {
        return Err(DownloadError::Interrupted);
    }
    match (ended, head) {
        (Ended { code: Some(22), .. }, Head { status: Some(status), .. }) => {
            return Err(DownloadError::Status { url: named(), status });
        }
        (Ended { code: Some(18), .. }, Head { length: Some(of), .. }) => {
            return Err(DownloadError::Truncated { url: named(), got: bytes, of });
        }
        (Ended { code: Some(63), .. }, _) => return Err(DownloadError::TooLarge { url: named() }),
        (Ended { code: Some(0), .. }, _) => {}
        (Ended { says, .. }, _) => return Err(DownloadError::Unreachable { url: named(), why: says }),
    }
    let sha256 = hex(&hash.finalize());
    if !sha256.starts_with(checksum) {
        let got = sha256.chars().take(checksum.len()).collect();
        return Err(DownloadError::Checksum { url: named(), expected: checksum.to_owned(), got });
    }
    fsio::persist(file, path)?;
    Ok(Fetched { bytes, sha256 })
}

/// What `curl` may speak to fetch this: TLS, and plain HTTP only to this computer, by a name that nothing else can have.
fn protocols(url: &str) -> Option<&'static str> {
    if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) {
        return Some("=https");
    }
    let place = url.strip_prefix("http://")?;
    let rest = ["127.0.0.1", "[::1]", "localhost"].iter().find_map(|host| place.strip_prefix(host))?;
    let port = rest.strip_prefix(':').map_or(rest, |port| port.trim_start_matches(|c: char| c.is_ascii_digit()));
    (port.is_empty() || port.starts_with('/')).then_some("=http,https")
}

/// The SHA-256 of a file in hexadecimal digits.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> Result<String, FsError> {
    let fail = |e| FsError::new("read", path, e);
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let n = file.read(&mut buffer).map_err(fail)?;
        match buffer.get(..n) {
            Some(chunk) if n > 0 => hash.update(chunk),
            _ => return Ok(hex(&hash.finalize())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What an answer says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    status: Option<u16>,
    length: Option<u64>,
}

/// How `curl` ended.
struct Ended {
    code: Option<i32>,
    says: String,
}

/// A running `curl`, which ends with this value.
struct Transfer {
    child: Child,
    body: BufReader<Box<dyn Read>>,
}

impl Transfer {
    fn start(url: &str, protocols: &str, path: &Path) -> Result<Self, DownloadError> {
        let most = MAX_BYTES.to_string();
        let fixed = [
            // No settings of the user's: some change what is written to stdout. Proxies come from the environment.
            "--disable",
            "--silent",
            "--show-error",
            "--fail",
            "--include",
            "--suppress-connect-headers",
            "--location",
            "--max-redirs",
            "5",
            // Of redirections too.
            "--proto",
            protocols,
            "--tlsv1.2",
            "--max-filesize",
            &most,
            "--connect-timeout",
            "30",
            "--speed-limit",
            "1",
            "--speed-time",
            "60",
            "--globoff",
            "--url",
        ];
        let mut command = Command::new("curl");
        command.args(fixed).arg(url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => DownloadError::NoCurl { url: url.to_owned(), path: path.to_owned() },
            _ => DownloadError::Unreachable { url: url.to_owned(), why: format!("curl does not start: {e}") },
        })?;
        let body: Box<dyn Read> = match child.stdout.take() {
            Some(stdout) => Box::new(stdout),
            None => Box::new(std::io::empty()),
        };
        Ok(Self { child, body: BufReader::with_capacity(CHUNK, body) })
    }

    fn head(&mut self) -> std::io::Result<Head> {
        read_head(&mut self.body)
    }

    /// Waits for the end.
    fn end(&mut self) -> std::io::Result<Ended> {
        let mut text = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(MAX_HEAD).read_to_string(&mut text)?;
        }
        let code = self.child.wait()?.code();
        let line = text.lines().next().unwrap_or("curl failed without a word").trim();
        // `curl: (7) Failed to connect ...`
        let says =
            line.split_once(") ").filter(|(front, _)| front.starts_with("curl: (")).map_or(line, |(_, what)| what);
        Ok(Ended { code, says: says.to_owned() })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Best effort: it may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the head of the last answer: redirections and interim answers come before it.
fn read_head(from: &mut impl BufRead) -> std::io::Result<Head> {
    let mut left = MAX_HEAD;
    let mut head = Head::default();
    let mut redirects = false;
    loop {
        let mut line = Vec::new();
        left -= from.by_ref().take(left).read_until(b'\n', &mut line)? as u64;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let interim = |s: u16| (100..200).contains(&s) || (redirects && (300..400).contains(&s));
        match line.split_once(':') {
            _ if line.is_empty() && left > 0 && head.status.is_some_and(interim) => {
                (head, redirects) = (Head::default(), false)
            }
            _ if line.is_empty() => return Ok(head),
            _ if line.starts_with("HTTP/") => {
                head.status = line.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                head.length = value.trim().parse().ok()
            }
            Some((name, _)) if name.eq_ignore_ascii_case("location") => redirects = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_head_counts() {
        let text = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 3\r\n\r\nHTTP/2 200\r\nX: y\r\ncontent-length: 12\r\n\r\nbody";
        let mut from = &text[..];
        assert_eq!(read_head(&mut from).unwrap(), Head { status: Some(200), length: Some(12) });
        assert_eq!(from, b"body");
        let mut plain = &b"HTTP/1.1 200 OK\r\n\r\n"[..];
        assert_eq!(read_head(&mut plain).unwrap(), Head { status: Some(200), length: None });
        assert_eq!(read_head(&mut &b""[..]).unwrap(), Head::default());
        // A head without an end is given up.
        assert!(read_head(&mut std::io::BufReader::new(std::io::repeat(b'a'))).is_ok());
    }

    #[test]
    fn only_tls_and_this_computer_are_asked() {
        assert_eq!(protocols("https://download.pytorch.org/models/x.pth"), Some("=https"));
        for url in ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1", "http://localhost"] {
            assert_eq!(protocols(url), Some("=http,https"), "{url}");
        }
        let dir = tempfile::tempdir().unwrap();
        for url in [
            "file:///etc/hostname",
            "--version",
            "",
            "https://",
            "http://mirror.example/models",
            "http://127.0.0.1.mirror.example/x",
            "http://localhost@mirror.example/x",
            "http://127.0.0.1:80@mirror.example/x",
            "http://localhost\\@mirror.example/x",
            "HTTP://mirror.example",
        ] {
            let error = fetch(url, &dir.path().join("x"), "", &AtomicBool::new(false), &mut |_, _| {}).unwrap_err();
            assert!(matches!(error, DownloadError::Address { .. }), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(file.path()).unwrap(), want);
    }
}
