//! `concat`: tensors one behind the other along an axis. `narrow` takes a part out again; see `narrow.rs`.
//!
//! All axes but the given one agree. Gradient: each input gets its part of `dy`, `narrow(dy, axis, start, len)`.
//!
//! Kernels: one dispatch an input, which copies it to its place; `vec4` moves four numbers at a time where every part is a
//! whole number of them.

use super::narrow::Part;
use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec};

/// One behind the other along this axis.
#[derive(Clone, Debug)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Concat {
    /// Where each input lies in the output.
    fn parts(&self, inputs: &[&Spec], output: &Spec) -> Vec<Part> {
        let mut start = 0;
        let part = |input: &&Spec| {
            let len = input.shape[self.axis];
            let part = Part::of(&output.shape, self.axis, start, len);
            start += len;
            part
        };
        inputs.iter().map(part).collect()
    }
}

impl<T: Real> Kernel<T> for Concat {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let parts = self.parts(cx.specs, cx.out_spec);
        for (k, part) in parts.iter().enumerate() {
            let x = cx.float(k);
            part.each_row(|row, place| cx.out()[place].copy_from_slice(&x[row]));
        }
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let Some(&first) = inputs.first() else {
            return Err(ShapeError::Arity { op: self.name(), expected: 1, got: 0 });
        };
        if self.axis >= first.shape.len() {
            let what = format!("axis {} is not there", self.axis);
            return Err(ShapeError::invalid(self.name(), what, first));
        }
        let mut dims = first.shape.to_vec();
        dims[self.axis] = 0;
        for &input in inputs {
            let fits =
                input.shape.len() == dims.len() && (0..dims.len()).all(|i| i == self.axis || input.shape[i] == dims[i]);
            if !fits || input.dtype != DType::Float {
                let what = "floats that agree in all axes but the one they are joined along";
                return Err(ShapeError::mismatch(self.name(), what, input, first));
            }
            dims[self.axis] += input.shape[self.axis];
        }
        Ok(Spec::float(dims))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let mut start = 0;
        let mut grads = Vec::with_capacity(cx.inputs.len());
        for (&input, &needed) in cx.inputs.iter().zip(cx.needs) {
            let len = g.spec(input).shape[self.axis];
            grads.push(match needed {
                true => Some(g.narrow(cx.dy, self.axis, start, len)?),
                false => None,
            });
            start += len;
        }
        Ok(grads)
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        match self.parts(cx.inputs, cx.output).iter().all(Part::fits_vec4) {
            true => vec![PLAIN, "vec4"],
            false => vec![PLAIN],
        }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let parts = self.parts(cx.inputs, cx.output).into_iter().enumerate();
        let dispatches = parts
            .filter(|(_, part)| part.len > 0)
            .map(|(k, part)| {
                let args = vec![Arg::Input(k), Arg::Output];
                part.dispatch("concat.wgsl", "forward", cx.variant, part.numel(), args)
            })
            .collect();
        Lowering { dispatches, scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }

    fn detail(&self) -> String {
        format!("axis {}", self.axis)
    }
}

impl Graph {
    /// The tensors one behind the other along `axis`.
    ///
    /// # Errors
    /// There is no tensor or no such axis, or the tensors differ in another axis.
    pub fn concat(&mut self, inputs: &[NodeId], axis: usize) -> Result<NodeId, ShapeError> {
        self.apply(Concat { axis }, inputs)
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |name: &str, axis: usize, shapes: &[&[usize]]| {
        let inputs = shapes.iter().map(|shape| sample::x(shape)).collect();
        Sample::new(name, inputs, move |g, x| g.concat(x, axis))
    };
    vec![
        s("one tensor", 1, &[&[2, 3, 4]]),
        s("one element each", 0, &[&[1], &[1]]),
        s("channels", 1, &[&[3, 2, 6, 2], &[3, 4, 6, 2], &[3, 1, 6, 2]]),
        s("channels of odd planes", 1, &[&[2, 5, 3, 3], &[2, 1, 3, 3]]),
        s("batches", 0, &[&[4, 3, 5], &[1, 3, 5], &[2, 3, 5]]),
        s("last axis", 2, &[&[3, 2, 7], &[3, 2, 65]]),
        s("last axis, multiples of four", 1, &[&[5, 8], &[5, 4]]),
        s("nine tensors", 1, &[[2, 1, 3].as_slice(); 9]),
        Sample::new("the same tensor twice", vec![sample::x(&[2, 3])], |g, x| g.concat(&[x[0], x[0]], 1)),
        s("more than 65,535 workgroups", 1, &[&[1, 65_537 * 64], &[1, 3]]).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let (a, b) = (Spec::float([2, 3]), Spec::float([2, 4]));
        let at = |axis, inputs: &[&Spec]| Concat { axis }.infer(inputs);
        assert_eq!(at(1, &[&a, &b]), Ok(Spec::float([2, 7])));
        assert!(at(0, &[&a, &b]).is_err());
        assert!(at(2, &[&a, &a]).is_err());
        assert!(at(0, &[]).is_err());
        assert!(at(0, &[&a, &Spec::u32([2, 3])]).is_err());
        assert!(at(0, &[&a, &Spec::float([2])]).is_err());
    }
}
