//! `avg_pool2d`: the mean of each window.
//!
//! `y[n,c,i,j] = 1 / M * sum over k,l of x[n,c, i sh - ph + k, j sw - pw + l]`, where x is zero outside its borders. With
//! `count_include_pad`, PyTorch's default, those zeros count and `M = KH KW`; without it, M is the number of pixels that the
//! window has inside the image. The window and its sizes are those of [`Pool2d`].
//!
//! Gradient: each pixel gets `dy / M` from every window that covers it.

use std::ops::Range;

use rayon::prelude::*;

use super::pool2d::{self, Geometry};
use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op};
use crate::autodiff::Backward;
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity, image};

pub use super::pool2d::Pool2d;

/// The pooling itself.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The window.
    pub pool: Pool2d,
    /// Whether the zeros around the image count.
    pub count_include_pad: bool,
}

/// `dx` from `dy`.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// The window.
    pub pool: Pool2d,
    /// Whether the zeros around the image count.
    pub count_include_pad: bool,
    /// Height and width of x, which stride makes ambiguous.
    pub input: [usize; 2],
}

/// `1 / M` of a window with these rows and columns inside the image.
fn weight<T: Real>(pool: Pool2d, count_include_pad: bool, rows: &Range<usize>, columns: &Range<usize>) -> T {
    let m = if count_include_pad { pool.kernel[0] * pool.kernel[1] } else { rows.len() * columns.len() };
    T::of(1.0 / m.max(1) as f64)
}

/// Whether all windows divide by the same number, which is what the fast kernels do.
fn uniform(pool: Pool2d, count_include_pad: bool) -> bool {
    count_include_pad || pool.padding == [0, 0]
}

impl<T: Real> Kernel<T> for Forward {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(self.pool, cx.specs[0], cx.out_spec);
        if let (true, Some(x)) = (uniform(self.pool, self.count_include_pad), cx.fast_f32(0)) {
            if let Some(y) = cx.fast_out() {
                fast::avg_pool2d(x, &g.fast(), y);
            }
            return;
        }
        let x = cx.float(0);
        cx.out().par_chunks_mut(g.y_plane().max(1)).zip(x.par_chunks(g.x_plane())).for_each(|(y, x)| {
            g.each_window(|at, rows, columns| {
                let weight: T = weight(self.pool, self.count_include_pad, &rows, &columns);
                let row = |r: usize| &x[r * g.input[1]..][columns.clone()];
                let sum: T = rows.map(|r| row(r).iter().copied().sum::<T>()).sum();
                y[at] = sum * weight;
            });
        });
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(self.pool, cx.out_spec, cx.specs[0]);
        if let (true, Some(dy)) = (uniform(self.pool, self.count_include_pad), cx.fast_f32(0)) {
            if let Some(dx) = cx.fast_out() {
                fast::avg_pool2d_grad(dy, &g.fast(), dx);
            }
            return;
        }
        let dy = cx.float(0);
        cx.out().par_chunks_mut(g.x_plane()).zip(dy.par_chunks(g.y_plane().max(1))).for_each(|(dx, dy)| {
            dx.fill(T::zero());
            g.each_window(|at, rows, columns| {
                let weight: T = weight(self.pool, self.count_include_pad, &rows, &columns);
                for r in rows {
                    for dx in &mut dx[r * g.input[1]..][columns.clone()] {
                        *dx += dy[at] * weight;
                    }
                }
            });
        });
    }
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        self.pool.infer(self.name(), inputs[0])
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let [_, _, h, w] = image(self.name(), g.spec(cx.inputs[0]))?;
        let op = InputGrad { pool: self.pool, count_include_pad: self.count_include_pad, input: [h, w] };
        Ok(vec![Some(g.apply(op, &[cx.dy])?)])
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(self.pool, cx.inputs[0], cx.output);
        lower("forward", cx.output, &g, self.count_include_pad)
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        additions(self.pool, output)
    }

    fn detail(&self) -> String {
        self.pool.to_string()
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let [n, c, ..] = image(self.name(), inputs[0])?;
        let x = Spec::float([n, c, self.input[0], self.input[1]]);
        if self.pool.infer(self.name(), &x)? != *inputs[0] {
            let what = "the gradient must be shaped like the pooled image";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], &x));
        }
        Ok(x)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(self.pool, cx.output, cx.inputs[0]);
        lower("grad_input", cx.output, &g, self.count_include_pad)
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        additions(self.pool, inputs[0])
    }

    fn detail(&self) -> String {
        self.pool.to_string()
    }
}

fn lower(entry: &'static str, output: &Spec, g: &Geometry, count_include_pad: bool) -> Lowering {
    let mut consts = g.consts();
    consts.push(("COUNT_PAD", Const::B(count_include_pad)));
    let args = vec![Arg::Input(0), Arg::Output];
    let d = Dispatch::elementwise("avg_pool2d.wgsl", entry, output.numel(), args, consts);
    Lowering { dispatches: vec![d], scratch: Vec::new() }
}

/// One addition for each tap of each window.
fn additions(pool: Pool2d, pooled: &Spec) -> u64 {
    (pool.kernel[0] * pool.kernel[1]) as u64 * pooled.numel() as u64
}

impl Graph {
    /// The mean of each window of `x [N, C, H, W]`; `count_include_pad` says whether the zeros of the padding count, as they
    /// do in PyTorch unless it is told otherwise.
    ///
    /// # Errors
    /// The window does not fit the padded image, a size is zero, or the padding is more than half the kernel.
    pub fn avg_pool2d(&mut self, x: NodeId, pool: Pool2d, count_include_pad: bool) -> Result<NodeId, ShapeError> {
        self.apply(Forward { pool, count_include_pad }, &[x])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let make =
        |name, x: &[usize], pool| Sample::new(name, vec![sample::x(x)], move |g, i| g.avg_pool2d(i[0], pool, true));
    let mut samples = pool2d::samples(make);
    for (name, x, pool) in [
        ("padding left out", [2, 3, 9, 7], Pool2d::new(3, 2, 1)),
        ("padding left out, uneven", [1, 2, 7, 10], Pool2d { kernel: [4, 2], stride: [3, 1], padding: [2, 1] }),
    ] {
        samples.push(Sample::new(name, vec![sample::x(&x)], move |g, i| g.avg_pool2d(i[0], pool, false)));
    }
    samples
}
