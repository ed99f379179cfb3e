//! `count_correct`: how many rows of `logits [N, C]` have their largest value at the label; the first of equals counts, as in
//! `torch.argmax`. With one column, or logits `[N]`, a logit above 0 says class 1 and any other class 0.
//!
//! The result is a float `[1]`, exact up to 2^24 rows. A count has no derivative. A NaN is never the largest, unless it comes
//! first.

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, partials};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, ShapeError, Spec, arity};

/// The count, of logits and labels.
#[derive(Clone, Copy, Debug)]
pub struct CountCorrect;

/// The number of columns.
fn columns(logits: &Spec) -> usize {
    logits.shape.get(1).copied().unwrap_or(1)
}

impl<T: Real> Kernel<T> for CountCorrect {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (logits, targets) = (cx.float(0), cx.u32(1));
        let columns = columns(cx.specs[0]);
        let [count] = partials::sum(targets.len(), |n| {
            let row = &logits[n * columns..][..columns];
            let class = if columns == 1 {
                usize::from(row[0] > T::zero())
            } else {
                (1..columns).fold(0, |best, c| if row[c] > row[best] { c } else { best })
            };
            let correct = class == targets[n] as usize;
            [if correct { T::one() } else { T::zero() }]
        });
        cx.out()[0] = count;
    }
}

impl Op for CountCorrect {
    fn name(&self) -> &'static str {
        "count_correct"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let logits = inputs[0];
        let fits = (1..=2).contains(&logits.shape.len()) && logits.dtype == DType::Float;
        if !fits || logits.numel() == 0 {
            let what = "the logits must be floats [N, C] or [N], N and C at least 1";
            return Err(ShapeError::invalid(self.name(), what, logits));
        }
        if *inputs[1] != Spec::u32([logits.shape[0]]) {
            let what = "the labels must be u32 [N] for logits [N, C]";
            return Err(ShapeError::mismatch(self.name(), what, inputs[1], logits));
        }
        Ok(Spec::float([1]))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let rows = cx.inputs[0].shape[0];
        let parts = partials::count(rows);
        let consts = vec![
            ("N", Const::U(rows as u32)),
            ("C", Const::U(columns(cx.inputs[0]) as u32)),
            ("PARTS", Const::U(parts as u32)),
        ];
        let file = "count_correct.wgsl";
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::Scratch(0)];
        let result = vec![Arg::Scratch(0), Arg::Output];
        Lowering {
            dispatches: vec![
                Dispatch::elementwise(file, "partial", parts, args, consts.clone()),
                Dispatch::elementwise(file, "total", 1, result, consts),
            ],
            scratch: vec![parts],
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        inputs[0].numel() as u64
    }
}

impl Graph {
    /// How many rows of `logits` (`[N, C]`, `[N, 1]` or `[N]`) have their class at `targets` (u32 `[N]`); a float `[1]`.
    ///
    /// # Errors
    /// The shapes do not fit each other.
    pub fn count_correct(&mut self, logits: NodeId, targets: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(CountCorrect, &[logits, targets])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, shape: &[usize], classes: u32, fill: Fill| {
        let inputs = vec![sample::fixed(shape, fill), sample::words(&shape[..1], Fill::Below(classes))];
        Sample::new(what, inputs, |g, x| g.count_correct(x[0], x[1]))
    };
    vec![
        s("one row", &[1, 3], 3, Fill::Normal),
        s("one column", &[65, 1], 2, Fill::Normal),
        s("a vector", &[33], 2, Fill::Normal),
        s("two classes", &[100, 2], 2, Fill::Normal),
        s("equals: the first counts", &[257, 5], 5, Fill::Below(2)),
        s("more rows than partial sums", &[3001, 4], 4, Fill::Normal),
    ]
}
