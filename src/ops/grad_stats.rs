//! `grad_stats`: the sum of squares of a vector, and how many of its elements are NaN or infinite.
//!
//! For `x [P]` a float `[2]`: `y[0] = sum of x[i]^2` over the finite elements, `y[1]` the number of the others. The root of the
//! first is the norm by which gradients are clipped; the second tells that training has diverged. The square of an element
//! above 1.8e19 is infinite in `f32`, and so is then the sum.
//!
//! NaN and infinity are found by their bits, the exponent being all ones: a WGSL compiler may assume that they do not occur and
//! take `x != x` for false.

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, elementwise_page, elementwise_variants, partials};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, arity};

/// The two numbers.
#[derive(Clone, Copy, Debug)]
pub struct GradStats;

impl<T: Real> Kernel<T> for GradStats {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let x = cx.float(0);
        let [squares, others] =
            partials::sum(x.len(), |i| if x[i].is_finite() { [x[i] * x[i], T::zero()] } else { [T::zero(), T::one()] });
        cx.out().copy_from_slice(&[squares, others]);
    }
}

impl Op for GradStats {
    fn name(&self) -> &'static str {
        "grad_stats"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 1)?;
        let x = inputs[0];
        if x.shape.len() != 1 || x.dtype != DType::Float || x.numel() == 0 {
            let what = "expects floats [P], P at least 1";
            return Err(ShapeError::invalid(self.name(), what, x));
        }
        Ok(Spec::float([2]))
    }

    fn variants(&self, cx: &LowerCx) -> Vec<&'static str> {
        elementwise_variants(cx.inputs[0].numel())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let n = cx.inputs[0].numel();
        // Millions of elements need many invocations to read them; two more dispatches then bring the partial sums down.
        let parts = (n / 64).clamp(1, 65_536);
        let folds = parts.min(256);
        let (page, n) = elementwise_page(cx.variant, n, "grad_stats.wgsl", "grad_stats_vec4.wgsl");
        let consts =
            vec![("N", Const::U(n as u32)), ("PARTS", Const::U(parts as u32)), ("FOLDS", Const::U(folds as u32))];
        let step = |page, entry, count, args| Dispatch::elementwise(page, entry, count, args, consts.clone());
        Lowering {
            dispatches: vec![
                step(page, "partial", parts, vec![Arg::Input(0), Arg::Scratch(0)]),
                step("grad_stats.wgsl", "fold", folds, vec![Arg::Scratch(0), Arg::Scratch(1)]),
                step("grad_stats.wgsl", "total", 1, vec![Arg::Scratch(1), Arg::Output]),
            ],
            scratch: vec![2 * parts, 2 * folds],
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        2 * inputs[0].numel() as u64
    }
}

impl Graph {
    /// The sum of squares of the finite elements of `x [P]` and the number of the others, a float `[2]`.
    ///
    /// # Errors
    /// The input is no float vector with at least one element.
    pub fn grad_stats(&mut self, x: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(GradStats, &[x])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, n: usize| {
        Sample::new(what, vec![sample::fixed(&[n], Fill::Normal)], |g, x| g.grad_stats(x[0])).terms(n)
    };
    let bad = |what: &str, n: usize| {
        Sample::new(what, vec![sample::fixed(&[n], Fill::Normal)], |g, x| {
            // exp(1e30 x) is infinite above 0 and 0 below, in f32 and in f64.
            let steep = g.scale(x[0], 1e30)?;
            let infinite = g.exp(steep)?;
            let mixed = g.add(x[0], infinite)?;
            g.grad_stats(mixed)
        })
    };
    vec![
        s("one element", 1),
        s("not a multiple of 64", 197),
        s("four elements", 4),
        s("whole vec4", 196),
        bad("infinities", 131),
        bad("infinities, whole vec4", 132),
        s("every partial sum", 65_536 * 64 + 67).large(),
        s("every partial sum, whole vec4", 65_536 * 64 + 68).large(),
    ]
}
