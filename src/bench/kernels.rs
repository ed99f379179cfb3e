//! Kernels one by one: a graph that holds a single op on inputs, each variant timed and compared with the CPU.

use std::sync::Arc;

use serde::Serialize;

use super::measure::{Budget, Times, repeat, wall};
use crate::cpu;
use crate::exec::{ExecError, Executor};
use crate::gpu::choice::choose;
use crate::gpu::{self, Gpu, Options};
use crate::graph::{Graph, NodeId};
use crate::nn::summary;
use crate::ops::conv2d::Conv2d;
use crate::ops::pool2d::Pool2d;
use crate::ops::{LowerCx, PLAIN};
use crate::rng::{Rng, Stream};
use crate::shape::{ShapeError, Spec};
use crate::store::ParamStore;
use crate::tensor::{Data, Tensor, relative_error};

/// Relative error (`||a - b|| / ||b||`) above which a kernel counts as wrong: both sides are `f32` and add up to a
/// million numbers in different orders.
pub const TOLERANCE: f64 = 1e-4;

/// The ops that have cases.
pub const OPS: [&str; 4] = ["conv2d", "linear", "matmul", "max_pool2d"];

/// Which of an op's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The op itself.
    Forward,
    /// The gradient with respect to its first input.
    InputGrad,
    /// The gradient with respect to its weight.
    WeightGrad,
}

impl Direction {
    /// For tables.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGrad => "input gradient",
            Self::WeightGrad => "weight gradient",
        }
    }
}

type Build = Box<dyn Fn(&mut Graph, &[NodeId]) -> Result<NodeId, ShapeError>>;

/// One op at one shape, in one direction.
pub struct Case {
    /// The op.
    pub op: &'static str,
    /// The direction.
    pub direction: Direction,
    /// The shapes in words.
    pub shapes: String,
    inputs: Vec<Spec>,
    build: Build,
}

/// One kernel's figures.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// The op.
    pub op: &'static str,
    /// The direction.
    pub direction: Direction,
    /// The shapes in words.
    pub shapes: String,
    /// The kernel variant; `cpu` for the CPU executor.
    pub kernel: &'static str,
    /// Whether training would take this variant here.
    pub chosen: bool,
    /// Seconds.
    pub times: Times,
    /// True for GPU timestamps around the dispatches, false for wall time from submit to idle.
    pub gpu_timestamps: bool,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of all inputs and the output, each moved once.
    pub bytes: u64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Relative error against the CPU executor in `f32` (for the CPU itself: against its readable loops).
    pub error: f64,
    /// Whether the error is within [`TOLERANCE`].
    pub correct: bool,
}

/// 3x3 convolutions with padding 1 and bias: batch, input channels, size, output channels, and of what.
const CONVS: [([usize; 4], &str); 4] = [
    ([32, 64, 64, 64], ""),
    ([32, 1, 128, 32], " (cnn1-3 layer 1)"),
    ([32, 32, 64, 64], " (cnn2-3 layer 2)"),
    ([32, 64, 32, 128], " (cnn3 layer 3)"),
];

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    use Direction::{Forward, InputGrad, WeightGrad};
    let mut all = Vec::new();
    let mut add = |op, direction, shapes: &str, inputs: &[Spec], build: Build| {
        all.push(Case { op, direction, shapes: shapes.to_owned(), inputs: inputs.to_vec(), build });
    };
    for ([n, c, size, o], of) in CONVS {
        let shapes = format!("{n}x{c}x{size}x{size}, 3x3, {c}->{o}{of}");
        let (x, w, b) = (Spec::float([n, c, size, size]), Spec::float([o, c, 3, 3]), Spec::float([o]));
        for direction in [Forward, InputGrad, WeightGrad] {
            // Images take no gradient, so one input channel is never asked for it.
            if direction == InputGrad && c == 1 {
                continue;
            }
            let build: Build = Box::new(|g, i| g.conv2d(i[0], i[1], Some(i[2]), Conv2d::same(3)));
            add("conv2d", direction, &shapes, &[x.clone(), w.clone(), b.clone()], build);
        }
    }
    for [n, k, m] in [[32, 65_536, 128], [32, 8192, 128]] {
        let shapes = format!("{n}x{k} -> {m}");
        let inputs = [Spec::float([n, k]), Spec::float([m, k]), Spec::float([m])];
        for direction in [Forward, InputGrad, WeightGrad] {
            add("linear", direction, &shapes, &inputs, Box::new(|g, i| g.linear(i[0], i[1], Some(i[2]))));
        }
    }
    for direction in [Forward, InputGrad] {
        let inputs = [Spec::float([32, 32, 128, 128])];
        add(
            "max_pool2d",
            direction,
            "32x32x128x128, 2x2",
            &inputs,
            Box::new(|g, i| g.max_pool2d(i[0], Pool2d::square(2))),
        );
    }
    let square = Spec::float([1024, 1024]);
    add("matmul", Forward, "1024x1024x1024", &[square.clone(), square], Box::new(|g, i| g.matmul(i[0], i[1])));
    all
}

