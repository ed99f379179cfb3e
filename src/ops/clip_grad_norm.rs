//! `clip_grad_norm`: scales the gradient of an optimizer step down where the norm of the whole gradient is too large
//! (Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063; `torch.nn.utils.clip_grad_norm_`).
//!
//! Inputs are the four numbers of [`OptimizerKind::hyper`](crate::optim::OptimizerKind::hyper), whose last one is the
//! gradient's scale, and the two of `grad_stats`, whose first one is the sum of its squares. The output is the four numbers
//! with the scale times `min(1, max_norm / (sqrt(squares) + 1e-6))`. So a clipped step costs no pass over the gradient.
//! There is no derivative.

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity};

/// Added to the norm, as in PyTorch.
const EPS: f64 = 1e-6;

/// The largest norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipGradNorm {
    /// Above 0.
    pub max_norm: f64,
}

impl<T: Real> Kernel<T> for ClipGradNorm {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (hyper, squares) = (cx.float(0), cx.float(1)[0]);
        let clip = (T::of(self.max_norm) / (squares.sqrt() + T::of(EPS))).min(T::one());
        cx.out().copy_from_slice(&[hyper[0], hyper[1], hyper[2], hyper[3] * clip]);
    }
}

impl Op for ClipGradNorm {
    fn name(&self) -> &'static str {
        "clip_grad_norm"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        if !(self.max_norm.is_finite() && self.max_norm > 0.0) {
            let what = format!("the largest norm must be above 0, got {}", self.max_norm);
            return Err(ShapeError::invalid(self.name(), what, inputs[0]));
        }
        if *inputs[0] != Spec::float([4]) || *inputs[1] != Spec::float([2]) {
            let what = "takes the four numbers of an optimizer step and the two of grad_stats";
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], inputs[1]));
        }
        Ok(Spec::float([4]))
    }

    fn lower(&self, _: &LowerCx) -> Lowering {
        let consts = vec![("MAX_NORM", Const::F(self.max_norm as f32)), ("EPS", Const::F(EPS as f32))];
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
        let d = Dispatch::elementwise("clip_grad_norm.wgsl", "forward", 4, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn detail(&self) -> String {
        format!("norm {}", self.max_norm)
    }
}

impl Graph {
    /// The numbers `hyper [4]` of an optimizer step with the gradient's scale made smaller where the norm that `stats [2]`
    /// ([`Graph::grad_stats`]) tells is above `max_norm`.
    ///
    /// # Errors
    /// `max_norm` is not above 0, or the inputs have other shapes.
    pub fn clip_grad_norm(&mut self, hyper: NodeId, stats: NodeId, max_norm: f64) -> Result<NodeId, ShapeError> {
        self.apply(ClipGradNorm { max_norm }, &[hyper, stats])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, max_norm: f64| {
        let inputs = vec![sample::fixed(&[4], Fill::Positive), sample::fixed(&[2], Fill::Positive)];
        Sample::new(what, inputs, move |g, x| g.clip_grad_norm(x[0], x[1], max_norm))
    };
    vec![s("clipped", 0.125), s("not clipped", 1e3)]
}
