//! A batch of images, gathered by index from bytes and normalised.

use rayon::prelude::*;

use super::check_len;

/// The sizes of one image `[c, h, w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageBatch {
    /// Channels.
    pub c: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
}

/// `out[b, c, ..] = (pixels[indices[b], c, ..] / 255 - mean[c]) / std[c]`.
///
/// `pixels` is `[n, c, h, w]`, `out` `[b, c, h, w]`; `mean` and `std` are in units of the full scale, as
/// `torchvision.transforms.Normalize` takes them after `ToTensor`.
///
/// # Panics
/// When a slice has another length, or an index is not below the number of images.
pub fn gather_normalise(pixels: &[u8], indices: &[u32], mean: &[f32], std: &[f32], image: ImageBatch, out: &mut [f32]) {
    let plane = image.h * image.w;
    let size = image.c * plane;
    check_len("gathered images", out.len(), indices.len() * size);
    check_len("mean", mean.len(), image.c);
    check_len("standard deviation", std.len(), image.c);
    if out.is_empty() {
        return;
    }
    check_len("pixels", pixels.len(), pixels.len() / size * size);
    let count = pixels.len() / size;
    if let Some(index) = indices.iter().find(|&&i| i as usize >= count) {
        panic!("gather: image {index} is asked for, there are {count}");
    }
    // A byte has 256 values: the divisions are done once for each.
    let tables: Vec<[f32; 256]> =
        (0..image.c).map(|c| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[c]) / std[c])).collect();
    out.par_chunks_mut(plane).enumerate().for_each(|(i, out)| {
        let (batch, channel) = (i / image.c, i % image.c);
        let start = indices[batch] as usize * size + channel * plane;
        let table = &tables[channel];
        for (out, &byte) in out.iter_mut().zip(&pixels[start..start + plane]) {
            *out = table[usize::from(byte)];
        }
    });
}