/// A case, recorded: its only live op is the one that is measured.
struct Recorded {
    graph: Arc<Graph>,
    output: NodeId,
    values: Vec<(NodeId, Tensor)>,
    flops: u64,
    bytes: u64,
}

impl Case {
    fn record(&self, seed: u32) -> Result<Recorded, ShapeError> {
        let mut g = Graph::new();
        let mut inputs: Vec<NodeId> = self.inputs.iter().map(|s| g.input("input", s.clone())).collect();
        let forward = (self.build)(&mut g, &inputs)?;
        let output = match self.direction {
            Direction::Forward => forward,
            _ => {
                let dy = g.input("gradient", g.spec(forward).clone());
                let leaf = inputs[usize::from(self.direction == Direction::WeightGrad)];
                inputs.push(dy);
                let grads = g.gradients(forward, Some(dy), &[leaf])?;
                let missing = ShapeError::NoDerivative { op: self.op, input: 0 };
                grads.into_iter().flatten().next().ok_or(missing)?
            }
        };
        let live = g.live(&[output]);
        let mut values = Vec::new();
        for (i, &id) in inputs.iter().enumerate().filter(|(_, id)| live[id.index()]) {
            let spec = g.spec(id);
            let mut rng = Rng::new(seed, i as u32, Stream::Sample as u32);
            let data = Data::F32((0..spec.numel()).map(|_| rng.normal()).collect());
            values.push((id, Tensor::new(spec.shape.clone(), data).expect("as many numbers as elements")));
        }
        let rows = summary::nodes(&g);
        let sum = |of: fn(&summary::NodeRow) -> u64| rows.iter().filter(|r| live[r.node]).map(of).sum();
        let (flops, bytes) = (sum(|r| r.flops), sum(|r| r.bytes));
        Ok(Recorded { graph: Arc::new(g), output, values, flops, bytes })
    }
}

impl Recorded {
    /// The kernel variants of its op, the plain one first, and the one that the table takes.
    fn variants(&self, gpu: &Gpu) -> (Vec<&'static str>, &'static str) {
        let node = self.graph.node(self.output);
        let Some(op) = node.op() else { return (vec![PLAIN], PLAIN) };
        let specs: Vec<_> = node.inputs().iter().map(|&i| self.graph.spec(i)).collect();
        let cx = LowerCx {
            inputs: &specs,
            output: &node.spec,
            adapter: gpu.kind,
            subgroup: gpu.subgroup,
            companion: false,
            variant: PLAIN,
        };
        let supported = op.variants(&cx);
        let chosen = choose(op.as_ref(), &cx, &supported);
        (supported, chosen)
    }

