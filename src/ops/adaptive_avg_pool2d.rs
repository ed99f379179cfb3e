//! `adaptive_avg_pool2d`: the mean of as many windows as are asked for, whatever the size of the image.
//!
//! Along an axis of `s` pixels, window `i` of `o` covers `floor(i s / o) .. ceil((i + 1) s / o)`: PyTorch's rule. Windows
//! overlap by a pixel where the sizes do not divide, and repeat pixels where `o > s`. `[1, 1]` is global average pooling.
//!
//! Gradient: each pixel gets `dy / (pixels of the window)` from every window that covers it; those are
//! `floor(r o / s) .. ceil((r + 1) o / s)` for pixel `r`, the same rule with the sizes swapped.

use std::ops::Range;

use rayon::prelude::*;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity, image};

/// The pooling itself, to this height and width.
#[derive(Clone, Debug)]
pub struct Forward(pub [usize; 2]);

/// `dx` of this height and width from `dy`.
#[derive(Clone, Debug)]
pub struct InputGrad(pub [usize; 2]);

/// Sizes along both axes must stay below this, so that the shaders can multiply two of them.
const LIMIT: usize = 1 << 16;

/// The pixels of window `i` of `out` over `size` pixels.
pub(crate) fn window(i: usize, out: usize, size: usize) -> Range<usize> {
    i * size / out..((i + 1) * size).div_ceil(out)
}

/// Calls `f(index in a plane of y, rows, columns)` for each window.
fn each_window(out: [usize; 2], input: [usize; 2], mut f: impl FnMut(usize, Range<usize>, Range<usize>)) {
    for i in 0..out[0] {
        for j in 0..out[1] {
            f(i * out[1] + j, window(i, out[0], input[0]), window(j, out[1], input[1]));
        }
    }
}

fn weight<T: Real>(rows: &Range<usize>, columns: &Range<usize>) -> T {
    T::of(1.0 / (rows.len() * columns.len()) as f64)
}

/// Height and width of an image batch that a shape rule has let through.
fn sides(spec: &Spec) -> [usize; 2] {
    [spec.shape[2], spec.shape[3]]
}

impl<T: Real> Kernel<T> for Forward {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, input, out) = (cx.float(0), sides(cx.specs[0]), self.0);
        cx.out().par_chunks_mut(out[0] * out[1]).zip(x.par_chunks(input[0] * input[1])).for_each(|(y, x)| {
            each_window(out, input, |at, rows, columns| {
                let weight: T = weight(&rows, &columns);
                let row = |r: usize| &x[r * input[1]..][columns.clone()];
                let sum: T = rows.map(|r| row(r).iter().copied().sum::<T>()).sum();
                y[at] = sum * weight;
            });
        });
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (dy, input, out) = (cx.float(0), self.0, sides(cx.specs[0]));
        cx.out().par_chunks_mut(input[0] * input[1]).zip(dy.par_chunks(out[0] * out[1])).for_each(|(dx, dy)| {
            dx.fill(T::zero());
            each_window(out, input, |at, rows, columns| {
                let share = dy[at] * weight(&rows, &columns);
                for r in rows {
                    for dx in &mut dx[r * input[1]..][columns.clone()] {
                        *dx += share;
                    }
                }
            });
        });
    }
}

