//! Running the program as people and scripts do.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A command that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, not started yet. It keeps decoded images below the build folder, and a software Vulkan driver finds the
/// folder without which it complains on stderr.
pub fn command(args: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_radiograd"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("RADIOGRAD_CACHE", folder.join("cache")).env("XDG_RUNTIME_DIR", folder);
    command
}

/// Runs a command to its end; one that hangs is stopped and fails the test.
pub fn finish(mut command: Command) -> Output {
    let mut child = command.spawn().expect("the program starts");
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child process") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().expect("stdout"), stderr: stderr.join().expect("stderr") }
}

/// Reads a stream to its end beside the program, which would wait for ever for room in a full pipe.
fn drain(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.expect("a pipe").read_to_end(&mut bytes).expect("output");
        bytes
    })
}

/// What a command wrote.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// The one line of a command that failed with exit status 1, without `error: `. Nothing may be on stdout beside the line
/// that names the device.
pub fn complaint(out: &Output, args: &[&str]) -> String {
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stdout.lines().all(|l| l.starts_with("device: ")), "{args:?}: {stdout}");
    stderr.trim_end().strip_prefix("error: ").unwrap_or_else(|| panic!("{args:?}: {stderr}")).to_owned()
}

/// Every folder below a folder, and path, length and time of change of every file.
#[allow(dead_code, reason = "not every test program that includes this file lists folders")]
pub fn listing(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry")) {
        let meta = entry.metadata().expect("metadata");
        match meta.is_dir() {
            true => {
                all.push(entry.path().display().to_string());
                all.extend(listing(&entry.path()));
            }
            false => all.push(format!("{} {} {:?}", entry.path().display(), meta.len(), meta.modified())),
        }
    }
    all.sort();
    all
}
