//! Trainings that are killed or stopped, and go on to the bits of one that nobody disturbed.
//!
//! `RADIOGRAD_KILLS` says how often `kill -9` strikes (6 where nothing is said), `RADIOGRAD_KILL_SEED` at which random moments: it is printed,
//! so that a run can be repeated.

mod common;

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "common/kill.rs"]
mod kill;
#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/phantom.rs"]
mod phantom;
#[path = "common/program.rs"]
mod program;
#[cfg(unix)]
#[path = "common/signals.rs"]
mod signals;
#[path = "common/stopping.rs"]
mod stopping;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use kill::{Case, assert_same, complete, data, start, temporaries, wait_for, words};
use lab::Lab;
use program::text;
use radiograd::gpu::Options;

/// Dropout, batch-norm, augmentation, momentum, schedules, stages, accumulated gradients, cached features, early stopping; and one whose
/// files are large, so that much of its time goes into writing, a checkpoint after every step included.
const CASES: [Case; 5] = [
    Case {
        name: "plain",
        options: &[
            "--model",
            "conv4-bn-relu-pool-dropout0.3-flatten-dense8-relu-dense2",
            "--epochs",
            "40",
            "--augment",
            "light",
            "--device",
            "cpu",
        ],
    },
    Case { name: "stages", options: &["--config", "stages.toml", "--device", "cpu"] },
    Case {
        name: "oversampled",
        options: &[
            "--model",
            "conv4-relu-pool-flatten-dropout0.2-dense2",
            "--epochs",
            "60",
            "--patience",
            "8",
            "--sampler",
            "oversample",
            "--augment",
            "light",
            "--augment-repeats",
            "strong",
            "--optimizer",
            "sgd:momentum=0.9",
            "--schedule",
            "one_cycle",
            "--device",
            "cpu",
        ],
    },
    Case {
        name: "writing",
        options: &["--model", "flatten-dense300-relu-dropout0.5-dense2", "--epochs", "30", "--device", "cpu"],
    },
    Case {
        name: "every step",
        options: &[
            "--model",
            "flatten-dense100-relu-dropout0.5-dense2",
            "--epochs",
            "6",
            "--accumulate",
            "2",
            "--checkpoint-minutes",
            "1e-9",
            "--device",
            "cpu",
        ],
    },
];

const ON_GPU: Case = Case {
    name: "on the GPU",
    options: &[
        "--model",
        "conv4-bn-relu-pool-flatten-dropout0.3-dense2",
        "--epochs",
        "12",
        "--augment",
        "light",
        "--device",
        "gpu",
    ],
};

/// Numbers in [0, 1), a function of the seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// An undisturbed run, and the seconds from the moment when its folder was there.
fn undisturbed(lab: &Lab, case: Case) -> f64 {
    let out = format!("{} whole", case.name);
    let mut child = start(lab, &words(case, &out, &[]));
    assert!(
        wait_for(&lab.path(&out), &mut child),
        "{}: {}",
        case.name,
        text(&child.wait_with_output().unwrap().stderr)
    );
    let begin = Instant::now();
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}: {}", case.name, text(&output.stderr));
    begin.elapsed().as_secs_f64()
}

/// What a killed run left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// It had ended before.
    Finished,
    /// Nothing of a write.
    Between,
    /// A temporary file: it was writing.
    Writing,
}

/// Runs a training and kills it `after` so many seconds; with `aim` then in the midst of the next write.
fn strike(lab: &Lab, args: &[&str], folder: &Path, after: f64, aim: bool) -> Left {
    let mut child = start(lab, args);
    if wait_for(folder, &mut child) {
        std::thread::sleep(Duration::from_secs_f64(after));
        let end = Instant::now() + Duration::from_secs(20);
        while aim && temporaries(folder).is_empty() && child.try_wait().unwrap().is_none() && Instant::now() < end {}
    }
    let running = child.try_wait().expect("a child").is_none();
    child.kill().expect("killed");
    let out = child.wait_with_output().expect("ended");
    match (running && out.status.code().is_none(), temporaries(folder).is_empty()) {
        (false, _) => {
            assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
            Left::Finished
        }
        (true, true) => Left::Between,
        (true, false) => Left::Writing,
    }
}

