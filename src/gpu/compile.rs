//! From a graph to dispatches: kernels chosen and specialised, memory planned, bind groups built.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::device::Gpu;
use super::executor::Options;
use super::lower::{Arg, Dispatch};
use super::memory::{Buffers, bytes_of, storage, tensor_of, words_of};
use super::pipelines::{Pipelines, Wanted};
use super::plan::Plan;
use super::schedule::{Home, Lowered, Schedule, StepMemory};
use super::tuned::{choose, key};
use crate::exec::ExecError;
use crate::graph::{Graph, NodeId};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::tensor::Tensor;

/// The NaN that guards are filled with; a kernel that computes NaN makes another one.
const GUARD_WORD: u32 = 0x7fc0_dead;

/// Floating-point operations after which a submit is closed, so that no driver's watchdog fires.
const SUBMIT_FLOPS: u64 = 40_000_000_000;

/// Nodes after which a submit is closed: a query set holds the timestamps of no more.
const SUBMIT_NODES: usize = 2048;

/// The dispatches of one node.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) node: NodeId,
    pub(super) variant: &'static str,
    pub(super) flops: u64,
    dispatches: Vec<Ready>,
}

/// A dispatch that only has to be encoded.
#[derive(Debug)]
struct Ready {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    /// The values of `Const::Late`, where the pipeline does not hold them.
    late: Vec<u32>,
    groups: [u32; 3],
}

/// What a binding is bound to.
struct Slot<'a> {
    buffer: &'a wgpu::Buffer,
    offset: u64,
    bytes: u64,
    written: bool,
}

