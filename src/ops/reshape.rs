//! `reshape` and `flatten` (the same memory under another shape), `fill` (a constant) and `pack` (tensors side by side).
//!
//! `reshape`: the gradient is the gradient reshaped back. `pack` lays the gradients of all parameters out as the parameters
//! themselves lie, so that an optimizer sees one long vector; the executor lets them be computed in place.

use super::sample::{self, Fill as FillWith, Sample};
use super::{Array, Eval, Kernel, LowerCx, Op, View};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// Another shape for the same elements.
#[derive(Clone, Debug)]
pub struct Reshape(pub Shape);

impl<T: Real> Kernel<T> for Reshape {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        match (cx.inputs[0], &mut *cx.out) {
            (View::Float(x), Array::Float(y)) => y.copy_from_slice(x),
            (View::U32(x), Array::U32(y)) => y.copy_from_slice(x),
            (View::U8(x), Array::U8(y)) => y.copy_from_slice(x),
            _ => unreachable!("a reshape keeps the type"),
        }
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let to = Spec { shape: self.0.clone(), dtype: inputs[0].dtype };
        if inputs[0].numel() == to.numel() {
            Ok(to)
        } else {
            Err(ShapeError::mismatch(self.name(), "the number of elements must stay", inputs[0], &to))
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let shape = g.spec(cx.inputs[0]).shape.clone();
        Ok(vec![Some(g.reshape(cx.dy, &shape)?)])
    }

    fn lower(&self, _: &LowerCx) -> Lowering {
        Lowering::default()
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }

    fn is_view(&self) -> bool {
        true
    }
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Shape.
    pub shape: Shape,
    /// The value of every element.
    pub value: f64,
}

impl<T: Real> Kernel<T> for Fill {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let value = T::of(self.value);
        cx.out().fill(value);
    }
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 0)?;
        Ok(Spec::float(self.shape.clone()))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let consts = vec![("VALUE", Const::F(self.value as f32))];
        let d = Dispatch::elementwise("fill.wgsl", "forward", cx.output.numel(), vec![Arg::Output], consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }
}

/// Tensors laid side by side in one vector, each at its offset; zeros between them.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Offsets in elements, one for each input.
    pub offsets: Vec<usize>,
    /// Length of the vector.
    pub len: usize,
}

impl<T: Real> Kernel<T> for Pack {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        cx.out().fill(T::zero());
        for (k, &at) in self.offsets.iter().enumerate() {
            let x = cx.float(k);
            cx.out()[at..at + x.len()].copy_from_slice(x);
        }
    }
}

impl Op for Pack {
    fn name(&self) -> &'static str {
        "pack"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, self.offsets.len())?;
        let mut end = 0;
        for (&at, input) in self.offsets.iter().zip(inputs) {
            if input.dtype != DType::Float || at < end || at % crate::store::ALIGN != 0 {
                return Err(ShapeError::invalid(self.name(), "floats at rising offsets, multiples of 64", input));
            }
            end = at + input.numel();
        }
        if end > self.len {
            let what = format!("the inputs end at {end}, past the length {}", self.len);
            return Err(ShapeError::Invalid { op: self.name(), what, input: Spec::float([self.len]) });
        }
        Ok(Spec::float([self.len]))
    }

    fn lower(&self, _: &LowerCx) -> Lowering {
        Lowering::default()
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }

    fn packs(&self) -> Option<&[usize]> {
        Some(&self.offsets)
    }
}

impl Graph {
    /// The same elements under another shape.
    ///
    /// # Errors
    /// The number of elements differs.
    pub fn reshape(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, ShapeError> {
        if self.spec(x).shape == *shape { Ok(x) } else { self.apply(Reshape(shape.clone()), &[x]) }
    }

    /// `[N, ...] -> [N, the rest]`.
    ///
    /// # Errors
    /// The tensor is a scalar.
    pub fn flatten(&mut self, x: NodeId) -> Result<NodeId, ShapeError> {
        let spec = self.spec(x).clone();
        let Some(&n) = spec.shape.first() else {
            return Err(ShapeError::invalid("flatten", "needs a batch axis", &spec));
        };
        let rest = spec.shape[1..].iter().product();
        self.reshape(x, &Shape::from([n, rest]))
    }

    /// A tensor with one value everywhere.
    ///
    /// # Errors
    /// Never for a shape that memory holds.
    pub fn fill(&mut self, shape: &Shape, value: f64) -> Result<NodeId, ShapeError> {
        self.apply(Fill { shape: shape.clone(), value }, &[])
    }
}

/// Samples of `reshape`, `fill` and `pack`.
#[must_use]
pub fn samples(name: &str) -> Vec<Sample> {
    match name {
        "reshape" => vec![
            // The factor makes sure that something reads the view.
            Sample::new("between two ops", vec![sample::x(&[2, 3, 5, 1])], |g, x| {
                let y = g.scale(x[0], 2.0)?;
                let y = g.reshape(y, &Shape::from([6, 5]))?;
                g.tanh(y)
            }),
            Sample::new("flatten", vec![sample::x(&[4, 3, 2, 2])], |g, x| {
                let y = g.flatten(x[0])?;
                g.sigmoid(y)
            }),
        ],
        "fill" => vec![Sample::new("times an input", vec![sample::x(&[65, 3])], |g, x| {
            let c = g.fill(&Shape::from([3]), -1.5)?;
            g.mul(x[0], c)
        })],
        _ => vec![Sample::new(
            "three tensors with gaps",
            vec![
                sample::fixed(&[3, 5], FillWith::Normal),
                sample::fixed(&[64], FillWith::Normal),
                sample::fixed(&[1], FillWith::Normal),
            ],
            |g, x| {
                let a = g.scale(x[0], 2.0)?;
                let b = g.tanh(x[1])?;
                // The middle one is an input as it is: that cannot be computed in place and has to be copied.
                g.apply(Pack { offsets: vec![0, 64, 192], len: 256 }, &[a, x[2], b])
            },
        )],
    }
}
