//! A convolution to be stepped through: the numbers behind one output pixel, one pixel of the input gradient, one weight's
//! gradient.
//!
//! Everything here is the executor's `f32` to the last bit. Large layers keep the strongest channels alone, and of these an [`Area`]:
//!
//! - an output pixel needs its window on all channels of x, and the kernels of its output channel ([`Stepped::outputs`] says of which);
//! - a pixel of dx needs the pixels of dy that read it, of all channels, and what its input channel ([`Stepped::inputs`]) weighs in each;
//! - a weight needs one whole channel of x and one of dy.
//!
//! Where x has more numbers than there is room for, the outputs of a square around the place that speaks most for the target are kept
//! ([`Stepped::y_area`]), and of x what they read; where dy has, likewise [`Stepped::dx_area`] and what of dy reads it.
//!
//! [`Stepped::forward`], [`Stepped::input_gradient`] and [`Stepped::weight_gradient`] list the terms in the order of
//! `shaders/conv2d.wgsl`, and `sums.js` goes the same way; the tests hold their sums against the executor's values.

use serde::Serialize;

use super::area::{Area, Windows, largest, loudest};
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
    /// What of x is here, of all channels.
    pub x_area: Area,
    /// The input: `[C, x_area]`.
    pub x: Floats,
    /// All of the channels `inputs`, where `x_area` is a part and there is room for them: what a weight's gradient needs.
    pub x_planes: Option<Floats>,
    /// The kernels of `outputs`: `[outputs, C / groups, KH, KW]`.
    pub weights: Floats,
    /// Their biases, if there are any.
    pub bias: Option<Floats>,
    /// The output pixels that can be stepped through.
    pub y_area: Area,
    /// The executor's output: `[outputs, y_area]`.
    pub y: Floats,
    /// What of dy is here, of all channels.
    pub dy_area: Area,
    /// The derivative by the output: `[O, dy_area]`.
    pub dy: Floats,
    /// All of the channels `outputs`, where `dy_area` is a part and there is room for them.
    pub dy_planes: Option<Floats>,
    /// What each of `inputs` weighs in each output channel of its group: `[inputs, O / groups, KH, KW]`; `None` where `weights` has
    /// all of them.
    pub columns: Option<Floats>,
    /// The pixels of dx that can be stepped through.
    pub dx_area: Area,
    /// The executor's derivative by the input through this layer: `[inputs, dx_area]`.
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

/// An area of some channels of a tensor.
fn areas(values: &[f32], channels: impl IntoIterator<Item = usize>, [_, h, w]: [usize; 3], area: Area) -> Floats {
    Floats(channels.into_iter().flat_map(|c| area.cut(&values[c * h * w..(c + 1) * h * w], w)).collect())
}

/// Of numbers that do not fit whole, this part is kept.
const CUT: usize = 4;

