//! A lesson with a fault in it: an op whose gradient has the wrong sign, and the check that finds it.

use std::sync::Arc;

use crate::autodiff::Backward;
use crate::check::{CheckError, DIFFERENCE_TOLERANCE, Recorded};
use crate::gpu::lower::Lowering;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::registry::{Entry, registry};
use crate::ops::sample::Sample;
use crate::ops::{Eval, Kernel, LowerCx, Op};
use crate::real::Real;
use crate::shape::{ShapeError, Spec};

/// The ops that are checked, beside the one that is broken.
const CHECKED: [&str; 6] = ["relu", "conv2d", "max_pool2d", "linear", "softmax", "batch_norm2d"];
/// Samples of each.
const SAMPLES: usize = 3;

/// Another op with its first gradient negated.
#[derive(Clone, Debug)]
struct Flipped(Arc<dyn Op>);

impl<T: Real> Kernel<T> for Flipped {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        T::run(self.0.as_ref(), cx);
    }
}

impl Op for Flipped {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        self.0.infer(inputs)
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let mut grads = self.0.backward(g, cx)?;
        if let Some(Some(first)) = grads.first().copied() {
            grads[0] = Some(g.scale(first, -1.0)?);
        }
        Ok(grads)
    }

    fn differentiable(&self, input: usize) -> bool {
        self.0.differentiable(input)
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        self.0.lower(cx)
    }
}

/// The sample with the op flipped that gives its output.
fn flipped(sample: Sample) -> Sample {
    let Sample { name, inputs, build, .. } = sample;
    let specs: Vec<Spec> = inputs.iter().map(|i| i.spec.clone()).collect();
    Sample::new(name, inputs, move |g, given| {
        let mut plain = Graph::new();
        let x: Vec<NodeId> = specs.iter().map(|s| plain.input("x", s.clone())).collect();
        let output = build(&mut plain, &x)?;
        // The same nodes again, with the fault put in.
        let mut places: Vec<NodeId> = Vec::with_capacity(plain.nodes().len());
        for (at, node) in plain.nodes().iter().enumerate() {
            places.push(match &node.source {
                Source::Op { op: inner, inputs } => {
                    let inputs: Vec<NodeId> = inputs.iter().map(|i| places[i.index()]).collect();
                    let wrong = at == output.index();
                    let inner: Arc<dyn Op> =
                        if wrong { Arc::new(Flipped(Arc::clone(inner))) } else { Arc::clone(inner) };
                    g.apply_shared(inner, &inputs)?
                }
                _ => given[at],
            });
        }
        Ok(places[output.index()])
    })
}

/// What the check says about an op.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The op.
    pub op: &'static str,
    /// The largest error of its gradient against differences.
    pub error: f64,
    /// Whether that is within [`DIFFERENCE_TOLERANCE`].
    pub passed: bool,
}

/// An op that can be broken: one with a gradient.
fn entry(name: &str) -> Option<Entry> {
    let checked = |e: &Entry| e.samples().iter().any(|s| s.inputs.iter().any(|i| i.checked));
    registry().into_iter().find(|e| e.name == name).filter(checked)
}

/// Checks a few ops, with the sign of the first gradient of the one that is named flipped. `None` where there is no such op.
///
/// # Errors
/// A sample does not run: a fault of the program.
pub fn check(broken: Option<&str>) -> Result<Option<Vec<Verdict>>, CheckError> {
    let mut names: Vec<&str> = CHECKED.to_vec();
    names.extend(broken.filter(|b| !CHECKED.contains(b)));
    let mut verdicts = Vec::with_capacity(names.len());
    for name in names {
        let Some(entry) = entry(name) else { return Ok(None) };
        let mut error: f64 = 0.0;
        let small = |s: &Sample| !s.large && s.inputs.iter().map(|i| i.spec.numel()).sum::<usize>() < 4000;
        for sample in entry.samples().into_iter().filter(small).take(SAMPLES) {
            let sample = if broken == Some(name) { flipped(sample) } else { sample };
            error = error.max(Recorded::new(&sample, 0)?.differences()?);
        }
        verdicts.push(Verdict { op: entry.name, error, passed: error <= DIFFERENCE_TOLERANCE });
    }
    Ok(Some(verdicts))
}

/// The verdicts as a table.
#[must_use]
pub fn table(verdicts: &[Verdict]) -> String {
    let mut out = String::from("| op | error against differences | |\n|---|---|---|\n");
    for v in verdicts {
        out += &format!("| {} | {:.0e} | {} |\n", v.op, v.error, if v.passed { "right" } else { "WRONG" });
    }
    out
}

pub(super) fn text() -> Result<String, CheckError> {
    let right = check(None)?.unwrap_or_default();
    let wrong = check(Some("conv2d"))?.unwrap_or_default();
    let found: Vec<&str> = wrong.iter().filter(|v| !v.passed).map(|v| v.op).collect();
    Ok(format!(
        "A gradient with a wrong sign does not crash. The network trains, only worse, and one looks for the reason everywhere else. So every\n\
         gradient here is held against the plainest definition that there is: move one input a little to both sides and see\n\
         what the output does, `(f(x + h) - f(x - h)) / 2h`, in double precision. `radiograd gradcheck` does it for each op and, kernel by\n\
         kernel, on your device. A few ops, as they are (differences have errors of their own, so nothing is exactly 0):\n\n{}\n\
         Now the sign of the input gradient of `conv2d` is flipped, one character in the source, and the same check runs again:\n\n{}\n\
         It names {}. The error is about 2: the gradient is as long as it should be and points the other way, so the difference of\n\
         the two is twice its length.\n\n\
         Break another one: `radiograd learn break-it --flip max_pool2d`.",
        sizes(&right),
        sizes(&wrong),
        found.join(", "),
    ))
}

/// The errors without the digits that depend on the machine.
fn sizes(verdicts: &[Verdict]) -> String {
    let mut out = String::from("| op | error against differences | |\n|---|---|---|\n");
    for v in verdicts {
        let (error, word) =
            if v.passed { ("below 1e-6".to_owned(), "right") } else { (format!("{:.1}", v.error), "WRONG") };
        out += &format!("| {} | {error} | {word} |\n", v.op);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_names_the_op_that_was_broken_and_no_other() {
        for broken in [None, Some("conv2d"), Some("max_pool2d"), Some("tanh")] {
            for v in check(broken).unwrap().unwrap() {
                assert_eq!(v.passed, broken != Some(v.op), "{v:?} with {broken:?} broken");
                if !v.passed {
                    assert!((v.error - 2.0).abs() < 1.0, "{v:?}");
                }
            }
        }
        assert!(check(Some("nothing")).unwrap().is_none());
    }
}
