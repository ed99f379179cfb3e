//! `narrow`: a part of a tensor along an axis, the inverse of `concat`.
//!
//! `y[.., i, ..] = x[.., start + i, ..]` for `i < len`. Gradient: `dx` is `dy` in its place and zero elsewhere, whose own
//! gradient is `narrow` again.
//!
//! Kernels: one invocation an element of the result; `vec4` moves four at a time.

use std::ops::Range;

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// The part `start .. start + len` along an axis.
#[derive(Clone, Debug)]
pub struct Narrow {
    /// The axis.
    pub axis: usize,
    /// First index.
    pub start: usize,
    /// Number of indices.
    pub len: usize,
}

/// `dx` from `dy`: zeros around `dy`, up to `size` along the axis.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// What was taken out.
    pub part: Narrow,
    /// Size of x along the axis.
    pub size: usize,
}

/// A part of a whole along one axis as memory sees it: `outer` rows of `len` elements, each `offset` into a row of `whole`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub outer: usize,
    pub len: usize,
    pub whole: usize,
    pub offset: usize,
}

impl Part {
    pub fn of(whole: &Shape, axis: usize, start: usize, len: usize) -> Self {
        let inner: usize = whole[axis + 1..].iter().product();
        Self {
            outer: whole[..axis].iter().product(),
            len: len * inner,
            whole: whole[axis] * inner,
            offset: start * inner,
        }
    }

    /// Elements of the part.
    pub fn numel(&self) -> usize {
        self.outer * self.len
    }

    /// Calls `f(range in the part, range in the whole)` for each row.
    pub fn each_row(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        for o in 0..self.outer {
            let (row, place) = (o * self.len, o * self.whole + self.offset);
            f(row..row + self.len, place..place + self.len);
        }
    }

    /// Whether rows begin and end at multiples of four elements.
    pub fn fits_vec4(&self) -> bool {
        [self.len, self.whole, self.offset].iter().all(|v| v % 4 == 0)
    }

    /// A dispatch over `count` elements, in steps of the variant's width.
    pub fn dispatch(
        &self,
        shader: &'static str,
        entry: &'static str,
        variant: &str,
        count: usize,
        args: Vec<Arg>,
    ) -> Dispatch {
        let (width, item) = match variant {
            "vec4" => (4, "vec4<f32>"),
            _ => (1, "f32"),
        };
        let size = |x: usize| Const::Loose((x / width) as u32);
        let consts = vec![
            ("ITEM", Const::Text(item)),
            ("PART", size(self.len)),
            ("WHOLE", size(self.whole)),
            ("OFFSET", size(self.offset)),
        ];
        Dispatch::elementwise(shader, entry, count / width, args, consts)
    }
}

impl<T: Real> Kernel<T> for Narrow {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let x = cx.float(0);
        let part = Part::of(&cx.specs[0].shape, self.axis, self.start, self.len);
        part.each_row(|row, place| cx.out()[row].copy_from_slice(&x[place]));
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let dy = cx.float(0);
        let n = &self.part;
        let part = Part::of(&cx.out_spec.shape, n.axis, n.start, n.len);
        cx.out().fill(T::zero());
        part.each_row(|row, place| cx.out()[place].copy_from_slice(&dy[row]));
    }
}

fn variants(part: Part) -> Vec<&'static str> {
    if part.fits_vec4() { vec![PLAIN, "vec4"] } else { vec![PLAIN] }
}

impl Op for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let x = inputs[0];
        let end = self.start.checked_add(self.len);
        let fits = x.shape.get(self.axis).zip(end).is_some_and(|(&size, end)| end <= size);
        if !fits || self.len == 0 || x.dtype != DType::Float {
            let what = format!(
                "takes at least one index inside a float tensor, not {} from {} along axis {}",
                self.len, self.start, self.axis
            );
            return Err(ShapeError::invalid(self.name(), what, x));
        }
        let mut dims = x.shape.to_vec();
        dims[self.axis] = self.len;
        Ok(Spec::float(dims))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let size = g.spec(cx.inputs[0]).shape[self.axis];
        let op = InputGrad { part: self.clone(), size };
        Ok(vec![Some(g.apply(op, &[cx.dy])?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        variants(Part::of(&cx.inputs[0].shape, self.axis, self.start, self.len))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let part = Part::of(&cx.inputs[0].shape, self.axis, self.start, self.len);
        lower(part, "forward", cx)
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }

    fn detail(&self) -> String {
        format!("axis {}, {}+{}", self.axis, self.start, self.len)
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "narrow_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let dy = inputs[0];
        let n = &self.part;
        let end = n.start.checked_add(n.len);
        let fits = dy.dtype == DType::Float && dy.shape.get(n.axis) == Some(&n.len);
        if !fits || end.is_none_or(|end| end > self.size) {
            let what = format!("the gradient must be floats, {} along axis {}, inside {}", n.len, n.axis, self.size);
            return Err(ShapeError::invalid(self.name(), what, dy));
        }
        let mut dims = dy.shape.to_vec();
        dims[n.axis] = self.size;
        Ok(Spec::float(dims))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        Ok(vec![Some(g.apply(self.part.clone(), &[cx.dy])?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let n = &self.part;
        variants(Part::of(&cx.output.shape, n.axis, n.start, n.len))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let n = &self.part;
        let part = Part::of(&cx.output.shape, n.axis, n.start, n.len);
        lower(part, "grad_input", cx)
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }
}

fn lower(part: Part, entry: &'static str, cx: &LowerCx) -> Lowering {
    let args = vec![Arg::Input(0), Arg::Output];
    let d = part.dispatch("narrow.wgsl", entry, cx.variant, cx.output.numel(), args);
    Lowering { dispatches: vec![d], scratch: Vec::new() }
}

impl Graph {
    /// The indices `start .. start + len` along `axis`.
    ///
    /// # Errors
    /// They are not all inside, or there are none.
    pub fn narrow(&mut self, x: NodeId, axis: usize, start: usize, len: usize) -> Result<NodeId, ShapeError> {
        self.apply(Narrow { axis, start, len }, &[x])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |name: &str, x: &[usize], axis: usize, start: usize, len: usize| {
        Sample::new(name, vec![sample::x(x)], move |g, i| g.narrow(i[0], axis, start, len))
    };
    vec![
        s("all of it", &[3, 2], 0, 0, 3),
        s("one element", &[5], 0, 3, 1),
        s("channels", &[2, 7, 3, 3], 1, 2, 4),
        s("channels of planes of four", &[3, 5, 2, 2], 1, 1, 3),
        s("first rows", &[65, 4], 0, 0, 9),
        s("last columns", &[5, 11], 1, 10, 1),
        s("columns, multiples of four", &[5, 16], 1, 4, 8),
        Sample::new("twice differentiable", vec![sample::x(&[4, 3])], |g, x| {
            let y = g.narrow(x[0], 0, 1, 2)?;
            let y = g.mul(y, y)?;
            Ok(g.gradients(y, None, &[x[0]])?[0].unwrap_or(y))
        }),
        s("more than 65,535 workgroups", &[2, 65_537 * 64 + 5], 1, 3, 65_537 * 64).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_is_refused() {
        let x = Spec::float([4, 3]);
        let at = |axis, start, len| Narrow { axis, start, len }.infer(&[&x]);
        assert_eq!(at(0, 1, 3), Ok(Spec::float([3, 3])));
        assert!(at(0, 2, 3).is_err());
        assert!(at(0, 2, 0).is_err());
        assert!(at(2, 0, 1).is_err());
        assert!(at(0, usize::MAX, 2).is_err());
    }
}
