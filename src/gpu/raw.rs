//! A single kernel on buffers of its own, beside any graph: for microbenchmarks and for kernels from outside.

use std::time::{Duration, Instant};

use super::device::Gpu;
use super::memory::{ReadBack, bytes_of};
use crate::exec::ExecError;

/// A pipeline with what it is bound to.
#[derive(Debug)]
pub(super) struct Call {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 3],
}

/// A buffer, how many of its bytes are bound, and whether it is bound for writing.
pub(super) type Slot<'a> = (&'a wgpu::Buffer, u64, bool);

/// Compiles WGSL with all run-time checks; `writable[i]` says whether binding `i` is bound for writing.
pub(super) fn pipeline(
    gpu: &Gpu,
    what: &str,
    text: &str,
    entry: &str,
    writable: &[bool],
) -> Result<wgpu::ComputePipeline, ExecError> {
    let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..)
        .zip(writable)
        .map(|(binding, &w)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !w },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    gpu.guarded(what, || {
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(what), source });
        let layout = wgpu::BindGroupLayoutDescriptor { label: Some(what), entries: &entries };
        let group = gpu.device.create_bind_group_layout(&layout);
        let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(what),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(what),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        })
    })
}

impl Call {
    pub(super) fn new(
        gpu: &Gpu,
        what: &str,
        pipeline: &wgpu::ComputePipeline,
        slots: &[Slot<'_>],
        groups: [u32; 3],
    ) -> Result<Self, ExecError> {
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
            .zip(slots)
            .map(|(binding, &(buffer, bytes, _))| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: 0,
                    size: std::num::NonZeroU64::new(bytes),
                }),
            })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        let group = gpu.guarded(what, || gpu.device.create_bind_group(&descriptor))?;
        Ok(Self { pipeline: pipeline.clone(), group, groups })
    }

    /// Runs once; seconds between GPU timestamps, or of wall time from submit to idle where there are none.
    pub(super) fn run(&self, gpu: &Gpu, what: &str, watchdog: Duration) -> Result<f64, ExecError> {
        let queries = gpu.timestamps.then(|| {
            gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        // What was written before must not count.
        gpu.queue.submit([]);
        gpu.wait_for(None, watchdog, || what.to_owned())?;
        let start = Instant::now();
        gpu.guarded(what, || {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: queries.as_ref().map(|query_set| wgpu::ComputePassTimestampWrites {
                        query_set,
                        beginning_of_pass_write_index: Some(0),
                        end_of_pass_write_index: Some(1),
                    }),
                });
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &self.group, &[]);
                let [x, y, z] = self.groups;
                pass.dispatch_workgroups(x, y, z);
            }
            if let Some(queries) = &queries {
                encoder.resolve_query_set(queries, 0..2, &resolved, 0);
            }
            gpu.queue.submit([encoder.finish()]);
        })?;
        gpu.wait_for(None, watchdog, || what.to_owned())?;
        let wall = start.elapsed().as_secs_f64();
        if queries.is_none() {
            return Ok(wall);
        }
        let name = format!("the timestamps of {what}");
        let wanted = ReadBack { buffer: &resolved, offset: 0, bytes: 16, name, limit: watchdog };
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes_of(gpu, wanted)?);
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        Ok(stamps[1].saturating_sub(stamps[0]) as f64 * period)
    }
}
