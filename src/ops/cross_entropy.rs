//! `cross_entropy`: the log-softmax and the negative log-likelihood of a class in one, as `torch.nn.functional.cross_entropy`.
//!
//! With logits `x [N, C]`, labels `t [N]`, class weights `w [C]` (ones where absent), smoothing `e` and
//! `p[n] = softmax(x[n])`:
//!
//! `loss[n] = -sum over c of a[n,c] log p[n,c]`, `a[n,c] = (1 - e) w[c] (c = t[n]) + e / C * w[c]`.
//!
//! `Sum` adds these up; `Mean` divides that by `D = sum over n of w[t[n]]`, which is N without weights. (PyTorch weighs the
//! smoothing part by class too, and divides both parts by the same D; a batch whose D is 0 gives NaN.)
//!
//! Gradient: `dx[n,c] = dy / D * (p[n,c] * sum over j of a[n,j] - a[n,c])`. Labels and weights have none.
//!
//! Labels must be below C; the loader checks that. A kernel takes one that is not as C - 1, so that nothing is read out of
//! place.

use rayon::prelude::*;

use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op, partials};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{Shape, ShapeError, Spec, matrix};

/// How the losses of a batch become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reduction {
    /// Their mean, weighted by the classes' weights.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// The parameters, with PyTorch's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct CrossEntropy {
    /// The share of the label that is spread evenly over all classes, 0 to 1.
    pub label_smoothing: f64,
    /// Mean or sum.
    pub reduction: Reduction,
}

/// `dx` from `(x, t, [w,] dy)`.
#[derive(Clone, Copy, Debug)]
pub struct Gradient(pub CrossEntropy);

/// The logits' rows with their labels and weights.
struct Rows<'a, T> {
    logits: &'a [T],
    targets: &'a [u32],
    weights: Option<&'a [T]>,
    classes: usize,
}

impl<'a, T: Real> Rows<'a, T> {
    fn of(cx: &Eval<'a, T>, weighted: bool) -> Self {
        Self {
            logits: cx.float(0),
            targets: cx.u32(1),
            weights: weighted.then(|| cx.float(2)),
            classes: cx.specs[0].shape[1],
        }
    }

    fn row(&self, n: usize) -> &'a [T] {
        &self.logits[n * self.classes..][..self.classes]
    }

    fn target(&self, n: usize) -> usize {
        (self.targets[n] as usize).min(self.classes - 1)
    }

    fn weight(&self, class: usize) -> T {
        self.weights.map_or(T::one(), |w| w[class])
    }
}

/// `log(sum of exp(x))`, so that `log softmax(x) = x - log_sum_exp(x)`.
fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let max = row.iter().copied().fold(T::min_value(), T::max);
    max + row.iter().map(|&x| (x - max).exp()).sum::<T>().ln()
}

impl CrossEntropy {
    /// `(1 - e, e / C)`: the shares of the label and of each class.
    fn shares(&self, classes: usize) -> (f64, f64) {
        let e = self.label_smoothing;
        (1.0 - e, e / classes as f64)
    }
}

impl<T: Real> Kernel<T> for CrossEntropy {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let rows = Rows::of(cx, cx.inputs.len() == 3);
        let (label, spread) = self.shares(rows.classes);
        let (label, spread) = (T::of(label), T::of(spread));
        let [loss, weight] = partials::sum(rows.targets.len(), |n| {
            let (row, t) = (rows.row(n), rows.target(n));
            let norm = log_sum_exp(row);
            let mut loss = label * rows.weight(t) * (norm - row[t]);
            if spread > T::zero() {
                let all: T = (0..rows.classes).map(|c| rows.weight(c) * (norm - row[c])).sum();
                loss += spread * all;
            }
            [loss, rows.weight(t)]
        });
        cx.out()[0] = match self.reduction {
            Reduction::Mean => loss / weight,
            Reduction::Sum => loss,
        };
    }
}

