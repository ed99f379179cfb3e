//! Measuring which kernel variant is fastest, for every op of a training step and of an evaluation pass.
//!
//! Each distinct op and shape is measured once, by itself, on random inputs. A candidate must first agree with the CPU
//! executor there; then all of them take turns, so that a machine that gets slower or faster meanwhile favours none. One that
//! is far behind is dropped early. The table's choice stays unless another is faster by more than [`MARGIN`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::kernels::TOLERANCE;
use super::measure::{Times, wall};
use crate::cpu;
use crate::data::Images;
use crate::exec::{ExecError, Executor, Program};
use crate::gpu::choice::choose;
use crate::gpu::lower::AdapterKind;
use crate::gpu::tuned::{Entry, fingerprint, key};
use crate::gpu::{self, Gpu, Options};
use crate::graph::{Graph, NodeId};
use crate::nn::Model;
use crate::ops::sample::{self, Fill, SampleInput};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::optim::OptimizerKind;
use crate::shape::{DType, Spec};
use crate::store::{ParamStore, VarId};
use crate::tensor::{Tensor, relative_error};
use crate::train::TrainError;
use crate::train::fit::EVAL_BATCH;
use crate::train::step::{
    Augmentation, DeviceImages, EvalPass, LOG_COLUMNS, LossSettings, StepOptions, StepParts, TrainStep,
};
use crate::train::update::UpdateGroup;

/// The table's choice stays where the best other candidate is not faster by this share: less is within the noise.
pub const MARGIN: f64 = 0.03;
/// A candidate whose first timed run takes so many times as long as the best one's is dropped.
const FAR_BEHIND: f64 = 2.0;
/// On a CPU that runs the shaders, the plain kernel of an op with more floating-point operations than this is not tried: a
/// single run would take many seconds.
const PLAIN_FLOPS: u64 = 2_000_000_000;

/// How long each op may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Timed runs of each candidate, at most.
    pub runs: usize,
    /// No round of runs of an op starts after so many seconds, once there are three. A candidate whose single run takes
    /// longer than this is dropped.
    pub seconds: f64,
}

/// A training step and an evaluation pass with the variables that they use.
#[derive(Debug)]
pub struct Passes {
    store: ParamStore,
    graphs: Vec<Arc<Graph>>,
}

/// An op at its shapes, as it occurs in the passes.
#[derive(Clone, Debug)]
pub struct Task {
    /// The op at its shapes in words: what results are stored under.
    pub key: String,
    /// How many nodes of the passes are this op at these shapes.
    pub nodes: usize,
    op: Arc<dyn Op>,
    inputs: Vec<Spec>,
    output: Spec,
    supported: Vec<&'static str>,
}

/// One kernel variant of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its name.
    pub variant: &'static str,
    /// Times in seconds; none where it was dropped before.
    pub times: Option<Times>,
    /// Relative error against the CPU executor in `f32`; the worst of all tensors that it writes.
    pub error: Option<f64>,
    /// Why it is out of the race.
    pub dropped: Option<String>,
}

/// What was found about a task.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The op.
    pub op: &'static str,
    /// The op at its shapes in words.
    pub key: String,
    /// How many nodes of the passes it stands for.
    pub nodes: usize,
    /// The table's choice.
    pub table: &'static str,
    /// The fastest; the table's choice where none is clearly faster, or none works.
    pub best: &'static str,
    /// The table's median time over the fastest one's; none where the table's choice was dropped.
    pub speed_up: Option<f64>,
    /// All candidates, the plain one first.
    pub candidates: Vec<Candidate>,
    /// What to store; none where no candidate works.
    #[serde(skip)]
    pub entry: Option<Entry>,
}

