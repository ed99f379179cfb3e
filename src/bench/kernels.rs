//! Kernels one by one: a graph that holds a single op on rotating inputs, each variant timed, compared with the CPU, and held
//! against the least time that the device could take.

use serde::Serialize;

use super::cases::{Case, Direction};
use super::measure::{Budget, Times, repeat, wall};
use super::peaks::Floor;
use super::sets::{Sets, last_level_cache};
use crate::check::CheckError;
use crate::cpu;
use crate::exec::{ExecError, Executor as _, Program};
use crate::gpu::lower::AdapterKind;
use crate::gpu::{self, Gpu, Options};
use crate::graph::Graph;
use crate::ops::{LowerCx, PLAIN};
use crate::tensor::{Tensor, relative_error};

/// Relative error (`||a - b|| / ||b||`) above which a kernel counts as wrong: both sides are `f32` and add up to a
/// million numbers in different orders.
pub const TOLERANCE: f64 = 1e-4;

/// Last cache of a GPU with memory of its own, in bytes: no API tells it, and none has more today.
const GPU_CACHE: u64 = 128 << 20;

/// One kernel's figures.
#[derive(Clone, Debug, Serialize)]
pub struct KernelResult {
    /// The op.
    pub op: &'static str,
    /// The direction.
    pub direction: Direction,
    /// The shapes in words.
    pub shapes: String,
    /// The kernel variant (of each op that takes part, joined by `+`); `cpu` for the CPU executor, the file's name for a
    /// kernel of one's own.
    pub kernel: String,
    /// Whether training would take this variant here.
    pub chosen: bool,
    /// Seconds.
    pub times: Times,
    /// True for GPU timestamps around the dispatches, false for wall time from submit to idle.
    pub gpu_timestamps: bool,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of all inputs and results, each moved once: the fewest that any kernel can move.
    pub bytes: u64,
    /// Operations a second.
    pub flops_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Sets of inputs that were run in turn.
    pub sets: usize,
    /// Bytes of all sets together.
    pub footprint_bytes: u64,
    /// Relative error against the CPU executor in `f32` (for the CPU itself: against its readable loops).
    pub error: f64,
    /// Whether the error is within [`TOLERANCE`].
    pub correct: bool,
    /// The least time that the device could take; `None` before the peaks are known.
    pub floor: Option<Floor>,
}

impl KernelResult {
    pub(super) fn new(sets: &Sets<'_>, kernel: String, times: Times, error: f64) -> Self {
        let (flops, bytes) = (sets.flops, sets.bytes);
        Self {
            op: sets.case.op,
            direction: sets.case.direction,
            shapes: sets.case.shapes.clone(),
            kernel,
            chosen: true,
            times,
            gpu_timestamps: false,
            flops,
            bytes,
            flops_per_second: flops as f64 / times.median,
            bytes_per_second: bytes as f64 / times.median,
            sets: sets.count(),
            footprint_bytes: sets.footprint(),
            error,
            correct: error <= TOLERANCE,
            floor: None,
        }
    }
}

/// The cache that the sets of a case must outgrow on an adapter.
#[must_use]
pub fn cache_of(kind: AdapterKind) -> u64 {
    if kind == AdapterKind::Software { last_level_cache() } else { GPU_CACHE }
}

/// The largest relative error over some results.
pub(super) fn error_of(results: &[Tensor], expected: &[Tensor]) -> f64 {
    if results.len() != expected.len() {
        return f64::INFINITY;
    }
    results.iter().zip(expected).map(|(a, b)| relative_error(&a.to_f64(), &b.to_f64())).fold(0.0, f64::max)
}

/// The sets that are verified: the first and the last.
pub(super) fn verified(sets: &Sets<'_>) -> Vec<usize> {
    let last = sets.count() - 1;
    if last == 0 { vec![0] } else { vec![0, last] }
}

/// What the fast CPU executor computes for the verified sets.
pub(super) fn expected(sets: &Sets<'_>) -> Result<Vec<(usize, Vec<Tensor>)>, ExecError> {
    let mut executor = cpu::Executor::<f32>::fast();
    sets.load(&mut executor)?;
    let mut all = Vec::new();
    for set in verified(sets) {
        sets.write_inputs(&mut executor, set)?;
        sets.write_state(&mut executor, set)?;
        let program = sets.compile(&mut executor, set)?;
        executor.run(program)?;
        all.push((set, sets.results(&mut executor, program, set)?));
        executor.release(program);
    }
    Ok(all)
}

/// A case on the CPU executor, ready to be run.
#[derive(Debug)]
pub struct OnCpu<'a> {
    sets: Sets<'a>,
    executor: cpu::Executor<f32>,
    programs: Vec<Program>,
    next: usize,
}

