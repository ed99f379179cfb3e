//! Disks that are full or read-only, files that are damaged, and folders in which two processes meet: one line, and the work so far intact.
//!
//! The full disk is a small tmpfs, for which a test must be allowed to mount; where it is not, it says so and is skipped.

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "common/kill.rs"]
mod kill;
#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kill::{Case, assert_same, complete, data, one_line, start, temporaries, wait_for, words};
use lab::Lab;
use program::{command, finish, listing, text};
use radiograd::weights;

const CASE: Case = Case {
    name: "case",
    options: &[
        "--model",
        "flatten-dense100-relu-dropout0.5-dense2",
        "--epochs",
        "5",
        "--schedule",
        "constant",
        "--device",
        "cpu",
    ],
};

fn run(lab: &Lab, args: &[&str]) -> std::process::Output {
    let mut command = command(args);
    command.current_dir(lab.dir.path());
    finish(command)
}

/// A small file system in memory.
struct Disk(PathBuf);

impl Disk {
    const BYTES: u64 = 8 << 20;

    /// `None` where mounting is not permitted.
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).expect("a folder");
        let size = format!("size={}", Self::BYTES);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: this test mounts a tmpfs, which is not permitted here");
        None
    }

    /// Makes it read-only or writable; `false` where a file is being written.
    fn remount(&self, how: &str) -> bool {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).output();
        done.is_ok_and(|out| out.status.success())
    }

    /// Leaves so many bytes free.
    fn fill(&self, free: u64) {
        fs::write(self.0.join("filler"), vec![1_u8; (Self::BYTES - free) as usize]).expect("room");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// That every weight file in a folder is whole, and no temporary file lies there.
fn assert_whole(folder: &Path, what: &str) {
    assert!(temporaries(folder).is_empty(), "{what}: {:?}", temporaries(folder));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "safetensors") {
            weights::load(entry.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    }
}

#[test]
fn a_full_disk_costs_one_line_and_no_checkpoint() {
    let lab = Lab::new();
    data(&lab);
    let Some(disk) = Disk::mount(lab.path("disk")) else { return };
    complete(&lab, &words(CASE, "whole", &[]), "whole");
    let pages = |folder: &Path| -> u64 {
        let files = walk(folder).into_iter().map(|p| fs::metadata(p).expect("a file").len().next_multiple_of(4096));
        files.sum()
    };
    let last = fs::metadata(lab.path("whole/last.safetensors")).expect("a file").len();
    // From nothing to what the finished folder takes and a checkpoint more, so that another file is the one for which there is no room.
    let most = pages(&lab.path("whole")) + last;
    let levels = (0..12).map(|i| most * i / 12).chain([4096, 8192, 12288, 3 * last, 3 * last + 8192]);
    let (mut refused, mut failures) = (BTreeSet::new(), 0);
    for free in levels {
        let what = format!("{free} bytes free");
        disk.fill(free & !4095);
        let out = run(&lab, &words(CASE, "disk/run", &[]));
        let folder = lab.path("disk/run");
        assert_whole(&folder, &what);
        let mut resume: &[&str] = &["--resume"];
        if !out.status.success() {
            let line = one_line(&out, 1, &what);
            assert!(
                line.contains("cannot ") && line.contains("disk/run") && line.contains("free space"),
                "{what}: {line}"
            );
            refused.insert(line.split([' ', ':']).find(|w| w.starts_with("disk/run")).expect("a path").to_owned());
            failures += 1;
            if folder.join("last.safetensors").exists() {
                // As long as there is no room it fails again, and loses nothing.
                let before = fs::read(folder.join("last.safetensors")).expect("a file");
                let again = run(&lab, &words(CASE, "disk/run", &["--resume"]));
                if !again.status.success() {
                    one_line(&again, 1, &what);
                    let now = radiograd::weights::load(folder.join("last.safetensors"));
                    assert!(now.is_ok() && !before.is_empty(), "{what}");
                }
                assert_whole(&folder, &what);
            }
            if !folder.exists() {
                resume = &[];
            }
        }
        fs::remove_file(lab.path("disk/filler")).expect("removed");
        complete(&lab, &words(CASE, "disk/run", resume), &what);
        assert_same(&lab.path("whole"), &folder, &what);
        fs::remove_dir_all(&folder).expect("removed");
    }
    println!("{failures} full disks, with no room for: {refused:?}");
    assert!(refused.iter().any(|f| f.ends_with("last.safetensors")) && refused.len() >= 3, "{refused:?}");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn a_read_only_folder_costs_one_line() {
    let lab = Lab::new();
    data(&lab);
    let Some(disk) = Disk::mount(lab.path("disk")) else { return };
    // From the start.
    complete(&lab, &words(CASE, "disk/run", &["--set", "epochs=2"]), "first part");
    complete(&lab, &words(CASE, "whole", &[]), "whole");
    assert!(disk.remount("ro"));
    let before = listing(&lab.path("disk"));
    for args in [words(CASE, "disk/run", &["--resume"]), words(CASE, "disk/new", &[])] {
        let line = one_line(&run(&lab, &args), 1, "read-only");
        assert!(line.contains("cannot write into disk/") && line.to_lowercase().contains("read-only"), "{line}");
    }
    assert_eq!(listing(&lab.path("disk")), before);
    assert!(disk.remount("rw"));
    complete(&lab, &words(CASE, "disk/run", &["--resume"]), "second part");
    assert_same(&lab.path("whole"), &lab.path("disk/run"), "after a read-only disk");

    // In the midst of a run.
    let long = Case {
        name: "long",
        options: &["--model", "flatten-dense50-relu-dropout0.5-dense2", "--epochs", "400", "--device", "cpu"],
    };
    complete(&lab, &words(long, "long", &[]), "long");
    // A disk that was read-only too late says nothing: then once more.
    let hindered = (0..20).find_map(|_| {
        let mut child = start(&lab, &words(long, "disk/long", &[]));
        assert!(wait_for(&lab.path("disk/long/last.previous.safetensors"), &mut child));
        while !disk.remount("ro") && child.try_wait().expect("a child").is_none() {}
        let out = child.wait_with_output().expect("ended");
        if out.status.success() {
            assert!(disk.remount("rw"));
            fs::remove_dir_all(lab.path("disk/long")).expect("removed");
            return None;
        }
        Some(out)
    });
    let out = hindered.expect("the run ended each time before the disk was read-only");
    let line = one_line(&out, 1, "read-only in the midst");
    assert!(line.contains("disk/long/") && line.to_lowercase().contains("read-only"), "{line}");
    assert!(disk.remount("rw"));
    assert_whole(&lab.path("disk/long"), "read-only in the midst");
    complete(&lab, &words(long, "disk/long", &["--resume"]), "long, second part");
    assert_same(&lab.path("long"), &lab.path("disk/long"), "read-only in the midst");
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// A run of three epochs of five, and the whole one beside it.
fn broken_off(lab: &Lab) {
    complete(lab, &words(CASE, "whole", &[]), "whole");
    complete(lab, &words(CASE, "part", &["--set", "epochs=3"]), "part");
}

/// Ways in which a file is not what was written.
fn damages(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let changed = |at: usize, bytes: usize, to: fn(u8) -> u8| {
        let mut all = whole.to_vec();
        all[at..at + bytes].iter_mut().for_each(|b| *b = to(*b));
        all
    };
    let n = whole.len();
    vec![
        ("one bit of the header", changed(200, 1, |b| b ^ 1)),
        ("one bit in the middle", changed(n / 2, 1, |b| b ^ 4)),
        ("the last bit", changed(n - 1, 1, |b| b ^ 0x80)),
        ("a block of zeros", changed((n / 2) & !4095, 4096, |_| 0)),
        ("the first block zeros", changed(0, 4096, |_| 0)),
        ("cut off", whole[..n / 3].to_vec()),
        ("empty", Vec::new()),
        ("longer", [whole, b"x"].concat()),
    ]
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so() {
    let lab = Lab::new();
    data(&lab);
    broken_off(&lab);
    let (path, previous) = (lab.path("run/last.safetensors"), lab.path("run/last.previous.safetensors"));
    let whole = fs::read(lab.path("part/last.safetensors")).expect("a file");
    for (what, bytes) in damages(&whole) {
        copy(&lab.path("part"), &lab.path("run"));
        fs::write(&path, bytes).expect("written");
        let said = complete(&lab, &words(CASE, "run", &["--resume"]), what);
        let words = ["warning: ", "run/last.safetensors", "goes on from the checkpoint before", "taken after epoch 2"];
        assert!(said.lines().count() == 1 && words.iter().all(|w| said.contains(w)), "{what}: {said}");
        assert_same(&lab.path("whole"), &lab.path("run"), what);
    }
    // Between the two renames of a checkpoint there is none of that name.
    copy(&lab.path("part"), &lab.path("run"));
    fs::remove_file(&path).expect("removed");
    let said = complete(&lab, &words(CASE, "run", &["--resume"]), "removed");
    assert!(said.starts_with("warning: ") && said.contains("last.safetensors is missing"), "{said}");
    assert_same(&lab.path("whole"), &lab.path("run"), "removed");

    copy(&lab.path("part"), &lab.path("run"));
    for file in [&path, &previous] {
        let mut bytes = fs::read(file).expect("a file");
        let n = bytes.len();
        bytes[n - 9] ^= 1;
        fs::write(file, bytes).expect("written");
    }
    let before = listing(&lab.path("run"));
    let line = one_line(&run(&lab, &words(CASE, "run", &["--resume"])), 1, "both damaged");
    assert!(
        ["last.safetensors", "last.previous.safetensors", "start a new run"].iter().all(|w| line.contains(w)),
        "{line}"
    );
    assert_eq!(listing(&lab.path("run")), before);
}

#[test]
fn damaged_best_weights_are_refused_and_written_again() {
    let lab = Lab::new();
    data(&lab);
    broken_off(&lab);
    let path = lab.path("run/best.safetensors");
    let whole = fs::read(lab.path("part/best.safetensors")).expect("a file");
    for (what, bytes) in damages(&whole) {
        copy(&lab.path("part"), &lab.path("run"));
        fs::write(&path, bytes).expect("written");
        let eval = ["eval", "--quiet", "--run", "run", "--device", "cpu"];
        let line = one_line(&run(&lab, &eval), 1, what);
        assert!(line.contains("run/best.safetensors"), "{what}: {line}");
        let said = complete(&lab, &words(CASE, "run", &["--resume"]), what);
        assert!(said.lines().count() == 1 && said.contains("written again from last.safetensors"), "{what}: {said}");
        assert_same(&lab.path("whole"), &lab.path("run"), what);
    }
}

/// Without hashes, without best weights in `last`, without a checkpoint before it.
#[test]
fn folders_of_older_versions_go_on() {
    let lab = Lab::new();
    data(&lab);
    broken_off(&lab);
    copy(&lab.path("part"), &lab.path("run"));
    fs::remove_file(lab.path("run/last.previous.safetensors")).expect("removed");
    for name in ["last.safetensors", "best.safetensors"] {
        let path = lab.path("run").join(name);
        let mut file = weights::load(&path).expect("a file");
        file.tensors.retain(|t| !t.name.starts_with("radiograd."));
        if let Some(text) = file.metadata.get_mut("radiograd.state") {
            let mut state: serde_json::Value = serde_json::from_str(text).expect("JSON");
            state.as_object_mut().expect("a table").remove("best_step").expect("steps");
            *text = state.to_string();
        }
        weights::save(&path, &file.tensors, &file.metadata).expect("written");
    }
    assert_eq!(complete(&lab, &words(CASE, "run", &["--resume"]), "an older version's"), "");
    // The hash came in with the next write; where no epoch was better, the best weights stay as the older version wrote them.
    let [a, b] = ["whole", "run"].map(|f| fs::read(lab.path(f).join("last.safetensors")).expect("a file"));
    assert!(a == b);
    let [a, b] = ["whole", "run"].map(|f| weights::load(lab.path(f).join("best.safetensors")).expect("a file").tensors);
    assert_eq!(a, b);
}

#[test]
fn checkpoints_within_epochs_change_no_bit() {
    let lab = Lab::new();
    data(&lab);
    complete(&lab, &words(CASE, "whole", &[]), "whole");
    complete(&lab, &words(CASE, "often", &["--checkpoint-minutes", "1e-9"]), "often");
    complete(&lab, &words(CASE, "never", &["--checkpoint-minutes", "0"]), "never");
    for file in ["last.safetensors", "best.safetensors", "predictions.csv"] {
        let [a, b, c] = ["whole", "often", "never"].map(|f| fs::read(lab.path(f).join(file)).expect("a file"));
        assert!(a == b && a == c, "{file}");
    }
}

#[cfg(unix)]
#[test]
fn two_processes_do_not_train_into_one_folder() {
    let lab = Lab::new();
    data(&lab);
    let long = Case { name: "long", options: &["--model", "cnn1", "--epochs", "100000", "--device", "cpu"] };
    let mut child = start(&lab, &words(long, "run", &[]));
    assert!(wait_for(&lab.path("run/last.safetensors"), &mut child));
    let out = run(&lab, &words(long, "run", &["--resume"]));
    child.kill().expect("killed");
    child.wait().expect("ended");
    let line = one_line(&out, 1, "the second");
    assert!(line.contains("another process") && line.contains("--out"), "{line}");
    assert!(!text(&out.stderr).contains("warning"));
}