impl Passes {
    /// Records the training step and the evaluation pass of `model` in batches of `batch`; `limit` is the largest tensor in
    /// bytes that the device holds.
    ///
    /// # Errors
    /// The network cannot be trained on such a batch.
    pub fn new(model: &Model, batch: usize, limit: Option<u64>) -> Result<Self, TrainError> {
        let [channels, height, width] = model.input();
        let count = batch.max(2);
        let images = Images {
            channels,
            height,
            width,
            pixels: vec![128; count * channels * height * width],
            labels: (0..count).map(|i| (i % model.classes()) as u32).collect(),
            names: (0..count).map(|i| i.to_string()).collect(),
            patients: (0..count).map(|i| i.to_string()).collect(),
        };
        let optimizer: OptimizerKind = "adam".parse()?;
        let mut store = ParamStore::new();
        let params = model.init(&mut store, 0);
        let groups = UpdateGroup::whole(&mut store, &optimizer);
        let on_device = DeviceImages::add(&mut store, "images", &images, limit);
        let log = store.add_var("log", Spec::float([1, LOG_COLUMNS]), None);
        let logits = store.add_var("logits", Spec::float([count, model.outputs()]), None);
        let (mean, std) = (vec![0.5; channels], vec![0.25; channels]);
        let step = TrainStep::record(StepParts {
            model,
            params: &params,
            images: &on_device,
            batch,
            mean: &mean,
            std: &std,
            loss: &LossSettings::default(),
            groups: &groups,
            log: &log,
            weights: None,
            augmentation: Augmentation::default(),
            options: StepOptions::default(),
        })?;
        let pass = EvalPass::record(model, &params, &on_device, EVAL_BATCH.min(batch), (&mean, &std), &logits)?;
        Ok(Self { store, graphs: vec![step.graph, Arc::clone(pass.graph())] })
    }

    /// The ops of the passes that have more than one kernel on this adapter, each with its shapes once, in the order in which
    /// they first run. Ops that read images are left out: their shapes hold the number of images, which no other data set
    /// shares.
    #[must_use]
    pub fn tasks(&self, executor: &gpu::Executor) -> Vec<Task> {
        let gpu = executor.gpu();
        let mut tasks: Vec<Task> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for recorded in &self.graphs {
            // What runs is the graph after the fusion pass.
            let fused = executor.fuse(recorded, &[]).map(|f| f.graph);
            let graph = fused.as_ref().unwrap_or(recorded);
            let live = graph.live(&[]);
            for id in graph.ids().filter(|id| live[id.index()]) {
                let node = graph.node(id);
                let Some(op) = node.op().filter(|op| !op.is_view() && !op.companion() && op.packs().is_none()) else {
                    continue;
                };
                let inputs: Vec<Spec> = node.inputs().iter().map(|&i| graph.spec(i).clone()).collect();
                if inputs.iter().any(|s| s.dtype == DType::U8) {
                    continue;
                }
                let task = Task::new(gpu, Arc::clone(op), inputs, node.spec.clone());
                if task.supported.len() < 2 {
                    continue;
                }
                match known.get(&task.key) {
                    Some(&at) => tasks[at].nodes += 1,
                    None => {
                        known.insert(task.key.clone(), tasks.len());
                        tasks.push(task);
                    }
                }
            }
        }
        tasks
    }

    /// Measures one of the tasks.
    ///
    /// # Errors
    /// The CPU executor cannot run it. A candidate that fails on the device is dropped.
    pub fn measure(&self, task: &Task, gpu: &Gpu, budget: Budget) -> Result<Finding, TrainError> {
        let alone = Alone::new(task, &self.store)?;
        let table = task.with_cx(gpu, |cx| choose(task.op.as_ref(), cx, &task.supported));
        // The table's choice goes first, the plain kernel last: so the slow ones have something to be held against.
        let mut order = task.supported.clone();
        order.sort_by_key(|&v| (v != table, v == PLAIN));
        let flops = task.with_cx(gpu, |cx| task.op.flops(cx.inputs, cx.output));
        let hopeless = |v| v == PLAIN && v != table && gpu.kind == AdapterKind::Software && flops > PLAIN_FLOPS;
        let mut racers: Vec<Racer> = order
            .into_iter()
            .map(|variant| match hopeless(variant) {
                true => Racer::out(variant, "not tried: a single run would take many seconds".to_owned()),
                false => Racer::start(variant, &alone, gpu),
            })
            .collect();
        let begin = Instant::now();
        for round in 0..budget.runs.max(1) {
            if round >= 3 && begin.elapsed().as_secs_f64() > budget.seconds {
                break;
            }
            racers.iter_mut().for_each(Racer::once);
            let best = racers.iter().filter_map(Racer::last).fold(f64::INFINITY, f64::min);
            for racer in racers.iter_mut().filter(|r| round == 0 && r.variant != table) {
                match racer.last() {
                    Some(seconds) if seconds > FAR_BEHIND * best => {
                        racer.leave(format!("{:.1} times as slow as the best in the first run", seconds / best));
                    }
                    Some(seconds) if seconds > budget.seconds => racer.leave("a run takes too long".to_owned()),
                    _ => {}
                }
            }
        }
        Ok(self.judge(task, gpu, table, racers))
    }

