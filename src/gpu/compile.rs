//! From a graph to dispatches: kernels chosen and specialised, memory planned, bind groups built.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::device::Gpu;
use super::executor::Options;
use super::lower::{Arg, Dispatch, Lowering};
use super::memory::{Buffers, bytes_of, storage, tensor_of, words_of};
use super::pipelines::{Pipelines, Wanted};
use super::plan::{ALIGN, Place, Plan, Request, lower_bound};
use super::tuned::{choose, key};
use crate::exec::ExecError;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::shape::Spec;
use crate::store::VarId;
use crate::tensor::Tensor;

/// Bytes of NaN on each side of a tensor in guard mode.
const GUARD: u64 = 256;
/// The NaN that guards are filled with; a kernel that computes NaN makes another one.
const GUARD_WORD: u32 = 0x7fc0_dead;

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

impl Step {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for Ready { pipeline, group, late, groups: [x, y, z] } in &self.dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            if !late.is_empty() {
                pass.set_immediates(0, bytemuck::cast_slice(late));
            }
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// Where a node's value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// Nothing reads it.
    Nowhere,
    /// In the upload buffer.
    Upload { offset: u64 },
    /// In a persistent variable.
    Var { var: VarId, offset: u64 },
    /// In planned memory.
    Planned(Place),
    /// In the memory of a pack.
    Packed { pack: usize, offset: u64 },
}

/// What a binding is bound to.
struct Slot<'a> {
    buffer: &'a wgpu::Buffer,
    offset: u64,
    bytes: u64,
    written: bool,
}

/// A graph that is ready to be replayed.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) graph: Arc<Graph>,
    pub(super) steps: Vec<Step>,
    pub(super) bytes: u64,
    pub(super) lower_bound: u64,
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

/// A lowered node before memory is known.
struct Lowered {
    node: NodeId,
    variant: &'static str,
    flops: u64,
    lowering: Lowering,
    inputs: Vec<NodeId>,
    output: NodeId,
    state: Vec<(VarId, u64, u64)>,
    companion: Option<NodeId>,
    /// First of its scratch buffers among the requests.
    scratch: usize,
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
        let live = graph.live(roots);
        let order: Vec<NodeId> = graph.ids().filter(|id| live[id.index()]).collect();
        let owner = owners(graph);
        check_limits(gpu, graph, &order)?;

        // Packs: their inputs are computed in place where nothing else decides about their memory.
        let mut homes = vec![Home::Nowhere; graph.nodes().len()];
        let mut pack_sizes = Vec::new();
        let mut copies: HashMap<NodeId, Vec<(NodeId, usize)>> = HashMap::new();
        for &id in &order {
            let node = graph.node(id);
            let Some(offsets) = node.op().and_then(|op| op.packs()) else { continue };
            let pack = pack_sizes.len();
            pack_sizes.push(node.spec.bytes() as u64);
            homes[id.index()] = Home::Packed { pack, offset: 0 };
            for (&input, &at) in node.inputs().iter().zip(offsets) {
                let source = owner[input.index()];
                let computed = graph.node(source).op().is_some();
                if computed && homes[source.index()] == Home::Nowhere {
                    homes[source.index()] = Home::Packed { pack, offset: 4 * at as u64 };
                } else {
                    copies.entry(id).or_default().push((input, at));
                }
            }
        }

        let companions: HashMap<NodeId, NodeId> = order
            .iter()
            .filter(|id| graph.node(**id).op().is_some_and(|op| op.companion()))
            .map(|&id| (graph.node(id).inputs()[0], id))
            .collect();

