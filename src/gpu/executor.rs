//! The GPU executor: lowers each node once, then replays the dispatches, step after step, in one submit.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use web_time::Instant;

use super::ahead::Ahead;
use super::compile::Compiled;
use super::device::Gpu;
use super::encode::encode;
use super::memory::{Buffers, ReadBack, bytes_of, fetch, tensor_of};
use super::pipelines::Pipelines;
use super::schedule::StepMemory;
use super::submits::LONGEST;
use super::tuned::{Tuned, choose};
use crate::exec::{ExecError, Executor as ExecutorTrait, Pending, Program, Programs, check_vars};
use crate::fuse::{Fused, fuse};
use crate::graph::{Graph, NodeId};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::profile::{HostTimes, NodeTime, Phases, RunProfile, Span};
use crate::store::{ParamStore, VarId};
use crate::tensor::Tensor;

/// How programs are compiled; the defaults are what training uses.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the run-time checks of WGSL (bounds, loops) in the shaders.
    pub checked: bool,
    /// Surround every tensor with NaN, share no memory, and start outputs as NaN: for tests.
    pub guards: bool,
    /// Take this variant wherever an op has it, and the plain kernel elsewhere; `None` leaves it to the table.
    pub variant: Option<String>,
    /// Run each op as it was recorded, without the fusion pass ([`crate::fuse`]). Nothing is fused either where `variant`
    /// is set.
    pub no_fuse: bool,
    /// What was measured on this adapter, which goes before the table; `None` leaves it to the table.
    pub tuned: Option<Arc<Tuned>>,
    /// Do as in a browser, where it is always done so: read from a copy what would overlap with something else that a dispatch is bound to
    /// in a buffer that it writes, because WebGPU demands that, and keep [`Const::Late`](super::lower::Const::Late) in a uniform buffer.
    pub apart: bool,
    /// The folder in which compiled pipelines are kept for the next run, where the driver hands them out; `None`: nowhere.
    pub pipelines: Option<PathBuf>,
    /// How long is waited for anything that was sent to the device before it counts as hung: [`ExecError::TimedOut`]. `None` is five
    /// minutes, as a software adapter may take minutes to compile what it meets for the first time.
    pub watchdog: Option<Duration>,
    /// Divide what took longer than this, in the place of half a second: for tests.
    pub longest_submit: Option<Duration>,
    /// Where executors put down which pipelines they will want, so that a page has the browser compile these ahead.
    pub ahead: Option<Ahead>,
}

/// Holds variables on a GPU and replays graphs there.
#[derive(Debug)]
pub struct Executor {
    gpu: Gpu,
    options: Options,
    pipelines: Pipelines,
    vars: Buffers,
    programs: Programs<Compiled>,
    /// Submissions whose end was not waited for yet: a queue without bound would hoard command buffers.
    in_flight: VecDeque<InFlight>,
    host: HostTimes,
}

/// A submission whose end was not waited for yet.
#[derive(Debug)]
struct InFlight {
    index: wgpu::SubmissionIndex,
    program: Program,
    dispatches: Range<usize>,
    /// Whether a step ends with it.
    ends: bool,
    /// Whether nothing was compiled for it, so that its time counts.
    measured: bool,
}

/// Longest wait for one submission before the device counts as hung, where the options name no other.
const WATCHDOG: Duration = Duration::from_secs(300);
/// Steps that the host may be ahead of the device.
const AHEAD: usize = 3;

impl Executor {
    /// An executor on an open device.
    #[must_use]
    pub fn new(gpu: Gpu, options: Options) -> Self {
        let pipelines = Pipelines::new(&gpu, options.checked, options.pipelines.as_deref(), options.ahead.clone());
        Self {
            gpu,
            options,
            pipelines,
            vars: Buffers::default(),
            programs: Programs::default(),
            in_flight: VecDeque::new(),
            host: HostTimes::default(),
        }
    }

