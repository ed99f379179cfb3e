//! `scripts/gpu_report.sh`: one report, in the time that it is given, and a plain word where it cannot be made.
#![cfg(unix)]

mod common;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use radiograd::gpu::Options;

fn report(args: &[&str], seconds: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/gpu_report.sh");
    let mut command = Command::new("bash");
    command.arg(script).args(args).env("RADIOGRAD_REPORT_SECONDS", seconds);
    command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"));
    command.output().expect("bash")
}

#[test]
fn a_report_is_made_in_the_time_given() {
    if common::gpu(Options::default()).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let out = report(&[env!("CARGO_BIN_EXE_radiograd"), dir.path().to_str().unwrap()], "24");
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    // A part that is stopped has five seconds to go.
    assert!(begin.elapsed() < Duration::from_secs(24 + 20), "{:?}", begin.elapsed());
    let file = String::from_utf8(out.stdout).unwrap();
    let text = std::fs::read_to_string(file.trim()).unwrap();
    for part in ["## Adapters", "## Proof", "## Kernels", "## Training steps", "## PyTorch on the same work"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for command in
        ["radiograd devices", "gradcheck --device gpu", "bench kernels --ladder --json", "bench step --model cnn3"]
    {
        assert!(text.contains(command), "{command}: {text}");
    }
    assert!(text.contains("- adapter, driver: ") && text.contains("The report took "), "{text}");
    assert!(!dir.path().join("report.md.part").exists());
}

#[test]
fn what_cannot_be_reported_is_said_in_one_line() {
    let program = env!("CARGO_BIN_EXE_radiograd");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    for (args, seconds, code, word) in [
        (&[program][..], "9", 2, "usage: "),
        (&[program, out][..], "soon", 2, "RADIOGRAD_REPORT_SECONDS"),
        (&["no-such-program", out][..], "9", 1, "no-such-program"),
        (&[program, out, "no-such-cases"][..], "9", 1, "no-such-cases"),
    ] {
        let o = report(args, seconds);
        let stderr = String::from_utf8_lossy(&o.stderr);
        assert_eq!((o.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left behind");
}
