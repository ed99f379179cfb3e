//! `max_pool2d`: the largest pixel of each window.
//!
//! `y[n,c,i,j] = max over k,l of x[n,c, i sh - ph + k, j sw - pw + l]`, over the taps inside the image. The window and its
//! sizes are those of [`Pool2d`].
//!
//! Gradient: each `dy` goes to the pixel that was the maximum. No index is kept for that: the gradient reads x again and
//! finds the winner anew, which costs less memory traffic than an index would. Of equal pixels the first one wins; NaN
//! wins over numbers (the last one), so that it is seen downstream. Both as in PyTorch.
//!
//! Kernels: `plain`, one invocation an output (forward) or a pixel (gradient, a gather over the windows that cover it);
//! `2x2`, for windows of two by two side by side, one invocation a window or a strip of two; `winners`, the gradient of windows
//! that overlap, which finds the winner of each window once.

use rayon::prelude::*;

use super::pool2d::{self, Geometry};
use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::cpu::fast;
use crate::gpu::lower::{Arg, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity};

pub use super::pool2d::Pool2d;

/// The pooling itself.
#[derive(Clone, Debug)]
pub struct Forward(pub Pool2d);

/// `dx` from `(x, dy)`.
#[derive(Clone, Debug)]
pub struct InputGrad(pub Pool2d);

const TWO: &str = "2x2";
const WINNERS: &str = "winners";
/// The most taps of a window for which [`WINNERS`] serves: an invocation's turns are limited.
const MOST_TAPS: usize = 4096;

/// Calls `f(index in a plane of y, index in a plane of x)` for the winner of each window of a plane of x.
fn each_winner<T: Real>(g: &Geometry, x: &[T], mut f: impl FnMut(usize, usize)) {
    g.each_window(|at_y, rows, columns| {
        let mut winner = rows.start * g.input[1] + columns.start;
        for row in rows {
            for column in columns.clone() {
                let at = row * g.input[1] + column;
                if x[at] > x[winner] || x[at].is_nan() {
                    winner = at;
                }
            }
        }
        f(at_y, winner);
    });
}

impl<T: Real> Kernel<T> for Forward {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(self.0, cx.specs[0], cx.out_spec);
        if let Some(x) = cx.fast_f32(0) {
            if let Some(y) = cx.fast_out() {
                fast::max_pool2d(x, &g.fast(), y);
            }
            return;
        }
        let x = cx.float(0);
        cx.out()
            .par_chunks_mut(g.y_plane().max(1))
            .zip(x.par_chunks(g.x_plane()))
            .for_each(|(y, x)| each_winner(&g, x, |at_y, at_x| y[at_y] = x[at_x]));
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let g = Geometry::of(self.0, cx.specs[0], cx.specs[1]);
        if let (Some(x), Some(dy)) = (cx.fast_f32(0), cx.fast_f32(1)) {
            if let Some(dx) = cx.fast_out() {
                fast::max_pool2d_grad(x, dy, &g.fast(), dx);
            }
            return;
        }
        let (x, dy) = (cx.float(0), cx.float(1));
        cx.out()
            .par_chunks_mut(g.x_plane())
            .zip(x.par_chunks(g.x_plane()).zip(dy.par_chunks(g.y_plane().max(1))))
            .for_each(|(dx, (x, dy))| {
                dx.fill(T::zero());
                each_winner(&g, x, |at_y, at_x| dx[at_x] += dy[at_y]);
            });
    }
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        self.0.infer(self.name(), inputs[0])
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let dx = g.apply(InputGrad(self.0), &[cx.inputs[0], cx.dy])?;
        Ok(vec![Some(dx)])
    }

    fn variants(&self, _: &LowerCx) -> Vec<&'static str> {
        variants(self.0)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(self.0, cx.inputs[0], cx.output);
        let args = vec![Arg::Input(0), Arg::Output];
        if cx.variant != TWO {
            return one("max_pool2d.wgsl", "forward", cx.output.numel(), args, &g);
        }
        let (entry, width) = match strips(&g) {
            Some(width) => ("forward_strip", width),
            None => ("forward", g.out[1]),
        };
        one("max_pool2d_2x2.wgsl", entry, g.planes * g.out[0] * width, args, &g)
    }

    fn flops(&self, _: &[&Spec], output: &Spec) -> u64 {
        comparisons(self.0, output)
    }

    fn detail(&self) -> String {
        self.0.to_string()
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        if self.0.infer(self.name(), inputs[0])? != *inputs[1] {
            let what = "the gradient must be shaped like the pooled image";
            return Err(ShapeError::mismatch(self.name(), what, inputs[1], inputs[0]));
        }
        Ok(inputs[0].clone())
    }

    fn variants(&self, _: &LowerCx) -> Vec<&'static str> {
        let [k_h, k_w] = self.0.kernel;
        let winners = self.0 != Pool2d::square(2) && k_h.saturating_mul(k_w) <= MOST_TAPS;
        variants(self.0).into_iter().chain(winners.then_some(WINNERS)).collect()
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let g = Geometry::of(self.0, cx.inputs[0], cx.inputs[1]);
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        if cx.variant == WINNERS {
            return winners(&g, cx.inputs[1].numel(), cx.output.numel());
        }
        if cx.variant != TWO {
            return one("max_pool2d.wgsl", "grad_input", cx.output.numel(), args, &g);
        }
        // An odd height or width leaves pixels that no window covers; they get invocations too, which write zeros.
        let (entry, width) = match strips(&g) {
            Some(width) => ("grad_input_strip", width),
            None => ("grad_input", g.input[1].div_ceil(2)),
        };
        let count = g.planes * g.input[0].div_ceil(2) * width;
        one("max_pool2d_2x2.wgsl", entry, count, args, &g)
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        comparisons(self.0, inputs[1])
    }

    fn detail(&self) -> String {
        self.0.to_string()
    }
}

