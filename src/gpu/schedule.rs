//! The part of compiling that needs no device: what runs, by which kernels, and where every tensor lies.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::lower::{AdapterKind, Arg, Dispatch, Lowering, Texel, Texture};
use super::plan::{ALIGN, Place, Plan, Request, lower_bound};
use crate::exec::ExecError;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::shape::Spec;
use crate::store::{ParamStore, VarId};

/// Bytes of NaN on each side of a tensor in guard mode.
pub(super) const GUARD: u64 = 256;

/// Takes one of the variants that support an op's shapes.
pub type Pick<'a> = dyn FnMut(&dyn Op, &LowerCx<'_>, &[&'static str]) -> &'static str + 'a;

/// What of an adapter decides about kernels and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What kernels are chosen for.
    pub kind: AdapterKind,
    /// Invocations of a subgroup, where all have the same size and kernels may ask for them.
    pub subgroup: Option<u32>,
    /// Largest single tensor in bytes.
    pub max_tensor_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
}

impl Target {
    /// An adapter of that kind whose limits nothing reaches.
    #[must_use]
    pub fn unlimited(kind: AdapterKind) -> Self {
        Self { kind, subgroup: None, max_tensor_bytes: u64::MAX, max_buffer_bytes: u64::MAX }
    }

    /// The kernel variants that support these shapes, the plain one first. One whose scratch the adapter cannot bind does not;
    /// the plain ones need little.
    pub(crate) fn supported(&self, op: &dyn Op, cx: &LowerCx<'_>) -> Vec<&'static str> {
        let fits = |&words: &usize| 4 * words as u64 <= self.max_tensor_bytes;
        let mut supported = op.variants(cx);
        supported.retain(|&variant| {
            variant == PLAIN || op.lower(&LowerCx { variant, ..cx.clone() }).scratch.iter().all(fits)
        });
        supported
    }
}

/// A texture that all dispatches share whose `order`-th texture has such texels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextureSlot {
    order: usize,
    pub(super) texel: Texel,
    pub(super) width: usize,
    pub(super) rows: usize,
}

impl TextureSlot {
    fn bytes(&self) -> u64 {
        4 * (self.texel.numbers() * self.width * self.rows) as u64
    }

    /// Whether it serves as the `order`-th texture of a dispatch.
    pub(super) fn serves(&self, order: usize, texture: &Texture) -> bool {
        self.order == order && self.texel == texture.texel
    }
}

/// The textures that some dispatches need, each as large as the largest window that is copied into it.
fn texture_slots<'a>(dispatches: impl Iterator<Item = &'a Dispatch>) -> Vec<TextureSlot> {
    let mut slots: Vec<TextureSlot> = Vec::new();
    for (order, (_, t)) in dispatches.flat_map(|d| d.textures().enumerate()) {
        let width = t.width.min(t.texels);
        match slots.iter_mut().find(|slot| slot.serves(order, t)) {
            Some(slot) => (slot.width, slot.rows) = (slot.width.max(width), slot.rows.max(t.rows())),
            None => slots.push(TextureSlot { order, texel: t.texel, width, rows: t.rows() }),
        }
    }
    slots
}

/// Where a node's value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
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

/// A lowered node before memory is known.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) node: NodeId,
    pub(super) variant: &'static str,
    pub(super) flops: u64,
    pub(super) lowering: Lowering,
    pub(super) inputs: Vec<NodeId>,
    pub(super) output: NodeId,
    pub(super) state: Vec<(VarId, u64, u64)>,
    pub(super) companion: Option<NodeId>,
    /// First of its scratch buffers among the requests.
    pub(super) scratch: usize,
}

