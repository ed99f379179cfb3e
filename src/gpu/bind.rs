//! What the bindings of a program's dispatches are bound to: buffers, textures, and copies where a binding may not lie where its
//! tensor does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::compile::Compiled;
use super::device::Gpu;
use super::encode::{Copy, Ready};
use super::lower::{Arg, Dispatch, Held, Late, Texture};
use super::memory::Buffers;
use super::pipelines::Access;
use super::plan::{ALIGN, Plan};
use super::schedule::{Home, Lowered};
use crate::exec::ExecError;

/// What a binding is bound to.
pub(super) enum Slot<'a> {
    Buffer { buffer: &'a wgpu::Buffer, offset: u64, bytes: u64, written: bool },
    Texture { texture: &'a wgpu::Texture, window: Texture },
    Late(wgpu::BufferBinding<'a>),
}

/// The values of `Const::Late` of a program's dispatches, for adapters without immediate data.
#[derive(Debug)]
pub(super) struct LateValues {
    buffer: wgpu::Buffer,
    /// Where they lie, by the values.
    places: HashMap<Vec<u32>, u64>,
}

impl LateValues {
    /// What every device aligns uniform buffers to, or less.
    const ALIGN: u64 = 256;

    /// `None` where no dispatch has any.
    pub(super) fn new<'a>(
        gpu: &Gpu,
        dispatches: impl Iterator<Item = &'a Dispatch>,
    ) -> Result<Option<Self>, ExecError> {
        let mut places = HashMap::new();
        let mut words: Vec<u32> = Vec::new();
        for values in dispatches.map(|d| d.late(Late::Uniform)).filter(|values| !values.is_empty()) {
            if let Entry::Vacant(place) = places.entry(values) {
                words.resize((4 * words.len()).next_multiple_of(Self::ALIGN as usize) / 4, 0);
                let offset = 4 * words.len() as u64;
                words.extend(place.key());
                place.insert(offset);
            }
        }
        if words.is_empty() {
            return Ok(None);
        }
        let buffer = gpu.guarded("sizes", || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("sizes"),
                size: 4 * words.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
        Ok(Some(Self { buffer, places }))
    }

    fn of(&self, dispatch: &Dispatch) -> Option<Slot<'_>> {
        let values = dispatch.late(Late::Uniform);
        let offset = *self.places.get(&values)?;
        let size = std::num::NonZeroU64::new(4 * values.len() as u64);
        Some(Slot::Late(wgpu::BufferBinding { buffer: &self.buffer, offset, size }))
    }

    #[cfg(target_arch = "wasm32")]
    pub(super) fn destroy(&self) {
        self.buffer.destroy();
    }
}

impl Compiled {
    /// What the bindings of a dispatch are bound to.
    pub(super) fn slots<'a>(
        &'a self,
        vars: &'a Buffers,
        l: &Lowered,
        dispatch: &Dispatch,
        plan: &Plan,
    ) -> Vec<Slot<'a>> {
        let mut order = 0;
        let slot = |&arg: &Arg| {
            let (home, bytes, written) = match arg {
                Arg::Texture(window) => {
                    let found = self.textures.iter().find(|(slot, _)| slot.serves(order, &window));
                    let (_, texture) = found.expect("there is a texture for every dispatch");
                    order += 1;
                    return Slot::Texture { texture, window };
                }
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
            Slot::Buffer { buffer, offset, bytes: bytes.max(4), written }
        };
        let late = self.late.as_ref().and_then(|late| late.of(dispatch));
        dispatch.args.iter().map(slot).chain(late).collect()
    }

    /// The same bindings, but those that may not be read where they lie are read from a copy; with the copies.
    pub(super) fn apart<'a>(&'a self, mut slots: Vec<Slot<'a>>) -> (Vec<Slot<'a>>, Vec<Copy>) {
        let Some(aside) = &self.aside else { return (slots, Vec::new()) };
        let mut copies = Vec::new();
        for (i, place) in overlapping(&slots).0 {
            if let Slot::Buffer { buffer, offset, bytes, .. } = slots[i] {
                copies.push(Copy::Aside { from: buffer.clone(), offset, to: aside.clone(), place, bytes });
                slots[i] = Slot::Buffer { buffer: aside, offset: place, bytes, written: false };
            }
        }
        (slots, copies)
    }

    /// The buffer that holds what goes into a texture.
    fn held<'a>(&'a self, vars: &'a Buffers, l: &Lowered, held: Held, plan: &Plan) -> (&'a wgpu::Buffer, u64) {
        let home = match held {
            Held::Input(k) => self.homes[l.inputs[k].index()],
            Held::Scratch(k) => Home::Planned(plan.places[l.scratch + k]),
        };
        self.buffer(vars, home)
    }

    /// The bind groups of a node's dispatches, with their pipelines, which are the next ones that are `ready`.
    pub(super) fn bind(
        &self,
        gpu: &Gpu,
        ready: &mut impl Iterator<Item = wgpu::ComputePipeline>,
        vars: &Buffers,
        l: &Lowered,
        plan: &Plan,
    ) -> Result<Vec<Ready>, ExecError> {
        let mut dispatches = Vec::with_capacity(l.lowering.dispatches.len());
        // What the textures hold by now: a window that several dispatches read is copied once.
        let mut full: Vec<(wgpu::Texture, Texture)> = Vec::new();
        for (dispatch, pipeline) in l.lowering.dispatches.iter().zip(ready) {
            let (slots, mut copied) = self.apart(self.slots(vars, l, dispatch, plan));
            let views: Vec<Option<wgpu::TextureView>> = slots
                .iter()
                .map(|slot| match slot {
                    Slot::Texture { texture, .. } => Some(texture.create_view(&wgpu::TextureViewDescriptor::default())),
                    Slot::Buffer { .. } | Slot::Late(_) => None,
                })
                .collect();
            let accesses = access(&slots);
            let entries: Vec<wgpu::BindGroupEntry<'_>> = slots
                .iter()
                .zip(&views)
                .enumerate()
                .map(|(i, (slot, view))| wgpu::BindGroupEntry {
                    binding: accesses[i].binding(i),
                    resource: match (slot, view) {
                        (_, Some(view)) => wgpu::BindingResource::TextureView(view),
                        (Slot::Buffer { buffer, offset, bytes, .. }, None) => {
                            let size = std::num::NonZeroU64::new(*bytes);
                            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: *offset, size })
                        }
                        (Slot::Late(binding), None) => wgpu::BindingResource::Buffer(binding.clone()),
                        (Slot::Texture { .. }, None) => unreachable!("every texture has a view"),
                    },
                })
                .collect();
            let group = gpu.guarded(&self.graph.describe(l.node), || {
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.get_bind_group_layout(0),
                    entries: &entries,
                })
            })?;
            let immediate = gpu.immediates() && self.late.is_none();
            let can_move = immediate && dispatch.groups.iter().any(|&g| g > 1);
            let source = can_move.then(|| Box::new((dispatch.clone(), accesses.clone())));
            let late = if immediate { dispatch.late(Late::Immediate) } else { Vec::new() };
            for slot in &slots {
                let Slot::Texture { texture, window } = slot else { continue };
                if full.iter().any(|(t, w)| t == *texture && w == window) {
                    continue;
                }
                let (buffer, offset) = self.held(vars, l, window.of, plan);
                copied.extend(copies(buffer, offset, texture, window));
                full.retain(|(t, _)| t != *texture);
                full.push(((*texture).clone(), *window));
            }
            let writes = |k| dispatch.args.contains(&Arg::Scratch(k));
            full.retain(|(_, window)| !matches!(window.of, Held::Scratch(k) if writes(k)));
            dispatches.push(Ready {
                copies: copied,
                pipeline,
                group,
                late,
                first: [0; 3],
                groups: dispatch.groups,
                source,
            });
        }
        Ok(dispatches)
    }
}

