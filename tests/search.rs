//! `radiograd search` as people use it: what is found, what survives `kill -9` and Ctrl-C, shards, refusals.

mod common;

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;
#[cfg(unix)]
#[path = "common/signals.rs"]
mod signals;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::{Change, Lab};
use program::{command, finish, text};
use radiograd::gpu::Options;
use serde_json::Value;

/// Twelve trials of a blink each, on a tiny `.npz` file.
const GRID: &str = "[base]\nsize = 16\nepochs = 2\nbatch = 4\nmodel = 'flatten-dense{units}-{act}-dropout0.2-dense2'\n\
    [grid]\nlr = [0.01, 0.001]\n[vars]\nunits = [3, 4, 5]\nact = ['relu', 'elu']\n";

fn lab(grid: &str) -> Lab {
    let lab = Lab::new();
    lab.npz("tiny.npz", |_| Change::Keep);
    lab.write("grid.toml", grid);
    lab
}

/// The arguments of a search on the CPU.
fn search<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["search", "grid.toml", "--data", "tiny.npz", "--device", "cpu", "--quiet", "--out", out];
    args.extend(more);
    args
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let out = lab.output(&args, &[]);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one document")
}

/// The ids in a journal, in the order of its lines; every line must be whole.
fn ids(journal: &Path) -> Vec<String> {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let record = |line: &str| serde_json::from_str::<Value>(line).expect("a whole line");
    text.lines().map(|l| record(l)["id"].as_str().expect("an id").to_owned()).collect()
}

/// Ids and figures of all candidates, which must not depend on how the search was run.
fn figures(summary: &Value) -> Vec<(String, String, String)> {
    let rows = summary["rows"].as_array().expect("rows").iter();
    rows.map(|r| (r["id"].to_string(), r["val_loss"]["mean"].to_string(), r["val_auc"].to_string())).collect()
}

#[test]
fn a_grid_is_searched_reported_and_its_best_trial_refitted() {
    let lab = lab(GRID);
    let found = json(&lab, &search("out", &["--jobs", "2"]));
    assert_eq!(
        (found["trials"].as_u64(), found["finished"].as_u64(), found["failed"].as_u64()),
        (Some(12), Some(12), Some(0))
    );
    let losses: Vec<f64> = found["rows"].as_array().unwrap().iter().map(|r| r["score"].as_f64().unwrap()).collect();
    assert!(losses.len() == 12 && losses.is_sorted(), "{losses:?}");

    // The refitted run is the winner to the last digit, because it is the same training.
    let best = &found["best"];
    assert_eq!(best[0]["loss"].as_f64(), Some(losses[0]), "{best}");
    assert_eq!(best[1]["set"], "test", "{best}");
    for file in ["best.safetensors", "report.html", "config.toml"] {
        assert!(lab.path("out/best").join(file).is_file(), "{file}");
    }
    assert!(!lab.path("out/refit").exists() && !lab.path("out/runs").exists());

    let csv = fs::read_to_string(lab.path("out/results.csv")).unwrap();
    assert!(csv.starts_with("rank,id,lr,act,units,seed,epochs,status,") && csv.lines().count() == 13, "{csv}");
    let page = fs::read_to_string(lab.path("out/report.html")).unwrap();
    for part in ["What mattered", "Every trial over every setting", "<svg", "The best trial", "not a medical device"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));

    // The same command again has nothing to do and says the same; the number of jobs changes no figure.
    let journal = fs::read(lab.path("out/trials.jsonl")).unwrap();
    let again = json(&lab, &search("out", &[]));
    assert_eq!(fs::read(lab.path("out/trials.jsonl")).unwrap(), journal);
    assert_eq!(figures(&again), figures(&found));
    let single = json(&lab, &search("single", &["--jobs", "1", "--no-refit", "--keep"]));
    assert_eq!(figures(&single), figures(&found));
    assert!(single["best"].as_array().is_some_and(Vec::is_empty) && !lab.path("single/best").exists());
    let kept: Vec<_> = fs::read_dir(lab.path("single/runs")).unwrap().collect();
    assert_eq!(kept.len(), 12);
}