/// Device memory of a program in bytes.
///
/// The images, their labels and the log lie on the device too, but are data of the run and not of a step; they are `data` here
/// and part of neither sum. What the driver takes beside is not known to any program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepMemory {
    /// Trainable parameters and running statistics.
    pub parameters: u64,
    /// The optimizer's state.
    pub moments: u64,
    /// The gradient of all parameters.
    pub gradients: u64,
    /// What the host writes before each step.
    pub inputs: u64,
    /// The buffers of intermediate tensors and of the kernels' scratch, as planned.
    pub planned: u64,
    /// The textures into which kernels have windows of tensors copied.
    pub textures: u64,
    /// The largest sum of intermediate tensors and scratch alive in one step: no placement can need less than that.
    pub placed_at_least: u64,
    /// The largest sum of intermediate tensors alive in one step; scratch, which another kernel may not need, left out.
    pub tensors_at_least: u64,
    /// `parameters + moments + gradients + inputs + planned + textures`.
    pub peak: u64,
    /// `parameters + moments + gradients + inputs + tensors_at_least`.
    pub lower_bound: u64,
    /// `peak / lower_bound`.
    pub ratio: f64,
    /// All other variables: images, labels, log.
    pub data: u64,
}

/// A buffer of a program.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// One that tensors share.
    Planned(usize),
    /// A pack's own.
    Packed(usize),
}

/// Where something that a program computes lies. Tests hold these against lifetimes that they work out themselves.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whose value it is, or whose kernel's scratch.
    pub node: NodeId,
    /// Which scratch buffer of that kernel.
    pub scratch: Option<usize>,
    /// In which buffer.
    pub memory: Memory,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A graph with its kernels chosen and its memory planned.
#[derive(Debug)]
pub struct Schedule {
    pub(super) lowered: Vec<Lowered>,
    pub(super) homes: Vec<Home>,
    pub(super) requests: Vec<Request>,
    pub(super) plan: Plan,
    pub(super) pack_sizes: Vec<u64>,
    pub(super) upload_bytes: u64,
    pub(super) textures: Vec<TextureSlot>,
    /// The requests that are tensors of the graph; the others are scratch of one kernel.
    tensors: Vec<Request>,
}

impl Schedule {
    /// Chooses kernels and plans the memory of all that `roots` and updates need. `pick` takes one of the variants that support an
    /// op's shapes, as [`choose`](super::choice::choose) does; with `guards`, no memory is shared.
    ///
    /// # Errors
    /// A tensor is larger than the adapter can bind.
    pub fn new(
        target: &Target,
        guards: bool,
        pick: &mut Pick<'_>,
        graph: &Arc<Graph>,
        roots: &[NodeId],
    ) -> Result<Self, ExecError> {
        let live = graph.live(roots);
        let order: Vec<NodeId> = graph.ids().filter(|id| live[id.index()]).collect();
        let owner = owners(graph);
        check_limits(target, graph, &order)?;

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
                adapter: target.kind,
                subgroup: target.subgroup,
                companion: companions.contains_key(&id),
                variant: PLAIN,
            };
            let variant = pick(op.as_ref(), &cx, &target.supported(op.as_ref(), &cx));
            cx.variant = variant;
            let lowering = op.lower(&cx);
            if lowering.dispatches.is_empty() && node.spec.numel() > 0 {
                let what = format!("{} has no kernel {variant} for its shapes", graph.describe(id));
                return Err(ExecError::Device(what));
            }
            let scratch = requests.len();
            for &words in &lowering.scratch {
                let bytes = 4 * words.max(1) as u64;
                limit(target, || format!("scratch of {}", graph.describe(id)), bytes)?;
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
        let guard = guards.then_some(GUARD);
        let plan = Plan::new(&requests, target.max_buffer_bytes, guard);
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

        let tensors = request_of.iter().flatten().map(|&r| requests[r].clone()).collect();
        let textures = texture_slots(lowered.iter().flat_map(|l| &l.lowering.dispatches));
        Ok(Self { lowered, homes, requests, plan, pack_sizes, upload_bytes, textures, tensors })
    }

