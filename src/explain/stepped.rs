//! A convolution to be stepped through: the numbers behind one output pixel, one pixel of the input gradient, one weight's
//! gradient.
//!
//! Everything here is the executor's `f32` to the last bit. Large layers keep the strongest channels alone:
//!
//! - an output pixel needs all of x, and the kernels of its output channel ([`Stepped::outputs`] says of which);
//! - a pixel of dx needs all of dy, and what its input channel ([`Stepped::inputs`]) weighs in each output channel;
//! - a weight needs one channel of x and one of dy.
//!
//! [`Stepped::forward`], [`Stepped::input_gradient`] and [`Stepped::weight_gradient`] list the terms in the order of
//! `shaders/conv2d.wgsl`, and `explain.js` goes the same way; the tests hold their sums against the executor's values.

use serde::Serialize;

use super::encode::Floats;
use crate::ops::conv2d::Conv2d;

/// A convolution with its numbers on one image. `dy` is the derivative of the target's logit by the convolution's output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stepped {
    /// Channels, height and width of x.
    pub x_shape: [usize; 3],
    /// Channels, height and width of y.
    pub y_shape: [usize; 3],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Zeros on each side.
    pub padding: [usize; 2],
    /// Distance of the taps.
    pub dilation: [usize; 2],
    /// Independent parts.
    pub groups: usize,
    /// The output channels that can be stepped through, in order.
    pub outputs: Vec<usize>,
    /// The input channels whose gradients can be.
    pub inputs: Vec<usize>,
    /// All of the input.
    pub x: Floats,
    /// The kernels of `outputs`: `[outputs, C / groups, KH, KW]`.
    pub weights: Floats,
    /// Their biases, if there are any.
    pub bias: Option<Floats>,
    /// The executor's output, of `outputs`.
    pub y: Floats,
    /// The derivative by the output: of all channels, or where that is too much of `outputs`.
    pub dy: Floats,
    /// Whether `dy` has all channels, without which dx cannot be stepped through.
    pub dy_whole: bool,
    /// What each of `inputs` weighs in each output channel of its group: `[inputs, O / groups, KH, KW]`; `None` where `weights` has
    /// all of them.
    pub columns: Option<Floats>,
    /// The executor's derivative by the input through this layer, of `inputs`.
    pub dx: Floats,
    /// The executor's derivative by the weights: `[outputs, inputs, KH, KW]`; 0 where they are not of one group.
    pub dw: Floats,
}

/// A convolution on one image, whole.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// Its parameters.
    pub conv: &'a Conv2d,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Channels, height and width of x.
    pub x_shape: [usize; 3],
    /// Channels, height and width of y.
    pub y_shape: [usize; 3],
    /// The input.
    pub x: &'a [f32],
    /// The kernels `[O, C / groups, KH, KW]`.
    pub w: &'a [f32],
    /// One number an output channel.
    pub bias: Option<&'a [f32]>,
    /// The output.
    pub y: &'a [f32],
    /// The derivative by it.
    pub dy: &'a [f32],
    /// The derivative by the input, through this layer alone.
    pub dx: &'a [f32],
    /// The derivative by the kernels.
    pub dw: &'a [f32],
}

/// A product that is added up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// A weight; for a weight's gradient, a pixel of x.
    pub a: f32,
    /// A pixel of x; for gradients, of dy.
    pub b: f32,
}

/// The sum of terms in double precision.
#[must_use]
pub fn total(start: f32, terms: &[Term]) -> f64 {
    terms.iter().fold(f64::from(start), |sum, t| sum + f64::from(t.a) * f64::from(t.b))
}