fn variants(pool: Pool2d) -> Vec<&'static str> {
    if pool == Pool2d::square(2) { vec![PLAIN, TWO] } else { vec![PLAIN] }
}

/// Strips of two windows along a row, where every row of x is a whole number of `vec4`.
fn strips(g: &Geometry) -> Option<usize> {
    g.input[1].is_multiple_of(4).then_some(g.input[1] / 4)
}

fn one(shader: &'static str, entry: &'static str, count: usize, args: Vec<Arg>, g: &Geometry) -> Lowering {
    Lowering { dispatches: vec![Dispatch::elementwise(shader, entry, count, args, g.consts())], scratch: Vec::new() }
}

/// The winner of each window, then what each pixel won.
fn winners(g: &Geometry, windows: usize, pixels: usize) -> Lowering {
    const PAGE: &str = "max_pool2d_winners.wgsl";
    let find = vec![Arg::Input(0), Arg::Scratch(0)];
    let gather = vec![Arg::Scratch(0), Arg::Input(1), Arg::Output];
    let dispatches = vec![
        Dispatch::elementwise(PAGE, "find", windows, find, g.consts()),
        Dispatch::elementwise(PAGE, "grad_input", pixels, gather, g.consts()),
    ];
    Lowering { dispatches, scratch: vec![windows] }
}

/// One comparison for each tap of each window.
fn comparisons(pool: Pool2d, pooled: &Spec) -> u64 {
    (pool.kernel[0] * pool.kernel[1]) as u64 * pooled.numel() as u64
}

impl Graph {
    /// The largest pixel of each window of `x [N, C, H, W]`.
    ///
    /// # Errors
    /// The window does not fit the padded image, a size is zero, or the padding is more than half the kernel.
    pub fn max_pool2d(&mut self, x: NodeId, pool: Pool2d) -> Result<NodeId, ShapeError> {
        self.apply(Forward(pool), &[x])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    pool2d::samples(|name, x, pool| {
        let input = sample::filled(x, Fill::Distinct);
        Sample::new(name, vec![input], move |g, i| g.max_pool2d(i[0], pool))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Array, View};

    fn run(op: &dyn Op, inputs: &[(&Spec, &[f32])], out: &Spec, fast: bool) -> Vec<f32> {
        let views: Vec<View<'_, f32>> = inputs.iter().map(|(_, v)| View::Float(v)).collect();
        let specs: Vec<&Spec> = inputs.iter().map(|(s, _)| *s).collect();
        let mut array = Array::Float(vec![f32::NAN; out.numel()]);
        let mut cx = Eval { inputs: &views, specs: &specs, out_spec: out, out: &mut array, state: &mut [], fast };
        f32::run(op, &mut cx);
        cx.out().to_vec()
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_passes() {
        let (x, y) = (Spec::float([1, 1, 2, 4]), Spec::float([1, 1, 1, 2]));
        let values = [3.0, 3.0, f32::NAN, 9.0, 1.0, 3.0, 1.0, 2.0];
        for fast in [false, true] {
            let out = run(&Forward(Pool2d::square(2)), &[(&x, &values)], &y, fast);
            assert!(out[0] == 3.0 && out[1].is_nan(), "{out:?}");
            let dy = [5.0, 7.0];
            let dx = run(&InputGrad(Pool2d::square(2)), &[(&x, &values), (&y, &dy)], &x, fast);
            assert_eq!(dx, [5.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        }
    }
}