        // Lower every node, and collect what memory is asked for.
        let mut tuned = BTreeMap::new();
        let mut lowered: Vec<Lowered> = Vec::new();
        let mut requests: Vec<Request> = Vec::new();
        let mut request_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        for &id in &order {
            let node = graph.node(id);
            let Source::Op { op, inputs } = &node.source else { continue };
            if op.is_view() || op.companion() {
                continue;
            }
            let step = lowered.len();
            for input in inputs {
                if let Some(r) = request_of[owner[input.index()].index()] {
                    requests[r].death = step;
                }
            }
            if homes[id.index()] == Home::Nowhere {
                request_of[id.index()] = Some(requests.len());
                let bytes = node.spec.bytes().max(4) as u64;
                requests.push(Request { bytes, birth: step, death: step });
            }
            if let Some(&companion) = companions.get(&id) {
                request_of[companion.index()] = Some(requests.len());
                let bytes = graph.spec(companion).bytes().max(4) as u64;
                requests.push(Request { bytes, birth: step, death: step });
            }
            if op.packs().is_some() {
                for (input, at) in copies.remove(&id).unwrap_or_default() {
                    let count = graph.spec(input).numel();
                    let args = vec![Arg::Input(0), Arg::Output];
                    let d = Dispatch::elementwise("copy.wgsl", "forward", count, args, Vec::new());
                    let lowering = Lowering { dispatches: vec![d], scratch: Vec::new() };
                    // The copy's output is a range of the pack: `scratch` holds where it begins, in elements.
                    let scratch = at;
                    if let Some(r) = request_of[owner[input.index()].index()] {
                        requests[r].death = lowered.len();
                    }
                    lowered.push(Lowered {
                        node: id,
                        variant: "copy",
                        flops: 0,
                        lowering,
                        inputs: vec![input],
                        output: id,
                        state: Vec::new(),
                        companion: None,
                        scratch,
                    });
                }
                continue;
            }
            let specs: Vec<&Spec> = inputs.iter().map(|&i| graph.spec(i)).collect();
            let mut cx = LowerCx {
                inputs: &specs,
                output: &node.spec,
                adapter: gpu.kind,
                subgroup: gpu.subgroup,
                companion: companions.contains_key(&id),
                variant: PLAIN,
            };
            let supported = gpu.supported(op.as_ref(), &cx);
            let variant = match &options.variant {
                Some(wanted) => supported.iter().find(|v| *v == wanted).copied().unwrap_or(PLAIN),
                None => {
                    let (variant, changed) = choose(options.tuned.as_deref(), op.as_ref(), &cx, &supported);
                    if changed {
                        tuned.insert(key(op.as_ref(), &cx), variant);
                    }
                    variant
                }
            };
            cx.variant = variant;
            let lowering = op.lower(&cx);
            if lowering.dispatches.is_empty() && node.spec.numel() > 0 {
                let what = format!("{} has no kernel {variant} for its shapes", graph.describe(id));
                return Err(ExecError::Device(what));
            }
            let scratch = requests.len();
            for &words in &lowering.scratch {
                let bytes = 4 * words.max(1) as u64;
                limit(gpu, || format!("scratch of {}", graph.describe(id)), bytes)?;
                requests.push(Request { bytes, birth: step, death: step });
            }
            let state = op.updates().iter().map(|u| (u.var, 4 * u.offset as u64, u.spec.bytes() as u64)).collect();
            let flops = op.flops(&specs, &node.spec);
            lowered.push(Lowered {
                node: id,
                variant,
                flops,
                lowering,
                inputs: inputs.clone(),
                output: id,
                state,
                companion: companions.get(&id).copied(),
                scratch,
            });
        }
        for root in roots {
            if let Some(r) = request_of[owner[root.index()].index()] {
                requests[r].death = usize::MAX - 1;
            }
        }
        let guard = options.guards.then_some(GUARD);
        let plan = Plan::new(&requests, gpu.summary.max_buffer_bytes, guard);
        for id in graph.ids() {
            if let Some(r) = request_of[id.index()] {
                homes[id.index()] = Home::Planned(plan.places[r]);
            }
        }

        // Inputs lie one after the other in the upload buffer, which a step writes at once.
        let mut upload_bytes = 0;
        for &id in &order {
            match &graph.node(id).source {
                Source::Input => {
                    homes[id.index()] = Home::Upload { offset: upload_bytes };
                    let bytes = graph.spec(id).bytes().max(4) as u64 + guard.unwrap_or(0);
                    upload_bytes += bytes.next_multiple_of(ALIGN);
                }
                Source::Var(view) => {
                    homes[id.index()] = Home::Var { var: view.var, offset: 4 * view.offset as u64 };
                }
                Source::Op { .. } => {}
            }
        }
        for &id in &order {
            homes[id.index()] = homes[owner[id.index()].index()];
        }

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
        let gradients: u64 = pack_sizes.iter().sum();
        let mut program = Self {
            graph: Arc::clone(graph),
            steps: Vec::with_capacity(lowered.len()),
            bytes: plan.total() + gradients + upload_bytes,
            lower_bound: lower_bound(&requests) + gradients + upload_bytes,
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

impl Gpu {
    /// The kernel variants that support these shapes on this adapter, the plain one first. A kernel whose scratch the adapter
    /// cannot bind does not; the plain ones need little.
    pub(crate) fn supported(&self, op: &dyn Op, cx: &LowerCx<'_>) -> Vec<&'static str> {
        let mut supported = op.variants(cx);
        supported.retain(|&variant| {
            let fits = |&words: &usize| 4 * words as u64 <= self.max_tensor_bytes();
            variant == PLAIN || op.lower(&LowerCx { variant, ..cx.clone() }).scratch.iter().all(fits)
        });
        supported
    }
}

/// A buffer that is written in a dispatch is bound for writing everywhere in it.
fn writable(slots: &[Slot<'_>]) -> Vec<bool> {
    slots.iter().map(|s| slots.iter().any(|t| t.buffer == s.buffer && t.written)).collect()
}

/// Which node owns the memory of a node: itself, or what it is a view of.
fn owners(graph: &Graph) -> Vec<NodeId> {
    let mut owner: Vec<NodeId> = graph.ids().collect();
    for id in graph.ids() {
        let node = graph.node(id);
        if node.op().is_some_and(|op| op.is_view()) {
            owner[id.index()] = owner[node.inputs()[0].index()];
        }
    }
    owner
}

fn limit(gpu: &Gpu, tensor: impl FnOnce() -> String, bytes: u64) -> Result<(), ExecError> {
    let limit = gpu.max_tensor_bytes();
    if bytes > limit { Err(ExecError::TooLarge { tensor: tensor(), bytes, limit }) } else { Ok(()) }
}

fn check_limits(gpu: &Gpu, graph: &Graph, order: &[NodeId]) -> Result<(), ExecError> {
    for &id in order {
        let spec = graph.spec(id);
        limit(gpu, || format!("{} {spec}", graph.describe(id)), spec.bytes() as u64)?;
    }
    Ok(())
}
