//! Looking at a step: profiled trainings end with the same bytes, traces have the format that Perfetto reads, `bench step` and
//! `bench data` add up, and the planner stays close to its bound.

mod common;

#[path = "common/program.rs"]
mod program;

use std::path::Path;
use std::sync::Arc;

use radiograd::bench::step::Workload;
use radiograd::cpu;
use radiograd::data::phantom::PhantomSizes;
use radiograd::data::{CachePolicy, LoadOptions, Source, Splits, load};
use radiograd::exec::Executor;
use radiograd::gpu::choice::choose;
use radiograd::gpu::lower::AdapterKind;
use radiograd::gpu::{Options, Schedule, StepMemory, Target};
use radiograd::nn::Model;
use radiograd::train::{Fit, Profile, TrainConfig};
use serde_json::Value;

/// What `bench step` and the issue measure: model, channels, size, batch.
const WORKLOADS: [(&str, usize, usize, usize); 5] =
    [("cnn1", 1, 128, 32), ("cnn2", 1, 128, 32), ("cnn3", 1, 128, 32), ("cnn3", 1, 28, 64), ("simple", 3, 224, 32)];

/// The memory of a training step on a kind of adapter; no device is needed.
fn memory((model, channels, size, batch): (&str, usize, usize, usize), kind: AdapterKind) -> StepMemory {
    let model = Model::new(model, [channels, size, size], 2).unwrap();
    let work = Workload::new(model, 1, batch, 0, None).unwrap();
    let schedule = Schedule::new(&Target::unlimited(kind), false, &mut choose, &work.step.graph, &[]).unwrap();
    let vars: Vec<u64> = work.store.vars().iter().map(|v| v.spec.bytes() as u64).collect();
    schedule.memory(&work.step.graph, &vars)
}

#[test]
fn a_step_takes_at_most_115_percent_of_the_lower_bound() {
    for workload in WORKLOADS {
        for kind in [AdapterKind::Discrete, AdapterKind::Integrated, AdapterKind::Software] {
            let m = memory(workload, kind);
            let stays = m.parameters + m.moments + m.gradients + m.inputs;
            assert_eq!((m.peak, m.lower_bound), (stays + m.planned, stays + m.tensors_at_least), "{workload:?}");
            assert!(m.moments == 2 * m.parameters && m.gradients == m.parameters, "Adam has two moments: {m:?}");
            assert!(
                m.tensors_at_least > 0 && m.tensors_at_least <= m.placed_at_least && m.placed_at_least <= m.planned
            );
            assert!(m.peak as f64 <= 1.15 * m.lower_bound as f64, "{workload:?} {kind:?}: {m:?}");
        }
    }
}

fn config() -> TrainConfig {
    let model = "conv8-bn-relu-pool-flatten-dense16-relu-dropout0.5-dense2".to_owned();
    TrainConfig { model, size: 20, epochs: 2, batch: 16, ..TrainConfig::default() }
}

/// Trains into a folder; gives the bytes of its last checkpoint.
fn train(folder: &Path, executor: Box<dyn Executor>, profile: bool) -> (Vec<u8>, Option<Profile>) {
    let options = LoadOptions {
        size: (20, 20),
        splits: Splits::FIT,
        cache: CachePolicy::Off,
        phantom: PhantomSizes { train: 96, val: 24, test: 24 },
        ..LoadOptions::default()
    };
    let mut fit = Fit::new(&config(), load(&Source::Phantom, &options).unwrap(), executor).unwrap();
    let start = fit.start(None).unwrap();
    if profile {
        fit.profile(&start);
    }
    fit.run(start, Some(folder), &mut |_| {}).unwrap();
    (std::fs::read(folder.join("last.safetensors")).unwrap(), fit.take_profile())
}

#[test]
fn a_profiled_training_ends_with_the_same_bytes() {
    type Make = Box<dyn Fn() -> Box<dyn Executor>>;
    let mut executors: Vec<(&str, Make)> = vec![("cpu", Box::new(|| Box::new(cpu::Executor::<f32>::fast())))];
    if common::gpu(Options::default()).is_some() {
        executors.push(("gpu", Box::new(|| Box::new(common::gpu(Options::default()).unwrap()))));
    }
    for (name, make) in executors {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (plain, none) = train(a.path(), make(), false);
        let (profiled, profile) = train(b.path(), make(), true);
        assert!(plain == profiled && none.is_none(), "{name}");
        let profile = profile.unwrap();
        let s = profile.summary();
        // 96 images in batches of 16, two epochs.
        assert_eq!(s.steps, [3, 4, 5, 6, 7, 8], "{name}");
        assert!(s.host.iter().any(|p| p.phase == "batch") && s.host.iter().any(|p| p.phase == "read back"), "{name}");
        if let Some(ops) = &s.ops {
            let share: f64 = ops.iter().map(|o| o.share).sum();
            assert!((share - 1.0).abs() < 1e-9, "{name}: {share}");
            assert!(ops.windows(2).all(|w| w[0].seconds >= w[1].seconds), "{name}");
            for op in ["gather_images", "conv2d", "conv2d_weight_grad", "cross_entropy", "optimizer_step"] {
                assert!(ops.iter().any(|o| o.op == op), "{name}: {op}");
            }
        }
        is_a_trace(&profile.trace(), s.ops.is_some());
    }
}