    /// Whether programs compiled from here on go through the fusion pass.
    pub fn set_fusion(&mut self, on: bool) {
        self.options.no_fuse = !on;
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The measurements that go before the table, if there are any.
    #[must_use]
    pub fn tuned(&self) -> Option<&Tuned> {
        self.options.tuned.as_deref()
    }

    /// Device memory of a program.
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    pub fn memory(&self, p: Program) -> Result<&StepMemory, ExecError> {
        Ok(&self.programs.get(p)?.memory)
    }

    /// Where a recorded node is in [`ExecutorTrait::running`]; `None` for one that lies inside a fused kernel.
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    pub fn place(&self, p: Program, node: NodeId) -> Result<Option<NodeId>, ExecError> {
        Ok(self.programs.get(p)?.place(node))
    }

    /// In how many pieces a program is sent to the device now.
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    pub fn submits(&self, p: Program) -> Result<usize, ExecError> {
        Ok(self.programs.get(p)?.submits.len())
    }

    /// How many dispatches it has now; more than at first where long ones were done in parts.
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    pub fn dispatches(&self, p: Program) -> Result<usize, ExecError> {
        Ok(self.programs.get(p)?.dispatches.len())
    }

    fn limit(&self) -> Duration {
        self.options.watchdog.unwrap_or(WATCHDOG)
    }

    /// Waits for the oldest submission.
    fn retire(&mut self) -> Result<(), ExecError> {
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        let InFlight { index, program, dispatches, measured, .. } = oldest;
        let begin = Instant::now();
        let at = || self.programs.get(program).map_or("a released program".to_owned(), |p| p.name(&dispatches));
        if let Err(e) = self.gpu.wait_for(Some(index), self.limit(), at) {
            self.in_flight.clear();
            return Err(e);
        }
        // The submission before had ended when waiting began, so that this one took at least as long.
        let (time, limit) = (begin.elapsed(), self.options.longest_submit.unwrap_or(LONGEST));
        if measured
            && time > limit
            && let Ok(p) = self.programs.get_mut(program)
        {
            // What cannot be divided stays as it is, and a device that fails says so where it runs.
            let _ = p.took(&self.gpu, &mut self.pipelines, &dispatches, (time, limit));
        }
        Ok(())
    }

    /// Waits for all of them, each with the whole limit.
    fn retire_all(&mut self) -> Result<(), ExecError> {
        while !self.in_flight.is_empty() {
            self.retire()?;
        }
        Ok(())
    }

    /// The variant that would be taken for an op: as measured by `radiograd tune`, else by the table.
    #[must_use]
    pub fn choose(&self, op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]) -> &'static str {
        choose(self.options.tuned.as_deref(), op, cx, supported).0
    }

    /// The graph after the fusion pass, if that finds something to fuse for this device.
    #[must_use]
    pub fn fuse(&self, graph: &Graph, roots: &[NodeId]) -> Option<Fused> {
        if self.options.no_fuse || self.options.variant.is_some() {
            return None;
        }
        fuse(graph, roots, |op, inputs, output| {
            let (adapter, subgroup) = (self.gpu.kind, self.gpu.subgroup);
            let cx = LowerCx { inputs, output, adapter, subgroup, companion: false, variant: PLAIN };
            self.choose(op, &cx, &self.gpu.target().supported(op, &cx)) != PLAIN
        })
    }

    /// The kernel variant that was chosen for each node of [`ExecutorTrait::running`] that runs.
    ///
    /// # Errors
    /// [`ExecError::Stale`].
    pub fn variants(&self, p: Program) -> Result<Vec<(NodeId, &'static str)>, ExecError> {
        Ok(self.programs.get(p)?.steps.iter().map(|s| (s.node, s.variant)).collect())
    }

    /// Changes [`Options::variant`] for the programs that are compiled from here on.
    pub fn set_variant(&mut self, variant: Option<String>) {
        self.options.variant = variant;
    }

    /// Pipelines that were compiled so far.
    #[must_use]
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.len()
    }

    /// Sends what was written to variables, which otherwise waits in memory of its own for the next run, and waits for it.
    ///
    /// # Errors
    /// As [`Executor::wait`].
    pub fn flush(&mut self) -> Result<(), ExecError> {
        self.gpu.queue.submit([]);
        self.wait()
    }

    /// After a run with [`Options::guards`]: that no kernel wrote outside its tensors.
    ///
    /// # Errors
    /// Names the buffer and the first byte that changed.
    pub fn check_guards(&self, p: Program) -> Result<(), String> {
        self.programs.get(p).map_err(|e| e.to_string())?.check_guards(&self.gpu, self.limit())
    }

    /// Runs once with a timestamp around each node.
    ///
    /// # Errors
    /// The device failed, or has no timestamps.
    pub fn run_timed(&mut self, p: Program) -> Result<Vec<NodeTime>, ExecError> {
        self.run_profiled(p)?.nodes.ok_or_else(|| ExecError::Device("this adapter has no timestamps".to_owned()))
    }
}

