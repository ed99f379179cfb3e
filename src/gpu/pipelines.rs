//! Pipelines: from a dispatch's WGSL to what the device runs, each compiled once.

use std::collections::HashMap;

use super::device::Gpu;
use super::lower::Dispatch;
use super::template::wgsl;
use crate::exec::ExecError;

/// Compiled pipelines by their WGSL.
#[derive(Debug)]
pub(super) struct Pipelines {
    checked: bool,
    cache: HashMap<(String, &'static str), wgpu::ComputePipeline>,
}

impl Pipelines {
    pub(super) fn new(checked: bool) -> Self {
        Self { checked, cache: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// The pipeline of a dispatch; `writable[i]` says whether binding `i` is bound for writing.
    pub(super) fn get(
        &mut self,
        gpu: &Gpu,
        dispatch: &Dispatch,
        writable: &[bool],
    ) -> Result<wgpu::ComputePipeline, ExecError> {
        let text = wgsl(dispatch).map_err(ExecError::Device)?;
        let text = set_access(&text, writable);
        let key = (text, dispatch.entry);
        if let Some(pipeline) = self.cache.get(&key) {
            return Ok(pipeline.clone());
        }
        let what = format!("shaders/{} ({})", dispatch.shader, dispatch.entry);
        let entries: Vec<wgpu::BindGroupLayoutEntry> = writable
            .iter()
            .enumerate()
            .map(|(i, &w)| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: !w },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let pipeline = gpu.guarded(&what, || {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(&what),
                source: wgpu::ShaderSource::Wgsl(key.0.as_str().into()),
            };
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
                immediate_size: 0,
            });
            gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&what),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(dispatch.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
        })?;
        self.cache.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

/// Declares each binding with the access that it is bound with. All intermediate tensors lie in one buffer, which WebGPU
/// lets a dispatch use for reading or for writing but not as both; so where an output lies there, inputs in it are bound
/// `read_write` too, and the page's `read` gives way.
fn set_access(text: &str, writable: &[bool]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let binding = line
            .split_once("@binding(")
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(number, _)| number.trim().parse::<usize>().ok());
        match binding.and_then(|i| writable.get(i)) {
            Some(true) => out.push_str(&line.replace("var<storage, read>", "var<storage, read_write>")),
            // Left as it is: on a page with several entry points this may be another one's output.
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}
