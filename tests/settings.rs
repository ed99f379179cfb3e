//! Settings from files and from `--set`: what is saved with a run gives the same weights again.

mod common;

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use std::fs;

use lab::{Lab, training};
use radiograd::gpu::Options;

/// Dropout, batch-norm, momentum and a schedule: everything that a saved setting could get wrong.
const MODEL: &str = "conv4-bn-relu-pool-dropout0.3-flatten-dense8-relu-dense2";

fn again_from_the_saved_config(lab: &Lab, device: &'static str) {
    let folders: [&'static str; 2] = if device == "cpu" { ["cpu-a", "cpu-b"] } else { ["gpu-a", "gpu-b"] };
    let mut first = training(&[
        ("--model", MODEL),
        ("--epochs", "3"),
        ("--device", device),
        ("--seed", "5"),
        ("--lr", "0.0123"),
        ("--schedule", "one_cycle"),
        ("--optimizer", "sgd:momentum=0.9"),
        ("--out", folders[0]),
    ]);
    first.extend(["--set", "optimizer.weight_decay=0.001", "--set", "class_weights.values=[1.0, 1.7]"]);
    first.extend(["--set", "label_smoothing=0.1"]);
    lab.succeeds(&first);
    let config = lab.path(folders[0]).join("config.toml");
    let config = config.to_str().expect("UTF-8");
    lab.succeeds(&["train", "--quiet", "--config", config, "--device", device, "--out", folders[1]]);
    for file in ["config.toml", "last.safetensors", "best.safetensors"] {
        let [a, b] = folders.map(|f| fs::read(lab.path(f).join(file)).expect("a file"));
        assert!(a == b, "{device}: {file} differs");
    }
    let text = fs::read_to_string(config).expect("text");
    assert!(text.contains("weight_decay = 0.001") && text.contains("max_lr = 0.0123"), "{text}");
}

#[test]
fn a_run_repeated_from_its_saved_config_has_the_same_bytes() {
    let lab = Lab::new();
    again_from_the_saved_config(&lab, "cpu");
    if common::gpu(Options::default()).is_some() {
        again_from_the_saved_config(&lab, "gpu");
    }
}

#[test]
fn settings_that_do_not_exist_are_refused_with_the_nearest() {
    let lab = Lab::new();
    let cases: [(&'static str, &[&str]); 6] = [
        ("modle=cnn1", &["--set", "unknown setting `modle`: did you mean `model`?"]),
        ("optimizer.weight_decai=1", &["did you mean `optimizer.weight_decay`?"]),
        ("optimizer.name=sdg", &["unknown choice `sdg`: did you mean `sgd`?"]),
        ("lr=fast", &["lr", "fast"]),
        ("batch=0", &["batch", "at least 1"]),
        ("model=conv4-flatten", &["layer 2 (flatten)"]),
    ];
    for (set, words) in cases {
        lab.training_fails(&[("--set", set)], words);
    }
    let study = ["study", "depth", "--quiet", "--data", "ok", "--device", "cpu", "--out", "out", "--set"];
    lab.fails(&[&study[..], &["schedul=constant"]].concat(), &["did you mean `schedule`?"]);
    lab.fails(&[&study[..], &["model=cnn1"]].concat(), &["cnn1, cnn2, cnn3"]);
}