    /// Compiles, runs once and reads the output.
    fn first(&self, executor: &mut dyn Executor) -> Result<(crate::exec::Program, Vec<f64>), ExecError> {
        executor.load(&ParamStore::new())?;
        let program = executor.compile(&self.graph, &[self.output])?;
        for (node, value) in &self.values {
            executor.set(program, *node, value)?;
        }
        executor.run(program)?;
        Ok((program, executor.read(program, self.output)?.to_f64()))
    }

    fn result(&self, case: &Case, kernel: &'static str, times: Times, error: f64) -> KernelResult {
        KernelResult {
            op: case.op,
            direction: case.direction,
            shapes: case.shapes.clone(),
            kernel,
            chosen: true,
            times,
            gpu_timestamps: false,
            flops: self.flops,
            bytes: self.bytes,
            flops_per_second: self.flops as f64 / times.median,
            bytes_per_second: self.bytes as f64 / times.median,
            error,
            correct: error <= TOLERANCE,
        }
    }
}

/// Measures the CPU executor on a case.
///
/// # Errors
/// The case cannot be recorded.
pub fn on_cpu(case: &Case, budget: Budget, seed: u32) -> Result<KernelResult, crate::check::CheckError> {
    let recorded = case.record(seed)?;
    let mut executor = cpu::Executor::<f32>::fast();
    let (program, output) = recorded.first(&mut executor)?;
    let (_, expected) = recorded.first(&mut cpu::Executor::<f32>::reference())?;
    let times = repeat(budget, || wall(|| executor.run(program)))?;
    Ok(recorded.result(case, "cpu", times, relative_error(&output, &expected)))
}

/// Measures every kernel variant of a case on an adapter.
///
/// With `ladder`, every variant that supports the case is measured; without, the one that the table takes.
///
/// # Errors
/// The case cannot be recorded, or the device fails.
pub fn on_gpu(
    case: &Case,
    gpu: &Gpu,
    budget: Budget,
    ladder: bool,
    seed: u32,
) -> Result<Vec<KernelResult>, crate::check::CheckError> {
    let recorded = case.record(seed)?;
    let (_, expected) = recorded.first(&mut cpu::Executor::<f32>::fast())?;
    let (mut variants, chosen) = recorded.variants(gpu);
    if !ladder {
        variants = vec![chosen];
    }
    let mut results = Vec::with_capacity(variants.len());
    for kernel in variants {
        let options = Options { variant: Some(kernel.to_owned()), ..Options::default() };
        let mut executor = gpu::Executor::new(gpu.clone(), options);
        let (program, output) = recorded.first(&mut executor)?;
        let error = relative_error(&output, &expected);
        // An adapter without timestamps says so at the first try.
        let gpu_timestamps = executor.run_timed(program).is_ok();
        let times: Result<Times, ExecError> = repeat(budget, || {
            if gpu_timestamps {
                return Ok(executor.run_timed(program)?.iter().map(|t| t.seconds).sum());
            }
            wall(|| {
                executor.run(program)?;
                executor.wait()
            })
        });
        let result = recorded.result(case, kernel, times?, error);
        results.push(KernelResult { chosen: kernel == chosen, gpu_timestamps, ..result });
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_measures_one_op() {
        for case in cases() {
            let recorded = case.record(1).unwrap();
            let live = recorded.graph.live(&[recorded.output]);
            let ops = recorded.graph.ids().filter(|id| live[id.index()] && recorded.graph.node(*id).op().is_some());
            assert_eq!(ops.count(), 1, "{} {:?}", case.shapes, case.direction);
            assert!(OPS.contains(&case.op) && recorded.flops > 0 && recorded.bytes > 0, "{}", case.shapes);
        }
        assert!(OPS.iter().all(|op| cases().iter().any(|c| c.op == *op)));
    }

    #[test]
    fn flops_and_bytes_of_a_known_product() {
        let product = cases().into_iter().find(|c| c.op == "matmul").unwrap().record(1).unwrap();
        assert_eq!((product.flops, product.bytes), (2 << 30, (3 * 4) << 20));
    }
}
