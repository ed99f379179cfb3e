//! Convolution forward, and the gradients of its input and its bias.

use std::ops::Range;

use rayon::prelude::*;

use super::check_len;
use super::conv_shape::ConvShape;
use super::gemm::{Matrix, gemm};
use super::im2col::{Blocks, Window};
use super::scratch::Scratch;
use super::sum::sum_axis;

/// Convolution (cross-correlation, as in `torch.nn.functional.conv2d`).
///
/// `x` is `[n, c_in, h_in, w_in]`, `w` `[c_out, c_in / groups, k_h, k_w]`, `bias` `[c_out]`, `y`
/// `[n, c_out, h_out, w_out]`.
///
/// # Panics
/// When the sizes of `shape` do not belong together or a slice has another length.
pub fn conv2d(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape, y: &mut [f32]) {
    shape.check();
    check_len("conv2d input", x.len(), shape.input_len());
    check_len("conv2d weight", w.len(), shape.weight_len());
    check_len("conv2d output", y.len(), shape.output_len());
    if let Some(bias) = bias {
        check_len("conv2d bias", bias.len(), shape.c_out);
    }
    correlate(x, shape.c_in, w, bias, shape.c_out, shape.groups, &window(shape), y);
}

/// The gradient of [`conv2d`]'s input: `dy` as its output, `dx` as its input.
///
/// With stride 1 it is a convolution of `dy` with the flipped weights. Otherwise, or where `dx` has far fewer channels,
/// the gradients of the unfolded columns are
/// added back to the pixels they came from.
///
/// # Panics
/// When the sizes of `shape` do not belong together or a slice has another length.
pub fn conv2d_input_grad(dy: &[f32], w: &[f32], shape: &ConvShape, dx: &mut [f32]) {
    shape.check();
    check_len("conv2d output gradient", dy.len(), shape.output_len());
    check_len("conv2d weight", w.len(), shape.weight_len());
    check_len("conv2d input gradient", dx.len(), shape.input_len());
    if dx.is_empty() {
        return;
    }
    let forward = window(shape);
    // Unfolding `dy` takes as many rows as it has channels a group, folding back as many as `dx` has, at twice the cost.
    if shape.stride != [1, 1] || 2 * shape.c_in < shape.c_out {
        return fold_input_grad(dy, w, shape, &forward, dx);
    }
    // dx[ci][p] = sum over co and taps of dy[co][p + padding - tap * dilation] w[co][ci][tap]: turning the taps round
    // makes it a correlation with padding (k - 1) * dilation - padding.
    let padding = |axis: usize| ((forward.kernel[axis] - 1) * forward.dilation[axis]) as isize - forward.padding[axis];
    let back = Window { input: forward.output, output: forward.input, padding: [padding(0), padding(1)], ..forward };
    let mut flipped = Scratch::take(w.len());
    flip_weight(w, shape, &mut flipped);
    correlate(dy, shape.c_out, &flipped, None, shape.c_in, shape.groups, &back, dx);
}

/// The gradient of [`conv2d`]'s bias: `db[co]` is the sum of `dy[.., co, .., ..]`.
///
/// # Panics
/// When a slice has another length than `shape` says.
pub fn conv2d_bias_grad(dy: &[f32], shape: &ConvShape, db: &mut [f32]) {
    check_len("conv2d output gradient", dy.len(), shape.output_len());
    check_len("conv2d bias gradient", db.len(), shape.c_out);
    let pixels = shape.h_out * shape.w_out;
    let mut planes = Scratch::take(shape.n * shape.c_out);
    sum_axis(dy, shape.n * shape.c_out, pixels, 1, &mut planes);
    sum_axis(&planes, 1, shape.n, shape.c_out, db);
}

pub(super) fn window(shape: &ConvShape) -> Window {
    Window {
        input: [shape.h_in, shape.w_in],
        output: [shape.h_out, shape.w_out],
        kernel: [shape.k_h, shape.k_w],
        stride: shape.stride,
        padding: shape.padding.map(|p| p as isize),
        dilation: shape.dilation,
    }
}

/// `[c_out, c_in / groups, taps]` to `[c_in, c_out / groups, taps turned round]`, group by group.
fn flip_weight(w: &[f32], shape: &ConvShape, flipped: &mut [f32]) {
    let taps = shape.k_h * shape.k_w;
    let (ci_count, co_count) = (shape.c_in / shape.groups, shape.c_out / shape.groups);
    for (i, out) in flipped.chunks_mut(taps).enumerate() {
        let (co, ci, group) = (i % co_count, i / co_count % ci_count, i / (co_count * ci_count));
        let from = ((group * co_count + co) * ci_count + ci) * taps;
        for (out, value) in out.iter_mut().zip(w[from..from + taps].iter().rev()) {
            *out = *value;
        }
    }
}

/// Pixels of one unfolded block at most.
const MOST_PIXELS: usize = 2048;