impl<T: Real> Kernel<T> for Gradient {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let weighted = cx.inputs.len() == 4;
        let rows = Rows::of(cx, weighted);
        let dy = cx.float(cx.inputs.len() - 1)[0];
        let (label, spread) = self.0.shares(rows.classes);
        let (label, spread) = (T::of(label), T::of(spread));
        let factor = match self.0.reduction {
            Reduction::Mean => {
                let [d] = partials::sum(rows.targets.len(), |n| [rows.weight(rows.target(n))]);
                dy / d
            }
            Reduction::Sum => dy,
        };
        let all_weights: T = (0..rows.classes).map(|c| rows.weight(c)).sum();
        cx.out().par_chunks_mut(rows.classes).enumerate().for_each(|(n, dx)| {
            let (row, t) = (rows.row(n), rows.target(n));
            let norm = log_sum_exp(row);
            let total = label * rows.weight(t) + spread * all_weights;
            for (c, dx) in dx.iter_mut().enumerate() {
                let mut share = spread * rows.weight(c);
                if c == t {
                    share += label * rows.weight(c);
                }
                *dx = factor * ((row[c] - norm).exp() * total - share);
            }
        });
    }
}

/// Checks logits, labels and weights; returns N and C.
fn check(
    op: &'static str,
    parameters: &CrossEntropy,
    inputs: &[&Spec],
    weighted: bool,
) -> Result<[usize; 2], ShapeError> {
    let [n, classes] = matrix(op, inputs[0])?;
    if n == 0 || classes == 0 {
        let what = "needs at least one row and one class";
        return Err(ShapeError::invalid(op, what, inputs[0]));
    }
    if *inputs[1] != Spec::u32([n]) {
        let what = "the labels must be u32 [N] for logits [N, C]";
        return Err(ShapeError::mismatch(op, what, inputs[1], inputs[0]));
    }
    if weighted && *inputs[2] != Spec::float([classes]) {
        let what = "the class weights must be [C] for logits [N, C]";
        return Err(ShapeError::mismatch(op, what, inputs[2], inputs[0]));
    }
    if !(0.0..=1.0).contains(&parameters.label_smoothing) {
        let e = parameters.label_smoothing;
        let what = format!("label_smoothing must be in 0 to 1, got {e}");
        return Err(ShapeError::invalid(op, what, inputs[0]));
    }
    Ok([n, classes])
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        if !(2..=3).contains(&inputs.len()) {
            return Err(ShapeError::Arity { op: self.name(), expected: 3, got: inputs.len() });
        }
        check(self.name(), self, inputs, inputs.len() == 3)?;
        Ok(Spec::float(Shape::scalar()))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let mut grads = vec![None; cx.inputs.len()];
        if cx.needs[0] {
            let inputs: Vec<NodeId> = cx.inputs.iter().copied().chain([cx.dy]).collect();
            grads[0] = Some(g.apply(Gradient(*self), &inputs)?);
        }
        Ok(grads)
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let weighted = cx.inputs.len() == 3;
        let (consts, parts) = self.consts(cx.inputs[0], weighted);
        let args = vec![Arg::Input(0), Arg::Input(1), weights(weighted), Arg::Scratch(0)];
        Lowering {
            dispatches: vec![
                Dispatch::elementwise(SHADER, "partial", parts, args, consts.clone()),
                Dispatch::elementwise(SHADER, "total", 1, vec![Arg::Scratch(0), Arg::Output], consts),
            ],
            scratch: vec![2 * parts],
        }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        // Comparison, subtraction, exp and addition for each logit.
        4 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        if self.label_smoothing > 0.0 { format!("smoothing {}", self.label_smoothing) } else { String::new() }
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        "cross_entropy_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        let Some((dy, rest)) = inputs.split_last().filter(|(_, r)| (2..=3).contains(&r.len())) else {
            return Err(ShapeError::Arity { op: self.name(), expected: 4, got: inputs.len() });
        };
        check(self.name(), &self.0, rest, rest.len() == 3)?;
        if **dy != Spec::float(Shape::scalar()) {
            let what = "the gradient of the loss must be a scalar";
            return Err(ShapeError::invalid(self.name(), what, dy));
        }
        Ok(inputs[0].clone())
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let weighted = cx.inputs.len() == 4;
        let (consts, parts) = self.0.consts(cx.inputs[0], weighted);
        let step = |entry, count, args| Dispatch::elementwise(SHADER, entry, count, args, consts.clone());
        let dy = Arg::Input(cx.inputs.len() - 1);
        let mut lowering = Lowering::default();
        // Only a weighted mean must add up its divisor; else that binding holds dy, which is not read through it.
        let mut divisor = dy;
        if weighted && self.0.reduction == Reduction::Mean {
            let first = vec![Arg::Input(1), Arg::Input(2), Arg::Scratch(0)];
            let second = vec![Arg::Scratch(0), Arg::Scratch(1)];
            lowering.dispatches.push(step("weight_partial", parts, first));
            lowering.dispatches.push(step("weight_total", 1, second));
            lowering.scratch = vec![parts, 1];
            divisor = Arg::Scratch(1);
        }
        let args = vec![Arg::Input(0), Arg::Input(1), weights(weighted), dy, divisor, Arg::Output];
        let rows = cx.inputs[0].shape[0];
        lowering.dispatches.push(step("gradient", rows, args));
        lowering
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        8 * inputs[0].numel() as u64
    }

    fn detail(&self) -> String {
        self.0.detail()
    }
}

