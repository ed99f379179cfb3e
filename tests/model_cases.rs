//! Whole networks against torchvision's: logits, loss, gradients and running statistics of every entry of `models.json`, on the
//! CPU executor and on the GPU, to a relative error of 1e-3.
//!
//! `RADIOGRAD_CASES=DIR` takes the `models.json` of another folder. `RADIOGRAD_MODELS` names the networks to run, with commas
//! between them, or says `all`; without it resnet18 and densenet121 run, and of another folder all. `scripts/model_cases.sh` runs
//! all of them.
//!
//! No weights are stored: every tensor is a hash of its name, which the README of the cases describes.
//!
//! A gradient jumps where the input of a ReLU passes zero. Among the five million of DenseNet-121 some lie so near to it that
//! rounding to `f32` decides: PyTorch 2.15's own `f32` finds 3 otherwise than its `f64` (11 in DenseNet-161), and its probes are then
//! off by 8e-3 (4e-2). So where an executor's gradients are off by more than 1e-3, the case is run again with each ReLU
//! told by the `f64` reference which of its inputs to let through. Then they must be within 1e-3, and the executor may have
//! found otherwise in no more than one of 100,000 inputs.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::gpu::Options;
use radiograd::graph::{Graph, NodeId, Source};
use radiograd::nn::{Mode, Model};
use radiograd::ops::cross_entropy::CrossEntropy;
use radiograd::shape::Spec;
use radiograd::store::{Param, ParamStore, Role};
use radiograd::tensor::{Data, Tensor, relative_error};
use serde::Deserialize;

/// Largest relative error.
const TOLERANCE: f64 = 1e-3;
/// Largest share of a network's ReLU inputs on whose sign an `f32` executor and the `f64` reference may not agree.
const KINKS: f64 = 1e-5;
/// What runs where nothing else is asked for.
const DEFAULT: [&str; 2] = ["resnet18", "densenet121"];

/// Norm and projection of a gradient.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Gradient {
    norm: f64,
    probe: f64,
}

/// An entry of `models.json`.
#[derive(Clone, Debug, Deserialize)]
struct Case {
    arch: String,
    size: usize,
    batch: usize,
    suffix: String,
    classes: usize,
    parameters: usize,
    labels: Vec<u32>,
    eval_logits: Vec<Vec<f64>>,
    train_loss: f64,
    grads: BTreeMap<String, Gradient>,
    running_norms_after: BTreeMap<String, f64>,
}

/// What an executor gave for a case.
#[derive(Clone, Debug)]
struct Measured {
    eval_logits: Vec<f64>,
    train_loss: f64,
    grads: BTreeMap<String, Gradient>,
    running_norms_after: BTreeMap<String, f64>,
    /// For each ReLU of the training pass whether its inputs are positive; empty where they were not kept.
    positive: Vec<Vec<bool>>,
}

/// What a case is run with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gates<'a> {
    /// ReLUs.
    Own,
    /// ReLUs, and it is noted which inputs are positive.
    Noted,
    /// Products with what was noted.
    Given(&'a [Vec<bool>]),
}

/// The folder of the cases, and whether it is the project's own.
fn folder() -> (PathBuf, bool) {
    match std::env::var_os("RADIOGRAD_CASES") {
        Some(other) => (other.into(), false),
        None => (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), true),
    }
}

/// Every entry; none where another folder has no `models.json`.
fn cases() -> Vec<Case> {
    let (folder, own) = folder();
    let path = folder.join("models.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        Err(e) if own => panic!("{}: {e}", path.display()),
        Err(e) => {
            say(&format!("NOT RUN: {}: {e}", path.display()));
            Vec::new()
        }
    }
}

/// The entries to run.
fn chosen() -> Vec<Case> {
    let wanted = std::env::var("RADIOGRAD_MODELS").ok();
    let own = folder().1;
    let all = cases();
    let named = |arch: &str| match wanted.as_deref() {
        Some("all") => true,
        Some(names) => names.split(',').any(|n| n.trim() == arch),
        None => !own || DEFAULT.contains(&arch),
    };
    for name in wanted.iter().flat_map(|w| w.split(',')).map(str::trim).filter(|n| *n != "all") {
        assert!(all.iter().any(|c| c.arch == name), "RADIOGRAD_MODELS: no case is called {name}");
    }
    all.into_iter().filter(|c| named(&c.arch)).collect()
}

