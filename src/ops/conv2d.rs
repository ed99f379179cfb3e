//! `conv2d`: cross-correlation of an image batch with a bank of kernels.
//!
//! With `x [N, C, H, W]`, `w [O, C/groups, KH, KW]`, `b [O]`:
//!
//! `y[n,o,i,j] = b[o] + sum over c,k,l of w[o,c,k,l] * x[n, g C/groups + c, i sh - ph + k dh, j sw - pw + l dw]`
//!
//! where `g` is the group of `o`, `s`, `p`, `d` are stride, padding and dilation, and x is zero outside its borders.
//! `H_out = floor((H + 2 ph - dh (KH - 1) - 1) / sh) + 1`, as in PyTorch.
//!
//! Gradients: `dx` sends each `dy` back through the same weights (a gather over the outputs that saw a pixel);
//! `dw[o,c,k,l] = sum over n,i,j of dy[n,o,i,j] * x[...]`, the long sum; `db = sum of dy` over all axes but `o`.

use rayon::prelude::*;

use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::conv;
use crate::gpu::lower::{Arg, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, image};

mod geometry;
mod samples;

pub use geometry::{Conv2d, Geometry};
pub use samples::samples;

/// The convolution itself.
#[derive(Clone, Debug)]
pub struct Forward(pub Conv2d);

/// `dx` from `(dy, w)`.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// The convolution.
    pub conv: Conv2d,
    /// Height and width of x, which stride makes ambiguous.
    pub input: [usize; 2],
}

/// `dw` from `(x, dy)`.
#[derive(Clone, Debug)]
pub struct WeightGrad {
    /// The convolution.
    pub conv: Conv2d,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
}

impl<T: Real> Kernel<T> for Forward {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(&self.0, cx.specs[0], cx.specs[1], cx.out_spec);
        let bias = (cx.inputs.len() == 3).then(|| cx.float(2));
        if let (Some(x), Some(w)) = (cx.fast_f32(0), cx.fast_f32(1)) {
            let bias = bias.and_then(T::as_f32);
            if let Some(y) = cx.fast_out() {
                crate::cpu::fast::conv2d(x, w, bias, &g.fast(), y);
            }
            return;
        }
        let (x, w) = (cx.float(0), cx.float(1));
        let plane = g.out[0] * g.out[1];
        cx.out().par_chunks_mut(plane.max(1)).enumerate().for_each(|(no, y)| {
            let (n, o) = (no / g.c_out, no % g.c_out);
            y.fill(bias.map_or(T::zero(), |b| b[o]));
            g.each_tap(o, |c, k, weight| {
                let x = &x[(n * g.c_in + c) * g.x_plane()..][..g.x_plane()];
                g.each_pair(k, |at_y, at_x| y[at_y] += w[weight] * x[at_x]);
            });
        });
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(&self.conv, cx.out_spec, cx.specs[1], cx.specs[0]);
        if let (Some(dy), Some(w)) = (cx.fast_f32(0), cx.fast_f32(1)) {
            if let Some(dx) = cx.fast_out() {
                crate::cpu::fast::conv2d_input_grad(dy, w, &g.fast(), dx);
            }
            return;
        }
        let (dy, w) = (cx.float(0), cx.float(1));
        let y_plane = g.out[0] * g.out[1];
        cx.out().par_chunks_mut((g.c_in * g.x_plane()).max(1)).enumerate().for_each(|(n, dx)| {
            dx.fill(T::zero());
            for o in 0..g.c_out {
                let dy = &dy[(n * g.c_out + o) * y_plane..][..y_plane];
                g.each_tap(o, |c, k, weight| {
                    let dx = &mut dx[c * g.x_plane()..][..g.x_plane()];
                    g.each_pair(k, |at_y, at_x| dx[at_x] += w[weight] * dy[at_y]);
                });
            }
        });
    }
}

