//! `softmax` and `log_softmax` along one axis.
//!
//! For each row `x` along the axis, with `m = max(x)`:
//!
//! `softmax: y[k] = exp(x[k] - m) / sum over j of exp(x[j] - m)`; `log_softmax: y[k] = x[k] - m - log(sum ...)`.
//!
//! Subtracting the maximum changes nothing in exact numbers and keeps `exp` from overflowing. Gradients need y alone:
//!
//! `softmax: dx[k] = y[k] * (dy[k] - sum over j of dy[j] y[j])`; `log_softmax: dx[k] = dy[k] - exp(y[k]) * sum over j of dy[j]`.
//!
//! A row that is all `-inf`, or holds `inf` or NaN, gives NaN, as in PyTorch.
//!
//! Kernels: `plain`, one invocation a row; `split`, for rows of more than 256 elements, where several invocations share a
//! row and leave partial results that are then combined in a fixed order.

use rayon::prelude::*;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// Which function, along which axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis that sums to one.
    pub axis: usize,
    /// Gives the logarithm.
    pub log: bool,
}

/// `dx` from `(y, dy)`.
#[derive(Clone, Copy, Debug)]
pub struct Gradient(pub Softmax);

/// Rows longer than this may be shared by several invocations.
const LONG: usize = 256;

impl Softmax {
    /// The shape as `[outer, len, inner]`, `len` being the axis.
    fn rows(&self, shape: &Shape) -> [usize; 3] {
        let size = |dims: &[usize]| dims.iter().product();
        [size(&shape[..self.axis]), shape[self.axis], size(&shape[self.axis + 1..])]
    }

    fn check(&self, op: &'static str, spec: &Spec) -> Result<(), ShapeError> {
        if spec.dtype != DType::Float || self.axis >= spec.shape.len() {
            let what = format!("needs floats and an axis {}", self.axis);
            return Err(ShapeError::invalid(op, what, spec));
        }
        if spec.numel() == 0 {
            return Err(ShapeError::invalid(op, "needs at least one element", spec));
        }
        Ok(())
    }
}

impl<T: Real> Kernel<T> for Softmax {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let [_, len, inner] = self.rows(&cx.specs[0].shape);
        let log = self.log;
        if let (true, Some(x)) = (inner > 1, cx.fast_f32(0))
            && let Some(y) = cx.fast_out()
        {
            return fast::softmax(x, [len, inner], log, y);
        }
        let x = cx.float(0);
        cx.out().par_chunks_mut(len * inner).zip(x.par_chunks(len * inner)).for_each(|(y, x)| {
            for i in 0..inner {
                let row = || x[i..].iter().step_by(inner).copied();
                // From the lowest number, not from -inf: -inf - -inf is NaN.
                let max = row().fold(T::min_value(), T::max);
                let sum: T = row().map(|v| (v - max).exp()).sum();
                let log_sum = sum.ln();
                for (y, v) in y[i..].iter_mut().step_by(inner).zip(row()) {
                    *y = if log { v - max - log_sum } else { (v - max).exp() / sum };
                }
            }
        });
    }
}

impl<T: Real> Kernel<T> for Gradient {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let [_, len, inner] = self.0.rows(&cx.specs[0].shape);
        let log = self.0.log;
        if let (true, Some(y), Some(dy)) = (inner > 1, cx.fast_f32(0), cx.fast_f32(1))
            && let Some(dx) = cx.fast_out()
        {
            return fast::softmax_grad(y, dy, [len, inner], log, dx);
        }
        let (y, dy) = (cx.float(0), cx.float(1));
        cx.out().par_chunks_mut(len * inner).zip(y.par_chunks(len * inner).zip(dy.par_chunks(len * inner))).for_each(
            |(dx, (y, dy))| {
                for i in 0..inner {
                    let row = || {
                        let y = y[i..].iter().step_by(inner).copied();
                        y.zip(dy[i..].iter().step_by(inner).copied())
                    };
                    // Any number may be taken off all dy, since the y add up to 1; the dy of the largest y keeps the
                    // difference exact where one y is nearly 1.
                    let largest = row().fold((T::zero(), T::zero()), |a, b| if b.0 > a.0 { b } else { a });
                    let pivot = if log { T::zero() } else { largest.1 };
                    let sum: T = row().map(|(y, dy)| if log { dy } else { (dy - pivot) * y }).sum();
                    for (dx, (y, dy)) in dx[i..].iter_mut().step_by(inner).zip(row()) {
                        *dx = if log { dy - y.exp() * sum } else { y * (dy - pivot - sum) };
                    }
                }
            },
        );
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        self.check(self.name(), inputs[0])?;
        Ok(inputs[0].clone())
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        Ok(vec![Some(g.apply(Gradient(*self), &[cx.output, cx.dy])?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(self, cx)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        if cx.variant == PLAIN {
            plain(self, cx, "forward", vec![Arg::Input(0), Arg::Output])
        } else {
            // A partial result is a maximum and a sum.
            split(self, cx, ["partial", "total", "finish"], &[Arg::Input(0)], 2)
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        // Comparison, subtraction, exp, addition, and the last division or subtraction.
        5 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        format!("axis {}", self.axis)
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        if self.0.log { "log_softmax_grad" } else { "softmax_grad" }
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        if inputs[0] != inputs[1] {
            let what = "the gradient must be shaped like y";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], inputs[1]));
        }
        self.0.check(self.name(), inputs[0])?;
        Ok(inputs[0].clone())
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(&self.0, cx)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let inputs = [Arg::Input(0), Arg::Input(1)];
        if cx.variant == PLAIN {
            let args = inputs.into_iter().chain([Arg::Output]).collect();
            plain(&self.0, cx, "gradient", args)
        } else {
            let entries = ["grad_partial", "grad_total", "grad_finish"];
            split(&self.0, cx, entries, &inputs, 4)
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        4 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        self.0.detail()
    }
}

fn variants(op: &Softmax, cx: &LowerCx) -> Vec<&'static str> {
    if op.rows(&cx.output.shape)[1] > LONG { vec![PLAIN, "split"] } else { vec![PLAIN] }
}

