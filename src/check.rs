//! Gradient checks: what `radiograd gradcheck` and the tests do with the samples of the registry.
//!
//! For each sample, `loss = sum of r * output` with a random `r` of the output's shape: a plain sum would forgive mistakes
//! that cancel. Three things are compared:
//!
//! 1. the recorded gradient, run by the `f64` reference, with central differences of the `f64` forward pass (1e-6);
//! 2. an executor's output with the reference's; 3. its gradients with the reference's (1e-5, or 1e-4 for sums of more than
//!    10,000 terms). The measure is `||a - b|| / ||b||` for each tensor.

use std::sync::Arc;

use crate::cpu;
use crate::exec::{ExecError, Executor, Program};
use crate::gpu::lower::AdapterKind;
use crate::graph::{Graph, NodeId};
use crate::ops::sample::Sample;
use crate::ops::{LowerCx, PLAIN};
use crate::rng::{Rng, Stream};
use crate::shape::{DType, ShapeError};
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor, relative_error};

/// Tolerance of the recorded gradient against differences.
pub const DIFFERENCE_TOLERANCE: f64 = 1e-6;

/// A sample could not be recorded or run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Recording failed.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Running failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// A sample, recorded: output and gradients, with its inputs' values.
#[derive(Debug)]
pub struct Recorded {
    graph: Arc<Graph>,
    inputs: Vec<NodeId>,
    values: Vec<Tensor>,
    seed: Option<(NodeId, Tensor)>,
    output: NodeId,
    /// (input, its gradient)
    grads: Vec<(usize, NodeId)>,
}

/// Output and gradients of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The output.
    pub output: Tensor,
    /// The gradients with respect to the checked inputs.
    pub grads: Vec<Tensor>,
}

impl Recorded {
    /// Records a sample and its gradients.
    ///
    /// # Errors
    /// A shape rule or gradient rule refuses it.
    pub fn new(sample: &Sample, seed: u32) -> Result<Self, CheckError> {
        let mut g = Graph::new();
        let inputs: Vec<NodeId> =
            sample.inputs.iter().enumerate().map(|(i, s)| g.input(&format!("input {i}"), s.spec.clone())).collect();
        let output = (sample.build)(&mut g, &inputs)?;
        let checked: Vec<usize> = (0..inputs.len()).filter(|&i| sample.inputs[i].checked).collect();
        let mut grads = Vec::new();
        let mut projection = None;
        if !checked.is_empty() {
            let spec = g.spec(output).clone();
            let mut rng = Rng::new(seed, 1, Stream::Sample as u32 + 1);
            let r = Data::F32((0..spec.numel()).map(|_| rng.normal()).collect());
            let value = Tensor::new(spec.shape.clone(), r).expect("as many numbers as elements");
            let node = g.input("projection", spec);
            let leaves: Vec<NodeId> = checked.iter().map(|&i| inputs[i]).collect();
            let recorded = g.gradients(output, Some(node), &leaves)?;
            for (&i, node) in checked.iter().zip(recorded) {
                // A checked input that gets no gradient would pass every comparison.
                let name = sample.inputs[i].spec.clone();
                let node =
                    node.ok_or_else(|| ShapeError::invalid("gradcheck", format!("input {i} gets no gradient"), &name))?;
                grads.push((i, node));
            }
            projection = Some((node, value));
        }
        let values = sample.values(seed);
        Ok(Self { graph: Arc::new(g), inputs, values, seed: projection, output, grads })
    }

    /// The recorded graph.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The nodes that a run must keep.
    #[must_use]
    pub fn roots(&self) -> Vec<NodeId> {
        std::iter::once(self.output).chain(self.grads.iter().map(|g| g.1)).collect()
    }

