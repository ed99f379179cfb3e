//! From a graph to dispatches: kernels chosen and specialised, memory planned, submits divided; values in and out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::bind::{LateValues, access, overlapping};
use super::device::Gpu;
use super::encode::Ready;
use super::executor::Options;
use super::lower::Late;
use super::memory::{Buffers, ReadBack, bytes_of, storage, tensor_of, words_of};
use super::pipelines::{Pipelines, Wanted, format};
use super::schedule::{Home, Schedule, StepMemory, TextureSlot};
use super::submits;
use super::tuned::{choose, key};
use crate::exec::ExecError;
use crate::graph::{Graph, NodeId};
use crate::ops::{LowerCx, Op, PLAIN};
use crate::shape::Spec;
use crate::tensor::Tensor;

/// Nodes whose timestamps fit into a query set.
const MOST_NODES: usize = 2048;

/// The NaN that guards are filled with; a kernel that computes NaN makes another one.
const GUARD_WORD: u32 = 0x7fc0_dead;

/// What of a program is done for one node.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) node: NodeId,
    pub(super) variant: &'static str,
    /// Its dispatches.
    pub(super) dispatches: Range<usize>,
}

/// A graph that is ready to be replayed.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) graph: Arc<Graph>,
    pub(super) steps: Vec<Step>,
    pub(super) dispatches: Vec<Ready>,
    /// The dispatches of each submit.
    pub(super) submits: Vec<Range<usize>>,
    /// Whether all of it has run since anything was compiled, so that times tell of the device and not of its compiler.
    pub(super) warm: bool,
    pub(super) memory: StepMemory,
    /// For a fused graph: where the nodes of the recorded one are in it.
    pub(super) places: Option<Vec<Option<NodeId>>>,
    pub(super) homes: Vec<Home>,
    kept: Vec<bool>,
    upload: wgpu::Buffer,
    staging: Vec<u8>,
    dirty: Vec<Range<usize>>,
    pools: Vec<wgpu::Buffer>,
    packs: Vec<wgpu::Buffer>,
    pub(super) textures: Vec<(TextureSlot, wgpu::Texture)>,
    /// Where inputs are copied to that may not be read where they lie.
    pub(super) aside: Option<wgpu::Buffer>,
    /// Sizes that shaders read, where there is no immediate data.
    pub(super) late: Option<LateValues>,
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
        let Schedule { lowered, homes, requests, plan, pack_sizes, upload_bytes, textures, .. } = schedule;
        let upload = storage(gpu, "inputs", upload_bytes)?;
        let pools = (0..)
            .zip(&plan.pools)
            .map(|(pool, &bytes)| storage(gpu, &tensors_of(graph, &homes, pool), bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let packs = pack_sizes.iter().map(|&b| storage(gpu, "gradients", b)).collect::<Result<Vec<_>, _>>()?;
        let textures =
            textures.into_iter().map(|slot| Ok((slot, texture(gpu, &slot)?))).collect::<Result<Vec<_>, ExecError>>()?;
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
            dispatches: Vec::new(),
            submits: Vec::new(),
            warm: false,
            memory,
            places: None,
            homes,
            kept,
            upload,
            staging,
            dirty,
            pools,
            packs,
            textures,
            aside: None,
            late: None,
            spans,
            tuned,
        };
        let each = || lowered.iter().flat_map(|l| l.lowering.dispatches.iter().map(move |d| (l, d)));
        if options.apart || !gpu.immediates() {
            program.late = LateValues::new(gpu, each().map(|(_, dispatch)| dispatch))?;
        }
        if options.apart || cfg!(target_arch = "wasm32") {
            let bytes = |(l, d)| overlapping(&program.slots(vars, l, d, &plan)).1;
            if let Some(bytes) = each().map(bytes).max().filter(|&bytes| bytes > 0) {
                program.aside = Some(storage(gpu, "inputs read twice", bytes)?);
            }
        }
        let mut wanted = Vec::new();
        for (l, dispatch) in each() {
            let (slots, _) = program.apart(program.slots(vars, l, dispatch, &plan));
            wanted.push(Wanted { dispatch, access: access(&slots), node: graph.describe(l.node) });
        }
        let mut ready = pipelines.get(gpu, &wanted)?.into_iter();
        let mut work = Vec::with_capacity(wanted.len());
        for l in &lowered {
            let bound = program.bind(gpu, &mut ready, vars, l, &plan)?;
            work.extend(bound.iter().map(|_| l.flops / bound.len() as u64));
            let first = program.dispatches.len();
            program.dispatches.extend(bound);
            let dispatches = first..program.dispatches.len();
            program.steps.push(Step { node: l.node, variant: l.variant, dispatches });
        }
        program.submits = submits::first(&work, gpu.kind);
        Ok(program)
    }

    pub(super) fn buffer<'a>(&'a self, vars: &'a Buffers, home: Home) -> (&'a wgpu::Buffer, u64) {
        match home {
            Home::Upload { offset } => (&self.upload, offset),
            Home::Var { var, offset } => (vars.get(var).0, offset),
            Home::Planned(place) => (&self.pools[place.pool], place.offset),
            Home::Packed { pack, offset } => (&self.packs[pack], offset),
            Home::Nowhere => unreachable!("a node that is read has a home"),
        }
    }

    /// What messages call some dispatches: their node, or the first and the last one.
    pub(super) fn name(&self, dispatches: &Range<usize>) -> String {
        let of = |i: usize| self.steps.iter().find(|step| step.dispatches.contains(&i));
        match (of(dispatches.start), of(dispatches.end.saturating_sub(1))) {
            (Some(first), Some(last)) if first.node == last.node => self.graph.describe(first.node),
            (Some(first), Some(last)) => {
                format!("{} to {}", self.graph.describe(first.node), self.graph.describe(last.node))
            }
            _ => "an empty program".to_owned(),
        }
    }

    /// Whether anything is copied for a step, which no compute pass can do.
    pub(super) fn copies(&self, step: &Step) -> bool {
        self.dispatches[step.dispatches.clone()].iter().any(|d| !d.copies.is_empty())
    }

    /// The steps in runs for which a query set holds the timestamps, and which do not take much longer than a submit.
    pub(super) fn profiled_runs(&self) -> Vec<Range<usize>> {
        let (mut all, mut start) = (Vec::new(), 0);
        for (i, step) in self.steps.iter().enumerate() {
            let closes = |submit: &Range<usize>| step.dispatches.contains(&(submit.end - 1));
            if self.submits.iter().any(closes) || i + 1 - start == MOST_NODES || i + 1 == self.steps.len() {
                all.push(start..i + 1);
                start = i + 1;
            }
        }
        all
    }

    /// A submit took at least `time`, which is longer than `limit`: it is divided, and where it is one dispatch, that is.
    pub(super) fn took(
        &mut self,
        gpu: &Gpu,
        pipelines: &mut Pipelines,
        submit: &Range<usize>,
        (time, limit): (Duration, Duration),
    ) -> Result<(), ExecError> {
        // What was sent before the last division is none any more.
        let Some(i) = self.submits.iter().position(|s| s == submit) else { return Ok(()) };
        let parts = submits::parts(time, limit);
        if submit.len() == 1 && !self.part(gpu, pipelines, submit.start, parts)? {
            return Ok(());
        }
        // A dispatch that was parted has become several.
        submits::divide(&mut self.submits, i, parts);
        Ok(())
    }

    /// Does a dispatch in several parts, the last submit of which its submit then is; `false` where it cannot be parted.
    fn part(&mut self, gpu: &Gpu, pipelines: &mut Pipelines, at: usize, parts: usize) -> Result<bool, ExecError> {
        let Some((dispatch, access)) = self.dispatches[at].source.take().map(|source| *source) else {
            return Ok(false);
        };
        let cut = submits::cut(self.dispatches[at].groups, parts);
        let Some(moved) = dispatch.movable().filter(|_| cut.len() > 1) else { return Ok(false) };
        let wanted = Wanted { dispatch: &moved, access: access.clone(), node: self.name(&(at..at + 1)) };
        let Some(pipeline) = pipelines.get(gpu, &[wanted])?.pop() else { return Ok(false) };
        let whole = &self.dispatches[at];
        let made: Vec<Ready> = (0..)
            .zip(&cut)
            .map(|(i, part)| {
                let first = [0, 1, 2].map(|axis| whole.first[axis] + part.first[axis]);
                Ready {
                    copies: if i == 0 { whole.copies.clone() } else { Vec::new() },
                    pipeline: pipeline.clone(),
                    group: whole.group.clone(),
                    late: [&dispatch.late(Late::Immediate)[..], &first[..]].concat(),
                    first,
                    groups: part.groups,
                    source: Some(Box::new((dispatch.clone(), access.clone()))),
                }
            })
            .collect();
        self.dispatches.splice(at..=at, made);
        let more = cut.len() - 1;
        let shift = |range: &mut Range<usize>| {
            range.start += if range.start > at { more } else { 0 };
            range.end += if range.end > at { more } else { 0 };
        };
        self.steps.iter_mut().for_each(|step| shift(&mut step.dispatches));
        self.submits.iter_mut().for_each(shift);
        self.warm = false;
        Ok(true)
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

    pub(super) fn read(&self, gpu: &Gpu, vars: &Buffers, node: NodeId, limit: Duration) -> Result<Tensor, ExecError> {
        let (wanted, spec) = self.place_of(vars, node, limit)?;
        Ok(tensor_of(spec, &bytes_of(gpu, wanted)?))
    }

    /// Where a recorded node's value lies, to be read within `limit`.
    pub(super) fn place_of<'a>(
        &'a self,
        vars: &'a Buffers,
        node: NodeId,
        limit: Duration,
    ) -> Result<(ReadBack<'a>, &'a Spec), ExecError> {
        let node = self.place(node).ok_or_else(|| ExecError::NotKept("a node inside a fused kernel".to_owned()))?;
        let home = self.homes[node.index()];
        let stays = !matches!(home, Home::Planned(_) | Home::Nowhere);
        if !self.kept[node.index()] && !stays || home == Home::Nowhere {
            return Err(ExecError::NotKept(self.graph.describe(node)));
        }
        let (buffer, offset) = self.buffer(vars, home);
        let (spec, name) = (self.graph.spec(node), self.graph.describe(node));
        Ok((ReadBack { buffer, offset, bytes: spec.bytes() as u64, name, limit }, spec))
    }

    pub(super) fn check_guards(&self, gpu: &Gpu, limit: Duration) -> Result<(), String> {
        let Some(spans) = &self.spans else { return Ok(()) };
        for (pool, spans) in self.pools.iter().zip(spans) {
            let name = "the guards".to_owned();
            let wanted = ReadBack { buffer: pool, offset: 0, bytes: pool.size(), name, limit };
            let bytes = bytes_of(gpu, wanted).map_err(|e| e.to_string())?;
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

// As of the variables' buffers.
#[cfg(target_arch = "wasm32")]
impl Drop for Compiled {
    fn drop(&mut self) {
        let buffers = self.pools.iter().chain(&self.packs).chain(&self.aside).chain([&self.upload]);
        buffers.for_each(wgpu::Buffer::destroy);
        self.late.iter().for_each(LateValues::destroy);
    }
}

/// What messages call a buffer of intermediate tensors: by the largest of them.
fn tensors_of(graph: &Graph, homes: &[Home], pool: usize) -> String {
    let here = |id: &NodeId| matches!(homes[id.index()], Home::Planned(place) if place.pool == pool);
    match graph.ids().filter(here).max_by_key(|&id| graph.spec(id).bytes()) {
        Some(id) => format!("intermediate tensors, {} {} the largest of them", graph.describe(id), graph.spec(id)),
        None => "intermediate tensors".to_owned(),
    }
}

fn texture(gpu: &Gpu, slot: &TextureSlot) -> Result<wgpu::Texture, ExecError> {
    gpu.guarded("a texture", || {
        gpu.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("windows of tensors"),
            size: wgpu::Extent3d { width: slot.width as u32, height: slot.rows as u32, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: format(slot.texel),
            usage: wgpu::TextureUsages::COPY_DST | wgpu::TextureUsages::STORAGE_BINDING,
            view_formats: &[],
        })
    })
}