impl<T: Real> Kernel<T> for WeightGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(&self.conv, cx.specs[0], cx.out_spec, cx.specs[1]);
        if let (Some(x), Some(dy)) = (cx.fast_f32(0), cx.fast_f32(1)) {
            if let Some(dw) = cx.fast_out() {
                crate::cpu::fast::conv2d_weight_grad(x, dy, &g.fast(), dw);
            }
            return;
        }
        let (x, dy) = (cx.float(0), cx.float(1));
        let y_plane = g.out[0] * g.out[1];
        let taps = g.c_in / self.conv.groups * g.kernel[0] * g.kernel[1];
        cx.out().par_chunks_mut(taps.max(1)).enumerate().for_each(|(o, dw)| {
            dw.fill(T::zero());
            for n in 0..g.n {
                let dy = &dy[(n * g.c_out + o) * y_plane..][..y_plane];
                g.each_tap(o, |c, k, weight| {
                    let x = &x[(n * g.c_in + c) * g.x_plane()..][..g.x_plane()];
                    let mut sum = T::zero();
                    g.each_pair(k, |at_y, at_x| sum += x[at_x] * dy[at_y]);
                    dw[weight - o * taps] += sum;
                });
            }
        });
    }
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        if !(2..=3).contains(&inputs.len()) {
            return Err(ShapeError::Arity { op: self.name(), expected: 3, got: inputs.len() });
        }
        self.0.check(inputs[0])?;
        let [n, c, h, w] = image(self.name(), inputs[0])?;
        let [o, cg, kh, kw] = image(self.name(), inputs[1])?;
        let groups = self.0.groups;
        if c % groups != 0 || o % groups != 0 || cg != c / groups {
            let what = "the weight must be [O, C/groups, KH, KW] for an input [N, C, H, W]";
            return Err(ShapeError::mismatch(self.name(), what, inputs[1], inputs[0]));
        }
        if let Some(bias) = inputs.get(2)
            && **bias != Spec::float([o])
        {
            return Err(ShapeError::mismatch(self.name(), "the bias must be [O]", bias, inputs[1]));
        }
        match (self.0.extent(0, h, kh), self.0.extent(1, w, kw)) {
            (Some(oh), Some(ow)) => Ok(Spec::float([n, o, oh, ow])),
            _ => Err(ShapeError::mismatch(
                self.name(),
                "the kernel is larger than the padded input",
                inputs[1],
                inputs[0],
            )),
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let (x, w) = (cx.inputs[0], cx.inputs[1]);
        let conv = self.0.clone();
        let dx = match cx.needs[0] {
            true => {
                let [_, _, h, w_in] = image("conv2d", g.spec(x))?;
                Some(g.apply(InputGrad { conv: conv.clone(), input: [h, w_in] }, &[cx.dy, w])?)
            }
            false => None,
        };
        let dw = match cx.needs[1] {
            true => {
                let [_, _, kh, kw] = image("conv2d", g.spec(w))?;
                Some(g.apply(WeightGrad { conv, kernel: [kh, kw] }, &[x, cx.dy])?)
            }
            false => None,
        };
        let mut grads = vec![dx, dw];
        if let Some(&needed) = cx.needs.get(2) {
            grads.push(if needed { Some(g.channel_sum(cx.dy)?) } else { None });
        }
        Ok(grads)
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let g = Geometry::of(&self.0, cx.inputs[0], cx.inputs[1], cx.output);
        conv::supported(conv::FORWARD, &g.shape(cx.inputs.len() == 3), cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        let g = Geometry::of(&self.0, cx.inputs[0], cx.inputs[1], cx.output);
        g.shape(cx.inputs.len() == 3).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(&self.0, cx.inputs[0], cx.inputs[1], cx.output);
        let bias = cx.inputs.len() == 3;
        if cx.variant != PLAIN {
            return conv::lower(conv::FORWARD, cx.variant, &g.shape(bias), cx.subgroup);
        }
        // Without a bias its binding holds the weight, which the kernel then never reads.
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(if bias { 2 } else { 1 }), Arg::Output];
        plain("forward", cx.output.numel(), args, &g, bias)
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        let bias = if inputs.len() == 3 { output.numel() as u64 } else { 0 };
        products(inputs[1], output) + bias
    }

    fn detail(&self) -> String {
        self.0.to_string()
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let [n, ..] = image(self.name(), inputs[0])?;
        let [_, cg, ..] = image(self.name(), inputs[1])?;
        Ok(Spec::float([n, cg * self.conv.groups, self.input[0], self.input[1]]))
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let g = Geometry::of(&self.conv, cx.output, cx.inputs[1], cx.inputs[0]);
        conv::supported(conv::INPUT_GRAD, &g.shape(false), cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        let g = Geometry::of(&self.conv, cx.output, cx.inputs[1], cx.inputs[0]);
        g.shape(false).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(&self.conv, cx.output, cx.inputs[1], cx.inputs[0]);
        if cx.variant != PLAIN {
            return conv::lower(conv::INPUT_GRAD, cx.variant, &g.shape(false), cx.subgroup);
        }
        plain("grad_input", cx.output.numel(), vec![Arg::Input(0), Arg::Input(1), Arg::Output], &g, false)
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        products(inputs[1], inputs[0])
    }

    fn detail(&self) -> String {
        self.conv.to_string()
    }
}

