//! `sum_to`: adds up along the axes that broadcasting would repeat. Bias gradients are sums of this kind.
//!
//! `y[k] = sum of x[i]` over all `i` that broadcasting `shape` to x's shape maps to `k`. Gradient: `dx = broadcast_to(dy)`.
//!
//! Kernels: `plain`, one invocation an output; `split`, for `[outer, keep, inner] -> [keep]`, where many invocations add
//! partial sums to scratch and a second dispatch adds those in a fixed order.

use super::binary::strided;
use super::sample::{self, Sample};
use super::{Eval, Kernel, LowerCx, Op, PLAIN, VEC4};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// Adds up to a shape.
#[derive(Clone, Debug)]
pub struct SumTo(pub Shape);

/// `(outer, keep, inner)` where the kept axes of `from` stand side by side.
fn collapse(from: &Shape, to: &Shape) -> Option<(usize, usize, usize)> {
    let strides = to.broadcast_strides(from);
    let kept: Vec<usize> = (0..from.len()).filter(|&i| strides[i] != 0).collect();
    let (first, last) = match (kept.first(), kept.last()) {
        (Some(&a), Some(&b)) => (a, b + 1),
        _ => (from.len(), from.len()),
    };
    let all_kept = (first..last).all(|i| strides[i] != 0 || from[i] == 1);
    let size = |r: std::ops::Range<usize>| from[r].iter().product::<usize>();
    all_kept.then(|| (size(0..first), size(first..last), size(last..from.len())))
}

impl<T: Real> Kernel<T> for SumTo {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let x = cx.float(0);
        let from = &cx.specs[0].shape;
        let collapsed = if cx.fast { collapse(from, &self.0) } else { None };
        if let Some((outer, keep, inner)) = collapsed {
            use rayon::prelude::*;
            cx.out().par_iter_mut().enumerate().for_each(|(k, y)| {
                // Blocks are added up in f64, which keeps the rounding error of long sums small.
                let rows = (0..outer).flat_map(|o| x[(o * keep + k) * inner..][..inner].chunks(1024));
                *y = T::of(rows.map(|block| block.iter().copied().sum::<T>().f64()).sum());
            });
            return;
        }
        let strides = self.0.broadcast_strides(from);
        let y = cx.out();
        y.fill(T::zero());
        for (&v, k) in x.iter().zip(strided(from, &strides)) {
            y[k] += v;
        }
    }
}

impl Op for SumTo {
    fn name(&self) -> &'static str {
        "sum_to"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let to = Spec::float(self.0.clone());
        let from = &inputs[0].shape;
        if inputs[0].dtype == DType::Float && Shape::broadcast(from, &self.0).as_ref() == Some(from) {
            Ok(to)
        } else {
            Err(ShapeError::mismatch(self.name(), "the target does not broadcast to the input", inputs[0], &to))
        }
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let shape = g.spec(cx.inputs[0]).shape.clone();
        Ok(vec![Some(g.broadcast_to(cx.dy, &shape)?)])
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        match collapse(&cx.inputs[0].shape, &self.0) {
            // Short sums or many outputs fill a device as they are.
            Some((outer, keep, inner)) if outer * inner >= 256 && keep <= 1 << 16 => {
                if inner.is_multiple_of(4) {
                    vec![PLAIN, SPLIT, VEC4]
                } else {
                    vec![PLAIN, SPLIT]
                }
            }
            _ => vec![PLAIN],
        }
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let from = &cx.inputs[0].shape;
        match collapse(from, &self.0) {
            Some((outer, keep, inner)) if cx.variant == VEC4 => {
                split("sum_to_split_vec4.wgsl", [outer, keep, inner / 4])
            }
            Some((outer, keep, inner)) if cx.variant == SPLIT => split(FILE, [outer, keep, inner]),
            _ => plain(from, &self.0),
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        inputs[0].numel() as u64
    }
}

const SPLIT: &str = "split";
const FILE: &str = "sum_to_split.wgsl";

