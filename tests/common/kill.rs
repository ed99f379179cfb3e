//! Runs of the program that are killed or hindered, and what must be equal afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{Lab, npy};
use crate::program::{command, finish, text};

/// A training: its options, without `--out` and `--resume`.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub options: &'static [&'static str],
}

/// A MedMNIST file of 16x16 noise in which class 1 is the brighter one: 48 images to train on, so that a batch of 4 gives 12 steps.
pub fn data(lab: &Lab) {
    lab.npz("set.npz", |key| {
        let mut state = key.bytes().fold(1_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(b)));
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let n = if key.starts_with("train") { 48 } else { 16 };
        crate::lab::Change::Replace(if key.ends_with("labels") {
            // Twice as many of class 0, so that the samplers have something to do.
            npy("|u1", &[n, 1], &(0..n).map(|i| u8::from(i % 3 == 0)).collect::<Vec<_>>())
        } else {
            let pixels: Vec<u8> =
                (0..n).flat_map(|i| [if i % 3 == 0 { 90 } else { 60 }; 256]).map(|base| base + byte() / 2).collect();
            npy("|u1", &[n, 16, 16], &pixels)
        })
    });
    // Two stages, the first with a frozen part whose features are kept, the second with gradients summed over three batches.
    lab.write(
        "stages.toml",
        "model = \"conv4-bn-relu-pool-conv4-relu-pool-flatten-dense8-relu-dropout0.4-dense2\"\nepochs = 14\naccumulate = 3\n\
         cache_features = true\npatience = 4\nlr = 0.01\nschedule = { name = \"reduce_on_plateau\", patience = 1 }\n\
         [[stages]]\nepochs = 6\nfreeze = [\"conv*\", \"bn*\"]\n[[stages]]\nlr = 0.003\n",
    );
}

/// The words of a training into a folder.
pub fn words<'a>(case: Case, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["train", "--quiet", "--data", "set.npz", "--size", "16", "--batch", "4", "--out", out];
    common.into_iter().chain(case.options.iter().copied()).chain(more.iter().copied()).collect()
}

pub fn start(lab: &Lab, args: &[&str]) -> Child {
    let mut command = command(args);
    command.current_dir(lab.dir.path());
    command.spawn().expect("the program starts")
}

/// Runs a training to its end, which must be a good one; gives what it said.
pub fn complete(lab: &Lab, args: &[&str], what: &str) -> String {
    let mut command = command(args);
    command.current_dir(lab.dir.path());
    let out = finish(command);
    assert_eq!(out.status.code(), Some(0), "{what}: {args:?}: {}", text(&out.stderr));
    text(&out.stderr)
}

/// Waits until there is such a file or folder; `false` where the program ended before.
pub fn wait_for(path: &Path, child: &mut Child) -> bool {
    let end = Instant::now() + Duration::from_secs(120);
    while !path.exists() {
        if child.try_wait().expect("a child").is_some() {
            return path.exists();
        }
        assert!(Instant::now() < end, "{} does not come", path.display());
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// The temporary files in a folder.
pub fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|e| e.path());
    paths.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().ends_with(".tmp"))).collect()
}

/// Takes out what differs from run to run: times, and the command line and folder that a report names.
fn without_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !["seconds", "environment", "name"].contains(&key.as_str()));
            map.values_mut().for_each(without_times);
        }
        Value::Array(all) => all.iter_mut().for_each(without_times),
        _ => {}
    }
}

fn json(text: &str) -> Value {
    let mut value = serde_json::from_str(text).expect("JSON");
    without_times(&mut value);
    value
}

/// That two finished run folders hold the same weights, log, predictions and figures, and no temporary file.
pub fn assert_same(whole: &Path, other: &Path, what: &str) {
    for file in ["last.safetensors", "best.safetensors", "predictions.csv", "config.toml"] {
        let [a, b] = [whole, other].map(|f| fs::read(f.join(file)).unwrap_or_else(|e| panic!("{what}: {file}: {e}")));
        assert!(a == b, "{what}: {file} differs from the uninterrupted run's");
    }
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).expect("text");
    let lines = |folder: &Path| read(folder, "metrics.jsonl").lines().map(json).collect::<Vec<_>>();
    assert_eq!(lines(whole), lines(other), "{what}: metrics.jsonl");
    assert_eq!(json(&read(whole, "result.json")), json(&read(other, "result.json")), "{what}: result.json");
    assert!(other.join("report.html").is_file(), "{what}: no report");
    let left = [temporaries(other), temporaries(&other.join("plots"))].concat();
    assert!(left.is_empty(), "{what}: {left:?} was left");
}

/// The one line on stderr of a run that must end with this status.
pub fn one_line(out: &Output, status: i32, what: &str) -> String {
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{what}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{what}: {said}");
    lines[0].to_owned()
}
