//! `gather_rows`: a batch of rows, picked by index: `y[b, ..] = x[k[b], ..]` for floats `x [N, ...]` and indices `k [B]`, as
//! `torch.index_select(x, 0, k)`.
//!
//! Gradient: `dx[r, ..]` is the sum of `dy[b, ..]` over all b with `k[b] = r`, in their order; its own gradient is `gather_rows`
//! again. Indices have no derivative. An index that is not below N is taken as N - 1, so that nothing is read out of place.
//!
//! Kernels: one invocation an element of the result. That of the gradient looks at every index for each element of x, which suits a
//! small B; the rows that training picks are data, and nobody asks for their gradient.

use rayon::prelude::*;

use super::gather::batch;
use super::sample::{self, Fill, Sample};
use super::{Eval, Kernel, LowerCx, Op};
use crate::autodiff::Backward;
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering, in_series};
use crate::graph::{Graph, NodeId};
use crate::real::Real;
use crate::shape::{DType, Shape, ShapeError, Spec, arity};

/// Picks rows.
#[derive(Clone, Copy, Debug)]
pub struct GatherRows;

/// `dx` from `dy` and the indices.
#[derive(Clone, Debug)]
pub struct InputGrad {
    /// The shape of x.
    pub shape: Shape,
}

/// Number of rows, and elements of each.
fn rows(x: &Shape) -> (usize, usize) {
    (x[0], x[1..].iter().product())
}

/// Refuses what has no rows to pick from.
fn check(op: &'static str, x: &Spec) -> Result<(), ShapeError> {
    if x.dtype != DType::Float || x.shape.is_empty() || x.numel() == 0 {
        let what = "the rows must be floats [N, ...], at least one of at least one element";
        return Err(ShapeError::invalid(op, what, x));
    }
    if u32::try_from(x.numel()).is_err() {
        let what = "kernels count elements with 32 bits: there must be fewer than 2^32";
        return Err(ShapeError::invalid(op, what, x));
    }
    Ok(())
}

impl<T: Real> Kernel<T> for GatherRows {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (x, indices) = (cx.float(0), cx.u32(1));
        let (count, len) = rows(&cx.specs[0].shape);
        cx.out().par_chunks_mut(len).zip(indices).for_each(|(out, &k)| {
            let start = (k as usize).min(count - 1) * len;
            out.copy_from_slice(&x[start..start + len]);
        });
    }
}

impl<T: Real> Kernel<T> for InputGrad {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (dy, indices) = (cx.float(0), cx.u32(1));
        let (count, len) = rows(&self.shape);
        let dx = cx.out();
        dx.fill(T::zero());
        for (row, &k) in dy.chunks_exact(len).zip(indices) {
            let start = (k as usize).min(count - 1) * len;
            for (sum, &v) in dx[start..start + len].iter_mut().zip(row) {
                *sum += v;
            }
        }
    }
}

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        check(self.name(), inputs[0])?;
        let mut dims = inputs[0].shape.to_vec();
        dims[0] = batch(self.name(), inputs[1])?;
        Ok(Spec::float(dims))
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        let shape = g.spec(cx.inputs[0]).shape.clone();
        Ok(vec![Some(g.apply(InputGrad { shape }, &[cx.dy, cx.inputs[1]])?), None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let d = dispatch(&cx.inputs[0].shape, "forward", cx.output.numel());
        Lowering { dispatches: in_series(d, 1, 0), scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }
}

impl Op for InputGrad {
    fn name(&self) -> &'static str {
        "gather_rows_input_grad"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let dx = Spec::float(self.shape.clone());
        check(self.name(), &dx)?;
        let dy = inputs[0];
        let same = dy.shape.get(1..) == self.shape.get(1..) && dy.dtype == DType::Float;
        if !same || dy.shape[0] != batch(self.name(), inputs[1])? {
            let what = "the gradient must have a row like those of x for each index";
            return Err(ShapeError::mismatch(self.name(), what, dy, &dx));
        }
        Ok(dx)
    }

    fn backward(&self, g: &mut Graph, cx: &Backward) -> Result<Vec<Option<NodeId>>, ShapeError> {
        Ok(vec![Some(g.gather_rows(cx.dy, cx.inputs[1])?), None])
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let d = dispatch(&self.shape, "grad_input", cx.output.numel());
        Lowering { dispatches: in_series(d, cx.inputs[1].numel(), 0), scratch: Vec::new() }
    }

    fn flops(&self, inputs: &[&Spec], _: &Spec) -> u64 {
        inputs[0].numel() as u64
    }
}

