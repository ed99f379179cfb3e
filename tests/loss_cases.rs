//! softmax, log_softmax and cross_entropy against PyTorch's values, forward and gradient, on every executor.

mod common;

use std::path::Path;
use std::sync::Arc;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::gpu::Options;
use radiograd::graph::Graph;
use radiograd::ops::cross_entropy::{CrossEntropy, Reduction};
use radiograd::shape::Spec;
use radiograd::store::ParamStore;
use radiograd::tensor::{Data, Tensor, relative_error};
use radiograd::weights::{self, TensorData};

fn check(path: &Path, op: &str, executor: &mut dyn Executor) -> Result<(), String> {
    let file = weights::load(path).map_err(|e| e.to_string())?;
    let params: serde_json::Value = serde_json::from_str(&file.metadata["params"]).map_err(|e| e.to_string())?;
    let tensor = |name: &str| {
        file.get(name).map(|t| {
            let data = match &t.data {
                TensorData::I64(v) => Data::U32(v.iter().map(|&i| u32::try_from(i).unwrap()).collect()),
                other => Data::F32(other.as_f32().unwrap().to_vec()),
            };
            Tensor::new(t.shape.clone(), data).unwrap()
        })
    };
    let expected = |name: &str| tensor(name).ok_or_else(|| format!("no {name}"));
    let mut g = Graph::new();
    let mut values = Vec::new();
    let mut input = |g: &mut Graph, name: &str| {
        tensor(name).map(|t| {
            let node = g.input(name, t.spec());
            values.push((node, t));
            node
        })
    };
    let x = input(&mut g, "input.0").ok_or("no input.0")?;
    let dy = input(&mut g, "grad_output").ok_or("no grad_output")?;
    let y = if op == "cross_entropy" {
        let targets = input(&mut g, "input.1").ok_or("no input.1")?;
        let weights = input(&mut g, "input.2");
        let reduction = match params["reduction"].as_str() {
            Some("mean") => Reduction::Mean,
            Some("sum") => Reduction::Sum,
            other => return Err(format!("reduction {other:?}")),
        };
        let label_smoothing = params["label_smoothing"].as_f64().ok_or("no label_smoothing")?;
        g.cross_entropy(x, targets, weights, CrossEntropy { label_smoothing, reduction })
    } else {
        let axis = params["dim"].as_u64().ok_or("no dim")? as usize;
        if op == "softmax" { g.softmax(x, axis) } else { g.log_softmax(x, axis) }
    }
    .map_err(|e| e.to_string())?;
    let dx = g.gradients(y, Some(dy), &[x]).map_err(|e| e.to_string())?[0].ok_or("no gradient")?;
    executor.load(&ParamStore::new()).map_err(|e| e.to_string())?;
    let program = executor.compile(&Arc::new(g), &[y, dx]).map_err(|e| e.to_string())?;
    for (node, value) in &values {
        executor.set(program, *node, value).map_err(|e| e.to_string())?;
    }
    executor.run(program).map_err(|e| e.to_string())?;
    for (node, name) in [(y, "output"), (dx, "grad.0")] {
        let got = executor.read(program, node).map_err(|e| e.to_string())?;
        let want = expected(name)?;
        if got.spec() != Spec::float(want.shape().clone()) {
            return Err(format!("{name} is {}", got.spec()));
        }
        let error = relative_error(&got.to_f64(), &want.to_f64());
        if error > 1e-5 {
            return Err(format!("{name}: error {error:.1e}"));
        }
    }
    Ok(())
}

#[test]
fn losses_are_pytorchs() {
    let folder = std::env::var("RADIOGRAD_CASES").unwrap_or_else(|_| "tests/cases".to_owned());
    let mut executors: Vec<Box<dyn Executor>> =
        vec![Box::new(cpu::Executor::<f64>::reference()), Box::new(cpu::Executor::<f32>::fast())];
    if let Some(gpu) = common::gpu(Options { checked: true, guards: true, variant: None }) {
        executors.push(Box::new(gpu));
    }
    let mut failures = Vec::new();
    for op in ["softmax", "log_softmax", "cross_entropy"] {
        let mut cases = 0;
        for entry in std::fs::read_dir(Path::new(&folder).join("ops").join(op)).unwrap() {
            let path = entry.unwrap().path();
            cases += 1;
            for executor in &mut executors {
                if let Err(e) = check(&path, op, executor.as_mut()) {
                    failures.push(format!("{}: {}: {e}", path.display(), executor.describe()));
                }
            }
        }
        assert!(cases > 0, "no cases of {op} in {folder}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
