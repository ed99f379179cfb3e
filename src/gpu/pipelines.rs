//! Pipelines: from a dispatch's WGSL to what the device runs, each compiled once, several at a time.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;

use super::ahead::Ahead;
use super::device::Gpu;
use super::lower::{Dispatch, LATE_BINDING, Late, Texel};
use super::pipeline_disk::PipelineDisk;
use super::template::render;
use crate::exec::ExecError;

/// Final WGSL and entry point: what makes two kernels the same.
pub(super) type Key = (String, &'static str);

/// Compiled pipelines by their WGSL.
#[derive(Debug)]
pub(super) struct Pipelines {
    checked: bool,
    ahead: Option<Ahead>,
    cache: HashMap<Key, wgpu::ComputePipeline>,
    disk: Option<PipelineDisk>,
}

/// A dispatch for which a pipeline is wanted; `access[i]` says how binding `i` is bound.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) dispatch: &'a Dispatch,
    pub(super) access: Vec<Access>,
    /// The node it is for, in messages; empty for none.
    pub(super) node: String,
}

impl Wanted<'_> {
    /// Where its shader finds the values of `Const::Late`.
    fn late(&self, gpu: &Gpu) -> Late {
        match (self.access.last(), gpu.immediates()) {
            (Some(Access::Late), _) => Late::Uniform,
            (_, true) => Late::Immediate,
            (_, false) => Late::Text,
        }
    }
}

/// How something is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// A buffer, for reading.
    Read,
    /// A buffer, for writing too.
    Write,
    /// A texture, for reading.
    Texture(Texel),
    /// The buffer of the values of [`Const::Late`](super::lower::Const::Late), the last one.
    Late,
}

impl Access {
    /// The number of the binding that is bound as the `i`-th.
    pub(super) fn binding(self, i: usize) -> u32 {
        if self == Self::Late { LATE_BINDING } else { i as u32 }
    }

    fn layout(self) -> wgpu::BindingType {
        match self {
            Self::Read | Self::Write => wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: self == Self::Read },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            Self::Texture(texel) => wgpu::BindingType::StorageTexture {
                access: wgpu::StorageTextureAccess::ReadOnly,
                format: format(texel),
                view_dimension: wgpu::TextureViewDimension::D2,
            },
            Self::Late => wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: false,
                min_binding_size: None,
            },
        }
    }
}

/// The format of a texture of such texels.
pub(super) fn format(texel: Texel) -> wgpu::TextureFormat {
    match texel {
        Texel::F1 => wgpu::TextureFormat::R32Float,
        Texel::F2 => wgpu::TextureFormat::Rg32Float,
        Texel::F4 => wgpu::TextureFormat::Rgba32Float,
        Texel::U1 => wgpu::TextureFormat::R32Uint,
    }
}