/// Submits some steps of a program with a timestamp before and after each, and reads these back.
fn timed(
    gpu: &Gpu,
    program: &Compiled,
    steps: Range<usize>,
    limit: Duration,
    phases: &mut Phases,
) -> Result<Vec<u64>, ExecError> {
    let steps = &program.steps[steps];
    let device = &gpu.device;
    let count = 2 * steps.len() as u32;
    let queries =
        device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count });
    let size = 8 * u64::from(count);
    let resolved = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("timestamps"),
        size,
        usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for (step, i) in steps.iter().zip(0..) {
        let stamps = |begin, end| wgpu::ComputePassTimestampWrites {
            query_set: &queries,
            beginning_of_pass_write_index: begin,
            end_of_pass_write_index: end,
        };
        let (begin, end) = (Some(2 * i), Some(2 * i + 1));
        let dispatches = &program.dispatches[step.dispatches.clone()];
        if !program.copies(step) {
            encode(dispatches, &mut encoder, Some(stamps(begin, end)));
            continue;
        }
        // Copies lie outside of passes: empty passes before and after take the time.
        let mark = |encoder: &mut wgpu::CommandEncoder, writes| {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) };
            drop(encoder.begin_compute_pass(&descriptor));
        };
        mark(&mut encoder, stamps(begin, None));
        encode(dispatches, &mut encoder, None);
        mark(&mut encoder, stamps(None, end));
    }
    encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
    let commands = encoder.finish();
    phases.end("encode");
    let index = gpu.queue.submit([commands]);
    phases.end("submit");
    let at = || match (steps.first(), steps.last()) {
        (Some(first), Some(last)) => program.name(&(first.dispatches.start..last.dispatches.end)),
        _ => "an empty program".to_owned(),
    };
    gpu.wait_for(Some(index), limit, at)?;
    phases.end("wait");
    let wanted = ReadBack { buffer: &resolved, offset: 0, bytes: size, name: "the timestamps".to_owned(), limit };
    let stamps = bytemuck::pod_collect_to_vec::<u8, u64>(&bytes_of(gpu, wanted)?);
    phases.end("read back");
    Ok(stamps)
}

impl ExecutorTrait for Executor {
    fn describe(&self) -> String {
        self.gpu.describe()
    }

    fn load(&mut self, store: &ParamStore) -> Result<(), ExecError> {
        // What was held goes first, so that both need not fit at once.
        self.programs.clear();
        self.vars = Buffers::default();
        self.wait()?;
        self.vars = Buffers::variables(&self.gpu, store)?;
        Ok(())
    }

    fn compile(&mut self, graph: &Arc<Graph>, roots: &[NodeId]) -> Result<Program, ExecError> {
        check_vars(graph, self.vars.len())?;
        let fused = self.fuse(graph, roots);
        let compiled = match fused {
            None => Compiled::new(&self.gpu, &mut self.pipelines, &self.options, &self.vars, graph, roots)?,
            Some(Fused { graph, places, .. }) => {
                let roots: Vec<NodeId> = roots.iter().filter_map(|r| places[r.index()]).collect();
                let graph = Arc::new(graph);
                let mut compiled =
                    Compiled::new(&self.gpu, &mut self.pipelines, &self.options, &self.vars, &graph, &roots)?;
                compiled.places = Some(places);
                compiled
            }
        };
        Ok(self.programs.push(compiled))
    }

    fn set(&mut self, program: Program, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        self.programs.get_mut(program)?.set(input, value)
    }

