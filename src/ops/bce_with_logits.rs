//! `bce_with_logits`: the binary cross-entropy of a sigmoid, as `torch.nn.functional.binary_cross_entropy_with_logits`.
//!
//! With logits `x [N]`, labels `t` in {0, 1}, `s = sigmoid`, and the positive class counted `q` times (`pos_weight`):
//!
//! `y = 1/N * sum over n of -(q t log s(x) + (1 - t) log(1 - s(x)))`.
//!
//! `-log(1 - s(x)) = max(x, 0) + log(1 + exp(-|x|))`, in which nothing overflows, and `-log s(x)` is the same of `-x`. So a
//! row's loss is `max(z, 0) + log(1 + exp(-|z|))`, with `z = -x` and a factor q where the label is 1.
//!
//! Gradient: `dx = dy / N * s(x)` where t = 0, `-q dy / N * s(-x)` where t = 1. A label above 1 counts as 1.

use rayon::prelude::*;

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, partials};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// The parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BceWithLogits {
    /// How many times a positive example counts; 1 is PyTorch's default.
    pub pos_weight: f64,
}

/// `dx` from `(x, t, dy)`.
#[derive(Clone, Copy, Debug)]
pub struct Gradient(pub BceWithLogits);

/// `1 / (1 + exp(-z))`, without overflow on either side.
fn sigmoid<T: Real>(z: T) -> T {
    let e = (-z.abs()).exp();
    if z < T::zero() { e / (T::one() + e) } else { T::one() / (T::one() + e) }
}

impl<T: Real> Kernel<T> for BceWithLogits {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, t) = (cx.float(0), cx.u32(1));
        let positive = T::of(self.pos_weight);
        let [loss] = partials::sum(x.len(), |n| {
            let (z, factor) = match t[n] {
                0 => (x[n], T::one()),
                _ => (-x[n], positive),
            };
            // Float::max would drop a NaN.
            let above = if z < T::zero() { T::zero() } else { z };
            [factor * (above + (-z.abs()).exp().ln_1p())]
        });
        cx.out()[0] = loss / T::of(x.len() as f64);
    }
}

impl<T: Real> Kernel<T> for Gradient {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, t) = (cx.float(0), cx.u32(1));
        let factor = cx.float(2)[0] / T::of(x.len() as f64);
        let positive = T::of(self.0.pos_weight);
        cx.out().par_iter_mut().with_min_len(4096).zip(x.par_iter().zip(t)).for_each(|(dx, (&x, &t))| {
            *dx = match t {
                0 => factor * sigmoid(x),
                _ => -factor * positive * sigmoid(-x),
            };
        });
    }
}

impl BceWithLogits {
    fn check(&self, op: &'static str, x: &Spec, t: &Spec) -> Result<(), ShapeError> {
        let fits = matches!(*x.shape, [_] | [_, 1]) && x.dtype == DType::Float && x.numel() > 0;
        if !fits {
            let what = "the logits must be floats [N] or [N, 1], N at least 1";
            return Err(ShapeError::invalid(op, what, x));
        }
        if *t != Spec::u32([x.numel()]) {
            let what = "the labels must be u32 [N] for logits [N] or [N, 1]";
            return Err(ShapeError::mismatch(op, what, t, x));
        }
        if !(self.pos_weight.is_finite() && self.pos_weight >= 0.0) {
            let q = self.pos_weight;
            let what = format!("pos_weight must be finite and at least 0, got {q}");
            return Err(ShapeError::invalid(op, what, x));
        }
        Ok(())
    }

    fn consts(&self, x: &Spec) -> (Vec<(&'static str, Const)>, usize) {
        let parts = partials::count(x.numel());
        let consts = vec![
            ("N", Const::U(x.numel() as u32)),
            ("PARTS", Const::U(parts as u32)),
            ("POS_WEIGHT", Const::F(self.pos_weight as f32)),
        ];
        (consts, parts)
    }
}

impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        self.check(self.name(), inputs[0], inputs[1])?;
        Ok(Spec::float(Shape::scalar()))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let dx = match cx.needs[0] {
            true => Some(g.apply(Gradient(*self), &[cx.inputs[0], cx.inputs[1], cx.dy])?),
            false => None,
        };
        Ok(vec![dx, None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let (consts, parts) = self.consts(cx.inputs[0]);
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Scratch(0)];
        let result = vec![Arg::Scratch(0), Arg::Output];
        Lowering {
            dispatches: vec![
                Dispatch::elementwise(SHADER, "partial", parts, args, consts.clone()),
                Dispatch::elementwise(SHADER, "total", 1, result, consts),
            ],
            scratch: vec![parts],
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        6 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        if self.pos_weight == 1.0 { String::new() } else { format!("pos_weight {}", self.pos_weight) }
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        "bce_with_logits_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 3)?;
        self.0.check(self.name(), inputs[0], inputs[1])?;
        if *inputs[2] != Spec::float(Shape::scalar()) {
            let what = "the gradient of the loss must be a scalar";
            return Err(ShapeError::invalid(self.name(), what, inputs[2]));
        }
        Ok(inputs[0].clone())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let (consts, _) = self.0.consts(cx.inputs[0]);
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Input(2), Arg::Output];
        let d = Dispatch::elementwise(SHADER, "gradient", cx.output.numel(), args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        5 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        self.0.detail()
    }
}

const SHADER: &str = "bce_with_logits.wgsl";

impl Graph {
    /// The mean binary cross-entropy of `logits` (`[N]` or `[N, 1]`) with the labels `targets` (u32 `[N]`, 0 or 1), a scalar.
    ///
    /// # Errors
    /// The shapes do not fit each other, or `pos_weight` is negative or not finite.
    pub fn bce_with_logits(
        &mut self,
        logits: NodeId,
        targets: NodeId,
        pos_weight: Option<f64>,
    ) -> Result<NodeId, ShapeError> {
        let pos_weight = pos_weight.unwrap_or(1.0);
        self.apply(BceWithLogits { pos_weight }, &[logits, targets])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, shape: &[usize], pos_weight: Option<f64>| {
        let inputs = vec![sample::x(shape), sample::words(&shape[..1], Fill::Below(2))];
        Sample::new(what, inputs, move |g, x| g.bce_with_logits(x[0], x[1], pos_weight)).terms(shape[0])
    };
    let steep = Sample::new("large numbers", vec![sample::x(&[9]), sample::words(&[9], Fill::Below(2))], |g, x| {
        let steep = g.scale(x[0], 60.0)?;
        g.bce_with_logits(steep, x[1], None)
    });
    vec![
        s("one row", &[1], None),
        s("a column", &[33, 1], None),
        s("weighted", &[65], Some(2.7)),
        s("more rows than partial sums", &[1027], Some(0.3)),
        steep.large(),
        s("more than 65,535 workgroups", &[65_536 * 64 + 1], None).large(),
    ]
}
