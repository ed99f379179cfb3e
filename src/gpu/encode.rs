//! Dispatches that are ready, and how they are recorded.

use super::lower::Dispatch;
use super::pipelines::Access;

/// A dispatch that only has to be encoded.
#[derive(Debug)]
pub(super) struct Ready {
    /// What it needs in textures.
    pub(super) copies: Vec<Copy>,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
    /// The values of `Const::Late`, where the pipeline does not hold them.
    pub(super) late: Vec<u32>,
    /// The number of its first workgroup, which is not 0 for a part of a dispatch, and how many it has.
    pub(super) first: [u32; 3],
    pub(super) groups: [u32; 3],
    /// What it was made of, where it can be done in parts.
    pub(super) source: Option<Box<(Dispatch, Vec<Access>)>>,
}

/// What is copied before a dispatch.
#[derive(Clone, Debug)]
pub(super) enum Copy {
    /// A run of whole rows, or a piece of one, from a buffer into a texture.
    Rows {
        buffer: wgpu::Buffer,
        layout: wgpu::TexelCopyBufferLayout,
        texture: wgpu::Texture,
        origin: wgpu::Origin3d,
        size: wgpu::Extent3d,
    },
    /// Bytes of a buffer into another one.
    Aside { from: wgpu::Buffer, offset: u64, to: wgpu::Buffer, place: u64, bytes: u64 },
}

/// Records some dispatches, with as few compute passes as their copies allow. `stamps` go to the begin and end of the
/// pass, where there is only one.
pub(super) fn encode(
    dispatches: &[Ready],
    encoder: &mut wgpu::CommandEncoder,
    stamps: Option<wgpu::ComputePassTimestampWrites<'_>>,
) {
    let mut all = dispatches.iter().peekable();
    while let Some(mut next) = all.next() {
        for copy in &next.copies {
            match copy {
                Copy::Rows { buffer, layout, texture, origin, size } => {
                    let source = wgpu::TexelCopyBufferInfo { buffer, layout: *layout };
                    let aspect = wgpu::TextureAspect::All;
                    let target = wgpu::TexelCopyTextureInfo { texture, mip_level: 0, origin: *origin, aspect };
                    encoder.copy_buffer_to_texture(source, target, *size);
                }
                Copy::Aside { from, offset, to, place, bytes } => {
                    encoder.copy_buffer_to_buffer(from, *offset, to, *place, *bytes);
                }
            }
        }
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: stamps.clone() };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        let mut bound = None;
        loop {
            // A pipeline that the pass has need not be set again.
            if bound != Some(&next.pipeline) {
                pass.set_pipeline(&next.pipeline);
                bound = Some(&next.pipeline);
            }
            pass.set_bind_group(0, &next.group, &[]);
            if !next.late.is_empty() {
                pass.set_immediates(0, bytemuck::cast_slice(&next.late));
            }
            let [x, y, z] = next.groups;
            pass.dispatch_workgroups(x, y, z);
            match all.next_if(|d| d.copies.is_empty()) {
                Some(d) => next = d,
                None => break,
            }
        }
    }
}
