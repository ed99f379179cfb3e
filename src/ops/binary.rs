//! `add` and `mul` with PyTorch's broadcasting, and `broadcast_to`.
//!
//! `y = a + b`: `da = sum_to(dy)`, `db = sum_to(dy)`. `y = a * b`: `da = sum_to(dy * b)`, `db = sum_to(dy * a)`.
//! `broadcast_to` repeats a tensor; its gradient is `sum_to`, which adds up along the repeated axes (see `sum_to.rs`).

use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN, elementwise_page, elementwise_variants};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// Which binary function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a * b`
    Mul,
}

/// Broadcasts its input to a shape.
#[derive(Clone, Debug)]
pub struct BroadcastTo(pub Shape);

/// Walks the elements of `shape` in order and gives, for each, the element of the tensor with `strides`.
pub(crate) fn strided<'a>(shape: &'a Shape, strides: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    (0..shape.numel()).map(move |mut i| {
        let mut at = 0;
        for (&d, &s) in shape.iter().zip(strides).rev() {
            at += (i % d) * s;
            i /= d;
        }
        at
    })
}

impl<T: Real> Kernel<T> for Binary {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (a, b) = (cx.float(0), cx.float(1));
        let f = match self {
            Self::Add => |a: T, b: T| a + b,
            Self::Mul => |a: T, b: T| a * b,
        };
        let (sa, sb, shape) = (&cx.specs[0].shape, &cx.specs[1].shape, &cx.out_spec.shape);
        if let (true, true, Some(a), Some(b)) = (sa == sb, cx.fast, T::as_f32(a), T::as_f32(b)) {
            let op = *self;
            if let Some(y) = cx.fast_out() {
                match op {
                    Self::Add => crate::cpu::fast::map2(a, b, y, |a, b| a + b),
                    Self::Mul => crate::cpu::fast::map2(a, b, y, |a, b| a * b),
                }
            }
            return;
        }
        if sa == sb {
            for (y, (&a, &b)) in cx.out().iter_mut().zip(a.iter().zip(b)) {
                *y = f(a, b);
            }
            return;
        }
        let (ta, tb) = (sa.broadcast_strides(shape), sb.broadcast_strides(shape));
        for (y, (i, j)) in cx.out().iter_mut().zip(strided(shape, &ta).zip(strided(shape, &tb))) {
            *y = f(a[i], b[j]);
        }
    }
}

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Mul => "mul",
        }
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let (a, b) = (inputs[0], inputs[1]);
        match Shape::broadcast(&a.shape, &b.shape) {
            Some(shape) if a.dtype == DType::Float && b.dtype == DType::Float => Ok(Spec::float(shape)),
            _ => Err(ShapeError::mismatch(self.name(), "floats whose shapes broadcast", a, b)),
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let mut grads = Vec::with_capacity(2);
        for (k, &input) in cx.inputs.iter().enumerate() {
            if !cx.needs[k] {
                grads.push(None);
                continue;
            }
            let full = match self {
                Self::Add => cx.dy,
                Self::Mul => g.mul(cx.dy, cx.inputs[1 - k])?,
            };
            let shape = g.spec(input).shape.clone();
            grads.push(Some(g.sum_to(full, &shape)?));
        }
        Ok(grads)
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        let same = cx.inputs[0].shape == cx.inputs[1].shape;
        if same { elementwise_variants(cx.output.numel()) } else { vec![PLAIN] }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let shape = &cx.output.shape;
        let same = cx.inputs[0].shape == cx.inputs[1].shape;
        let index = |k: usize| {
            if same { "i".to_owned() } else { index_formula(shape, &cx.inputs[k].shape.broadcast_strides(shape)) }
        };
        let consts = vec![
            ("OPERATOR", Const::Text(if *self == Self::Add { "+" } else { "*" })),
            ("INDEX_A", Const::Formula(index(0))),
            ("INDEX_B", Const::Formula(index(1))),
        ];
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let (page, count) = elementwise_page(cx.variant, cx.output.numel(), "binary.wgsl", "binary_vec4.wgsl");
        let d = Dispatch::elementwise(page, "forward", count, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }
}

/// WGSL for the element of a tensor with `strides` that belongs to element `i` of `shape`.
fn index_formula(shape: &Shape, strides: &[usize]) -> String {
    let mut inner = shape.numel();
    let mut terms = Vec::new();
    for (&d, &s) in shape.iter().zip(strides) {
        inner /= d.max(1);
        if s != 0 && d > 1 {
            terms.push(format!("((i / {inner}u) % {d}u) * {s}u"));
        }
    }
    if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") }
}

impl<T: Real> Kernel<T> for BroadcastTo {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let x = cx.float(0);
        let strides = cx.specs[0].shape.broadcast_strides(&self.0);
        for (y, i) in cx.out().iter_mut().zip(strided(&self.0, &strides)) {
            *y = x[i];
        }
    }
}

impl Op for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let to = Spec::float(self.0.clone());
        if inputs[0].dtype == DType::Float && Shape::broadcast(&inputs[0].shape, &self.0).as_ref() == Some(&self.0) {
            Ok(to)
        } else {
            Err(ShapeError::mismatch(self.name(), "does not broadcast", inputs[0], &to))
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let shape = g.spec(cx.inputs[0]).shape.clone();
        Ok(vec![Some(g.sum_to(cx.dy, &shape)?)])
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let formula = index_formula(&self.0, &cx.inputs[0].shape.broadcast_strides(&self.0));
        let consts = vec![("INDEX", Const::Formula(formula))];
        let args = vec![Arg::Input(0), Arg::Output];
        let d = Dispatch::elementwise("broadcast_to.wgsl", "forward", cx.output.numel(), args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }
}

impl Graph {
    /// `a + b`, broadcast.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(Binary::Add, &[a, b])
    }

    /// `a * b`, broadcast.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn mul(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(Binary::Mul, &[a, b])
    }

    /// Repeats `x` to `shape`.
    ///
    /// # Errors
    /// The shape does not broadcast to it.
    pub fn broadcast_to(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, ShapeError> {
        if self.spec(x).shape == *shape { Ok(x) } else { self.apply(BroadcastTo(shape.clone()), &[x]) }
    }
}

/// Samples of `add`, `mul` and `broadcast_to`.
#[must_use]
pub fn samples(name: &'static str) -> Vec<Sample> {
    let pair = |what: &str, a: &[usize], b: &[usize]| {
        Sample::new(what, vec![sample::x(a), sample::x(b)], move |g, x| {
            if name == "add" { g.add(x[0], x[1]) } else { g.mul(x[0], x[1]) }
        })
    };
    if name == "broadcast_to" {
        let one = |what: &str, a: &[usize], to: &'static [usize]| {
            Sample::new(what, vec![sample::x(a)], move |g, x| g.broadcast_to(x[0], &Shape::new(to)))
        };
        return vec![
            one("scalar", &[], &[3, 5]),
            one("channel", &[4, 1, 1], &[2, 4, 3, 5]),
            one("row", &[7], &[65, 7]),
        ];
    }
    vec![
        pair("one element", &[1], &[1]),
        pair("same shape", &[4, 2, 3, 7], &[4, 2, 3, 7]),
        pair("channel", &[2, 5, 3, 3], &[5, 1, 1]),
        pair("both repeat", &[4, 1, 3], &[5, 1]),
        pair("scalar", &[3, 65], &[]),
    ]
}
