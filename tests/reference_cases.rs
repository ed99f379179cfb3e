//! Every op, optimizer, schedule and metric against values from PyTorch and scikit-learn.
//!
//! `RADIOGRAD_CASES=DIR` runs the cases of another folder of the same form instead of `tests/cases`.

mod common;
mod reference;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use radiograd::gpu::Options;
use reference::{Target, cpu_targets, run};

#[test]
fn every_case_agrees() {
    let other = std::env::var_os("RADIOGRAD_CASES").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut targets = cpu_targets();
    if let Some(gpu) = common::gpu(Options::default()) {
        targets.push(Target { name: "gpu", executor: Box::new(gpu), double: false });
    }
    let report = run(other.as_ref().unwrap_or(&own), &mut targets);

    // Written past the capture of the test harness: what was not run must be seen when all is well, too.
    let mut text = String::new();
    for note in &report.notes {
        text += &format!("NOT RUN: {note}\n");
    }
    for target in &targets {
        text += &format!("cases ran on {}: {}\n", target.name, target.executor.describe());
    }
    text += &format!("cases: {:?}\n", report.cases);
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    if other.is_none() {
        assert!(report.notes.is_empty(), "the project's own cases are not complete: {:?}", report.notes);
    }
    let total: usize = report.cases.values().sum();
    assert!(
        report.failures.is_empty(),
        "{} failures in {total} cases:\n{}",
        report.failures.len(),
        report.failures.join("\n")
    );
}