/// The batch of planes `input`, resized from its own sides to `sides`.
fn resized(op: &'static str, input: &Spec, sides: [usize; 2]) -> Result<Spec, ShapeError> {
    let [n, c, h, w] = image(op, input)?;
    if ![h, w].iter().chain(&sides).all(|s| (1..LIMIT).contains(s)) {
        let what = format!("heights and widths must be from 1 to {}, asked for {sides:?}", LIMIT - 1);
        return Err(ShapeError::invalid(op, what, input));
    }
    Ok(Spec::float([n, c, sides[0], sides[1]]))
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        "adaptive_avg_pool2d"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        resized(self.name(), inputs[0], self.0)
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let input = sides(g.spec(cx.inputs[0]));
        Ok(vec![Some(g.apply(InputGrad(input), &[cx.dy])?)])
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower("forward", cx.output, sides(cx.inputs[0]), self.0)
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        inputs[0].numel().max(output.numel()) as u64
    }

    fn detail(&self) -> String {
        format!("to {}x{}", self.0[0], self.0[1])
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "adaptive_avg_pool2d_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        resized(self.name(), inputs[0], self.0)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        lower("grad_input", cx.output, self.0, sides(cx.inputs[0]))
    }

    fn flops(&self, inputs: &[&Spec], output: &Spec) -> u64 {
        inputs[0].numel().max(output.numel()) as u64
    }
}

fn lower(entry: &'static str, output: &Spec, input: [usize; 2], out: [usize; 2]) -> Lowering {
    let u = |x: usize| Const::U(x as u32);
    let consts = vec![("H_IN", u(input[0])), ("W_IN", u(input[1])), ("H_OUT", u(out[0])), ("W_OUT", u(out[1]))];
    let args = vec![Arg::Input(0), Arg::Output];
    let file = "adaptive_avg_pool2d.wgsl";
    let dispatch = Dispatch::elementwise(file, entry, output.numel(), args, consts);
    // The largest window: of pixels in a forward pass, of the windows that cover a pixel in a gradient.
    let window = |axis: usize| match entry {
        "forward" => input[axis].div_ceil(out[axis]) + 1,
        _ => out[axis].div_ceil(input[axis]) + 1,
    };
    Lowering { dispatches: in_series(dispatch, window(0), window(1)), scratch: Vec::new() }
}

impl Graph {
    /// `[N, C, H, W] -> [N, C, out[0], out[1]]`, each pixel the mean of its share of the image.
    ///
    /// # Errors
    /// The input is no image batch, or a height or width is zero or above 65,535.
    pub fn adaptive_avg_pool2d(&mut self, x: NodeId, out: [usize; 2]) -> Result<NodeId, ShapeError> {
        self.apply(Forward(out), &[x])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |name: &str, x: &[usize], out: [usize; 2]| {
        Sample::new(name, vec![sample::x(x)], move |g, i| g.adaptive_avg_pool2d(i[0], out))
    };
    vec![
        s("one pixel", &[1, 1, 1, 1], [1, 1]),
        s("global", &[2, 65, 7, 7], [1, 1]),
        s("sizes divide", &[2, 3, 12, 6], [6, 6]),
        s("windows overlap", &[2, 3, 8, 9], [7, 7]),
        s("uneven", &[1, 2, 10, 7], [3, 5]),
        s("more outputs than pixels", &[1, 3, 2, 3], [5, 4]),
        s("as it is", &[3, 1, 4, 5], [4, 5]),
        s("more than 65,535 workgroups", &[1, 2, 1500, 1410], [1, 1]).terms(1500 * 1410).large(),
        s("more than 65,535 workgroups of outputs", &[1, 1, 3, 5], [2100, 2000]).terms(280_000).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_windows_of_a_pixel_are_the_rule_with_the_sizes_swapped() {
        for (out, size) in [(1, 1), (3, 7), (7, 3), (5, 5), (4, 13), (6, 4)] {
            for r in 0..size {
                let covering: Vec<usize> = (0..out).filter(|&i| window(i, out, size).contains(&r)).collect();
                assert_eq!(covering, window(r, size, out).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sizes_of_zero_are_refused() {
        let x = Spec::float([1, 1, 4, 4]);
        assert!(Forward([0, 1]).infer(&[&x]).is_err());
        assert!(Forward([1, 1 << 16]).infer(&[&x]).is_err());
        assert!(Forward([1, 1]).infer(&[&Spec::float([1, 1, 0, 4])]).is_err());
    }
}