    /// The kernel variants that some node of it has on such an adapter (see [`LowerCx`]), the plain one first.
    #[must_use]
    pub fn variants(&self, adapter: AdapterKind, subgroup: Option<u32>) -> Vec<&'static str> {
        let mut all = vec![PLAIN];
        for node in self.graph.nodes() {
            let Some(op) = node.op() else { continue };
            let specs: Vec<_> = node.inputs().iter().map(|&i| self.graph.spec(i)).collect();
            let cx =
                LowerCx { inputs: &specs, output: &node.spec, adapter, subgroup, companion: false, variant: PLAIN };
            for variant in op.variants(&cx) {
                if !all.contains(&variant) {
                    all.push(variant);
                }
            }
        }
        all
    }

    /// Runs it.
    ///
    /// # Errors
    /// The executor failed.
    pub fn run(&self, executor: &mut dyn Executor) -> Result<Outcome, ExecError> {
        executor.load(&ParamStore::new())?;
        let program = executor.compile(&self.graph, &self.roots())?;
        let outcome = self.replay(executor, program);
        executor.release(program);
        outcome
    }

    /// Runs a compiled program of this sample.
    ///
    /// # Errors
    /// The executor failed.
    pub fn replay(&self, executor: &mut dyn Executor, program: Program) -> Result<Outcome, ExecError> {
        for (node, value) in self.inputs.iter().zip(&self.values).chain(self.seed.iter().map(|(n, v)| (n, v))) {
            executor.set(program, *node, value)?;
        }
        executor.run(program)?;
        let output = executor.read(program, self.output)?;
        let grads = self.grads.iter().map(|g| executor.read(program, g.1)).collect::<Result<_, _>>()?;
        Ok(Outcome { output, grads })
    }

    /// The judge: the `f64` references.
    ///
    /// # Errors
    /// As [`Recorded::run`].
    pub fn reference(&self) -> Result<Outcome, ExecError> {
        self.run(&mut cpu::Executor::<f64>::reference())
    }

    /// The largest error of the recorded gradients against central differences, over the checked inputs.
    ///
    /// Of long inputs, 48 elements drawn at random are checked.
    ///
    /// # Errors
    /// As [`Recorded::run`].
    pub fn differences(&self) -> Result<f64, ExecError> {
        let mut executor = cpu::Executor::<f64>::reference();
        executor.load(&ParamStore::new())?;
        let all = executor.compile(&self.graph, &self.roots())?;
        let recorded = self.replay(&mut executor, all)?;
        let forward = executor.compile(&self.graph, &[self.output])?;
        for (node, value) in self.inputs.iter().zip(&self.values) {
            executor.set(forward, *node, value)?;
        }
        let Some((_, seed)) = &self.seed else {
            return Ok(0.0);
        };
        let r = seed.to_f64();
        let mut worst: f64 = 0.0;
        for ((input, _), grad) in self.grads.iter().zip(&recorded.grads) {
            let value = self.values[*input].to_f64();
            let shape = self.values[*input].shape().clone();
            let grad = grad.to_f64();
            let mut rng = Rng::new(9, *input as u32, Stream::Sample as u32 + 2);
            let chosen: Vec<usize> = if value.len() <= 48 {
                (0..value.len()).collect()
            } else {
                (0..48).map(|_| rng.below(value.len() as u32) as usize).collect()
            };
            let (mut numeric, mut analytic) = (Vec::new(), Vec::new());
            for i in chosen {
                let mut loss_at = |delta: f64| -> Result<f64, ExecError> {
                    let mut moved = value.clone();
                    moved[i] += delta;
                    let moved = Tensor::new(shape.clone(), Data::F64(moved)).expect("the same length");
                    executor.set(forward, self.inputs[*input], &moved)?;
                    executor.run(forward)?;
                    let y = executor.read(forward, self.output)?.to_f64();
                    Ok(y.iter().zip(&r).map(|(y, r)| y * r).sum())
                };
                // Richardson's extrapolation of two central differences: the error falls with the fourth power of h.
                let h = 1e-3;
                let coarse = (loss_at(h)? - loss_at(-h)?) / (2.0 * h);
                let fine = (loss_at(0.5 * h)? - loss_at(-0.5 * h)?) / h;
                numeric.push((4.0 * fine - coarse) / 3.0);
                analytic.push(grad[i]);
            }
            executor.set(forward, self.inputs[*input], &self.values[*input])?;
            worst = worst.max(relative_error(&analytic, &numeric));
        }
        Ok(worst)
    }
}

/// The largest error of an outcome against the reference's.
#[must_use]
pub fn compare(outcome: &Outcome, reference: &Outcome) -> f64 {
    let pairs = std::iter::once((&outcome.output, &reference.output)).chain(outcome.grads.iter().zip(&reference.grads));
    pairs
        .map(|(a, b)| match (a.spec().dtype, a.data() == b.data()) {
            (DType::Float, _) => relative_error(&a.to_f64(), &b.to_f64()),
            (_, true) => 0.0,
            (_, false) => f64::INFINITY,
        })
        .fold(0.0, f64::max)
}