const SHADER: &str = "cross_entropy.wgsl";

/// Without weights their binding holds the logits, which the kernels then never read through it.
fn weights(weighted: bool) -> Arg {
    Arg::Input(if weighted { 2 } else { 0 })
}

impl CrossEntropy {
    /// The constants of all entry points, and the number of partial sums.
    fn consts(&self, logits: &Spec, weighted: bool) -> (Vec<(&'static str, Const)>, usize) {
        let (n, classes) = (logits.shape[0], logits.shape[1]);
        let (label, spread) = self.shares(classes);
        let parts = partials::count(n);
        let consts = vec![
            ("N", Const::U(n as u32)),
            ("C", Const::U(classes as u32)),
            ("PARTS", Const::U(parts as u32)),
            ("LABEL", Const::F(label as f32)),
            ("SPREAD", Const::F(spread as f32)),
            ("WEIGHTED", Const::B(weighted)),
            ("MEAN", Const::B(self.reduction == Reduction::Mean)),
        ];
        (consts, parts)
    }
}

impl Graph {
    /// The cross-entropy of `logits [N, C]` with the classes `targets` (u32 `[N]`), a scalar; `weights [C]` weigh the classes.
    ///
    /// # Errors
    /// The shapes do not fit each other, or the smoothing is not in 0 to 1.
    pub fn cross_entropy(
        &mut self,
        logits: NodeId,
        targets: NodeId,
        weights: Option<NodeId>,
        parameters: CrossEntropy,
    ) -> Result<NodeId, ShapeError> {
        let inputs: Vec<NodeId> = [logits, targets].into_iter().chain(weights).collect();
        self.apply(parameters, &inputs)
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, n: usize, classes: usize, weighted: bool, smoothing: f64, sum: bool| {
        let mut inputs = vec![sample::x(&[n, classes]), sample::words(&[n], Fill::Below(classes as u32))];
        if weighted {
            inputs.push(sample::fixed(&[classes], Fill::Positive));
        }
        let parameters =
            CrossEntropy { label_smoothing: smoothing, reduction: if sum { Reduction::Sum } else { Reduction::Mean } };
        Sample::new(what, inputs, move |g, x| g.cross_entropy(x[0], x[1], x.get(2).copied(), parameters))
            .terms(n.max(classes))
    };
    vec![
        s("one row", 1, 2, false, 0.0, false),
        s("one class", 3, 1, true, 0.1, false),
        s("two classes", 32, 2, false, 0.0, false),
        s("weighted", 17, 3, true, 0.0, false),
        s("smoothed", 9, 4, false, 0.1, false),
        s("weighted and smoothed", 65, 5, true, 0.2, false),
        s("sum", 7, 3, false, 0.0, true),
        s("sum, weighted and smoothed", 7, 3, true, 0.3, true),
        s("only smoothing", 5, 3, true, 1.0, false),
        s("many classes", 3, 1001, true, 0.1, false),
        s("more rows than partial sums", 1027, 2, true, 0.1, false),
        s("more than 65,535 workgroups", 65_536 * 64 + 1, 2, true, 0.0, false).large(),
    ]
}