/// Correlates `x` `[n, c_in, ..]` with `w` `[c_out, c_in / groups, ..]`; `y` is `[n, c_out, ..]`.
#[allow(clippy::too_many_arguments)]
fn correlate(
    x: &[f32],
    c_in: usize,
    w: &[f32],
    bias: Option<&[f32]>,
    c_out: usize,
    groups: usize,
    window: &Window,
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    let (ci_count, co_count) = (c_in / groups, c_out / groups);
    let taps = ci_count * window.kernel[0] * window.kernel[1];
    let (pixels_in, pixels) = (window.pixels_in(), window.pixels_out());
    let weight =
        |group: usize| Matrix::new(&w[group * co_count * taps..(group + 1) * co_count * taps], co_count, taps, taps);
    let planes = |image: usize, group: usize| {
        let start = (image * c_in + group * ci_count) * pixels_in;
        &x[start..start + ci_count * pixels_in]
    };
    let bias_of = |group: usize| bias.map(|b| &b[group * co_count..(group + 1) * co_count]);
    match Blocks::choose(pixels, taps, MOST_PIXELS) {
        Blocks::Pixels(block) => {
            // One task an image and group.
            y.par_chunks_mut(co_count * pixels).enumerate().for_each(|(task, y)| {
                let (image, group) = (task / groups, task % groups);
                let x = planes(image, group);
                if window.is_identity() {
                    add_product(weight(group), Matrix::new(x, taps, pixels, pixels), bias_of(group), y, pixels);
                    return;
                }
                let mut columns = Scratch::take(taps * block);
                for range in ranges(pixels, block) {
                    window.unfold(x, &range, &mut columns, block);
                    let columns = Matrix::new(&columns, taps, range.len(), block);
                    add_product(weight(group), columns, bias_of(group), &mut y[range.start..], pixels);
                }
            });
        }
        Blocks::Images(count) => {
            y.par_chunks_mut(count * c_out * pixels).enumerate().for_each(|(task, y)| {
                let images = y.len() / (c_out * pixels);
                let pitch = (images * pixels).next_multiple_of(16);
                let mut columns = Scratch::zeroed(taps * pitch);
                let mut product = Scratch::take(co_count * pitch);
                for group in 0..groups {
                    for i in 0..images {
                        let x = planes(task * count + i, group);
                        window.unfold(x, &(0..pixels), &mut columns[i * pixels..], pitch);
                    }
                    let columns = Matrix::new(&columns, taps, pitch, pitch);
                    add_product(weight(group), columns, bias_of(group), &mut product, pitch);
                    for (i, y) in y.chunks_mut(c_out * pixels).enumerate() {
                        let y = &mut y[group * co_count * pixels..(group + 1) * co_count * pixels];
                        for (y, row) in y.chunks_mut(pixels).zip(product.chunks(pitch)) {
                            y.copy_from_slice(&row[i * pixels..(i + 1) * pixels]);
                        }
                    }
                }
            });
        }
    }
}

/// `0..len` in pieces of `block`.
pub(super) fn ranges(len: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(block).map(move |start| start..(start + block).min(len))
}

/// `y = bias + weight columns`, where the rows of `y` start `pitch` apart.
fn add_product(weight: Matrix<'_>, columns: Matrix<'_>, bias: Option<&[f32]>, y: &mut [f32], pitch: usize) {
    if let Some(bias) = bias {
        let width = columns.width();
        for (y, &bias) in y.chunks_mut(pitch).zip(bias) {
            y[..width].fill(bias);
        }
    }
    // `gemm` packs the columns once more for more than 48 output channels, though they lie as it wants them.
    const CHANNELS: usize = 48;
    for (i, rows) in ranges(weight.height(), CHANNELS).enumerate() {
        let y = &mut y[i * CHANNELS * pitch..];
        gemm(weight.rows_from(rows.start, rows.len()), columns, y, pitch, bias.is_some());
    }
}

/// The input gradient for any stride: a product makes the gradients of the columns, which are folded back.
fn fold_input_grad(dy: &[f32], w: &[f32], shape: &ConvShape, window: &Window, dx: &mut [f32]) {
    let (ci_count, co_count) = (shape.c_in / shape.groups, shape.c_out / shape.groups);
    let taps = shape.patch_len();
    let pixels = window.pixels_out();
    let block = match Blocks::choose(pixels, taps, MOST_PIXELS) {
        Blocks::Pixels(block) => block,
        Blocks::Images(_) => pixels,
    };
    dx.par_chunks_mut(ci_count * window.pixels_in()).enumerate().for_each(|(task, dx)| {
        let group = task % shape.groups;
        let start = task * co_count * pixels;
        let dy = &dy[start..start + co_count * pixels];
        let w = &w[group * co_count * taps..(group + 1) * co_count * taps];
        let weight = Matrix::new(w, co_count, taps, taps).transposed();
        let mut columns = Scratch::take(taps * block);
        dx.fill(0.0);
        for range in ranges(pixels, block) {
            let dy = Matrix::new(&dy[range.start..], co_count, range.len(), pixels);
            gemm(weight, dy, &mut columns, block, false);
            window.fold_add(&columns, block, &range, dx);
        }
    });
}
