//! The reference values from PyTorch for pooling, normalisation and concatenation, on both CPU executors.
//!
//! Reads `tests/cases/ops`, or the folder that the variable `RADIOGRAD_CASES` names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use radiograd::cpu;
use radiograd::exec::Executor;
use radiograd::graph::{Graph, NodeId};
use radiograd::ops::pool2d::Pool2d;
use radiograd::shape::{Shape, Spec};
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Tensor, relative_error};
use safetensors::SafeTensors;
use serde_json::Value;

struct Case {
    at: String,
    params: Value,
    bytes: Vec<u8>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let params = metadata.metadata().as_ref().unwrap()["params"].clone();
        Self { at: path.display().to_string(), params: serde_json::from_str(&params).unwrap(), bytes }
    }

    fn get(&self, name: &str) -> Option<Tensor> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let numbers = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Some(Tensor::f32(Shape::new(view.shape()), numbers).unwrap())
    }

    fn pair(&self, name: &str) -> [usize; 2] {
        serde_json::from_value(self.params[name].clone()).unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.params[name].as_f64().unwrap()
    }

    /// Records the op; returns what else must be equal: nodes and the names of their reference values.
    fn record(&self, op: &str, g: &mut Graph, x: &[NodeId]) -> (NodeId, Vec<(NodeId, &'static str)>) {
        let pool =
            || Pool2d { kernel: self.pair("kernel"), stride: self.pair("stride"), padding: self.pair("padding") };
        let y = match op {
            "max_pool2d" => g.max_pool2d(x[0], pool()),
            "avg_pool2d" => g.avg_pool2d(x[0], pool()),
            "adaptive_avg_pool2d" => g.adaptive_avg_pool2d(x[0], self.pair("output")),
            "concat" => g.concat(x, self.number("dim") as usize),
            "batch_norm2d" if self.params["training"] == true => {
                let mut store = ParamStore::new();
                let (momentum, eps) = (self.number("momentum"), self.number("eps"));
                let bn = g.batch_norm2d_train(x[0], x[1], x[2], eps).unwrap();
                let mut follow = |node, k: usize, factor| {
                    let start = self.get(&format!("input.{k}")).unwrap();
                    let view = store.add_param("running", Role::Buffer, start.shape().clone(), &start.to_f32()).view;
                    g.ema_update(node, view, momentum, factor).unwrap()
                };
                let mean = follow(bn.mean, 3, 1.0);
                let var = follow(bn.var, 4, bn.bessel());
                return (bn.y, vec![(mean, "running_mean"), (var, "running_var")]);
            }
            "batch_norm2d" => g.batch_norm2d(x[0], [x[1], x[2]], [x[3], x[4]], self.number("eps")),
            _ => unreachable!(),
        };
        (y.unwrap(), Vec::new())
    }

    /// The variables that [`Case::record`] updates.
    fn store(&self) -> ParamStore {
        let mut store = ParamStore::new();
        if self.params["training"] == true {
            for k in [3, 4] {
                let start = self.get(&format!("input.{k}")).unwrap();
                store.add_param("running", Role::Buffer, start.shape().clone(), &start.to_f32());
            }
        }
        store
    }

    fn check(&self, op: &str, executor: &mut dyn Executor) {
        let mut g = Graph::new();
        let values: Vec<Tensor> = (0..).map_while(|k| self.get(&format!("input.{k}"))).collect();
        let inputs: Vec<NodeId> = values.iter().map(|v| g.input("input", v.spec())).collect();
        let (y, mut expected) = self.record(op, &mut g, &inputs);
        let dy = self.get("grad_output").unwrap();
        let seed = g.input("grad_output", Spec::float(dy.shape().clone()));
        let grads: Vec<&'static str> =
            ["grad.0", "grad.1", "grad.2"].into_iter().filter(|n| self.get(n).is_some()).collect();
        let recorded = g.gradients(y, Some(seed), &inputs[..grads.len()]).unwrap();
        expected.push((y, "output"));
        expected.extend(recorded.into_iter().zip(grads).map(|(node, name)| (node.unwrap(), name)));
        let roots: Vec<NodeId> = expected.iter().map(|e| e.0).collect();
        executor.load(&self.store()).unwrap();
        let p = executor.compile(&Arc::new(g), &roots).unwrap();
        for (&node, value) in inputs.iter().zip(&values).chain([(&seed, &dy)]) {
            executor.set(p, node, value).unwrap();
        }
        executor.run(p).unwrap();
        for (node, name) in expected {
            let error = relative_error(&executor.read(p, node).unwrap().to_f64(), &self.get(name).unwrap().to_f64());
            assert!(error < 1e-5, "{} {name}: {error:.1e} on {}", self.at, executor.describe());
        }
    }
}

#[test]
fn pooling_normalisation_and_concatenation_agree_with_pytorch() {
    let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/ops"));
    let root = std::env::var_os("RADIOGRAD_CASES").map_or(here, PathBuf::from);
    for op in ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "batch_norm2d", "concat"] {
        let folder = root.join(op);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", folder.display());
        for path in paths {
            let case = Case::read(&path);
            case.check(op, &mut cpu::Executor::<f64>::reference());
            case.check(op, &mut cpu::Executor::<f32>::reference());
            case.check(op, &mut cpu::Executor::<f32>::fast());
        }
    }
}