#[test]
fn trials_that_fail_are_recorded_and_do_not_stop_the_search() {
    let grid = "[base]\nsize = 16\nbatch = 4\nepochs = 1\nmodel = 'conv2-pool{pool}-flatten-dense2'\n\
        optimizer = 'sgd'\n[grid]\nlr = [0.01, 1e30]\nschedule = ['constant']\n[vars]\npool = [2, 99]\n";
    let lab = lab(grid);
    let found = json(&lab, &search("out", &[]));
    assert_eq!((found["finished"].as_u64(), found["failed"].as_u64()), (Some(4), Some(3)), "{found}");
    let journal = fs::read_to_string(lab.path("out/trials.jsonl")).unwrap();
    assert!(journal.contains("NaN or infinite") && journal.contains("smaller than the window"), "{journal}");
    // Failed trials are not tried again, unless that is asked for.
    lab.succeeds(&search("out", &["--no-refit"]));
    assert_eq!(ids(&lab.path("out/trials.jsonl")).len(), 4);
    lab.succeeds(&search("out", &["--no-refit", "--retry-failed"]));
    let all = ids(&lab.path("out/trials.jsonl"));
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (7, 4));
}

#[test]
fn shards_are_merged_to_what_one_process_finds() {
    let lab = lab(GRID);
    let whole = json(&lab, &search("whole", &["--no-refit"]));
    let merge = ["search", "merge", "parts", "--quiet"];
    for shard in ["0/3", "2/3"] {
        lab.succeeds(&search("parts", &["--shard", shard]));
    }
    lab.fails(&merge, &["4 of 12 trials are missing", "--partial"]);
    let partial = json(&lab, &["search", "merge", "parts", "--quiet", "--partial"]);
    assert_eq!(partial["finished"].as_u64(), Some(8), "{partial}");
    // The last part comes as a task of a Slurm array that is numbered from 1.
    let slurm = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
    let out = lab.output(&search("parts", &[]), &slurm);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let parts: Vec<Vec<String>> = (0..3).map(|i| ids(&lab.path(&format!("parts/trials-{i}-of-3.jsonl")))).collect();
    assert!(parts.iter().all(|p| p.len() == 4), "{parts:?}");
    let merged = json(&lab, &["search", "merge", "parts", "--quiet"]);
    assert_eq!(figures(&merged), figures(&whole));
    let joined = ids(&lab.path("parts/trials.jsonl"));
    assert!(joined.len() == 12 && joined.is_sorted(), "{joined:?}");
    let index = [("JOB_COMPLETION_INDEX", "1")];
    let out = lab.output(&search("parts", &["--shard", "auto/2"]), &index);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(ids(&lab.path("parts/trials-1-of-2.jsonl")).is_empty(), "what others finished is not trained again");
}

#[test]
fn halving_goes_on_from_any_trial() {
    let grid = GRID.replace("epochs = 2", "epochs = 4") + "[search]\nmethod = 'halving'\neta = 2\nseeds = 2\n";
    let lab = lab(&grid);
    let whole = json(&lab, &search("whole", &["--no-refit"]));
    let rungs: Vec<_> =
        whole["rungs"].as_array().unwrap().iter().map(|r| (r["epochs"].as_u64(), r["trials"].as_u64())).collect();
    assert_eq!(rungs, [(Some(1), Some(24)), (Some(2), Some(12)), (Some(4), Some(6))]);
    let mut calls = 0;
    while ids(&lab.path("parts/trials.jsonl")).len() < 42 {
        lab.succeeds(&search("parts", &["--no-refit", "--limit", "5"]));
        calls += 1;
        assert!(calls < 20);
    }
    let parts = json(&lab, &search("parts", &["--no-refit"]));
    assert_eq!(figures(&parts), figures(&whole));
    lab.fails(&search("parts", &["--shard", "0/2"]), &["halving", "--jobs"]);
}