fn dispatch(x: &Shape, entry: &'static str, count: usize) -> Dispatch {
    let (count_of_rows, len) = rows(x);
    let consts = vec![("ROWS", Const::U(count_of_rows as u32)), ("LEN", Const::U(len as u32))];
    let args = vec![Arg::Input(0), Arg::Input(1), Arg::Output];
    Dispatch::elementwise("gather_rows.wgsl", entry, count, args, consts)
}

impl Graph {
    /// The rows of `x` (floats `[N, ...]`) that `indices` (u32 `[B]`) name, floats `[B, ...]`.
    ///
    /// # Errors
    /// The tensors have other types, or there is no row.
    pub fn gather_rows(&mut self, x: NodeId, indices: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(GatherRows, &[x, indices])
    }
}

/// Samples.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let s = |what: &str, dims: &[usize], b: usize, bound: u32| {
        let inputs = vec![sample::x(dims), sample::words(&[b], Fill::Below(bound))];
        Sample::new(what, inputs, |g, x| g.gather_rows(x[0], x[1]))
    };
    let twice = vec![sample::x(&[4, 3]), sample::words(&[6], Fill::Below(4))];
    vec![
        s("one", &[1, 1], 1, 1),
        s("rows of one element", &[5], 7, 5),
        s("no multiple of 64", &[7, 65], 9, 7),
        s("images", &[4, 3, 5, 2], 6, 4),
        s("rows that nobody picks, others often", &[6, 4], 9, 2),
        s("indices past the end", &[3, 4], 8, 9),
        Sample::new("twice differentiable", twice, |g, x| {
            let y = g.gather_rows(x[0], x[1])?;
            let y = g.mul(y, y)?;
            Ok(g.gradients(y, None, &[x[0]])?[0].unwrap_or(y))
        }),
        s("more than 60,000 indices", &[2, 3], 60_001, 2).terms(60_001).large(),
        s("more than 65,535 workgroups picked", &[5, 4087], 1027, 5).terms(1027).large(),
        s("more than 65,535 workgroups to pick from", &[70_001, 61], 3, 70_001).large(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_rows_or_no_indices_is_refused() {
        let (x, k) = (Spec::float([4, 3, 2]), Spec::u32([5]));
        assert_eq!(GatherRows.infer(&[&x, &k]), Ok(Spec::float([5, 3, 2])));
        for wrong in [Spec::u8([4, 3]), Spec::float([0, 3]), Spec::float([4, 0]), Spec::float(Shape::scalar())] {
            assert!(GatherRows.infer(&[&wrong, &k]).is_err(), "{wrong}");
        }
        assert!(GatherRows.infer(&[&Spec::float([1 << 20, 1 << 12]), &k]).is_err());
        assert!(GatherRows.infer(&[&x, &Spec::u32([5, 1])]).is_err());
        let grad = InputGrad { shape: x.shape.clone() };
        assert_eq!(grad.infer(&[&Spec::float([5, 3, 2]), &k]), Ok(x));
        assert!(grad.infer(&[&Spec::float([6, 3, 2]), &k]).is_err());
        assert!(grad.infer(&[&Spec::float([5, 3]), &k]).is_err());
        assert!(grad.infer(&[&Spec::float(Shape::scalar()), &k]).is_err());
    }
}