/// Kills trainings at random moments, every third in the midst of a write, every fourth again after it went on; each must end as the
/// undisturbed one. Goes on until so many struck and one of them met a write; gives how many did.
fn kill_at_random(lab: &Lab, cases: &[(Case, f64)], kills: u64, seed: u64) -> u64 {
    let (mut done, mut writing, mut draw) = (0, 0, Draw(seed));
    let mut round = 0;
    while done < kills || writing == 0 {
        assert!(
            round < 100 + 10 * kills as usize,
            "in {round} rounds {done} kills came in time, {writing} of them while a file was written"
        );
        let (case, seconds) = cases[round % cases.len()];
        let out = format!("{} {round}", case.name);
        let folder = lab.path(&out);
        let mut told = Vec::new();
        for again in 0..if round % 4 == 3 { 3 } else { 1 } {
            let (after, aim) = (draw.next() * seconds, (round + again) % 3 == 0);
            let resume: &[&str] = if again > 0 { &["--resume"] } else { &[] };
            let left = strike(lab, &words(case, &out, resume), &folder, after, aim);
            told.push(format!("{after:.3} s {left:?}"));
            if left == Left::Finished {
                break;
            }
            done += 1;
            writing += u64::from(left == Left::Writing);
        }
        let what = format!("seed {seed}, round {round}, {} (killed after {})", case.name, told.join(", "));
        // One that had ended has nothing left to do, and must say the same again.
        let said = complete(lab, &words(case, &out, &["--resume"]), &what);
        assert!(said.lines().all(|l| l.contains("is missing: the run goes on from")), "{what}: {said}");
        assert_same(&lab.path(&format!("{} whole", case.name)), &folder, &what);
        println!("{what}: as undisturbed");
        fs::remove_dir_all(&folder).expect("removed");
        round += 1;
    }
    writing
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = number("RADIOGRAD_KILL_SEED").unwrap_or(now % 1_000_000);
    println!("RADIOGRAD_KILL_SEED={seed}");
    seed
}

#[test]
fn killed_at_random_moments_it_goes_on_to_the_same_bits() {
    let lab = Lab::new();
    data(&lab);
    let cases = CASES.map(|case| (case, undisturbed(&lab, case)));
    let kills = number("RADIOGRAD_KILLS").unwrap_or(6);
    let writing = kill_at_random(&lab, &cases, kills, seed());
    println!(
        "{kills} kills or more on the CPU, {writing} of them while a file was written: all resumed to the same bits"
    );
}

#[test]
fn killed_on_the_gpu_too() {
    if common::gpu(Options::default()).is_none() {
        return;
    }
    let lab = Lab::new();
    data(&lab);
    let case = (ON_GPU, undisturbed(&lab, ON_GPU));
    let kills = number("RADIOGRAD_KILLS").unwrap_or(6).div_ceil(10);
    let writing = kill_at_random(&lab, &[case], kills, seed());
    println!(
        "{kills} kills or more on the GPU, {writing} of them while a file was written: all resumed to the same bits"
    );
}

