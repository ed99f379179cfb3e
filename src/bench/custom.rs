//! A kernel of one's own (`--wgsl`): proven on the op's samples, then placed among the op's kernels.

use std::sync::Arc;

use super::cases::{Case, Direction};
use super::kernels::{KernelResult, cache_of, error_of, expected};
use super::measure::{Budget, repeat};
use super::sets::Sets;
use crate::check::CheckError;
use crate::cpu;
use crate::exec::{ExecError, Executor as _};
use crate::gpu::Gpu;
use crate::gpu::foreign::{Checked, Contract, Foreign, ForeignError, check};
use crate::graph::{Graph, NodeId};
use crate::ops::registry;
use crate::ops::sample::Sample;
use crate::ops::{LowerCx, PLAIN};
use crate::rng::{Rng, Stream};
use crate::shape::{ShapeError, Spec};
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor, relative_error};

/// The ops whose kernels are a single WGSL kernel that constants describe.
pub const OPS: [&str; 6] = ["conv2d", "linear", "matmul", "max_pool2d", "avg_pool2d", "softmax"];

/// The most bytes of a WGSL file.
pub const MAX_TEXT: usize = 1 << 20;

/// A WGSL file.
#[derive(Clone, Debug)]
pub struct Custom {
    /// Its name, as tables and errors show it.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The op that it computes.
    pub op: &'static str,
    /// Which direction of the op.
    pub direction: Direction,
}

/// What the samples showed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Proof {
    /// Samples on which it agrees with the `f64` reference.
    pub passed: usize,
    /// Samples that it says not to support.
    pub skipped: usize,
    /// The largest relative error.
    pub error: f64,
}

/// A kernel that cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    /// It cannot be compiled, or is bound otherwise.
    #[error(transparent)]
    Text(#[from] ForeignError),
    /// At the shapes of a sample, which are given in words.
    #[error("{error} (at the sample \"{sample}\": {shapes}; const SUPPORTED may leave it out)")]
    Sample {
        /// The sample.
        sample: String,
        /// Its shapes.
        shapes: String,
        /// What is wrong there.
        error: Box<CustomError>,
    },
    /// It gives something else than the reference.
    #[error(
        "{file} is wrong: on the sample \"{sample}\" ({shapes}) its relative error is {error:.1e}, allowed are {tolerance:.0e}; {passed} samples passed before, {skipped} are not supported"
    )]
    Wrong {
        /// The file.
        file: String,
        /// The sample.
        sample: String,
        /// Its shapes.
        shapes: String,
        /// The error.
        error: f64,
        /// What was allowed.
        tolerance: f64,
        /// Samples before it that passed.
        passed: usize,
        /// Samples before it that it leaves out.
        skipped: usize,
    },
    /// The op has no such direction, or not one kernel.
    #[error("--wgsl: {op} {direction} is not one kernel with constants of its own; {} are", OPS.join(", "))]
    NotOneKernel {
        /// The op.
        op: &'static str,
        /// The direction.
        direction: Direction,
    },
    /// The reference cannot be recorded, or the device failed.
    #[error(transparent)]
    Check(#[from] CheckError),
}

impl From<ExecError> for CustomError {
    fn from(e: ExecError) -> Self {
        Self::Check(e.into())
    }
}

impl From<ShapeError> for CustomError {
    fn from(e: ShapeError) -> Self {
        Self::Check(e.into())
    }
}

/// The node whose kernel is meant, with what it reads.
struct Target<'a> {
    graph: &'a Graph,
    node: NodeId,
}

impl Target<'_> {
    fn inputs(&self) -> Vec<&Spec> {
        self.graph.node(self.node).inputs().iter().map(|&i| self.graph.spec(i)).collect()
    }

    fn contract(&self, gpu: &Gpu) -> Option<Contract> {
        let node = self.graph.node(self.node);
        let inputs = self.inputs();
        let (adapter, subgroup) = (gpu.kind, gpu.subgroup);
        let cx = LowerCx { inputs: &inputs, output: &node.spec, adapter, subgroup, companion: false, variant: PLAIN };
        Contract::of(node.op()?.as_ref(), &cx)
    }

    fn shapes(&self) -> String {
        let inputs: Vec<String> = self.inputs().iter().map(ToString::to_string).collect();
        format!("{} -> {}", inputs.join(", "), self.graph.spec(self.node))
    }
}

/// A graph, a node of it, and the values of the graph's inputs.
type Recorded = (Graph, NodeId, Vec<(NodeId, Tensor)>);

/// A sample in a direction; `None` where it has no such gradient.
fn record(sample: &Sample, direction: Direction) -> Result<Option<Recorded>, ShapeError> {
    const SEED: u32 = 5;
    let mut g = Graph::new();
    let inputs: Vec<NodeId> = sample.inputs.iter().map(|i| g.input("input", i.spec.clone())).collect();
    let mut values: Vec<(NodeId, Tensor)> = inputs.iter().copied().zip(sample.values(SEED)).collect();
    let y = (sample.build)(&mut g, &inputs)?;
    let Some(leaf) = direction.leaf() else { return Ok(Some((g, y, values))) };
    if !sample.inputs.get(leaf).is_some_and(|i| i.checked) {
        return Ok(None);
    }
    let spec = g.spec(y).clone();
    let mut rng = Rng::new(SEED, 1, Stream::Sample as u32 + 1);
    let dy = Data::F32((0..spec.numel()).map(|_| rng.normal()).collect());
    let node = g.input("gradient", spec.clone());
    values.push((node, Tensor::new(spec.shape, dy).expect("as many numbers as elements")));
    let grad = g.gradients(y, Some(node), &[inputs[leaf]])?.remove(0);
    Ok(grad.filter(|&n| g.node(n).op().is_some()).map(|n| (g, n, values)))
}