/// What Perfetto and `chrome://tracing` ask of a trace in JSON.
fn is_a_trace(trace: &Value, nodes: bool) {
    let events = trace["traceEvents"].as_array().expect("events");
    let named = |what: &str, name: &str| {
        events.iter().any(|e| e["ph"] == "M" && e["name"] == what && e["args"]["name"] == name && e["pid"] == 1)
    };
    assert!(named("thread_name", "host") && named("thread_name", "nodes") == nodes, "{events:?}");
    assert!(events.iter().any(|e| e["ph"] == "M" && e["name"] == "process_name"));
    let complete: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
    assert_eq!(complete.len() + events.iter().filter(|e| e["ph"] == "M").count(), events.len());
    for e in &complete {
        assert!(e["name"].as_str().is_some_and(|n| !n.is_empty()) && e["cat"].is_string(), "{e}");
        assert!(e["ts"].as_f64().is_some_and(|t| t >= 0.0) && e["dur"].as_f64().is_some_and(|d| d >= 0.0), "{e}");
        assert!(e["pid"] == 1 && [1, 2].contains(&e["tid"].as_u64().unwrap()), "{e}");
        assert!(e["args"]["step"].as_u64().is_some_and(|s| (1..=8).contains(&s)), "{e}");
    }
    // Within a track and step nothing begins before what was before it has ended.
    for track in [1, 2] {
        let mut ends = [0.0_f64; 9];
        for e in complete.iter().filter(|e| e["tid"] == track) {
            let step = e["args"]["step"].as_u64().unwrap() as usize;
            let (ts, dur) = (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap());
            assert!(ts >= ends[step] - 1.0, "{e}: the one before ended at {}", ends[step]);
            ends[step] = ts + dur;
        }
    }
}

fn json(args: &[&str], folder: &Path) -> Value {
    let mut command = program::command(args);
    command.current_dir(folder).arg("--json");
    let out = program::finish(command);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", program::text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn devices() -> Vec<&'static str> {
    if common::gpu(Options::default()).is_some() { vec!["cpu", "gpu"] } else { vec!["cpu"] }
}

#[test]
fn train_with_profile_writes_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    for device in devices() {
        let mut args = vec!["train", "--data", "phantom", "--model", "conv4-relu-pool-flatten-dense2", "--size", "16"];
        args.extend(["--epochs", "1", "--out", device, "--device", device, "--profile"]);
        let report = json(&args, dir.path());
        assert_eq!(report["profile"]["steps"][0], 3, "{report}");
        assert!(report["network"]["val"].is_object(), "the run's own results stay where they were");
        let trace = std::fs::read(dir.path().join(device).join("trace.json")).unwrap();
        is_a_trace(&serde_json::from_slice(&trace).unwrap(), report["profile"]["ops"].is_array());
    }
    let plain = json(
        &[
            "train",
            "--data",
            "phantom",
            "--model",
            "conv4-relu-pool-flatten-dense2",
            "--size",
            "16",
            "--epochs",
            "1",
            "--out",
            "p",
            "--device",
            "cpu",
        ],
        dir.path(),
    );
    assert!(plain.get("profile").is_none() && !dir.path().join("p/trace.json").exists());
}