fn consts(op: &Softmax, shape: &Shape) -> Vec<(&'static str, Const)> {
    let [_, len, inner] = op.rows(shape);
    vec![("LEN", Const::U(len as u32)), ("INNER", Const::U(inner as u32)), ("LOG", Const::B(op.log))]
}

fn plain(op: &Softmax, cx: &LowerCx, entry: &'static str, args: Vec<Arg>) -> Lowering {
    let shape = &cx.output.shape;
    let [outer, _, inner] = op.rows(shape);
    let d = Dispatch::elementwise("softmax.wgsl", entry, outer * inner, args, consts(op, shape));
    Lowering { dispatches: vec![d], scratch: Vec::new() }
}

/// Three dispatches: partial results, one result a row, the output. `words` is the size of a result.
fn split(op: &Softmax, cx: &LowerCx, entries: [&'static str; 3], inputs: &[Arg], words: usize) -> Lowering {
    let shape = &cx.output.shape;
    let [outer, len, inner] = op.rows(shape);
    let rows = outer * inner;
    // At least 16 elements an invocation, and few partial results for the one that combines them.
    let parts = (len / 16).clamp(1, 128);
    let mut consts = consts(op, shape);
    consts.push(("PARTS", Const::U(parts as u32)));
    let dispatch = |i: usize, count: usize, args: Vec<Arg>| {
        Dispatch::elementwise("softmax_split.wgsl", entries[i], count, args, consts.clone())
    };
    let with = |rest: &[Arg]| inputs.iter().chain(rest).copied().collect::<Vec<_>>();
    Lowering {
        dispatches: vec![
            dispatch(0, rows * parts, with(&[Arg::Scratch(0)])),
            dispatch(1, rows, vec![Arg::Scratch(0), Arg::Scratch(1)]),
            dispatch(2, shape.numel(), with(&[Arg::Scratch(1), Arg::Output])),
        ],
        scratch: vec![rows * parts * words, rows * words],
    }
}

impl Graph {
    /// `exp(x) / sum of exp(x)` along `axis`.
    ///
    /// # Errors
    /// The input holds no floats, or has no such axis.
    pub fn softmax(&mut self, x: NodeId, axis: usize) -> Result<NodeId, ShapeError> {
        self.apply(Softmax { axis, log: false }, &[x])
    }

    /// The logarithm of [`Graph::softmax`], computed without taking a logarithm of small numbers.
    ///
    /// # Errors
    /// As [`Graph::softmax`].
    pub fn log_softmax(&mut self, x: NodeId, axis: usize) -> Result<NodeId, ShapeError> {
        self.apply(Softmax { axis, log: true }, &[x])
    }
}

/// Samples of both functions.
#[must_use]
pub fn samples(log: bool) -> Vec<Sample> {
    let s = |what: &str, shape: &[usize], axis: usize| {
        Sample::new(what, vec![sample::x(shape)], move |g, x| g.apply(Softmax { axis, log }, &[x[0]]))
            .terms(shape[axis])
    };
    // exp(100) overflows in f32.
    let shifted = Sample::new("large numbers", vec![sample::x(&[3, 4])], move |g, x| {
        let hundred = g.fill(&Shape::scalar(), 100.0)?;
        let high = g.add(x[0], hundred)?;
        g.apply(Softmax { axis: 1, log }, &[high])
    });
    vec![
        shifted,
        s("one row", &[1, 5], 1),
        Sample::new("almost certain", vec![sample::x(&[6, 2])], move |g, x| {
            let far = g.scale(x[0], 4.0)?;
            g.apply(Softmax { axis: 1, log }, &[far])
        }),
        s("one class", &[4, 1], 1),
        s("vector", &[7], 0),
        s("first axis", &[6, 5], 0),
        s("middle axis", &[2, 3, 5, 7], 1),
        s("last of four axes", &[2, 3, 5, 7], 3),
        s("not a multiple of 64", &[65, 3], 1),
        s("long row", &[3, 1003], 1),
        s("long middle axis", &[2, 257, 5], 1),
        s("more than 65,535 workgroups of rows", &[65_536 * 64 + 1, 2], 1).large(),
        s("more than 65,535 workgroups, long rows", &[15_967, 263], 1).large(),
    ]
}