fn plain(from: &Shape, to: &Shape) -> Lowering {
    let strides = to.broadcast_strides(from);
    let steps = from.strides();
    // The kept axes say where an output's terms begin, the others which elements they are.
    let (mut base, mut term) = (Vec::new(), Vec::new());
    let mut terms = 1;
    for i in (0..from.len()).rev() {
        if from[i] == 1 {
            continue;
        }
        if strides[i] == 0 {
            term.push(format!("((t / {terms}u) % {}u) * {}u", from[i], steps[i]));
            terms *= from[i];
        } else {
            base.push(format!("((k / {}u) % {}u) * {}u", strides[i], from[i], steps[i]));
        }
    }
    let join = |v: Vec<String>| {
        if v.is_empty() { "0u".to_owned() } else { v.join(" + ") }
    };
    let consts = vec![("BASE", Const::Formula(join(base))), ("TERM", Const::Formula(join(term)))];
    let d = Dispatch::elementwise("sum_to.wgsl", "forward", to.numel(), vec![Arg::Input(0), Arg::Output], consts);
    Lowering { dispatches: in_series(d, terms, 0), scratch: Vec::new() }
}

/// `[outer, keep, inner]` in loads; `page` makes the partial sums.
fn split(page: &'static str, [outer, keep, inner]: [usize; 3]) -> Lowering {
    // Enough partial sums to fill a device, few enough that adding them up is nothing: 64 to 1,024 for an output.
    let terms = outer * inner;
    let parts = (terms / 64).clamp(1, (16_384 / keep.max(1)).clamp(64, 1024)).next_multiple_of(8);
    let consts = vec![
        ("OUTER", Const::Loose(outer as u32)),
        ("KEEP", Const::Loose(keep as u32)),
        ("INNER", Const::Loose(inner as u32)),
        ("PARTS", Const::Loose(parts as u32)),
    ];
    let args = vec![Arg::Input(0), Arg::Scratch(0)];
    let first = Dispatch::elementwise(page, "partial", keep * parts, args, consts.clone());
    let second = Dispatch::elementwise(FILE, "total", keep, vec![Arg::Scratch(0), Arg::Output], consts);
    Lowering { dispatches: vec![first, second], scratch: vec![keep * parts] }
}

impl Graph {
    /// Adds up along every axis that broadcasting `shape` to x's shape would repeat.
    ///
    /// # Errors
    /// `shape` does not broadcast to x's shape.
    pub fn sum_to(&mut self, x: NodeId, shape: &Shape) -> Result<NodeId, ShapeError> {
        if self.spec(x).shape == *shape { Ok(x) } else { self.apply(SumTo(shape.clone()), &[x]) }
    }

    /// The sum of all elements, a scalar.
    ///
    /// # Errors
    /// The input holds no floats.
    pub fn sum(&mut self, x: NodeId) -> Result<NodeId, ShapeError> {
        self.sum_to(x, &Shape::scalar())
    }

    /// Sums over all axes but the second: `[N, C, ...] -> [C]`, the gradient of a bias.
    ///
    /// # Errors
    /// The input has no second axis.
    pub fn channel_sum(&mut self, x: NodeId) -> Result<NodeId, ShapeError> {
        let spec = self.spec(x).clone();
        let Some(&channels) = spec.shape.get(1) else {
            return Err(ShapeError::invalid("channel_sum", "needs a channel axis", &spec));
        };
        let mut shape = vec![channels];
        shape.resize(spec.shape.len() - 1, 1);
        let sum = self.sum_to(x, &Shape::from(shape))?;
        self.reshape(sum, &Shape::from([channels]))
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, from: &[usize], to: &'static [usize]| {
        let terms = from.iter().product::<usize>() / to.iter().product::<usize>().max(1);
        Sample::new(what, vec![sample::x(from)], move |g, x| g.sum_to(x[0], &Shape::new(to))).terms(terms)
    };
    // Positive terms: the relative error of one number that cancels to nearly nothing says nothing.
    let positive = vec![sample::filled(&[3, 5, 27], sample::Fill::Positive)];
    let scalar = Sample::new("to a scalar", positive, |g, x| g.sum(x[0])).terms(405);
    vec![
        s("one element", &[1, 1], &[1]),
        scalar,
        s("channels", &[3, 5, 17, 7], &[5, 1, 1]),
        s("columns", &[365, 7], &[7]),
        s("middle axis", &[4, 9, 3], &[4, 1, 3]),
        s("kept ends", &[2, 3, 4, 5], &[2, 1, 1, 5]),
        s("channels, whole vec4", &[3, 5, 10, 12], &[5, 1, 1]),
        s("many terms", &[32, 3, 40, 40], &[3, 1, 1]).large(),
        s("more than 65,535 workgroups", &[2, 65_536 * 64 + 3], &[65_536 * 64 + 3]).large(),
    ]
}