impl Pipelines {
    /// `disk`: the folder in which compiled pipelines are kept from one run of the program to the next.
    pub(super) fn new(gpu: &Gpu, checked: bool, disk: Option<&Path>, ahead: Option<Ahead>) -> Self {
        let disk = disk.and_then(|folder| PipelineDisk::open(gpu, folder));
        Self { checked, ahead, cache: HashMap::new(), disk }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// The pipelines of some dispatches, in their order. Those that are new are compiled on all cores; where several fail,
    /// the error is that of the first in order, whichever failed first.
    pub(super) fn get(&mut self, gpu: &Gpu, wanted: &[Wanted<'_>]) -> Result<Vec<wgpu::ComputePipeline>, ExecError> {
        if let Some(ahead) = &self.ahead
            && ahead.put_down(wanted.iter().map(|w| (w.dispatch, &w.access[..], w.late(gpu))))
        {
            return Ok(Vec::new());
        }
        let key = |w: &Wanted<'_>| {
            let key = match &self.ahead {
                Some(ahead) => ahead.key(w.dispatch, &w.access, w.late(gpu)),
                None => write(w.dispatch, &w.access, w.late(gpu)),
            };
            key.map_err(|e| if w.node.is_empty() { e } else { format!("{}: {e}", w.node) })
        };
        let keys: Vec<Result<Key, String>> = wanted.par_iter().map(key).collect();
        let keys = keys.into_iter().collect::<Result<Vec<Key>, String>>().map_err(ExecError::Device)?;
        let mut seen = HashSet::new();
        let new: Vec<(&Wanted<'_>, &Key)> =
            wanted.iter().zip(&keys).filter(|(_, key)| !self.cache.contains_key(*key) && seen.insert(*key)).collect();
        let compiled: Vec<Result<wgpu::ComputePipeline, ExecError>> =
            new.par_iter().map(|(w, key)| self.compile(gpu, w, key)).collect();
        for ((_, key), pipeline) in new.iter().zip(compiled) {
            self.cache.insert((*key).clone(), pipeline?);
        }
        if let (Some(disk), false) = (&mut self.disk, new.is_empty()) {
            disk.save();
        }
        Ok(keys.iter().map(|key| self.cache[key].clone()).collect())
    }

    /// As [`Self::get`], for one dispatch.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn one(
        &mut self,
        gpu: &Gpu,
        dispatch: &Dispatch,
        access: &[Access],
    ) -> Result<wgpu::ComputePipeline, ExecError> {
        let mut compiled = self.get(gpu, &[Wanted { dispatch, access: access.to_vec(), node: String::new() }])?;
        Ok(compiled.pop().expect("one was asked for"))
    }

    fn compile(&self, gpu: &Gpu, wanted: &Wanted<'_>, (text, entry): &Key) -> Result<wgpu::ComputePipeline, ExecError> {
        let page = format!("shaders/{} ({entry})", wanted.dispatch.shader);
        let what = if wanted.node.is_empty() { page } else { format!("{}, {page}", wanted.node) };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = wanted
            .access
            .iter()
            .enumerate()
            .map(|(i, access)| wgpu::BindGroupLayoutEntry {
                binding: access.binding(i),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: access.layout(),
                count: None,
            })
            .collect();
        // Error scopes belong to a thread, and all of this happens on the one that calls.
        gpu.guarded(&what, || {
            let descriptor =
                wgpu::ShaderModuleDescriptor { label: Some(&what), source: wgpu::ShaderSource::Wgsl(text.into()) };
            let module = if self.checked {
                gpu.device.create_shader_module(descriptor)
            } else {
                // SAFETY: without run-time checks an access out of bounds or an endless loop is undefined behaviour. All
                // WGSL is the crate's own and specialised to the shapes that the op's shape rule has passed. The parity
                // test (tests/parity.rs) runs every kernel variant of the registry on every sample both with and
                // without checks, demands equal bits, and surrounds every planned tensor with guards that must stay
                // untouched; tests/updates.rs runs the ops that change variables with checks against the references. Of the two
                // pages of gpu/micro.rs each run compares the results with what must come out.
                #[allow(unsafe_code)]
                unsafe {
                    gpu.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
                }
            };
            let group = gpu
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&what), entries: &entries });
            let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&what),
                bind_group_layouts: &[Some(&group)],
                immediate_size: match wanted.late(gpu) {
                    Late::Immediate => 4 * wanted.dispatch.late(Late::Immediate).len() as u32,
                    Late::Text | Late::Uniform => 0,
                },
            });
            gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&what),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.disk.as_ref().map(PipelineDisk::cache),
            })
        })
    }
}

/// The WGSL of a dispatch that is bound so, and its entry point.
pub(super) fn write(dispatch: &Dispatch, access: &[Access], place: Late) -> Result<Key, String> {
    Ok((set_access(&render(dispatch, place)?, access), dispatch.entry))
}