impl<'a> OnCpu<'a> {
    /// Prepares a case and runs each set once.
    ///
    /// # Errors
    /// The case cannot be recorded.
    pub fn new(case: &'a Case, seed: u32) -> Result<Self, CheckError> {
        let sets = Sets::new(case, seed, last_level_cache())?;
        let mut executor = cpu::Executor::<f32>::fast();
        sets.load(&mut executor)?;
        let mut programs = Vec::with_capacity(sets.count());
        for set in 0..sets.count() {
            sets.write_inputs(&mut executor, set)?;
            sets.write_state(&mut executor, set)?;
            programs.push(sets.compile(&mut executor, set)?);
            executor.run(programs[set])?;
        }
        Ok(Self { sets, executor, programs, next: 0 })
    }

    /// The sets.
    #[must_use]
    pub fn sets(&self) -> &Sets<'a> {
        &self.sets
    }

    /// Seconds of one run, on the next set.
    ///
    /// # Errors
    /// Those of the executor.
    pub fn run(&mut self) -> Result<f64, ExecError> {
        let program = self.programs[self.next % self.programs.len()];
        self.next += 1;
        wall(|| self.executor.run(program))
    }

    /// The largest error of the first set's results against the readable loops.
    fn error(&mut self) -> Result<f64, ExecError> {
        self.sets.write_state(&mut self.executor, 0)?;
        self.executor.run(self.programs[0])?;
        let results = self.sets.results(&mut self.executor, self.programs[0], 0)?;
        let mut judge = cpu::Executor::<f32>::reference();
        self.sets.load(&mut judge)?;
        self.sets.write_inputs(&mut judge, 0)?;
        self.sets.write_state(&mut judge, 0)?;
        let program = self.sets.compile(&mut judge, 0)?;
        judge.run(program)?;
        Ok(error_of(&results, &self.sets.results(&mut judge, program, 0)?))
    }
}

/// Measures the CPU executor on a case.
///
/// # Errors
/// The case cannot be recorded.
pub fn on_cpu(case: &Case, budget: Budget, seed: u32) -> Result<KernelResult, CheckError> {
    let mut bench = OnCpu::new(case, seed)?;
    let times = repeat(budget, || bench.run())?;
    let error = bench.error()?;
    Ok(KernelResult::new(&bench.sets, "cpu".to_owned(), times, error))
}

/// A case on a GPU: its inputs lie on the device, and kernels are compiled one after the other.
#[derive(Debug)]
pub struct OnGpu<'a> {
    sets: Sets<'a>,
    executor: gpu::Executor,
    programs: Vec<Program>,
    next: usize,
    timestamps: bool,
}

impl<'a> OnGpu<'a> {
    /// Puts the inputs of all sets on the device.
    ///
    /// # Errors
    /// The case cannot be recorded, or the device has no room for it.
    pub fn new(case: &'a Case, gpu: &Gpu, seed: u32) -> Result<Self, CheckError> {
        let sets = Sets::new(case, seed, cache_of(gpu.kind))?;
        let mut executor = gpu::Executor::new(gpu.clone(), Options::default());
        sets.load(&mut executor)?;
        for set in 0..sets.count() {
            sets.write_inputs(&mut executor, set)?;
            // All sets at once would take their memory twice.
            executor.flush()?;
        }
        Ok(Self { sets, executor, programs: Vec::new(), next: 0, timestamps: gpu.has_timestamps() })
    }