/// A buffer that is written in a dispatch is bound for writing everywhere in it.
pub(super) fn access(slots: &[Slot<'_>]) -> Vec<Access> {
    let written = |buffer: &wgpu::Buffer| {
        slots.iter().any(|slot| matches!(slot, Slot::Buffer { buffer: b, written: true, .. } if *b == buffer))
    };
    slots
        .iter()
        .map(|slot| match slot {
            Slot::Texture { window, .. } => Access::Texture(window.texel),
            Slot::Buffer { buffer, .. } if written(buffer) => Access::Write,
            Slot::Buffer { .. } => Access::Read,
            Slot::Late(_) => Access::Late,
        })
        .collect()
}

/// The bindings that only read, but lie in a buffer that is written too (so that all of it is bound for writing) and share bytes with
/// another binding: WebGPU refuses that. With each its place in a buffer of such inputs, and how long that is.
pub(super) fn overlapping(slots: &[Slot<'_>]) -> (Vec<(usize, u64)>, u64) {
    let access = access(slots);
    let (mut found, mut end): (Vec<(usize, u64)>, u64) = (Vec::new(), 0);
    for (i, slot) in slots.iter().enumerate() {
        let Slot::Buffer { buffer, offset, bytes, written: false } = slot else { continue };
        let shares = |(j, other): (usize, &Slot<'_>)| {
            matches!(other, Slot::Buffer { buffer: b, offset: o, bytes: n, written }
                if j != i && (*written || j < i) && b == buffer && *o < offset + bytes && *offset < o + n)
        };
        if access[i] == Access::Write && slots.iter().enumerate().any(shares) {
            found.push((i, end));
            end += bytes.next_multiple_of(ALIGN);
        }
    }
    (found, end)
}

/// The copies that fill a texture: the whole rows, and what the last one holds.
fn copies(buffer: &wgpu::Buffer, offset: u64, texture: &wgpu::Texture, window: &Texture) -> Vec<Copy> {
    let (whole, rest) = (window.texels / window.width, window.texels % window.width);
    let piece = |row: usize, rows: usize, width: usize| Copy::Rows {
        buffer: buffer.clone(),
        layout: wgpu::TexelCopyBufferLayout {
            offset: offset + 4 * (window.first + row * window.pitch) as u64,
            bytes_per_row: Some(4 * window.pitch as u32).filter(|_| rows > 1),
            rows_per_image: None,
        },
        texture: texture.clone(),
        origin: wgpu::Origin3d { x: 0, y: row as u32, z: 0 },
        size: wgpu::Extent3d { width: width as u32, height: rows as u32, depth_or_array_layers: 1 },
    };
    let mut all = Vec::with_capacity(2);
    all.extend((whole > 0).then(|| piece(0, whole, window.width)));
    all.extend((rest > 0).then(|| piece(whole, 1, rest)));
    all
}