/// Written past the capture of the test harness.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// `n` numbers in [-1, 1) of that name: FNV-1a of the name, then splitmix64 of counters that begin there.
fn hashed(name: &str, n: usize) -> impl Iterator<Item = f32> + use<> {
    let fnv = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let start = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    (1..=n as u64).map(move |i| {
        let z = start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        (2.0 * (z >> 40) as f64 / f64::from(1 << 24) - 1.0) as f32
    })
}

/// The value of a tensor of the network.
fn weight(name: &str, suffix: &str, shape: &[usize]) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let scale = |a: f64, b: f64| hashed(&format!("{name}{suffix}"), n).map(move |v| (a + b * f64::from(v)) as f32);
    match name.rsplit('.').next() {
        Some("running_var") => scale(1.0, 0.5).collect(),
        Some("running_mean") => scale(0.0, 0.1).collect(),
        _ if shape.len() >= 2 => {
            let fan_in = (n / shape[0]) as f64;
            scale(0.0, (6.0 / fan_in).sqrt()).collect()
        }
        Some("weight") => scale(1.0, 0.1).collect(),
        _ => scale(0.0, 0.1).collect(),
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn model(case: &Case) -> Model {
    Model::new(&case.arch, [3, case.size, case.size], case.classes).unwrap_or_else(|e| panic!("{}: {e}", case.arch))
}

/// A graph whose ReLUs are products with inputs of their own, which come second; then the inputs of the ReLUs, and where each
/// node went.
fn gated(graph: &Graph) -> (Graph, Vec<NodeId>, Vec<NodeId>, Vec<NodeId>) {
    let mut g = Graph::new();
    let (mut gates, mut reads) = (Vec::new(), Vec::new());
    let mut places: Vec<NodeId> = Vec::new();
    for node in graph.nodes() {
        g.set_scope(&node.scope);
        let place = match &node.source {
            Source::Input => g.input(&node.scope, node.spec.clone()),
            Source::Var(view) => g.var(&node.scope, view.clone()),
            Source::Op { op, inputs } => {
                let inputs: Vec<NodeId> = inputs.iter().map(|i| places[i.index()]).collect();
                if op.name() == "relu" {
                    gates.push(g.input("gate", node.spec.clone()));
                    reads.push(inputs[0]);
                    g.mul(inputs[0], gates[gates.len() - 1]).unwrap()
                } else {
                    g.apply_shared(Arc::clone(op), &inputs).unwrap()
                }
            }
        };
        places.push(place);
    }
    (g, gates, reads, places)
}

/// Runs a case; `spoil` may change the store before.
fn measure(case: &Case, executor: &mut dyn Executor, relus: Gates<'_>, spoil: impl Fn(&mut ParamStore)) -> Measured {
    let model = model(case);
    let mut store = ParamStore::new();
    let params = model.init(&mut store, 0);
    for (i, p) in params.iter().enumerate() {
        store.set_value(i, &weight(&p.name, &case.suffix, &p.view.spec.shape));
    }
    spoil(&mut store);
    executor.load(&store).unwrap();

    let spec = Spec::float([case.batch, 3, case.size, case.size]);
    let pixels = hashed(&format!("input{}", case.suffix), spec.numel()).collect();
    let pixels = Tensor::f32(spec.shape.clone(), pixels).unwrap();
    let words = |values: Vec<u32>| Tensor::new([values.len()], Data::U32(values)).unwrap();

    let mut g = Graph::new();
    let x = g.input("image", spec.clone());
    let logits = model.forward(&mut g, &params, x, Mode::Eval).unwrap().logits;
    let eval = executor.compile(&Arc::new(g), &[logits]).unwrap();
    executor.set(eval, x, &pixels).unwrap();
    executor.run(eval).unwrap();
    let eval_logits = executor.read(eval, logits).unwrap().to_f64();
    executor.release(eval);

    // Batch-norm by the batch, and no dropout: a network with dropout has no batch-norm here, so it runs as in evaluation.
    let mut g = Graph::new();
    let x = g.input("image", spec);
    let labels = g.input("labels", Spec::u32([case.batch]));
    let rng = g.input("seed and step", Spec::u32([2]));
    let mode = if case.running_norms_after.is_empty() { Mode::Eval } else { Mode::Train { rng } };
    let pass = model.forward(&mut g, &params, x, mode).unwrap();
    assert!(g.nodes().iter().all(|n| n.kind() != "dropout"), "{}: dropout with batch-norm", case.arch);
    let relu_inputs = g.nodes().iter().filter(|n| n.kind() == "relu").map(|n| n.inputs()[0]).collect();
    let (mut g, gates, reads, places) = match relus {
        Gates::Given(_) => gated(&g),
        _ => {
            let places = g.ids().collect();
            (g, Vec::new(), if relus == Gates::Noted { relu_inputs } else { Vec::new() }, places)
        }
    };
    let place = |id: NodeId| places[id.index()];
    let leaves: Vec<NodeId> = pass.leaves.iter().map(|&l| place(l)).collect();
    let [x, labels, rng, logits] = [x, labels, rng, pass.logits].map(place);
    let loss = g.cross_entropy(logits, labels, None, CrossEntropy::default()).unwrap();
    let grads = g.gradients(loss, None, &leaves).unwrap();
    let grads: Vec<_> = grads.into_iter().map(|g| g.expect("every parameter counts")).collect();
    let mut roots = vec![loss];
    roots.extend(&grads);
    roots.extend(&reads);
    let g = Arc::new(g);
    let step = executor.compile(&g, &roots).unwrap();
    executor.set(step, x, &pixels).unwrap();
    executor.set(step, labels, &words(case.labels.clone())).unwrap();
    executor.set(step, rng, &words(vec![0, 0])).unwrap();
    if let Gates::Given(positive) = relus {
        for (&gate, positive) in gates.iter().zip(positive) {
            let value = positive.iter().map(|p| f32::from(u8::from(*p))).collect();
            executor.set(step, gate, &Tensor::f32(g.spec(gate).shape.clone(), value).unwrap()).unwrap();
        }
    }
    executor.run(step).unwrap();
    let signs = |&id: &NodeId| executor.read(step, id).unwrap().to_f64().iter().map(|v| *v > 0.0).collect();
    let positive: Vec<Vec<bool>> = reads.iter().map(signs).collect();
    let train_loss = executor.read(step, loss).unwrap().to_f64()[0];
    let trainable: Vec<&Param> = params.iter().filter(|p| p.role == Role::Trainable).collect();
    let mut gradients = BTreeMap::new();
    for (p, &node) in trainable.iter().zip(&grads) {
        let grad = executor.read(step, node).unwrap().to_f64();
        let probe = hashed(&format!("probe.{}{}", p.name, case.suffix), grad.len());
        let probe = grad.iter().zip(probe).map(|(g, v)| g * f64::from(v)).sum();
        gradients.insert(p.name.clone(), Gradient { norm: norm(&grad), probe });
    }
    let buffers = executor.read_var(ParamStore::BUFFERS).unwrap().to_f64();
    let running = params.iter().filter(|p| p.role == Role::Buffer).map(|p| {
        let range = p.view.offset..p.view.offset + p.view.spec.numel();
        (p.name.clone(), norm(&buffers[range]))
    });
    let running_norms_after = running.collect();
    let measured = Measured { eval_logits, train_loss, grads: gradients, running_norms_after, positive };
    executor.release(step);
    measured
}

/// What differs, a line each, and the largest relative error of all.
fn compare(case: &Case, got: &Measured) -> (Vec<String>, f64) {
    let (mut lines, mut worst) = (Vec::new(), 0f64);
    let mut check = |what: &str, error: f64| {
        worst = worst.max(error);
        // NaN is no small error.
        if !error.is_finite() || error > TOLERANCE {
            lines.push(format!("{}: {what} is off by {error:.2e}, allowed is {TOLERANCE:e}", case.arch));
        }
    };
    let of = |got: f64, wanted: f64| (got - wanted).abs() / wanted.abs();
    let logits: Vec<f64> = case.eval_logits.concat();
    let same = logits.len() == got.eval_logits.len();
    check("eval_logits", if same { relative_error(&got.eval_logits, &logits) } else { f64::INFINITY });
    check("train_loss", of(got.train_loss, case.train_loss));
    for (name, wanted) in &case.grads {
        let Some(grad) = got.grads.get(name) else {
            check(&format!("the gradient of {name} (there is none)"), f64::INFINITY);
            continue;
        };
        check(&format!("the norm of the gradient of {name}"), of(grad.norm, wanted.norm));
        // A projection on random numbers may be near zero by cancellation; its usual size is norm / sqrt(3).
        let size = wanted.probe.abs().max(wanted.norm / 3f64.sqrt());
        check(&format!("the probe of the gradient of {name}"), (grad.probe - wanted.probe).abs() / size);
    }
    for (name, wanted) in &case.running_norms_after {
        let norm = got.running_norms_after.get(name).copied().unwrap_or(f64::NAN);
        check(&format!("the norm of {name} after the step"), of(norm, *wanted));
    }
    let names = |k: Vec<&String>, wanted: Vec<&String>| {
        let (k, wanted): (BTreeSet<_>, BTreeSet<_>) = (k.into_iter().collect(), wanted.into_iter().collect());
        k.difference(&wanted).map(|n| format!("{}: {n} is not torchvision's", case.arch)).collect::<Vec<_>>()
    };
    let mut unknown = names(got.grads.keys().collect(), case.grads.keys().collect());
    unknown.extend(names(got.running_norms_after.keys().collect(), case.running_norms_after.keys().collect()));
    lines.extend(unknown);
    (lines, worst)
}

/// Says that a case cannot run on a device whose limit one of the network's tensors outgrows.
fn refused(case: &Case, executor: &dyn Executor) -> bool {
    let model = model(case);
    let largest = model.params().iter().max_by_key(|p| p.shape.numel()).expect("a network has parameters");
    let (bytes, device) = (4 * largest.shape.numel() as u64, executor.describe());
    let refused = executor.max_tensor_bytes().filter(|&limit| bytes > limit);
    if let Some(limit) = refused {
        let (mib, name) = (bytes >> 20, &largest.name);
        say(&format!("NOT RUN: {}: {name} takes {mib} MiB, {device} binds {} MiB", case.arch, limit >> 20));
    }
    refused.is_some()
}

fn run(executor: &mut dyn Executor) {
    let mut failures = Vec::new();
    for case in chosen() {
        if refused(&case, executor) {
            continue;
        }
        let start = Instant::now();
        let (mut lines, worst) = compare(&case, &measure(&case, executor, Gates::Own, |_| {}));
        let seconds = start.elapsed().as_secs_f64();
        let device = executor.describe();
        let arch = &case.arch;
        say(&format!("{arch} {}x{}: largest error {worst:.1e}, {seconds:.1} s on {device}", case.size, case.size));
        if !lines.is_empty() && lines.iter().all(|l| l.contains("of the gradient of")) {
            lines = with_given_gates(&case, executor);
        }
        failures.extend(lines);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// As [`compare`], with the ReLUs' decisions taken by the `f64` reference, which must itself agree with torchvision.
fn with_given_gates(case: &Case, executor: &mut dyn Executor) -> Vec<String> {
    let exact = measure(case, &mut cpu::Executor::<f64>::reference(), Gates::Noted, |_| {});
    let (mut lines, worst) = compare(case, &exact);
    say(&format!("{}: largest error of the f64 reference {worst:.1e}", case.arch));
    let got = measure(case, executor, Gates::Given(&exact.positive), |_| {});
    let (own, worst) = compare(case, &got);
    lines.extend(own);
    let pairs = || got.positive.iter().flatten().zip(exact.positive.iter().flatten());
    let (other, all) = (pairs().filter(|(a, b)| a != b).count(), pairs().count());
    say(&format!("{}: {other} of {all} ReLU inputs on the other side of zero; without them {worst:.1e}", case.arch));
    if all == 0 || other as f64 > KINKS * all as f64 {
        lines.push(format!("{}: {other} of {all} ReLU inputs have another sign than in f64", case.arch));
    }
    lines
}

#[test]
fn networks_are_torchvisions_on_the_cpu() {
    run(&mut cpu::Executor::<f32>::fast());
}

#[test]
fn networks_are_torchvisions_on_the_gpu() {
    if let Some(mut gpu) = common::gpu(Options::default()) {
        run(&mut gpu);
    }
}

/// All entries, whatever is chosen: planning costs nothing.
#[test]
fn names_are_those_of_torchvisions_state_dict() {
    for case in cases() {
        let model = model(&case);
        assert_eq!(model.trainable_numel(), case.parameters, "{}", case.arch);
        let names = |role| -> Vec<String> {
            let mut names: Vec<String> =
                model.params().iter().filter(|p| p.role == role).map(|p| p.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(Role::Trainable), case.grads.keys().cloned().collect::<Vec<_>>(), "{}", case.arch);
        let running: Vec<String> = case.running_norms_after.keys().cloned().collect();
        assert_eq!(names(Role::Buffer), running, "{}", case.arch);
    }
}

/// The comparison passes what is equal and refuses every part that is off by twice what is allowed.
#[test]
fn the_comparison_can_fail() {
    let Some(case) = cases().into_iter().find(|c| !c.running_norms_after.is_empty()) else { return };
    let right = Measured {
        eval_logits: case.eval_logits.concat(),
        train_loss: case.train_loss,
        grads: case.grads.clone(),
        running_norms_after: case.running_norms_after.clone(),
        positive: Vec::new(),
    };
    assert_eq!(compare(&case, &right), (Vec::new(), 0.0));
    let off = 1.0 + 2.0 * TOLERANCE;
    let (grad, running) = (case.grads.keys().last().unwrap(), case.running_norms_after.keys().last().unwrap());
    type Fault<'a> = (&'a str, &'a dyn Fn(&mut Measured));
    let faults: [Fault<'_>; 9] = [
        ("logits", &|m| m.eval_logits.iter_mut().for_each(|v| *v *= off)),
        ("a logit that is missing", &|m| m.eval_logits.truncate(1)),
        ("loss", &|m| m.train_loss *= off),
        ("a loss that is NaN", &|m| m.train_loss = f64::NAN),
        ("norm", &|m| m.grads.get_mut(grad).unwrap().norm *= off),
        ("probe", &|m| m.grads.get_mut(grad).unwrap().probe += 2.0 * TOLERANCE * case.grads[grad].norm),
        ("a gradient that is missing", &|m| m.grads.retain(|name, _| name != grad)),
        ("running statistic", &|m| *m.running_norms_after.get_mut(running).unwrap() *= off),
        ("another name", &|m| m.running_norms_after.extend([("bn9.running_mean".to_owned(), 1.0)])),
    ];
    for (what, fault) in faults {
        let mut wrong = right.clone();
        fault(&mut wrong);
        assert_eq!(compare(&case, &wrong).0.len(), 1, "{what}");
    }
}

/// A network with two channels of one weight exchanged is found out.
#[test]
fn a_wrong_weight_is_found() {
    let Some(case) = cases().into_iter().find(|c| c.arch == "resnet18") else { return };
    let swap = |store: &mut ParamStore| {
        let index = store.params().iter().position(|p| p.name == "layer3.0.downsample.0.weight").unwrap();
        let mut value = store.value(&store.params()[index]).to_vec();
        value.swap(0, 1);
        store.set_value(index, &value);
    };
    let (lines, worst) = compare(&case, &measure(&case, &mut cpu::Executor::<f32>::fast(), Gates::Own, swap));
    assert!(!lines.is_empty() && worst > 2.0 * TOLERANCE, "{worst:e}");
}