impl Step {
    /// Records its dispatches; `bound` is the pipeline that the pass has, which need not be set again.
    pub(super) fn encode<'a>(
        &'a self,
        pass: &mut wgpu::ComputePass<'_>,
        bound: &mut Option<&'a wgpu::ComputePipeline>,
    ) {
        for Ready { pipeline, group, late, groups: [x, y, z] } in &self.dispatches {
            if *bound != Some(pipeline) {
                pass.set_pipeline(pipeline);
                *bound = Some(pipeline);
            }
            pass.set_bind_group(0, group, &[]);
            if !late.is_empty() {
                pass.set_immediates(0, bytemuck::cast_slice(late));
            }
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// A graph that is ready to be replayed.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) graph: Arc<Graph>,
    pub(super) steps: Vec<Step>,
    /// The steps of each submit.
    pub(super) submits: Vec<Range<usize>>,
    pub(super) memory: StepMemory,
    /// For a fused graph: where the nodes of the recorded one are in it.
    pub(super) places: Option<Vec<Option<NodeId>>>,
    homes: Vec<Home>,
    kept: Vec<bool>,
    upload: wgpu::Buffer,
    staging: Vec<u8>,
    dirty: Vec<Range<usize>>,
    pools: Vec<wgpu::Buffer>,
    packs: Vec<wgpu::Buffer>,
    /// In guard mode: what lies where in each pool, to know the guards.
    spans: Option<Vec<Vec<Range<u64>>>>,
    /// Where measuring changed the table's choice: the op at its shapes, and the variant.
    pub(super) tuned: BTreeMap<String, &'static str>,
}

impl Compiled {
    pub(super) fn new(
        gpu: &Gpu,
        pipelines: &mut Pipelines,
        options: &Options,
        vars: &Buffers,
        graph: &Arc<Graph>,
        roots: &[NodeId],
    ) -> Result<Self, ExecError> {
        let mut tuned = BTreeMap::new();
        let mut pick = |op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]| match &options.variant {
            Some(wanted) => supported.iter().find(|v| *v == wanted).copied().unwrap_or(PLAIN),
            None => {
                let (variant, changed) = choose(options.tuned.as_deref(), op, cx, supported);
                if changed {
                    tuned.insert(key(op, cx), variant);
                }
                variant
            }
        };
        let schedule = Schedule::new(&gpu.target(), options.guards, &mut pick, graph, roots)?;
        let memory = schedule.memory(graph, &vars.sizes());
        let Schedule { lowered, homes, requests, plan, pack_sizes, upload_bytes, .. } = schedule;
        let upload = storage(gpu, "inputs", upload_bytes)?;
        let pools =
            plan.pools.iter().map(|&b| storage(gpu, "intermediate tensors", b)).collect::<Result<Vec<_>, _>>()?;
        let packs = pack_sizes.iter().map(|&b| storage(gpu, "gradients", b)).collect::<Result<Vec<_>, _>>()?;
        let kept = {
            let mut kept = vec![false; graph.nodes().len()];
            for root in roots {
                kept[root.index()] = true;
            }
            kept
        };
        let mut spans = None;
        let mut staging = vec![0; upload_bytes as usize];
        let mut dirty = Vec::new();
        if options.guards {
            let mut all = vec![Vec::new(); pools.len()];
            for (request, place) in requests.iter().zip(&plan.places) {
                all[place.pool].push(place.offset..place.offset + request.bytes);
            }
            for (pool, spans) in pools.iter().zip(&mut all) {
                spans.sort_by_key(|s| s.start);
                let words = vec![GUARD_WORD; pool.size() as usize / 4];
                gpu.queue.write_buffer(pool, 0, bytemuck::cast_slice(&words));
            }
            spans = Some(all);
            for word in staging.chunks_exact_mut(4) {
                word.copy_from_slice(&GUARD_WORD.to_ne_bytes());
            }
            dirty.push(0..staging.len());
        }
        let mut program = Self {
            graph: Arc::clone(graph),
            steps: Vec::with_capacity(lowered.len()),
            submits: Vec::new(),
            memory,
            places: None,
            homes,
            kept,
            upload,
            staging,
            dirty,
            pools,
            packs,
            spans,
            tuned,
        };
        let mut wanted = Vec::new();
        for l in &lowered {
            for dispatch in &l.lowering.dispatches {
                wanted.push(Wanted { dispatch, writable: writable(&program.slots(vars, l, dispatch, &plan)) });
            }
        }
        let mut ready = pipelines.get(gpu, &wanted)?.into_iter();
        for l in &lowered {
            let step = program.bind(gpu, &mut ready, vars, l, &plan)?;
            program.steps.push(step);
        }
        program.submits = submits(&program.steps);
        Ok(program)
    }

    fn buffer<'a>(&'a self, vars: &'a Buffers, home: Home) -> (&'a wgpu::Buffer, u64) {
        match home {
            Home::Upload { offset } => (&self.upload, offset),
            Home::Var { var, offset } => (vars.get(var).0, offset),
            Home::Planned(place) => (&self.pools[place.pool], place.offset),
            Home::Packed { pack, offset } => (&self.packs[pack], offset),
            Home::Nowhere => unreachable!("a node that is read has a home"),
        }
    }

    /// What the bindings of a dispatch are bound to.
    fn slots<'a>(&'a self, vars: &'a Buffers, l: &Lowered, dispatch: &Dispatch, plan: &Plan) -> Vec<Slot<'a>> {
        let slot = |&arg: &Arg| {
            let (home, bytes, written) = match arg {
                Arg::Input(k) => {
                    let node = l.inputs[k];
                    (self.homes[node.index()], self.graph.spec(node).bytes() as u64, false)
                }
                Arg::Output => match (self.homes[l.output.index()], l.variant) {
                    (Home::Packed { pack, offset }, "copy") => {
                        let offset = offset + 4 * l.scratch as u64;
                        (Home::Packed { pack, offset }, self.graph.spec(l.inputs[0]).bytes() as u64, true)
                    }
                    (home, _) => (home, self.graph.spec(l.output).bytes() as u64, true),
                },
                Arg::Companion => {
                    let node = l.companion.expect("a lowering writes to its companion only where there is one");
                    (self.homes[node.index()], self.graph.spec(node).bytes() as u64, true)
                }
                Arg::State(k) => {
                    let (var, offset, bytes) = l.state[k];
                    (Home::Var { var, offset }, bytes, true)
                }
                Arg::Scratch(k) => {
                    let place = plan.places[l.scratch + k];
                    (Home::Planned(place), 4 * l.lowering.scratch[k] as u64, true)
                }
            };
            let (buffer, offset) = self.buffer(vars, home);
            Slot { buffer, offset, bytes: bytes.max(4), written }
        };
        dispatch.args.iter().map(slot).collect()
    }

    /// The bind groups of a node's dispatches, with their pipelines, which are the next ones that are `ready`.
    fn bind(
        &self,
        gpu: &Gpu,
        ready: &mut impl Iterator<Item = wgpu::ComputePipeline>,
        vars: &Buffers,
        l: &Lowered,
        plan: &Plan,
    ) -> Result<Step, ExecError> {
        let mut dispatches = Vec::with_capacity(l.lowering.dispatches.len());
        for (dispatch, pipeline) in l.lowering.dispatches.iter().zip(ready) {
            let slots = self.slots(vars, l, dispatch, plan);
            let entries: Vec<wgpu::BindGroupEntry<'_>> = slots
                .iter()
                .enumerate()
                .map(|(i, slot)| wgpu::BindGroupEntry {
                    binding: i as u32,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: slot.buffer,
                        offset: slot.offset,
                        size: std::num::NonZeroU64::new(slot.bytes),
                    }),
                })
                .collect();
            let group = gpu.guarded(&self.graph.describe(l.node), || {
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.get_bind_group_layout(0),
                    entries: &entries,
                })
            })?;
            let late = if gpu.immediates() { dispatch.late() } else { Vec::new() };
            dispatches.push(Ready { pipeline, group, late, groups: dispatch.groups });
        }
        Ok(Step { node: l.node, variant: l.variant, flops: l.flops, dispatches })
    }

    /// Where a recorded node is in the graph that runs.
    pub(super) fn place(&self, node: NodeId) -> Option<NodeId> {
        match &self.places {
            None => Some(node),
            Some(places) => places.get(node.index()).copied().flatten(),
        }
    }

    /// Notes an input for the next run.
    pub(super) fn set(&mut self, input: NodeId, value: &Tensor) -> Result<(), ExecError> {
        let Some(input) = self.place(input) else { return Ok(()) };
        let expected = self.graph.spec(input);
        if *expected != value.spec() {
            let node = self.graph.describe(input);
            return Err(ExecError::Input { node, expected: expected.clone(), got: value.spec() });
        }
        // An input that nothing reads has no memory.
        if let Home::Upload { offset } = self.homes[input.index()] {
            let words = words_of(value);
            let start = offset as usize;
            self.staging[start..start + words.len()].copy_from_slice(&words);
            self.dirty.push(start..start + words.len());
        }
        Ok(())
    }

    /// Writes what changed since the last run.
    pub(super) fn upload(&mut self, gpu: &Gpu) {
        self.dirty.sort_by_key(|r| r.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for range in self.dirty.drain(..) {
            match merged.last_mut() {
                // Neighbours are written at once: a write costs more than the bytes between them.
                Some(last) if range.start <= last.end + 4096 => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        for range in merged {
            gpu.queue.write_buffer(&self.upload, range.start as u64, &self.staging[range]);
        }
    }

    pub(super) fn read(&self, gpu: &Gpu, vars: &Buffers, node: NodeId) -> Result<Tensor, ExecError> {
        let node = self.place(node).ok_or_else(|| ExecError::NotKept("a node inside a fused kernel".to_owned()))?;
        let home = self.homes[node.index()];
        let stays = !matches!(home, Home::Planned(_) | Home::Nowhere);
        if !self.kept[node.index()] && !stays || home == Home::Nowhere {
            return Err(ExecError::NotKept(self.graph.describe(node)));
        }
        let spec = self.graph.spec(node);
        let (buffer, offset) = self.buffer(vars, home);
        let bytes = bytes_of(gpu, buffer, offset, spec.bytes() as u64)?;
        Ok(tensor_of(spec, &bytes))
    }

    pub(super) fn check_guards(&self, gpu: &Gpu) -> Result<(), String> {
        let Some(spans) = &self.spans else { return Ok(()) };
        for (pool, spans) in self.pools.iter().zip(spans) {
            let bytes = bytes_of(gpu, pool, 0, pool.size()).map_err(|e| e.to_string())?;
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
            let mut next = spans.iter().peekable();
            for (i, &word) in words.iter().enumerate() {
                let at = 4 * i as u64;
                while next.peek().is_some_and(|s| s.end <= at) {
                    next.next();
                }
                if next.peek().is_none_or(|s| at < s.start) && word != GUARD_WORD {
                    let before = spans.iter().rev().find(|s| s.end <= at);
                    return Err(format!(
                        "a kernel wrote outside its tensor: word {word:#x} at byte {at}, after {before:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The steps of each submit.
fn submits(steps: &[Step]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let (mut start, mut flops) = (0, 0);
    for (i, step) in steps.iter().enumerate() {
        flops += step.flops;
        if flops >= SUBMIT_FLOPS || i + 1 - start == SUBMIT_NODES || i + 1 == steps.len() {
            all.push(start..i + 1);
            (start, flops) = (i + 1, 0);
        }
    }
    all
}

/// A buffer that is written in a dispatch is bound for writing everywhere in it.
fn writable(slots: &[Slot<'_>]) -> Vec<bool> {
    slots.iter().map(|s| slots.iter().any(|t| t.buffer == s.buffer && t.written)).collect()
}
