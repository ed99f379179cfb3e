//! The gradient of a convolution's weight.
//!
//! The batch is cut into runs of images; each run adds `dy` times its unfolded input into its own partial gradient, and
//! the partial gradients are added in order. The cut depends on the shape alone.

use rayon::prelude::*;

use super::check_len;
use super::conv_shape::ConvShape;
use super::conv2d::{ranges, window};
use super::gemm::{Matrix, add_partials, add_transposed_partials, gemm};
use super::im2col::{Blocks, Window};
use super::scratch::Scratch;

/// Partial gradients hold at most this many values together, unless two already do.
const PARTIAL_VALUES: usize = 4 << 20;
/// At most this many partial gradients.
const PARTIALS: usize = 32;
/// Pixels of one unfolded block at most: packing its transpose is quickest while a block is small.
const MOST_PIXELS: usize = 256;

/// The gradient of [`conv2d`](super::conv2d())'s weight.
///
/// `x` is `[n, c_in, h_in, w_in]`, `dy` `[n, c_out, h_out, w_out]`, `dw` `[c_out, c_in / groups, k_h, k_w]`.
///
/// # Panics
/// When the sizes of `shape` do not belong together or a slice has another length.
pub fn conv2d_weight_grad(x: &[f32], dy: &[f32], shape: &ConvShape, dw: &mut [f32]) {
    shape.check();
    check_len("conv2d input", x.len(), shape.input_len());
    check_len("conv2d output gradient", dy.len(), shape.output_len());
    check_len("conv2d weight gradient", dw.len(), shape.weight_len());
    if dw.is_empty() {
        return;
    }
    if shape.n == 0 {
        return dw.fill(0.0);
    }
    let most = (PARTIAL_VALUES / dw.len()).clamp(2, PARTIALS);
    let images = shape.n.div_ceil(most);
    let (image_in, image_out) = (x.len() / shape.n, dy.len() / shape.n);
    let mut partial = Scratch::take(shape.n.div_ceil(images) * dw.len());
    partial.par_chunks_mut(dw.len()).enumerate().for_each(|(run, dw)| {
        let run = run * images..((run + 1) * images).min(shape.n);
        dw.fill(0.0);
        add_run(
            &x[run.start * image_in..run.end * image_in],
            &dy[run.start * image_out..run.end * image_out],
            &ConvShape { n: run.len(), ..*shape },
            dw,
        );
    });
    let (co_count, taps) = (shape.c_out / shape.groups, shape.patch_len());
    if flips(co_count, taps) {
        add_transposed_partials(&partial, [co_count, taps], dw);
    } else {
        add_partials(&partial, dw);
    }
}

/// Whether the partial gradients are `[taps, channels]`. `gemm` packs one factor, transposing it; with the result
/// this way round it is `dy`, which is smaller than the unfolded input.
fn flips(channels: usize, taps: usize) -> bool {
    channels >= 16 && channels < taps
}

/// `dw += dy columnsᵀ` for a block of pixels, or the transpose of that where [`flips`].
fn add_block(dy: Matrix<'_>, columns: Matrix<'_>, dw: &mut [f32]) {
    let (channels, taps) = (dy.height(), columns.height());
    if flips(channels, taps) {
        gemm(columns, dy.transposed(), dw, channels, true);
    } else {
        gemm(dy, columns.transposed(), dw, taps, true);
    }
}

/// Adds the gradient of a run of images to `dw`.
fn add_run(x: &[f32], dy: &[f32], shape: &ConvShape, dw: &mut [f32]) {
    let window = window(shape);
    let (ci_count, co_count) = (shape.c_in / shape.groups, shape.c_out / shape.groups);
    let (pixels_in, pixels) = (window.pixels_in(), window.pixels_out());
    let taps = shape.patch_len();
    let blocks = Blocks::choose(pixels, taps, MOST_PIXELS);
    for (group, dw) in dw.chunks_mut(co_count * taps).enumerate() {
        let planes = |image: usize| {
            let start = (image * shape.c_in + group * ci_count) * pixels_in;
            &x[start..start + ci_count * pixels_in]
        };
        let gradient = |image: usize| {
            let start = (image * shape.c_out + group * co_count) * pixels;
            &dy[start..start + co_count * pixels]
        };
        match blocks {
            Blocks::Pixels(block) => {
                for image in 0..shape.n {
                    add_image(&window, planes(image), gradient(image), co_count, block, dw);
                }
            }
            Blocks::Images(count) => {
                for images in ranges(shape.n, count) {
                    let pitch = images.len() * pixels;
                    let mut columns = Scratch::take(taps * pitch);
                    let mut side_by_side = Scratch::take(co_count * pitch);
                    for (i, image) in images.enumerate() {
                        let start = i * pixels;
                        window.unfold(planes(image), &(0..pixels), &mut columns[start..], pitch);
                        let to = side_by_side.chunks_mut(pitch);
                        for (to, from) in to.zip(gradient(image).chunks(pixels)) {
                            to[start..start + pixels].copy_from_slice(from);
                        }
                    }
                    let dy = Matrix::new(&side_by_side, co_count, pitch, pitch);
                    let columns = Matrix::new(&columns, taps, pitch, pitch);
                    add_block(dy, columns, dw);
                }
            }
        }
    }
}

/// Adds the gradient of one image and group to `dw` `[co_count, taps]`.
fn add_image(window: &Window, x: &[f32], dy: &[f32], co_count: usize, block: usize, dw: &mut [f32]) {
    let (pixels, taps) = (window.pixels_out(), dw.len() / co_count);
    let mut columns = Scratch::take(taps * block);
    for range in ranges(pixels, block) {
        let dy = Matrix::new(&dy[range.start..], co_count, range.len(), pixels);
        let columns = if window.is_identity() {
            Matrix::new(&x[range.start..], taps, range.len(), pixels)
        } else {
            window.unfold(x, &range, &mut columns, block);
            Matrix::new(&columns, taps, range.len(), block)
        };
        add_block(dy, columns, dw);
    }
}