/// Declares each binding with the access that it is bound with. All intermediate tensors lie in one buffer, which WebGPU
/// lets a dispatch use for reading or for writing but not as both; so where an output lies there, inputs in it are bound
/// `read_write` too, and the page's `read` gives way.
fn set_access(text: &str, access: &[Access]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let binding = line
            .split_once("@binding(")
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(number, _)| number.trim().parse::<usize>().ok());
        match binding.and_then(|i| access.get(i)) {
            Some(Access::Write) => out.push_str(&line.replace("var<storage, read>", "var<storage, read_write>")),
            // Left as it is: on a page with several entry points this may be another one's output.
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::lower::Arg;
    use super::*;
    use crate::gpu::Wanted as Adapter;

    fn gpu() -> Option<Gpu> {
        let gpu = Gpu::open(Adapter::Best).ok();
        assert!(gpu.is_some() || std::env::var("RADIOGRAD_REQUIRE_GPU").is_err(), "no adapter");
        gpu
    }

    fn copy(count: usize, entry: &'static str) -> Dispatch {
        Dispatch::elementwise("copy.wgsl", entry, count, vec![Arg::Input(0), Arg::Output], Vec::new())
    }

    fn wanted(dispatches: &[Dispatch]) -> Vec<Wanted<'_>> {
        let wanted = |dispatch| Wanted { dispatch, access: vec![Access::Read, Access::Write], node: String::new() };
        dispatches.iter().map(wanted).collect()
    }

    #[test]
    fn equal_kernels_are_compiled_once_and_given_in_order() {
        let Some(gpu) = gpu() else { return };
        let mut pipelines = Pipelines::new(&gpu, false, None, None);
        let dispatches: Vec<Dispatch> = [8, 9, 8, 10, 9].iter().map(|&n| copy(n, "forward")).collect();
        let ready = pipelines.get(&gpu, &wanted(&dispatches)).unwrap();
        assert_eq!(pipelines.len(), 3);
        assert!(ready[0] == ready[2] && ready[1] == ready[4] && ready[0] != ready[1] && ready[1] != ready[3]);
        let again = pipelines.get(&gpu, &wanted(&dispatches[1..2])).unwrap();
        assert!(pipelines.len() == 3 && again[0] == ready[1]);
    }

    #[test]
    fn the_first_failure_in_order_is_reported_whichever_thread_fails_first() {
        let Some(gpu) = gpu() else { return };
        let mut broken: Vec<Dispatch> = (1..40).map(|n| copy(n, "forward")).collect();
        broken[7].entry = "first";
        broken[8].entry = "second";
        broken[30].entry = "third";
        for _ in 0..10 {
            let error = Pipelines::new(&gpu, false, None, None).get(&gpu, &wanted(&broken)).unwrap_err().to_string();
            assert!(error.contains("first") && !error.contains("second"), "{error}");
            // Nothing is left over for the next call to stumble on.
            gpu.check(String::new).unwrap();
        }
        broken[20].shader = "no such page";
        broken[21].shader = "nor this one";
        let error = Pipelines::new(&gpu, false, None, None).get(&gpu, &wanted(&broken)).unwrap_err().to_string();
        assert!(error.contains("no such page"), "{error}");
    }

    #[test]
    fn what_was_compiled_lies_on_disk_for_the_next_executor() {
        let Some(gpu) = gpu() else { return };
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("pipelines");
        let dispatches: Vec<Dispatch> = (1..5).map(|n| copy(n, "forward")).collect();
        let compile =
            || Pipelines::new(&gpu, false, Some(&kept), None).get(&gpu, &wanted(&dispatches)).map(|p| p.len());
        assert_eq!(compile().unwrap(), 4);
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return;
        }
        let file = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&file).unwrap();
        assert_eq!(compile().unwrap(), 4);
        // Damage, another format, and a folder that cannot be one cost time only.
        for bytes in [&whole[..whole.len() / 2], b"", b"radiograd pipelines 0\n"] {
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(compile().unwrap(), 4);
            assert!(std::fs::read(&file).unwrap().len() > 64, "it was written again");
        }
        let blocked = Pipelines::new(&gpu, false, Some(&file), None).get(&gpu, &wanted(&dispatches));
        assert_eq!(blocked.unwrap().len(), 4);
    }
}