    fn judge(&self, task: &Task, gpu: &Gpu, table: &'static str, racers: Vec<Racer>) -> Finding {
        let mut candidates: Vec<Candidate> = racers.into_iter().map(Racer::end).collect();
        let median = |c: &Candidate| c.times.filter(|_| c.dropped.is_none()).map(|t| t.median);
        let of_table = candidates.iter().find(|c| c.variant == table).and_then(median);
        let fastest =
            candidates.iter().filter_map(|c| Some((c.variant, median(c)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        let best = match (fastest, of_table) {
            (Some((_, seconds)), Some(of_table)) if seconds > (1.0 - MARGIN) * of_table => Some((table, of_table)),
            (fastest, _) => fastest,
        };
        candidates.sort_by_key(|c| task.supported.iter().position(|v| *v == c.variant));
        let entry = best.map(|(variant, seconds)| Entry {
            variant: variant.to_owned(),
            seconds,
            table: table.to_owned(),
            table_seconds: of_table,
            kernels: task.with_cx(gpu, |cx| fingerprint(task.op.as_ref(), cx, &task.supported)),
        });
        Finding {
            op: task.op.name(),
            key: task.key.clone(),
            nodes: task.nodes,
            table,
            best: best.map_or(table, |b| b.0),
            speed_up: best.zip(of_table).map(|((_, seconds), table)| table / seconds),
            candidates,
            entry,
        }
    }
}

impl Task {
    fn new(gpu: &Gpu, op: Arc<dyn Op>, inputs: Vec<Spec>, output: Spec) -> Self {
        let mut task = Self { key: String::new(), nodes: 1, op, inputs, output, supported: Vec::new() };
        let (key, supported) =
            task.with_cx(gpu, |cx| (key(task.op.as_ref(), cx), gpu.target().supported(task.op.as_ref(), cx)));
        task.key = key;
        task.supported = supported;
        task
    }

    fn with_cx<R>(&self, gpu: &Gpu, f: impl FnOnce(&LowerCx<'_>) -> R) -> R {
        let inputs: Vec<&Spec> = self.inputs.iter().collect();
        f(&LowerCx {
            inputs: &inputs,
            output: &self.output,
            adapter: gpu.kind,
            subgroup: gpu.subgroup,
            companion: false,
            variant: PLAIN,
        })
    }
}

/// A task as a graph of one op, with inputs, and with what the CPU makes of them.
struct Alone {
    graph: Arc<Graph>,
    inputs: Vec<NodeId>,
    output: NodeId,
    values: Vec<Tensor>,
    store: ParamStore,
    /// The variables that it changes.
    changed: Vec<VarId>,
    expected: Vec<Tensor>,
}

impl Alone {
    fn new(task: &Task, store: &ParamStore) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let inputs: Vec<NodeId> = task.inputs.iter().map(|s| g.input("input", s.clone())).collect();
        let output = g.apply_shared(Arc::clone(&task.op), &inputs)?;
        let mut changed: Vec<VarId> = task.op.updates().iter().map(|u| u.var).collect();
        changed.sort();
        changed.dedup();
        // An op that changes no variable needs none.
        let store = if changed.is_empty() { ParamStore::new() } else { store.clone() };
        let mut alone =
            Self { graph: Arc::new(g), inputs, output, values: Vec::new(), store, changed, expected: Vec::new() };
        // Where numbers of both signs make no sense (a variance, say), positive ones do.
        for floats in [Fill::Normal, Fill::Positive] {
            alone.fill(task, floats);
            let mut cpu = cpu::Executor::<f32>::fast();
            let program = alone.first(&mut cpu)?;
            alone.expected = alone.results(&mut cpu, program)?;
            if alone.expected.iter().all(|t| t.to_f32().iter().all(|v| v.is_finite())) {
                break;
            }
        }
        Ok(alone)
    }

    fn fill(&mut self, task: &Task, floats: Fill) {
        let value = |(i, spec): (usize, &Spec)| {
            // Labels, rows and indices: 0 and 1 are in range wherever there are two classes and two images.
            let fill = if spec.dtype == DType::Float { floats } else { Fill::Below(2) };
            sample::fill(&SampleInput { spec: spec.clone(), fill, checked: false }, 1, i as u32)
        };
        self.values = task.inputs.iter().enumerate().map(value).collect();
    }

    /// Compiles it and runs it once.
    fn first(&self, executor: &mut dyn Executor) -> Result<Program, ExecError> {
        executor.load(&self.store)?;
        let program = executor.compile(&self.graph, &[self.output])?;
        for (&input, value) in self.inputs.iter().zip(&self.values) {
            executor.set(program, input, value)?;
        }
        executor.run(program)?;
        Ok(program)
    }

    /// What it writes: its output and the variables that it changes.
    fn results(&self, executor: &mut dyn Executor, program: Program) -> Result<Vec<Tensor>, ExecError> {
        let mut all = vec![executor.read(program, self.output)?];
        for &var in &self.changed {
            all.push(executor.read_var(var)?);
        }
        Ok(all)
    }
}

/// A candidate in the race.
struct Racer {
    variant: &'static str,
    running: Option<(gpu::Executor, Program)>,
    seconds: Vec<f64>,
    error: Option<f64>,
    dropped: Option<String>,
}

impl Racer {
    fn out(variant: &'static str, why: String) -> Self {
        Self { variant, running: None, seconds: Vec::new(), error: None, dropped: Some(why) }
    }

    /// Compiles a variant, runs it once, and compares what it writes with the CPU's.
    fn start(variant: &'static str, alone: &Alone, gpu: &Gpu) -> Self {
        let options = Options { variant: Some(variant.to_owned()), ..Options::default() };
        let mut executor = gpu::Executor::new(gpu.clone(), options);
        let first = alone.first(&mut executor).and_then(|p| Ok((p, alone.results(&mut executor, p)?)));
        let (program, results) = match first {
            Ok(first) => first,
            Err(e) => return Self::out(variant, e.to_string()),
        };
        let error = |(a, b): (&Tensor, &Tensor)| match a.spec().dtype {
            DType::Float => relative_error(&a.to_f64(), &b.to_f64()),
            _ if a.data() == b.data() => 0.0,
            _ => f64::INFINITY,
        };
        // `f64::max` would lose a NaN.
        let worst = results.iter().zip(&alone.expected).map(error).max_by(f64::total_cmp).unwrap_or(0.0);
        let mut racer = Self {
            variant,
            running: Some((executor, program)),
            seconds: Vec::new(),
            error: Some(worst),
            dropped: None,
        };
        if worst.is_nan() || worst > TOLERANCE {
            racer.leave(format!("differs from the CPU by {worst:.1e}"));
        }
        racer
    }

    fn leave(&mut self, why: String) {
        self.dropped = Some(why);
        self.running = None;
    }

    /// One timed run.
    fn once(&mut self) {
        let Some((executor, program)) = &mut self.running else { return };
        let program = *program;
        // An adapter without timestamps says so at each try, which costs nothing.
        let seconds = match executor.run_timed(program) {
            Ok(times) => Ok(times.iter().map(|t| t.seconds).sum()),
            Err(_) => wall(|| {
                executor.run(program)?;
                executor.wait()
            }),
        };
        match seconds {
            Ok(seconds) => self.seconds.push(seconds),
            Err(e) => self.leave(e.to_string()),
        }
    }

    /// The last time of a candidate that is still in the race.
    fn last(&self) -> Option<f64> {
        self.running.as_ref().and(self.seconds.last().copied())
    }

    fn end(self) -> Candidate {
        let Self { variant, seconds, error, dropped, .. } = self;
        Candidate { variant, times: Times::of(seconds), error, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(variant: &'static str, seconds: f64, dropped: Option<&str>) -> Racer {
        let (seconds, dropped) = (vec![seconds; 3], dropped.map(str::to_owned));
        Racer { variant, running: None, seconds, error: Some(0.0), dropped }
    }

    #[test]
    fn passes_hold_each_op_once() {
        let Ok(gpu) = Gpu::open(crate::gpu::Wanted::Best) else {
            assert!(std::env::var("RADIOGRAD_REQUIRE_GPU").is_err(), "no adapter");
            return;
        };
        let model = Model::new("conv4-relu-conv4-relu-pool-flatten-dense8-dense2", [1, 8, 8], 2).unwrap();
        let passes = Passes::new(&model, 4, None).unwrap();
        let options = Options { no_fuse: true, ..Options::default() };
        let tasks = passes.tasks(&gpu::Executor::new(gpu.clone(), options));
        let ops: Vec<&str> = tasks.iter().map(|t| t.op.name()).collect();
        for op in ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "linear", "matmul", "max_pool2d"] {
            assert!(ops.contains(&op), "{op} is none of {ops:?}");
        }
        // Two convolutions forward, and the same two in the evaluation pass, whose batch is the same.
        let forward: Vec<usize> = tasks.iter().filter(|t| t.op.name() == "conv2d").map(|t| t.nodes).collect();
        assert_eq!(forward, [2, 2]);
        assert!(tasks.iter().all(|t| t.supported.len() > 1 && t.supported[0] == PLAIN));
        let weight = tasks.iter().find(|t| t.op.name() == "conv2d_weight_grad").unwrap();
        let table = weight.with_cx(&gpu, |cx| choose(weight.op.as_ref(), cx, &weight.supported));
        let judge = |racers| passes.judge(weight, &gpu, table, racers);

        // A little faster is not faster; a dropped one does not win; what is clearly faster does.
        let other = weight.supported.iter().copied().find(|v| *v != table).unwrap();
        let f = judge(vec![candidate(table, 1.0, None), candidate(other, 0.98, None)]);
        assert_eq!((f.best, f.speed_up), (table, Some(1.0)));
        let f = judge(vec![candidate(table, 1.0, None), candidate(other, 0.1, Some("wrong"))]);
        assert_eq!((f.best, f.entry.as_ref().map(|e| e.variant.as_str())), (table, Some(table)));
        let f = judge(vec![candidate(table, 1.0, None), candidate(other, 0.5, None)]);
        assert_eq!((f.best, f.speed_up), (other, Some(2.0)));
        let f = judge(vec![candidate(table, 1.0, Some("wrong")), candidate(other, 2.0, None)]);
        assert_eq!((f.best, f.speed_up, f.entry.unwrap().table_seconds), (other, None, None));
        let f = judge(vec![Racer::out(table, "failed".to_owned())]);
        assert!(f.entry.is_none() && f.best == table);
    }

    #[test]
    fn a_task_is_measured_against_the_cpu() {
        let Ok(gpu) = Gpu::open(crate::gpu::Wanted::Best) else {
            assert!(std::env::var("RADIOGRAD_REQUIRE_GPU").is_err(), "no adapter");
            return;
        };
        let model = Model::new("conv4-pool-flatten-dense2", [1, 8, 8], 2).unwrap();
        let passes = Passes::new(&model, 4, None).unwrap();
        for task in passes.tasks(&gpu::Executor::new(gpu.clone(), Options::default())) {
            let finding = passes.measure(&task, &gpu, Budget { runs: 2, seconds: 1.0 }).unwrap();
            let entry = finding.entry.as_ref().unwrap();
            assert!(entry.seconds > 0.0 && entry.variant == finding.best, "{finding:?}");
            assert_eq!(finding.candidates.len(), task.supported.len());
            for c in &finding.candidates {
                assert!(c.error.is_some_and(|e| e <= TOLERANCE), "{finding:?}");
            }
        }
    }
}