/// Before each rename and each fsync of a run of three epochs: all states that a kill can leave but for half-written temporary files.
#[cfg(target_os = "linux")]
#[test]
fn killed_before_each_rename_and_each_sync() {
    let lab = Lab::new();
    data(&lab);
    let probe = std::process::Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    if !probe.is_ok_and(|out| out.status.success()) {
        println!("skipped: strace is not here, or may not trace");
        return;
    }
    let case =
        Case { name: "short", options: &["--model", "flatten-dropout0.5-dense2", "--epochs", "3", "--device", "cpu"] };
    undisturbed(&lab, case);
    let thorough = number("RADIOGRAD_KILLS").is_some_and(|kills| kills >= 50);
    let (mut kills, mut fallbacks) = (0, 0);
    for call in ["/^rename", "fsync"] {
        // Few of the reports at the end will do.
        for when in (1..).take(if thorough { 1000 } else { 8 }) {
            let out = format!("{} {when}", call.trim_start_matches("/^"));
            let mut command = std::process::Command::new("strace");
            let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
            command.args(["-f", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
            let program = program::command(&words(case, &out, &[]));
            command.arg(program.get_program()).args(program.get_args());
            command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
            let ended = command.current_dir(lab.dir.path()).output().expect("strace runs");
            let what = format!("killed before {call} number {when}");
            if ended.status.success() {
                break;
            }
            let said = complete(&lab, &words(case, &out, &["--resume"]), &what);
            fallbacks += u32::from(said.contains("last.safetensors is missing"));
            assert_same(&lab.path("short whole"), &lab.path(&out), &what);
            kills += 1;
        }
    }
    println!(
        "{kills} kills before a rename or an fsync, {fallbacks} of them between the two renames of a checkpoint: all resumed to the same bits"
    );
    assert!(kills >= 10 && fallbacks > 0, "{kills} {fallbacks}");
}

#[cfg(unix)]
fn written(log: &Path) -> usize {
    fs::read_to_string(log).map_or(0, |text| text.lines().count())
}

/// Interrupts a run when its log has so many lines; what it said on stderr, or `None` where it had ended before.
#[cfg(unix)]
fn interrupt_after(mut child: std::process::Child, log: &Path, lines: usize) -> Option<String> {
    loop {
        if child.try_wait().expect("a child").is_some() {
            break;
        }
        if written(log) >= lines {
            signals::interrupt(&child);
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let ended = child.wait_with_output().expect("ended");
    let said = text(&ended.stderr);
    if ended.status.success() {
        return None;
    }
    assert_eq!(ended.status.code(), Some(130), "{said}");
    Some(said)
}

/// The first Ctrl-C ends the step; the line that it prints is the command that goes on.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_step_and_prints_the_command_that_goes_on() {
    let lab = Lab::new();
    data(&lab);
    for case in [CASES[0], CASES[1]] {
        undisturbed(&lab, case);
        let mut draw = Draw(seed());
        let (mut stops, mut round) = (0, 0);
        // A signal that comes after the end says nothing: then once more.
        while stops == 0 {
            assert!(round < 50, "{}: {round} times the signal came after the end", case.name);
            let out = format!("{}'s run {round}", case.name);
            let log = lab.path(&out).join("metrics.jsonl");
            let mut child = start(&lab, &words(case, &out, &[]));
            loop {
                // A line more than there are: the handler is there, and something that can go on.
                let lines = written(&log) + 1 + (5.0 * draw.next()) as usize;
                let Some(said) = interrupt_after(child, &log, lines) else { break };
                let line = said.lines().last().expect("a line").to_owned();
                assert!(line.starts_with("error: stopped ") && said.lines().count() == 1, "{said}");
                println!("{line}");
                stops += 1;
                let (_, command) = line.split_once("this goes on: radiograd ").expect("a command");
                // As a person would paste it, in a shell.
                let program = program::command(&[]);
                let mut shell = std::process::Command::new("sh");
                shell.args(["-c", &format!("exec {} {command} --quiet", program.get_program().to_string_lossy())]);
                shell.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
                shell.current_dir(lab.dir.path());
                shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
                child = shell.spawn().expect("a shell");
            }
            complete(&lab, &words(case, &out, &["--resume"]), case.name);
            assert_same(&lab.path(&format!("{} whole", case.name)), &lab.path(&out), case.name);
            round += 1;
        }
        println!("{}: stopped {stops} times in {round} runs", case.name);
    }
}

/// A step that takes long is not waited for by the second Ctrl-C, and nothing of it is kept.
#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_at_once() {
    let lab = Lab::new();
    data(&lab);
    let common = ["train", "--quiet", "--data", "set.npz", "--size", "160", "--batch", "48", "--epochs", "1"];
    // A step of some seconds, of thirteen and of seventy times the work: the longer ones where one ended between the two signals.
    for k in [3, 11, 25] {
        let out = format!("slow {k}");
        let model = format!("conv64k{k}-relu-conv64k{k}-relu-conv64k{k}-relu-gap-flatten-dense2");
        let more = ["--device", "cpu", "--model", &model, "--out", &out];
        let mut child = start(&lab, &[&common[..], &more].concat());
        signals::until_at_work(&child);
        signals::interrupt(&child);
        // Two signals at once are one.
        std::thread::sleep(Duration::from_millis(500));
        let waited = child.try_wait().expect("a child").is_none();
        if waited {
            signals::interrupt(&child);
        }
        let begin = Instant::now();
        let status = child.wait().expect("ended");
        // The first one alone ends the step and keeps it.
        if waited && !lab.path(&out).join("last.safetensors").exists() {
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
            assert_eq!(status.code(), Some(130));
            return;
        }
        println!("a step with kernels of {k}x{k} was over before the second signal");
    }
    panic!("no step was long enough");
}

#[test]
fn stopped_after_any_step_it_goes_on_to_the_same_bits() {
    stopping::after_each_step(&|| Box::new(radiograd::cpu::Executor::<f32>::fast()), 1);
}

#[test]
fn stopped_on_the_gpu_too() {
    if common::gpu(Options::default()).is_some() {
        stopping::after_each_step(&|| Box::new(common::gpu(Options::default()).expect("there was one")), 17);
    }
}