/// The channels whose sum of value times gradient is largest in size, in their own order.
pub(super) fn strongest(values: &[f32], gradients: &[f32], plane: usize, count: usize) -> Vec<usize> {
    let strength = |(a, g): (&[f32], &[f32])| -> f64 {
        a.iter().zip(g).map(|(&a, &g)| f64::from(a) * f64::from(g)).sum::<f64>().abs()
    };
    let strengths: Vec<f64> = values.chunks(plane.max(1)).zip(gradients.chunks(plane.max(1))).map(strength).collect();
    let mut order: Vec<usize> = (0..strengths.len()).collect();
    order.sort_by(|&a, &b| strengths[b].total_cmp(&strengths[a]));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Some channels of a tensor.
fn planes(values: &[f32], channels: &[usize], plane: usize) -> Floats {
    Floats(channels.iter().flat_map(|c| values[c * plane..(c + 1) * plane].iter().copied()).collect())
}

impl Stepped {
    /// What fits of a convolution, with at most `numbers` of each tensor and `weights` of each tensor of weights; `None` where x alone is
    /// too large.
    #[must_use]
    pub fn new(whole: &Whole<'_>, numbers: usize, weights: usize) -> Option<Self> {
        let ([c, h, w], [o, oh, ow]) = (whole.x_shape, whole.y_shape);
        if whole.x.len() > numbers {
            return None;
        }
        let taps = whole.kernel[0] * whole.kernel[1];
        let (c_group, o_group) = (c / whole.conv.groups, o / whole.conv.groups);
        let most = |plane: usize, kernels: usize| (numbers / plane.max(1)).min(weights / kernels.max(1)).max(1);
        let outputs = strongest(whole.y, whole.dy, oh * ow, most(oh * ow, c_group * taps));
        let inputs = strongest(whole.x, whole.dx, h * w, most(h * w, o_group * taps));
        let dy_whole = whole.dy.len() <= numbers;
        // The kernels of output channel o are `[c_group, taps]`; a column is one input's part of each.
        let kernel = |o: usize, inside: usize| (o * c_group + inside) * taps..(o * c_group + inside + 1) * taps;
        let group = |channel: usize| channel / c_group;
        let columns = (dy_whole && outputs.len() < o).then(|| {
            let column = |&c: &usize| {
                let first = group(c) * o_group;
                (first..first + o_group).flat_map(move |o| whole.w[kernel(o, c % c_group)].iter().copied())
            };
            Floats(inputs.iter().flat_map(column).collect())
        });
        let gradient = |(o, c): (usize, usize)| match o / o_group == group(c) {
            true => whole.dw[kernel(o, c % c_group)].to_vec(),
            false => vec![0.0; taps],
        };
        let pairs = outputs.iter().flat_map(|&o| inputs.iter().map(move |&c| (o, c)));
        Some(Self {
            x_shape: whole.x_shape,
            y_shape: whole.y_shape,
            kernel: whole.kernel,
            stride: whole.conv.stride,
            padding: whole.conv.padding,
            dilation: whole.conv.dilation,
            groups: whole.conv.groups,
            x: Floats(whole.x.to_vec()),
            weights: planes(whole.w, &outputs, c_group * taps),
            bias: whole.bias.map(|b| planes(b, &outputs, 1)),
            y: planes(whole.y, &outputs, oh * ow),
            dy: if dy_whole { Floats(whole.dy.to_vec()) } else { planes(whole.dy, &outputs, oh * ow) },
            dy_whole,
            columns,
            dx: planes(whole.dx, &inputs, h * w),
            dw: Floats(pairs.flat_map(gradient).collect()),
            outputs,
            inputs,
        })
    }

    fn c_group(&self) -> usize {
        self.x_shape[0] / self.groups
    }

    fn o_group(&self) -> usize {
        self.y_shape[0] / self.groups
    }

    /// Where tap `k` of output `at` reads along an axis; `None` outside of the image.
    fn source(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let place = (at * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.padding[axis])?;
        (place < self.x_shape[axis + 1]).then_some(place)
    }

    /// The output that reads `at` through tap `k`; `None` where none does.
    fn target(&self, axis: usize, at: usize, k: usize) -> Option<usize> {
        let scaled = (at + self.padding[axis]).checked_sub(k * self.dilation[axis])?;
        let output = scaled / self.stride[axis];
        (scaled.is_multiple_of(self.stride[axis]) && output < self.y_shape[axis + 1]).then_some(output)
    }

    /// The channel of `dy`, whether all are there or those of `outputs`.
    fn dy_plane(&self, output: usize) -> Option<&[f32]> {
        let at = if self.dy_whole { output } else { self.outputs.iter().position(|&o| o == output)? };
        let plane = self.y_shape[1] * self.y_shape[2];
        self.dy.0.get(at * plane..(at + 1) * plane)
    }

    /// The bias and the products of output pixel `(i, j)` of the channel at `place` in [`Stepped::outputs`]: by tap, then by input
    /// channel. `None` where there is no such pixel.
    #[must_use]
    pub fn forward(&self, place: usize, [i, j]: [usize; 2]) -> Option<(f32, Vec<Term>)> {
        let [_, h, w] = self.x_shape;
        let ([kh, kw], c_group) = (self.kernel, self.c_group());
        let first = self.outputs.get(place)? / self.o_group() * c_group;
        let mut terms = Vec::new();
        for k in 0..kh {
            let Some(row) = self.source(0, i, k) else { continue };
            for l in 0..kw {
                let Some(column) = self.source(1, j, l) else { continue };
                for c in 0..c_group {
                    let a = *self.weights.0.get(((place * c_group + c) * kh + k) * kw + l)?;
                    terms.push(Term { a, b: *self.x.0.get(((first + c) * h + row) * w + column)? });
                }
            }
        }
        let bias = self.bias.as_ref().and_then(|b| b.0.get(place).copied()).unwrap_or_default();
        Some((bias, terms))
    }

    /// The products of pixel `(row, column)` of dx, of the channel at `place` in [`Stepped::inputs`]: by tap, then by output channel.
    /// `None` where dy is not whole, or there is no such pixel.
    #[must_use]
    pub fn input_gradient(&self, place: usize, [row, column]: [usize; 2]) -> Option<Vec<Term>> {
        let channel = *self.inputs.get(place)?;
        let ([kh, kw], [_, _, ow]) = (self.kernel, self.y_shape);
        let (c_group, o_group) = (self.c_group(), self.o_group());
        if !self.dy_whole {
            return None;
        }
        let first = channel / c_group * o_group;
        let mut terms = Vec::new();
        for k in 0..kh {
            let Some(i) = self.target(0, row, k) else { continue };
            for l in 0..kw {
                let Some(j) = self.target(1, column, l) else { continue };
                for o in 0..o_group {
                    let weight = match &self.columns {
                        Some(columns) => columns.0.get(((place * o_group + o) * kh + k) * kw + l),
                        None => self.weights.0.get((((first + o) * c_group + channel % c_group) * kh + k) * kw + l),
                    };
                    terms.push(Term { a: *weight?, b: *self.dy_plane(first + o)?.get(i * ow + j)? });
                }
            }
        }
        Some(terms)
    }

    /// The products of weight `(k, l)` that joins the input channel at `input` to the output channel at `output`: row by row of the
    /// output. `None` where the two are not of one group.
    #[must_use]
    pub fn weight_gradient(&self, output: usize, input: usize, [k, l]: [usize; 2]) -> Option<Vec<Term>> {
        let (o, c) = (*self.outputs.get(output)?, *self.inputs.get(input)?);
        if o / self.o_group() != c / self.c_group() {
            return None;
        }
        let ([_, h, w], [_, oh, ow]) = (self.x_shape, self.y_shape);
        let dy = self.dy_plane(o)?;
        let mut terms = Vec::new();
        for i in 0..oh {
            let Some(row) = self.source(0, i, k) else { continue };
            for j in 0..ow {
                let Some(column) = self.source(1, j, l) else { continue };
                terms.push(Term { a: *self.x.0.get((c * h + row) * w + column)?, b: *dy.get(i * ow + j)? });
            }
        }
        Some(terms)
    }
}
