//! The program as people and scripts call it: exit codes, one-line errors, JSON, help.

use std::process::Output;

use serde_json::Value;

#[path = "common/program.rs"]
mod program;

use program::{command, complaint, finish, listing, text};

fn radiograd(args: &[&str]) -> Output {
    finish(command(args))
}

/// stdout of a command that must succeed.
fn succeeds(args: &[&str]) -> String {
    let out = radiograd(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// The one document of a command with `--json`.
fn json(args: &[&str]) -> Value {
    let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let out = succeeds(&all);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{all:?}: {e}: {out}"))
}

/// The one line of a command that must fail.
fn fails(args: &[&str]) -> String {
    complaint(&radiograd(args), args)
}

const COMMANDS: [&[&str]; 15] = [
    &["devices"],
    &["data"],
    &["bench"],
    &["data", "summary"],
    &["data", "phantom"],
    &["graph"],
    &["gradcheck"],
    &["bench", "step"],
    &["bench", "kernels"],
    &["tune"],
    &["weights"],
    &["weights", "show"],
    &["weights", "list"],
    &["weights", "get"],
    &[],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let out = succeeds(&args);
        let example = format!("  radiograd {}", command.join(" "));
        assert!(out.contains("Example") && out.contains(example.trim_end()), "{command:?}: {out}");
        assert!(out.contains("--device") && out.contains("--seed") && out.contains("--json"), "{command:?}: {out}");
    }
}

#[test]
fn wrong_usage_is_exit_status_2() {
    let cases: [&[&str]; 8] = [
        &[],
        &["fly"],
        &["graph", "--size", "64"],
        &["graph", "--model", "cnn1", "--size", "sixty"],
        &["devices", "--device", "cuda"],
        &["devices", "--seed", "-1"],
        &["bench", "step", "--size", "64"],
        &["bench", "kernels", "--runs", "0"],
    ];
    for args in cases {
        let out = radiograd(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn what_does_not_exist_is_named_in_one_line() {
    let e = fails(&["gradcheck", "--op", "conv2", "--device", "cpu"]);
    assert!(e.contains("conv2:") && e.contains("did you mean conv2d?"), "{e}");
    let e = fails(&["bench", "kernels", "--op", "linar", "--device", "cpu"]);
    assert!(e.contains("did you mean linear?"), "{e}");
    let e = fails(&["bench", "kernels", "--only", "7x7x7", "--device", "cpu"]);
    assert!(e.contains("7x7x7"), "{e}");
    let e = fails(&["bench", "kernels", "--shapes", "no/such/file", "--device", "cpu"]);
    assert!(e.contains("no/such/file"), "{e}");
    let e = fails(&["bench", "kernels", "--shapes", "matmul m=2 k=2 n=2; conv2d c=1", "--device", "cpu"]);
    assert!(e.starts_with("--shapes: line 2: ") && e.contains("h= is missing"), "{e}");
    let e = fails(&["graph", "--model", "cnn9", "--size", "64", "--device", "cpu"]);
    assert!(e.contains("cnn9") && e.contains("cnn1"), "{e}");
    let e = fails(&["data", "summary", "no/such\npath"]);
    assert!(e.contains("no/such\\npath"), "{e}");
    let e = fails(&["graph", "--model", "cnn1", "--size", "8", "--device", "gpu:4096"]);
    assert!(e.contains("4096") && e.contains("radiograd devices"), "{e}");
}

#[test]
fn networks_that_do_not_fit_are_refused_before_anything_runs() {
    let shrunk = fails(&["graph", "--model", "cnn3", "--size", "4", "--device", "cpu"]);
    assert!(shrunk.contains("layer "), "{shrunk}");
    let nothing = fails(&["graph", "--model", "cnn1", "--size", "0", "--device", "cpu"]);
    assert!(nothing.contains("--size"), "{nothing}");
    let layer = fails(&["graph", "--model", "conv8-dense2", "--size", "16", "--device", "cpu"]);
    assert!(layer.contains("layer 2"), "{layer}");
    fails(&["graph", "--model", "cnn1", "--size", "16", "--batch", "0", "--device", "cpu"]);
    fails(&["graph", "--model", "cnn1", "--size", "16", "--channels", "0", "--device", "cpu"]);
    fails(&["graph", "--model", "cnn1", "--size", "16", "--classes", "1", "--device", "cpu"]);
    fails(&["bench", "step", "--model", "cnn1", "--size", "1", "--device", "cpu"]);
    fails(&["bench", "step", "--model", "cnn1", "--batch", "99999999", "--device", "cpu"]);
}

/// Mesa's device layer complains where there is no session, so the program starts itself once more without it.
#[cfg(target_os = "linux")]
#[test]
fn without_a_session_nothing_is_on_stderr() {
    let mut devices = command(&["devices"]);
    devices.env_remove("XDG_RUNTIME_DIR").env_remove("NODEVICE_SELECT");
    let out = finish(devices);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
}

#[test]
fn devices_says_what_auto_takes() {
    let d = json(&["devices"]);
    assert!(d["adapters"].is_array() && d["cpu"].as_str().is_some_and(|s| s.contains("CPU")), "{d}");
    assert!(d["auto"]["reason"].as_str().is_some_and(|s| !s.is_empty()), "{d}");
    assert!(succeeds(&["devices"]).lines().any(|l| l.starts_with("auto: ")));
}

#[test]
fn graph_lists_every_node() {
    let args = ["graph", "--model", "cnn1", "--size", "16", "--batch", "2", "--device", "cpu"];
    let out = succeeds(&args);
    assert!(out.lines().next().is_some_and(|l| l.starts_with("device: CPU executor")), "{out}");
    assert!(out.contains("conv2d") && out.contains("max_pool2d"), "{out}");
    let g = json(&args);
    // Convolution 1 -> 32 (3x3), 32 * 8 * 8 -> 128, 128 -> 2, all with bias.
    let parameters = 32 * 10 + 2048 * 128 + 128 + 128 * 2 + 2;
    assert_eq!(g["parameters"], parameters, "{g}");
    let nodes = g["nodes"].as_array().expect("nodes");
    let conv = nodes.iter().find(|n| n["op"] == "conv2d").expect("a convolution");
    assert_eq!(conv["output"], serde_json::json!([2, 32, 16, 16]));
    assert_eq!(conv["flops"], (2 * 9 + 1) * 2 * 32 * 16 * 16);
    assert_eq!(conv["kernel"], "cpu");
    let step = json(&["graph", "--model", "cnn1", "--size", "16", "--batch", "2", "--device", "cpu", "--train"]);
    let ops = |g: &Value| -> Vec<String> {
        g["nodes"].as_array().into_iter().flatten().map(|n| n["op"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(ops(&step).iter().any(|op| op == "optimizer_step") && !ops(&g).iter().any(|op| op == "optimizer_step"));
}

#[test]
fn gradcheck_passes_and_says_how_well() {
    let g = json(&["gradcheck", "--op", "max_pool2d", "--device", "cpu"]);
    assert_eq!(g["passed"], true, "{g}");
    let op = &g["ops"][0];
    assert_eq!(op["op"], "max_pool2d");
    assert!(op["differences"]["error"].as_f64().is_some_and(|e| e <= 1e-6), "{g}");
    assert!(op["kernels"][0]["device"]["samples"].as_u64().is_some_and(|n| n > 0), "{g}");
    let table = succeeds(&["gradcheck", "--op", "relu", "--device", "cpu"]);
    assert!(table.contains("relu") && table.contains("pass") && !table.contains("FAIL"), "{table}");
}

#[test]
fn bench_measures_a_step() {
    let b = json(&[
        "bench",
        "step",
        "--model",
        "conv4-relu-pool-flatten-dense2",
        "--size",
        "8",
        "--batch",
        "4",
        "--runs",
        "3",
        "--seconds",
        "1",
        "--device",
        "cpu",
    ]);
    let r = &b["results"][0];
    assert!(r["step"]["median"].as_f64().is_some_and(|s| s > 0.0), "{b}");
    assert!(r["images_per_second"].as_f64().is_some_and(|s| s > 0.0), "{b}");
    assert!(r["loss"].as_f64().is_some_and(|l| l > 0.0 && l < 5.0), "{b}");
}

#[test]
fn bench_measures_a_kernel_and_checks_it() {
    let b = json(&["bench", "kernels", "--op", "max_pool2d", "--runs", "1", "--seconds", "0", "--device", "cpu"]);
    let results = b["results"].as_array().expect("results");
    assert_eq!(results.len(), 2, "{b}");
    assert!(results.iter().all(|r| r["correct"] == true && r["bytes_per_second"].as_f64().is_some()), "{b}");
    for r in results {
        let floor = r["floor"]["seconds"].as_f64().expect("a floor");
        let over = r["times"]["median"].as_f64().expect("a median") / floor;
        assert!(floor > 0.0 && (over / r["floor"]["over"].as_f64().expect("a ratio") - 1.0).abs() < 1e-9, "{r}");
        assert!(r["sets"].as_u64().is_some_and(|n| n >= 2), "{r}");
    }
    for peak in ["compute", "copy", "read"] {
        assert!(b["peaks"][peak]["best"]["rate"].as_f64().is_some_and(|rate| rate > 1e8), "{b}");
    }
}

#[test]
fn bench_takes_shapes_from_a_file_and_draws_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let [shapes, svg] = ["shapes.txt", "roofline.svg"].map(|name| folder.path().join(name));
    std::fs::write(&shapes, "# two\nconv2d n=2 c=3 size=9 o=4 k=5\n\nmatmul m=8 k=9 n=10\n").expect("a file");
    let [shapes, svg] = [&shapes, &svg].map(|path| path.to_str().expect("UTF-8"));
    let args = ["bench", "kernels", "--shapes", shapes, "--svg", svg, "--runs", "2", "--direction", "forward"];
    let args: Vec<&str> = args.into_iter().chain(["--device", "cpu", "--quiet"]).collect();
    let b = json(&args);
    let named: Vec<&str> = b["results"].as_array().into_iter().flatten().filter_map(|r| r["shapes"].as_str()).collect();
    assert_eq!(named, ["2x3x9x9, 5x5, 3->4", "8x9x10"]);
    let text = std::fs::read_to_string(svg).expect("a plot");
    let doc = roxmltree::Document::parse(&text).expect("XML");
    assert!(doc.descendants().any(|n| n.text().is_some_and(|t| t.starts_with("matmul forward cpu: 8x9x10"))), "{text}");
    std::fs::write(shapes, "matmul m=8 k=9 n=10\nmatmul m=8 k=9\n").expect("a file");
    let e = fails(&args);
    assert!(e.contains("shapes.txt: line 2: n= is missing"), "{e}");
}

#[test]
fn quiet_leaves_results_only() {
    let out = succeeds(&["graph", "--model", "mlp", "--size", "8", "--device", "cpu", "--quiet"]);
    assert!(!out.contains("device:"), "{out}");
    let out = radiograd(&["graph", "--model", "mlp", "--size", "8", "--device", "cpu", "--json"]);
    assert!(text(&out.stderr).starts_with("device: CPU executor"), "{}", text(&out.stderr));
}

#[test]
fn phantom_is_written_once_and_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("set");
    let path = out.to_str().expect("UTF-8");
    let made = json(&["data", "phantom", path, "--images", "40", "--size", "16"]);
    let images: u64 = made["images"].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    assert_eq!((images, &made["synthetic"]), (40, &Value::Bool(true)), "{made}");
    let summary = json(&["data", "summary", path, "--size", "16"]);
    assert_eq!(summary["classes"], serde_json::json!(["NORMAL", "PNEUMONIA"]), "{summary}");
    let counted: u64 = summary["splits"].as_array().into_iter().flatten().filter_map(|s| s["images"].as_u64()).sum();
    assert_eq!((counted, summary["unreadable"].as_array().map(Vec::len)), (40, Some(0)), "{summary}");
    let before = listing(&out);
    let e = fails(&["data", "phantom", path, "--images", "40", "--size", "16"]);
    assert!(e.contains(path), "{e}");
    assert_eq!(listing(&out), before);
    let e = fails(&["data", "phantom", folder.path().join("other").to_str().expect("UTF-8"), "--size", "0"]);
    assert!(e.contains("0x0") && !folder.path().join("other").exists(), "{e}");
}

/// `radiograd ... | head -0`: the reader is gone before anything is written.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = command(&["graph", "--model", "cnn3", "--size", "64", "--device", "cpu", "--train"])
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("the program ends");
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""));
}

/// Calls the program with a cache folder of its own.
fn with_cache(cache: &std::path::Path, args: &[&str]) -> Output {
    let mut command = command(args);
    command.env("RADIOGRAD_CACHE", cache);
    finish(command)
}

/// Whether `--device gpu` finds an adapter; where it must, none is a failure.
fn gpu_here() -> bool {
    let out = radiograd(&["graph", "--model", "mlp", "--size", "4", "--device", "gpu"]);
    let found = out.status.code() == Some(0);
    let required = std::env::var("RADIOGRAD_REQUIRE_GPU").is_ok_and(|v| v == "1");
    assert!(found || !required, "{}", text(&out.stderr));
    if !found {
        eprintln!("SKIPPED, no GPU adapter: {}", text(&out.stderr));
    }
    found
}

#[test]
fn tuning_needs_a_gpu_and_a_model() {
    let e = fails(&["tune", "--model", "cnn1", "--size", "8", "--device", "cpu"]);
    assert!(e.contains("--device gpu"), "{e}");
    for args in [&["tune"][..], &["tune", "--model", "cnn1", "--clear"], &["tune", "--list", "--clear"]] {
        assert_eq!(radiograd(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn what_was_tuned_is_used_listed_and_forgotten() {
    if !gpu_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path();
    let net = ["--model", "conv4-pool-flatten-dense2", "--size", "8", "--batch", "4", "--device", "gpu"];
    let call = |head: &[&str], tail: &[&str]| with_cache(cache, &[head, &net, tail].concat());
    let document = |out: &Output| -> Value {
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("one document")
    };
    let plain = document(&call(&["graph"], &["--train", "--json"]));
    assert!(plain["device"]["tuned"].is_null(), "{plain}");

    let tuned = document(&call(&["tune"], &["--runs", "2", "--seconds", "1", "--json"]));
    let findings = tuned["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|f| f["op"] == "conv2d_weight_grad"), "{tuned}");
    for f in findings {
        let best = f["candidates"].as_array().into_iter().flatten().find(|c| c["variant"] == f["best"]);
        let best = best.unwrap_or_else(|| panic!("{f}"));
        assert!(
            best["error"].as_f64().is_some_and(|e| e < 1e-4) && best["times"]["median"].as_f64() > Some(0.0),
            "{f}"
        );
    }
    let path = std::path::PathBuf::from(tuned["path"].as_str().expect("a path"));
    assert!(path.starts_with(cache.join("tune")), "{path:?}");

    // Whatever was measured, from here on the plain kernel is the fastest for everything.
    let mut stored: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    let entries = stored["entries"].as_object_mut().expect("entries");
    assert_eq!(entries.len(), findings.len());
    let mut changed = 0;
    for entry in entries.values_mut() {
        entry["variant"] = "plain".into();
        changed += usize::from(entry["table"] != "plain");
    }
    assert!(changed > 0);
    std::fs::write(&path, serde_json::to_vec(&stored).expect("JSON")).expect("written");
    let kernels = |g: &Value, op: &str| -> Vec<String> {
        let nodes = g["nodes"].as_array().into_iter().flatten().filter(|n| n["op"] == op);
        nodes.map(|n| n["kernel"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let with = document(&call(&["graph"], &["--train", "--json"]));
    assert_eq!(with["device"]["tuned"]["changed"], changed, "{with}");
    assert_eq!((kernels(&with, "conv2d"), kernels(&with, "linear")), (vec!["plain".into()], vec!["plain".into()]));
    assert_ne!(kernels(&plain, "conv2d"), kernels(&with, "conv2d"));
    let line = text(&call(&["graph"], &[]).stdout);
    assert!(line.starts_with("device: ") && line.lines().next().is_some_and(|l| l.contains("; tuned: ")), "{line}");
    let without = document(&call(&["graph"], &["--train", "--json", "--no-tune"]));
    assert!(without["device"]["tuned"].is_null() && kernels(&without, "conv2d") == kernels(&plain, "conv2d"));
    let mut silenced = command(&[&["graph", "--json"], &net[..]].concat());
    silenced.env("RADIOGRAD_CACHE", cache).env("RADIOGRAD_NO_TUNE", "1");
    assert!(document(&finish(silenced))["device"]["tuned"].is_null());

    let listed: Value = document(&with_cache(cache, &["tune", "--list", "--json"]));
    assert_eq!(listed[0]["entries"].as_object().map(serde_json::Map::len), Some(findings.len()), "{listed}");

    // A damaged file costs a line, not the run.
    std::fs::write(&path, "{\"format\": 1,").expect("written");
    let out = call(&["graph"], &["--train", "--json"]);
    assert_eq!(kernels(&document(&out), "conv2d"), kernels(&plain, "conv2d"));
    let complaints: Vec<String> = text(&out.stderr).lines().filter(|l| l.contains("tune")).map(str::to_owned).collect();
    assert!(complaints.len() == 1 && complaints[0].contains("ignored"), "{complaints:?}");

    let cleared: Value = document(&with_cache(cache, &["tune", "--clear", "--json"]));
    assert_eq!(cleared["removed"].as_array().map(Vec::len), Some(1), "{cleared}");
    assert!(!path.exists());
    assert!(text(&with_cache(cache, &["tune", "--list"]).stdout).starts_with("nothing was measured yet"));
}