impl Op for WeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let [_, c, ..] = image(self.name(), inputs[0])?;
        let [_, o, ..] = image(self.name(), inputs[1])?;
        Ok(Spec { shape: [o, c / self.conv.groups, self.kernel[0], self.kernel[1]].into(), dtype: DType::Float })
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let g = Geometry::of(&self.conv, cx.inputs[0], cx.output, cx.inputs[1]);
        conv::supported(conv::WEIGHT_GRAD, &g.shape(false), cx.subgroup)
    }

    fn facts(&self, cx: &LowerCx) -> Vec<(&'static str, u64)> {
        let g = Geometry::of(&self.conv, cx.inputs[0], cx.output, cx.inputs[1]);
        g.shape(false).facts()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(&self.conv, cx.inputs[0], cx.output, cx.inputs[1]);
        if cx.variant != PLAIN {
            return conv::lower(conv::WEIGHT_GRAD, cx.variant, &g.shape(false), cx.subgroup);
        }
        plain("grad_weight", cx.output.numel(), vec![Arg::Input(0), Arg::Input(1), Arg::Output], &g, false)
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        products(output, inputs[1])
    }

    fn detail(&self) -> String {
        self.conv.to_string()
    }
}

/// Two operations for each weight of a filter and each output pixel.
fn products(weight: &Spec, output: &Spec) -> u64 {
    let per_output: usize = weight.shape[1..].iter().product();
    2 * per_output as u64 * output.numel() as u64
}

pub(super) fn plain(entry: &'static str, count: usize, args: Vec<Arg>, g: &Geometry, bias: bool) -> Lowering {
    let consts = g.shape(bias).consts();
    let dispatch = Dispatch::elementwise("conv2d.wgsl", entry, count, args, consts);
    let groups = g.conv.groups;
    let (total, turns) = match entry {
        "forward" => (g.kernel[0], g.kernel[1] * (g.c_in / groups + 1)),
        "grad_input" => (g.kernel[0], g.kernel[1] * (g.c_out / groups + 1)),
        _ => (g.n * g.out[0], g.out[1]),
    };
    Lowering { dispatches: in_series(dispatch, total, turns), scratch: Vec::new() }
}

impl Graph {
    /// Convolves `x [N, C, H, W]` with `w [O, C/groups, KH, KW]` and adds `bias [O]`.
    ///
    /// # Errors
    /// The shapes do not fit each other, or the kernel is larger than the padded input.
    pub fn conv2d(&mut self, x: NodeId, w: NodeId, bias: Option<NodeId>, conv: Conv2d) -> Result<NodeId, ShapeError> {
        let mut inputs = vec![x, w];
        inputs.extend(bias);
        self.apply(Forward(conv), &inputs)
    }
}