#[test]
fn bench_step_tells_parts_and_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let model = ["bench", "step", "--model", "conv4-relu-pool-flatten-dense2", "--size", "16", "--batch", "4"];
    for device in devices() {
        let args: Vec<&str> = model.iter().copied().chain(["--runs", "3", "--device", device, "--ops"]).collect();
        let r = &json(&args, dir.path())["results"][0];
        let seconds = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
        assert!(seconds(&r["step"]["median"]) > 0.0 && seconds(&r["read_back"]["median"]) > 0.0, "{r}");
        if device == "gpu" {
            let (host, parts) = (seconds(&r["host"]["median"]), &r["host_parts"]);
            assert!(host > 0.0 && host <= seconds(&r["step"]["max"]), "{r}");
            assert!(["upload", "encode", "submit"].iter().all(|p| seconds(&parts[p]) > 0.0), "{r}");
            let m = &r["memory"];
            assert!(seconds(&m["ratio"]) >= 1.0 && m["peak"].as_u64() >= m["lower_bound"].as_u64(), "{r}");
        } else {
            assert!(r["host"].is_null() && r["memory"].is_null(), "{r}");
        }
        if let Some(nodes) = r["nodes"].as_array() {
            // By the name of the fused op, where it was fused.
            let is_weight_grad = |n: &Value| n["op"].as_str().is_some_and(|op| op.ends_with("_weight_grad"));
            let share: f64 = nodes.iter().map(|n| seconds(&n["share"])).sum();
            assert!((share - 1.0).abs() < 1e-6 && nodes.iter().any(is_weight_grad), "{r}");
        }
    }
    let args: Vec<&str> = model.iter().copied().chain(["--runs", "1", "--device", "cpu"]).collect();
    assert!(json(&args, dir.path())["results"][0].get("nodes").is_none(), "nodes only with --ops");
}

#[test]
fn graph_prints_peak_and_bound_without_a_gpu() {
    let args = ["graph", "--model", "cnn2", "--size", "32", "--batch", "8", "--train", "--device", "cpu"];
    let dir = tempfile::tempdir().unwrap();
    let report = json(&args, dir.path());
    assert_eq!(report["planned_for"], "discrete");
    let m: StepMemory = memory(("cnn2", 1, 32, 8), AdapterKind::Discrete);
    assert_eq!(report["memory"]["peak"].as_u64(), Some(m.peak));
    assert_eq!(report["memory"]["lower_bound"].as_u64(), Some(m.lower_bound));
    let out = program::finish(program::command(&args));
    let text = program::text(&out.stdout);
    assert!(text.contains("planned for a discrete adapter") && text.contains("lower bound: "), "{text}");
}

#[test]
fn bench_data_measures_every_stage() {
    let dir = tempfile::tempdir().unwrap();
    let made = json(&["data", "phantom", "folder", "--images", "24", "--size", "40"], dir.path());
    assert_eq!(made["synthetic"], true);
    std::fs::write(dir.path().join("folder/train/NORMAL/broken.png"), b"no image").unwrap();
    let before = program::listing(dir.path());
    for (data, stages) in [
        ("folder", &["read", "decode", "resize", "cache", "gather", "augment"][..]),
        ("phantom", &["draw", "gather", "augment"][..]),
    ] {
        for device in devices() {
            let mut args = vec!["bench", "data", "--data", data, "--size", "20", "--images", "30", "--batch", "5"];
            args.extend(["--runs", "3", "--device", device]);
            let report = json(&args, dir.path());
            let found: Vec<&str> =
                report["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
            assert_eq!(found, stages);
            for s in report["stages"].as_array().unwrap() {
                assert!(s["images_per_second"].as_f64() > Some(0.0) && s["bytes"].as_u64() > Some(0), "{s}");
            }
            assert_eq!(report["unreadable"], u64::from(data == "folder"), "{report}");
        }
    }
    assert_eq!(program::listing(dir.path()), before, "the data are looked at, not changed");
    let out = program::finish(program::command(&["bench", "data", "--data", "no-such-data", "--device", "cpu"]));
    assert!(program::complaint(&out, &[]).contains("no-such-data"));
}

#[test]
fn a_profile_of_the_same_graph_has_the_same_nodes_on_every_executor() {
    let Some(mut gpu) = common::gpu(Options { no_fuse: true, ..Options::default() }) else { return };
    let model = Model::new("conv4-relu-pool-flatten-dense2", [1, 16, 16], 2).unwrap();
    let work = Workload::new(model, 8, 4, 0, None).unwrap();
    let nodes = |executor: &mut dyn Executor| -> Option<Vec<usize>> {
        executor.load(&work.store).unwrap();
        let program = executor.compile(&Arc::clone(&work.step.graph), &[]).unwrap();
        let profile = executor.run_profiled(program).unwrap();
        let mut ids: Vec<usize> = profile.nodes?.iter().map(|n| n.node).collect();
        ids.dedup();
        Some(ids)
    };
    // On a GPU a pack costs nothing: its inputs are computed in place.
    let packs = |id: &usize| work.step.graph.nodes()[*id].kind() != "pack";
    let cpu: Vec<usize> = nodes(&mut cpu::Executor::<f32>::fast()).unwrap().into_iter().filter(packs).collect();
    if let Some(gpu) = nodes(&mut gpu) {
        assert_eq!(gpu.into_iter().filter(packs).collect::<Vec<_>>(), cpu);
    }
}