impl Custom {
    /// Runs it on every sample of the op that it supports, against the `f64` reference.
    ///
    /// # Errors
    /// It cannot be compiled or run, or it is wrong.
    pub fn prove(&self, gpu: &Gpu) -> Result<Proof, CustomError> {
        let not_one = || CustomError::NotOneKernel { op: self.op, direction: self.direction };
        let entry = registry::find(self.op).filter(|_| OPS.contains(&self.op)).ok_or_else(not_one)?;
        let mut proof = Proof { passed: 0, skipped: 0, error: 0.0 };
        let mut any = false;
        for sample in entry.samples() {
            let Some((graph, node, values)) = record(&sample, self.direction)? else { continue };
            let target = Target { graph: &graph, node };
            let Some(contract) = target.contract(gpu) else { continue };
            any = true;
            let shapes = target.shapes();
            let at = |error: CustomError| CustomError::Sample {
                sample: sample.name.clone(),
                shapes: shapes.clone(),
                error: Box::new(error),
            };
            let checked = match check(&self.file, &self.text, &contract) {
                Ok(checked) => checked,
                // A fault of the first sample is a fault of the file; later ones may come of their shapes.
                Err(e) if proof.passed + proof.skipped == 0 => return Err(e.into()),
                Err(e) => return Err(at(e.into())),
            };
            if !checked.supported {
                proof.skipped += 1;
                continue;
            }
            let error = one(gpu, &self.file, &checked, &contract, graph.clone(), node, &values).map_err(at)?;
            if error.is_nan() || error > sample.tolerance() {
                return Err(CustomError::Wrong {
                    file: self.file.clone(),
                    sample: sample.name.clone(),
                    shapes,
                    error,
                    tolerance: sample.tolerance(),
                    passed: proof.passed,
                    skipped: proof.skipped,
                });
            }
            proof.passed += 1;
            proof.error = proof.error.max(error);
        }
        if any { Ok(proof) } else { Err(not_one()) }
    }

    /// Measures it on a case; `None` where it says not to support the shapes.
    ///
    /// # Errors
    /// It cannot be compiled or run at these shapes. (One that is wrong there is measured, and its result says so.)
    pub fn on_gpu(
        &self,
        case: &Case,
        gpu: &Gpu,
        budget: Budget,
        seed: u32,
    ) -> Result<Option<KernelResult>, CustomError> {
        let not_one = || CustomError::NotOneKernel { op: self.op, direction: self.direction };
        let sets = Sets::new(case, seed, cache_of(gpu.kind))?;
        let graph = Arc::clone(&sets.sets[0].graph);
        let &[node] = &sets.sets[0].roots[..] else { return Err(not_one()) };
        let contract = Target { graph: &graph, node }.contract(gpu).ok_or_else(not_one)?;
        let read = graph.node(node).inputs().iter().map(|&i| sets.input_of(i)).collect::<Option<Vec<_>>>();
        let read = read.ok_or_else(not_one)?;
        let checked = check(&self.file, &self.text, &contract)?;
        if !checked.supported {
            return Ok(None);
        }
        let kernel = Foreign::new(gpu, &self.file, &checked, &contract)?;
        let mut bound = Vec::with_capacity(sets.count());
        let mut error: f64 = 0.0;
        let expected = expected(&sets)?;
        for set in 0..sets.count() {
            let inputs: Vec<Tensor> = read.iter().map(|&i| sets.value(set, i)).collect();
            bound.push(kernel.bind(&inputs, graph.spec(node))?);
            kernel.run(&bound[set])?;
            if let Some((_, expected)) = expected.iter().find(|e| e.0 == set) {
                error = error.max(error_of(&[kernel.read(&bound[set])?], expected));
            }
        }
        let mut next = 0;
        let times = repeat(budget, || {
            next += 1;
            kernel.run(&bound[(next - 1) % bound.len()])
        })?;
        error = error.max(error_of(&[kernel.read(&bound[0])?], &expected[0].1));
        let result = KernelResult::new(&sets, self.file.clone(), times, error);
        Ok(Some(KernelResult { chosen: false, gpu_timestamps: gpu.has_timestamps(), ..result }))
    }
}

/// The error on one sample.
fn one(
    gpu: &Gpu,
    file: &str,
    checked: &Checked,
    contract: &Contract,
    graph: Graph,
    node: NodeId,
    values: &[(NodeId, Tensor)],
) -> Result<f64, CustomError> {
    let read = graph.node(node).inputs().to_vec();
    let output = graph.spec(node).clone();
    let mut judge = cpu::Executor::<f64>::reference();
    judge.load(&ParamStore::new())?;
    let mut roots = read.clone();
    roots.push(node);
    let program = judge.compile(&Arc::new(graph), &roots)?;
    for (input, value) in values {
        judge.set(program, *input, value)?;
    }
    judge.run(program)?;
    let mut inputs = Vec::with_capacity(read.len());
    for id in read {
        let value = judge.read(program, id)?;
        let rounded = match value.data() {
            Data::F64(v) => Tensor::f32(value.shape().clone(), v.iter().map(|&x| x as f32).collect()),
            other => Tensor::new(value.shape().clone(), other.clone()),
        };
        inputs.push(rounded.expect("as many elements as before"));
    }
    let kernel = Foreign::new(gpu, file, checked, contract)?;
    let bound = kernel.bind(&inputs, &output)?;
    kernel.run(&bound)?;
    Ok(relative_error(&kernel.read(&bound)?.to_f64(), &judge.read(program, node)?.to_f64()))
}