    /// The variant that was chosen for each node that runs.
    #[must_use]
    pub fn variants(&self) -> Vec<(NodeId, &'static str)> {
        self.lowered.iter().map(|l| (l.node, l.variant)).collect()
    }

    /// Where each computed value, views left out, and each kernel's scratch lies.
    #[doc(hidden)]
    #[must_use]
    pub fn regions(&self, graph: &Graph) -> Vec<Region> {
        let value = |id: NodeId| {
            let (memory, offset) = match self.homes[id.index()] {
                Home::Planned(place) => (Memory::Planned(place.pool), place.offset),
                Home::Packed { pack, offset } => (Memory::Packed(pack), offset),
                Home::Nowhere | Home::Upload { .. } | Home::Var { .. } => return None,
            };
            let view = graph.node(id).op().is_some_and(|op| op.is_view());
            let bytes = graph.spec(id).bytes() as u64;
            (!view).then_some(Region { node: id, scratch: None, memory, offset, bytes })
        };
        let scratch = self.lowered.iter().flat_map(|l| {
            l.lowering.scratch.iter().enumerate().map(|(k, &words)| {
                let place = self.plan.places[l.scratch + k];
                let memory = Memory::Planned(place.pool);
                Region { node: l.node, scratch: Some(k), memory, offset: place.offset, bytes: 4 * words as u64 }
            })
        });
        graph.ids().filter_map(value).chain(scratch).collect()
    }

    /// Length of a buffer.
    #[doc(hidden)]
    #[must_use]
    pub fn buffer_bytes(&self, memory: Memory) -> u64 {
        match memory {
            Memory::Planned(pool) => self.plan.pools[pool],
            Memory::Packed(pack) => self.pack_sizes[pack],
        }
    }

    /// Its memory; `vars` are the bytes of each variable, in the order of their store.
    #[must_use]
    pub fn memory(&self, graph: &Graph, vars: &[u64]) -> StepMemory {
        let shared = [ParamStore::TRAINABLE, ParamStore::BUFFERS];
        let mut moments: Vec<VarId> = graph
            .nodes()
            .iter()
            .filter_map(|n| n.op().filter(|op| op.name() == "optimizer_step"))
            .flat_map(|op| op.updates())
            .map(|u| u.var)
            .filter(|var| !shared.contains(var))
            .collect();
        moments.sort_unstable();
        moments.dedup();
        let of = |var: &VarId| vars.get(var.index()).copied().unwrap_or(0);
        let (parameters, moments) = (shared.iter().map(of).sum(), moments.iter().map(of).sum());
        let (gradients, inputs, planned) = (self.pack_sizes.iter().sum(), self.upload_bytes, self.plan.total());
        let textures = self.textures.iter().map(TextureSlot::bytes).sum();
        let tensors_at_least = lower_bound(&self.tensors);
        let stays: u64 = parameters + moments + gradients + inputs;
        let (peak, least) = (stays + planned + textures, stays + tensors_at_least);
        StepMemory {
            parameters,
            moments,
            gradients,
            inputs,
            planned,
            textures,
            placed_at_least: lower_bound(&self.requests),
            tensors_at_least,
            peak,
            lower_bound: least,
            ratio: if least > 0 { peak as f64 / least as f64 } else { 1.0 },
            data: vars.iter().sum::<u64>() - parameters - moments,
        }
    }
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

fn limit(target: &Target, tensor: impl FnOnce() -> String, bytes: u64) -> Result<(), ExecError> {
    let limit = target.max_tensor_bytes;
    if bytes > limit { Err(ExecError::TooLarge { tensor: tensor(), bytes, limit }) } else { Ok(()) }
}

fn check_limits(target: &Target, graph: &Graph, order: &[NodeId]) -> Result<(), ExecError> {
    for &id in order {
        let spec = graph.spec(id);
        limit(target, || format!("{} {spec}", graph.describe(id)), spec.bytes() as u64)?;
    }
    Ok(())
}