    fn run(&mut self, program: Program) -> Result<(), ExecError> {
        let mut host = HostTimes::default();
        let mut clock = Instant::now();
        let mut lap = |sum: &mut f64| {
            let now = Instant::now();
            *sum += (now - clock).as_secs_f64();
            clock = now;
        };
        let p = self.programs.get_mut(program)?;
        p.upload(&self.gpu);
        lap(&mut host.upload);
        for dispatches in &p.submits {
            let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encode(&p.dispatches[dispatches.clone()], &mut encoder, None);
            let commands = encoder.finish();
            lap(&mut host.encode);
            let index = self.gpu.queue.submit([commands]);
            let (ends, dispatches) = (dispatches.end == p.dispatches.len(), dispatches.clone());
            self.in_flight.push_back(InFlight { index, program, dispatches, ends, measured: p.warm });
            lap(&mut host.submit);
        }
        p.warm = true;
        self.host = host;
        self.gpu.check(|| p.name(&(0..p.dispatches.len())))?;
        // An empty program sends nothing.
        while self.in_flight.iter().filter(|sent| sent.ends).count() > AHEAD {
            self.retire()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), ExecError> {
        self.retire_all()?;
        self.gpu.wait_for(None, self.limit(), || "the last writes".to_owned())
    }

    fn running(&self, program: Program) -> Result<&Arc<Graph>, ExecError> {
        Ok(&self.programs.get(program)?.graph)
    }

    fn run_profiled(&mut self, program: Program) -> Result<RunProfile, ExecError> {
        // What is still running would be waited for in the first phase.
        self.wait()?;
        let mut phases = Phases::start();
        if !self.gpu.timestamps {
            let start = Instant::now();
            self.run(program)?;
            let t = self.host;
            let mut at = start;
            let mut host: Vec<Span> = [("upload", t.upload), ("encode", t.encode), ("submit", t.submit)]
                .into_iter()
                .map(|(name, seconds)| {
                    let begin = at;
                    at += Duration::from_secs_f64(seconds);
                    Span { name, start: begin, end: at }
                })
                .collect();
            self.wait()?;
            host.push(Span { name: "wait", start: at, end: Instant::now() });
            return Ok(RunProfile { host, nodes_start: at, nodes: None });
        }
        let limit = self.limit();
        let p = self.programs.get_mut(program)?;
        p.upload(&self.gpu);
        let nodes_start = phases.end("upload");
        let mut stamps: Vec<u64> = Vec::with_capacity(2 * p.steps.len());
        for steps in p.profiled_runs() {
            stamps.extend(timed(&self.gpu, p, steps, limit, &mut phases)?);
        }
        self.gpu.check(|| p.name(&(0..p.dispatches.len())))?;
        let period = f64::from(self.gpu.queue.get_timestamp_period()) * 1e-9;
        let first = stamps.first().copied().unwrap_or(0);
        let nodes = p
            .steps
            .iter()
            .zip(stamps.chunks(2))
            .map(|(step, t)| NodeTime {
                node: step.node.index(),
                name: p.graph.describe(step.node),
                op: p.graph.node(step.node).kind(),
                variant: step.variant,
                start: t[0].saturating_sub(first) as f64 * period,
                seconds: t[1].saturating_sub(t[0]) as f64 * period,
            })
            .collect();
        Ok(RunProfile { host: phases.spans(), nodes_start, nodes: Some(nodes) })
    }

    fn host_times(&self) -> Option<HostTimes> {
        Some(self.host)
    }

    fn read(&mut self, program: Program, node: NodeId) -> Result<Tensor, ExecError> {
        self.retire_all()?;
        self.programs.get(program)?.read(&self.gpu, &self.vars, node, self.limit())
    }

    fn read_var(&mut self, var: VarId) -> Result<Tensor, ExecError> {
        self.retire_all()?;
        let (wanted, spec) = self.vars.wanted(var, self.limit())?;
        Ok(tensor_of(spec, &bytes_of(&self.gpu, wanted)?))
    }

    fn fetch(&mut self, program: Program, node: NodeId) -> Pending {
        let place = self.programs.get(program).and_then(|p| p.place_of(&self.vars, node, self.limit()));
        match place {
            Ok((wanted, spec)) => fetch(&self.gpu, wanted, spec),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        }
    }

    fn fetch_var(&mut self, var: VarId) -> Pending {
        match self.vars.wanted(var, self.limit()) {
            Ok((wanted, spec)) => fetch(&self.gpu, wanted, spec),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        }
    }

    fn write_var(&mut self, var: VarId, value: &Tensor) -> Result<(), ExecError> {
        self.vars.write(&self.gpu, var, value)
    }

    fn release(&mut self, program: Program) {
        self.programs.release(program);
    }

    fn kernel_set(&self) -> Option<String> {
        let all: BTreeMap<&String, &str> =
            self.programs.iter().flat_map(|p| &p.tuned).map(|(key, variant)| (key, *variant)).collect();
        if all.is_empty() {
            return None;
        }
        let mut hash = blake3::Hasher::new();
        for (key, variant) in &all {
            hash.update(format!("{key} {variant}\n").as_bytes());
        }
        Some(format!("{} tuned, {}", all.len(), &hash.finalize().to_hex()[..16]))
    }

    fn max_tensor_bytes(&self) -> Option<u64> {
        Some(self.gpu.max_tensor_bytes())
    }
}