    /// The sets.
    #[must_use]
    pub fn sets(&self) -> &Sets<'a> {
        &self.sets
    }

    /// Whether times are GPU timestamps.
    #[must_use]
    pub fn timestamps(&self) -> bool {
        self.timestamps
    }

    /// Compiles a variant (`None`: what training takes) and runs each set once; returns the name of the kernels.
    ///
    /// # Errors
    /// A kernel does not compile, or the device fails.
    pub fn prepare(&mut self, variant: Option<&str>) -> Result<String, ExecError> {
        for program in self.programs.drain(..) {
            self.executor.release(program);
        }
        self.next = 0;
        self.executor.set_variant(variant.map(str::to_owned));
        for set in 0..self.sets.count() {
            self.sets.write_state(&mut self.executor, set)?;
            self.programs.push(self.sets.compile(&mut self.executor, set)?);
        }
        let mut names: Vec<&str> = Vec::new();
        for (node, name) in self.executor.variants(self.programs[0])? {
            if self.sets.measured(node.index()) && !names.contains(&name) {
                names.push(name);
            }
        }
        // `plain` beside a faster kernel is an op that has no other.
        if names.len() > 1 {
            names.retain(|n| *n != PLAIN);
        }
        Ok(names.join("+"))
    }

    /// Runs each set once, and gives the largest error of the verified ones.
    fn warm_up(&mut self, expected: &[(usize, Vec<Tensor>)]) -> Result<f64, ExecError> {
        let mut worst: f64 = 0.0;
        for set in 0..self.sets.count() {
            self.executor.run(self.programs[set])?;
            if let Some((_, expected)) = expected.iter().find(|e| e.0 == set) {
                let results = self.sets.results(&mut self.executor, self.programs[set], set)?;
                worst = worst.max(error_of(&results, expected));
            }
        }
        self.executor.wait()?;
        Ok(worst)
    }

    /// Seconds of one run, on the next set.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&mut self) -> Result<f64, ExecError> {
        let program = self.programs[self.next % self.programs.len()];
        self.next += 1;
        if self.timestamps {
            let times = self.executor.run_timed(program)?;
            return Ok(times.iter().filter(|t| self.sets.measured(t.node)).map(|t| t.seconds).sum());
        }
        wall(|| {
            self.executor.run(program)?;
            self.executor.wait()
        })
    }

    /// The variants that some op of the case has here, the plain one first.
    fn variants(&self) -> Vec<&'static str> {
        let (adapter, subgroup) = (self.executor.gpu().kind, self.executor.gpu().subgroup);
        let set = &self.sets.sets[0];
        let (graph, live): (&Graph, _) = (&set.graph, set.graph.live(&set.roots));
        let mut all = vec![PLAIN];
        for id in graph.ids().filter(|id| live[id.index()] && self.sets.measured(id.index())) {
            let node = graph.node(id);
            let Some(op) = node.op() else { continue };
            let specs: Vec<_> = node.inputs().iter().map(|&i| graph.spec(i)).collect();
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
}

/// Measures the kernels of a case on an adapter.
///
/// With `ladder`, every variant that supports the case is measured; without, the one that training takes.
///
/// # Errors
/// The case cannot be recorded, or the device fails.
pub fn on_gpu(
    case: &Case,
    gpu: &Gpu,
    budget: Budget,
    ladder: bool,
    seed: u32,
) -> Result<Vec<KernelResult>, CheckError> {
    let mut bench = OnGpu::new(case, gpu, seed)?;
    let expected = expected(&bench.sets)?;
    let chosen = bench.prepare(None)?;
    let mut wanted: Vec<Option<&str>> = vec![None];
    if ladder {
        let variants = bench.variants();
        wanted = variants.into_iter().map(Some).chain([None]).collect();
    }
    let mut results: Vec<KernelResult> = Vec::new();
    for variant in wanted {
        let kernel = bench.prepare(variant)?;
        if results.iter().any(|r| r.kernel == kernel) {
            // A mixture of variants that is one of those before; or a variant that the device has no room for.
            continue;
        }
        let mut error = bench.warm_up(&expected)?;
        let times: Result<Times, ExecError> = repeat(budget, || bench.run());
        let times = times?;
        if case.state.is_empty() && !bench.sets.sets[0].roots.is_empty() {
            // What was timed gave what was verified.
            let again = bench.sets.results(&mut bench.executor, bench.programs[0], 0)?;
            error = error.max(error_of(&again, &expected[0].1));
        }
        let result = KernelResult::new(&bench.sets, kernel.clone(), times, error);
        results.push(KernelResult { chosen: kernel == chosen, gpu_timestamps: bench.timestamps, ..result });
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::super::cases::{batch_norm2d, matmul, optimizer_step, softmax};
    use super::*;

    #[test]
    fn the_cpu_is_measured_and_judged() {
        let budget = Budget { runs: 2, time: std::time::Duration::from_secs(1) };
        let sgd = "sgd:momentum=0.9".parse().unwrap();
        let cases = [batch_norm2d([2, 3, 4, 5]), softmax([3, 7]), optimizer_step(sgd, 1000), matmul([3, 4, 5])];
        for case in cases.into_iter().flatten().flatten() {
            let r = on_cpu(&case, budget, 1).unwrap();
            assert!(r.correct && r.times.median > 0.0, "{case:?}: {}", r.error);
            assert_eq!((r.kernel.as_str(), r.gpu_timestamps), ("cpu", false));
        }
    }

    #[test]
    fn results_that_differ_are_seen() {
        let t = |v: f32| Tensor::f32([2], vec![1.0, v]).unwrap();
        assert_eq!(error_of(&[t(2.0)], &[t(2.0)]), 0.0);
        assert!(error_of(&[t(2.0), t(2.1)], &[t(2.0), t(2.0)]) > TOLERANCE);
        assert_eq!(error_of(&[t(f32::NAN)], &[t(2.0)]), f64::INFINITY);
        assert_eq!(error_of(&[], &[t(2.0)]), f64::INFINITY);
    }
}