#[test]
fn random_search_draws_what_it_is_asked_for() {
    let grid = "[base]\nsize = 16\nbatch = 4\nepochs = 1\nmodel = 'flatten-dense{units}-relu-dense2'\n\
        [grid]\nlr = { min = 1e-4, max = 1e-1, log = true }\n[vars]\nunits = { min = 2, max = 9 }\n\
        [search]\nmethod = 'random'\ntrials = 4\nmetric = 'val_auc'\n";
    let lab = lab(grid);
    let few = json(&lab, &search("out", &["--no-refit"]));
    let more = json(&lab, &search("out", &["--no-refit", "--trials", "7"]));
    let ids = |v: &Value| figures(v).into_iter().map(|f| f.0).collect::<BTreeSet<_>>();
    assert!(ids(&few).len() == 4 && ids(&more).len() == 7 && ids(&few).is_subset(&ids(&more)));
    let page = fs::read_to_string(lab.path("out/report.html")).unwrap();
    assert!(page.contains("by logarithm") && page.contains("ROC-AUC (to the right is better)"));
}

/// Lines of a journal.
fn lines(path: &Path) -> usize {
    fs::read(path).unwrap_or_default().iter().filter(|&&b| b == b'\n').count()
}

/// Starts a search and waits until it has finished `trials` more than there were; `None` where it ended before.
fn begin(lab: &Lab, args: &[&str], journal: &Path, trials: usize) -> Option<std::process::Child> {
    let mut command = command(args);
    command.current_dir(lab.dir.path());
    let mut child = command.spawn().expect("the program starts");
    let (before, end) = (lines(journal), Instant::now() + Duration::from_secs(60));
    while lines(journal) < before + trials {
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        assert!(Instant::now() < end, "nothing is finished");
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(child)
}

#[test]
fn killed_ten_times_it_finishes_every_trial_once() {
    // Trials long enough for ten to be under way on any machine.
    let grid = GRID.replace("epochs = 2", "epochs = 300").replace("[3, 4, 5]", "[3, 4, 5, 6, 7, 8, 9, 10]");
    let lab = lab(&grid);
    let args = search("out", &["--no-refit"]);
    let journal = lab.path("out/trials.jsonl");
    let mut killed = 0;
    while killed < 10 {
        let Some(mut child) = begin(&lab, &args, &journal, 1) else { break };
        // Anywhere in the trials that follow.
        std::thread::sleep(Duration::from_micros(1371 * killed));
        child.kill().expect("killed");
        child.wait().expect("ended");
        killed += 1;
    }
    assert!(killed >= 5, "only {killed} times was there anything to kill");
    let found = json(&lab, &args);
    let all = ids(&journal);
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (32, 32));
    assert_eq!((found["finished"].as_u64(), found["rows"].as_array().map(Vec::len)), (Some(32), Some(32)));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_between_trials_and_the_same_command_goes_on() {
    let grid = GRID.replace("epochs = 2", "epochs = 1200");
    let lab = lab(&grid);
    let args = search("out", &["--no-refit", "--jobs", "1"]);
    let journal = lab.path("out/trials.jsonl");
    let child = begin(&lab, &args, &journal, 1).expect("more than one trial");
    signals::interrupt(&child);
    let out = child.wait_with_output().expect("ended");
    assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(
        said.lines().any(|l| l.starts_with("error: stopped with ") && l.ends_with("the same command goes on")),
        "{said}"
    );
    let before = ids(&journal);
    assert!(!before.is_empty() && before.len() < 12);
    json(&lab, &args);
    let after = ids(&journal);
    assert_eq!((&after[..before.len()], after.len()), (&before[..], 12));

    // A training stops after its step, and goes on with --resume to the same bytes.
    let train = |out: &'static str| -> Vec<&'static str> {
        let args = ["train", "--data", "tiny.npz", "--size", "16", "--batch", "4", "--epochs", "400"];
        args.into_iter().chain(["--model", "conv8-relu-pool-flatten-dense2", "--device", "cpu", "--out", out]).collect()
    };
    let mut command = command(&train("run"));
    command.current_dir(lab.dir.path());
    let mut child = command.spawn().expect("the program starts");
    while !lab.path("run/last.safetensors").exists() {
        assert!(child.try_wait().expect("a child").is_none(), "{}", text(&child.wait_with_output().unwrap().stderr));
        std::thread::sleep(Duration::from_millis(1));
    }
    signals::interrupt(&child);
    let out = child.wait_with_output().expect("ended");
    assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
    assert!(text(&out.stderr).lines().last().is_some_and(|l| l.contains("--resume")), "{}", text(&out.stderr));
    lab.succeeds(&[&train("run")[..], &["--resume"]].concat());
    lab.succeeds(&train("whole"));
    let [a, b] = ["run", "whole"].map(|f| fs::read(lab.path(f).join("last.safetensors")).expect("a file"));
    assert!(a == b);
}

#[test]
fn a_folder_belongs_to_one_search_one_process_and_one_data_set() {
    let grid = GRID.replace("epochs = 2", "epochs = 3000");
    let lab = lab(&grid);
    let args = search("out", &["--no-refit"]);
    let mut child = begin(&lab, &args, &lab.path("out/trials.jsonl"), 1).expect("more than one trial");
    let second = finish({
        let mut second = command(&args);
        second.current_dir(lab.dir.path());
        second
    });
    child.kill().expect("killed");
    child.wait().expect("ended");
    let said = text(&second.stderr);
    assert!(second.status.code() == Some(1) && said.contains("another process is at work"), "{said}");

    lab.fails(&search("out", &["--set", "epochs=3"]), &["holds another search", "epochs = 3000", "epochs = 3"]);
    let lost: Vec<&str> = args.iter().map(|a| if *a == "tiny.npz" { "nowhere" } else { a }).collect();
    lab.fails(&lost, &["nowhere"]);
    lab.npz("other.npz", lab::replace("train_labels", lab::npy("|u1", &[24, 1], &[0, 1, 1, 0].repeat(6))));
    let other: Vec<&str> = args.iter().map(|a| if *a == "tiny.npz" { "other.npz" } else { a }).collect();
    lab.fails(&other, &["other images"]);
    lab.fails(&["search", "merge", "nothing", "--quiet"], &["no search"]);
}

#[test]
fn mistakes_are_refused_before_anything_is_written() {
    let lab = lab(GRID);
    let cases: [(&str, &[&str]); 6] = [
        ("[grid]\nlearning_rate = [1]", &["grid.toml: line 2: unknown setting `learning_rate`"]),
        ("[base]\nepoch = 3", &["line 2", "did you mean `epochs`?"]),
        ("[search]\nmetric = 'val_los'", &["did you mean `val_loss`?"]),
        ("[base]\nmodel = 'dense{units}-dense2'", &["{units}", "add units = [...] to [vars]"]),
        ("[grid]\nlr = { min = 0.1, max = 1.0 }", &["a range is for draws"]),
        ("[base]\nlr = -1.0", &["lr", "positive"]),
    ];
    for (grid, words) in cases {
        lab.write("grid.toml", grid);
        lab.fails(&search("out", &[]), words);
    }
    lab.write("grid.toml", GRID);
    lab.fails(&search("out", &["--set", "modle=cnn1"]), &["--set", "did you mean `model`?"]);
    lab.fails(&search("out", &["--shard", "3/3"]), &["--shard 3/3", "from 0"]);
    lab.fails(&search("out", &["--jobs", "0"]), &["--jobs"]);
    assert_eq!(lab.output(&["search"], &[]).status.code(), Some(2));
}

#[test]
fn a_gpu_searches_too() {
    if common::gpu(Options::default()).is_none() {
        return;
    }
    let lab = lab(&GRID.replace("[3, 4, 5]", "[3]"));
    let args = |out: &'static str, jobs: &'static str| -> Vec<&'static str> {
        let args = ["search", "grid.toml", "--data", "tiny.npz", "--device", "gpu", "--quiet", "--out", out];
        args.into_iter().chain(["--jobs", jobs]).collect()
    };
    let (one, two) = (json(&lab, &args("one", "1")), json(&lab, &args("two", "2")));
    assert_eq!(figures(&one), figures(&two));
    assert_eq!(one["finished"].as_u64(), Some(4));
    assert_eq!(one["best"][0]["loss"], one["rows"][0]["score"]);
}