impl Stepped {
    /// What fits of a convolution, with about `numbers` of each tensor at most and `weights` of each tensor of weights. One pixel of y and of
    /// dx with all that it takes is always there.
    #[must_use]
    pub fn new(whole: &Whole<'_>, numbers: usize, weights: usize) -> Self {
        let ([c, h, w], [o, oh, ow]) = (whole.x_shape, whole.y_shape);
        let taps = whole.kernel[0] * whole.kernel[1];
        let (c_group, o_group) = (c / whole.conv.groups, o / whole.conv.groups);
        let most = |plane: usize, kernels: usize| (numbers / plane.max(1)).min(weights / kernels.max(1)).max(1);
        let outputs = strongest(whole.y, whole.dy, oh * ow, most(oh * ow, c_group * taps));
        let inputs = strongest(whole.x, whole.dx, h * w, most(h * w, o_group * taps));
        let windows = Windows {
            kernel: whole.kernel,
            stride: whole.conv.stride,
            padding: whole.conv.padding,
            dilation: whole.conv.dilation,
            x: whole.x_shape,
            y: whole.y_shape,
        };
        let (x_all, y_all) = (Area::whole(whole.x_shape), Area::whole(whole.y_shape));
        let (y_area, x_area) = if whole.x.len() <= numbers {
            (y_all, x_all)
        } else {
            let middle = loudest(whole.y, whole.dy, whole.y_shape);
            let area = largest(whole.y_shape, middle, numbers / CUT, |y| c * windows.sources(y).numel());
            (area, windows.sources(area))
        };
        let (dx_area, dy_area) = if whole.dy.len() <= numbers {
            (x_all, y_all)
        } else {
            let middle = loudest(whole.x, whole.dx, whole.x_shape);
            let area = largest(whole.x_shape, middle, numbers / CUT, |x| o * windows.readers(x).numel());
            (area, windows.readers(area))
        };
        let room = (h * w).max(oh * ow) <= numbers;
        // The kernels of output channel o are `[c_group, taps]`; a column is one input's part of each.
        let kernel = |o: usize, inside: usize| (o * c_group + inside) * taps..(o * c_group + inside + 1) * taps;
        let group = |channel: usize| channel / c_group;
        let columns = (outputs.len() < o).then(|| {
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
        Self {
            x_shape: whole.x_shape,
            y_shape: whole.y_shape,
            kernel: whole.kernel,
            stride: whole.conv.stride,
            padding: whole.conv.padding,
            dilation: whole.conv.dilation,
            groups: whole.conv.groups,
            x: areas(whole.x, 0..c, whole.x_shape, x_area),
            x_planes: (room && x_area != x_all).then(|| planes(whole.x, &inputs, h * w)),
            x_area,
            weights: planes(whole.w, &outputs, c_group * taps),
            bias: whole.bias.map(|b| planes(b, &outputs, 1)),
            y: areas(whole.y, outputs.iter().copied(), whole.y_shape, y_area),
            y_area,
            dy: areas(whole.dy, 0..o, whole.y_shape, dy_area),
            dy_planes: (room && dy_area != y_all).then(|| planes(whole.dy, &outputs, oh * ow)),
            dy_area,
            columns,
            dx: areas(whole.dx, inputs.iter().copied(), whole.x_shape, dx_area),
            dx_area,
            dw: Floats(pairs.flat_map(gradient).collect()),
            outputs,
            inputs,
        }
    }

    /// Whether all of x and dy is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.x_area == Area::whole(self.x_shape) && self.dy_area == Area::whole(self.y_shape)
    }

    /// Whether weights can be stepped through: whole channels of x and dy are here.
    #[must_use]
    pub fn has_planes(&self) -> bool {
        self.x_plane(0).is_some() && self.dy_plane(0).is_some()
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

    /// All of the channel of x at `input` in [`Stepped::inputs`].
    fn x_plane(&self, input: usize) -> Option<&[f32]> {
        let plane = self.x_shape[1] * self.x_shape[2];
        match self.x_area == Area::whole(self.x_shape) {
            true => self.x.0.get(self.inputs.get(input)? * plane..).and_then(|x| x.get(..plane)),
            false => self.x_planes.as_ref()?.0.get(input * plane..(input + 1) * plane),
        }
    }

    /// All of the channel of dy at `output` in [`Stepped::outputs`].
    fn dy_plane(&self, output: usize) -> Option<&[f32]> {
        let plane = self.y_shape[1] * self.y_shape[2];
        match self.dy_area == Area::whole(self.y_shape) {
            true => self.dy.0.get(self.outputs.get(output)? * plane..).and_then(|dy| dy.get(..plane)),
            false => self.dy_planes.as_ref()?.0.get(output * plane..(output + 1) * plane),
        }
    }

    /// The bias and the products of output pixel `(i, j)` of the channel at `place` in [`Stepped::outputs`]: by tap, then by input
    /// channel. `None` where there is no such pixel in [`Stepped::y_area`].
    #[must_use]
    pub fn forward(&self, place: usize, [i, j]: [usize; 2]) -> Option<(f32, Vec<Term>)> {
        self.y_area.at([i, j])?;
        let ([kh, kw], c_group) = (self.kernel, self.c_group());
        let first = self.outputs.get(place)? / self.o_group() * c_group;
        let mut terms = Vec::new();
        for k in 0..kh {
            let Some(row) = self.source(0, i, k) else { continue };
            for l in 0..kw {
                let Some(column) = self.source(1, j, l) else { continue };
                let pixel = self.x_area.at([row, column])?;
                for c in 0..c_group {
                    let a = *self.weights.0.get(((place * c_group + c) * kh + k) * kw + l)?;
                    terms.push(Term { a, b: *self.x.0.get((first + c) * self.x_area.numel() + pixel)? });
                }
            }
        }
        let bias = self.bias.as_ref().and_then(|b| b.0.get(place).copied()).unwrap_or_default();
        Some((bias, terms))
    }

    /// The products of pixel `(row, column)` of dx, of the channel at `place` in [`Stepped::inputs`]: by tap, then by output channel.
    /// `None` where there is no such pixel in [`Stepped::dx_area`].
    #[must_use]
    pub fn input_gradient(&self, place: usize, [row, column]: [usize; 2]) -> Option<Vec<Term>> {
        let channel = *self.inputs.get(place)?;
        self.dx_area.at([row, column])?;
        let [kh, kw] = self.kernel;
        let (c_group, o_group) = (self.c_group(), self.o_group());
        let first = channel / c_group * o_group;
        let mut terms = Vec::new();
        for k in 0..kh {
            let Some(i) = self.target(0, row, k) else { continue };
            for l in 0..kw {
                let Some(j) = self.target(1, column, l) else { continue };
                let pixel = self.dy_area.at([i, j])?;
                for o in 0..o_group {
                    let weight = match &self.columns {
                        Some(columns) => columns.0.get(((place * o_group + o) * kh + k) * kw + l),
                        None => self.weights.0.get((((first + o) * c_group + channel % c_group) * kh + k) * kw + l),
                    };
                    terms.push(Term { a: *weight?, b: *self.dy.0.get((first + o) * self.dy_area.numel() + pixel)? });
                }
            }
        }
        Some(terms)
    }

    /// The products of weight `(k, l)` that joins the input channel at `input` to the output channel at `output`: row by row of the
    /// output. `None` where the two are not of one group, or the channels are not here ([`Stepped::has_planes`]).
    #[must_use]
    pub fn weight_gradient(&self, output: usize, input: usize, [k, l]: [usize; 2]) -> Option<Vec<Term>> {
        let (o, c) = (*self.outputs.get(output)?, *self.inputs.get(input)?);
        if o / self.o_group() != c / self.c_group() {
            return None;
        }
        let ([_, _, w], [_, oh, ow]) = (self.x_shape, self.y_shape);
        let (x, dy) = (self.x_plane(input)?, self.dy_plane(output)?);
        let mut terms = Vec::new();
        for i in 0..oh {
            let Some(row) = self.source(0, i, k) else { continue };
            for j in 0..ow {
                let Some(column) = self.source(1, j, l) else { continue };
                terms.push(Term { a: *x.get(row * w + column)?, b: *dy.get(i * ow + j)? });
            }
        }
        Some(terms)
    }
}
