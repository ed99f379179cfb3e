//! `write_rows`: writes a batch's rows into a log that outlives the step, `log[at + r, :] = rows[r, :]` where `at + r < K`.
//!
//! Evaluation gathers its logits so, and training its losses: the log is read when it is full, not after every step. Rows past
//! the end of the log are dropped. A log has no derivative.
//!
//! The node's value is an empty tensor: all that it does is the update.

use super::{Eval, Kernel, LowerCx, Op};
use crate::gpu::lower::{Arg, Const, Dispatch, Lowering};
use crate::graph::{Graph, NodeId, VarView};
use crate::real::Real;
use crate::shape::{ShapeError, Spec, arity, matrix};

/// The write; its inputs are the rows and the first row's place.
#[derive(Clone, Debug)]
pub struct WriteRows {
    /// The log, float `[K, C]`.
    pub log: VarView,
}

impl<T: Real> Kernel<T> for WriteRows {
    fn eval(&self, cx: &mut Eval<'_, T>) {
        let (rows, at) = (cx.float(0), cx.u32(1)[0] as usize);
        let columns = cx.specs[0].shape[1];
        let Some(log) = cx.state.first_mut() else {
            return;
        };
        let places = log.chunks_exact_mut(columns).skip(at);
        for (place, row) in places.zip(rows.chunks_exact(columns)) {
            place.copy_from_slice(row);
        }
    }
}

impl Op for WriteRows {
    fn name(&self) -> &'static str {
        "write_rows"
    }

    fn infer(&self, inputs: &[&Spec]) -> Result<Spec, ShapeError> {
        arity(self.name(), inputs, 2)?;
        let [_, columns] = matrix(self.name(), &self.log.spec)?;
        let [_, own] = matrix(self.name(), inputs[0])?;
        if own != columns || columns == 0 {
            let what = "rows [R, C] and log [K, C] need the same C, at least 1";
            let log = &self.log.spec;
            return Err(ShapeError::mismatch(self.name(), what, inputs[0], log));
        }
        if *inputs[1] != Spec::u32([1]) {
            let what = "the first row's place must be u32 [1]";
            return Err(ShapeError::invalid(self.name(), what, inputs[1]));
        }
        Ok(Spec::float([0]))
    }

    fn lower(&self, cx: &LowerCx) -> Lowering {
        let log = &self.log.spec.shape;
        let consts = vec![("ROWS", Const::Loose(log[0] as u32)), ("COLUMNS", Const::Loose(log[1] as u32))];
        let args = vec![Arg::Input(0), Arg::Input(1), Arg::State(0)];
        let count = cx.inputs[0].numel();
        let d = Dispatch::elementwise("write_rows.wgsl", "forward", count, args, consts);
        Lowering { dispatches: vec![d], scratch: Vec::new() }
    }

    fn flops(&self, _: &[&Spec], _: &Spec) -> u64 {
        0
    }

    fn updates(&self) -> Vec<VarView> {
        vec![self.log.clone()]
    }
}

impl Graph {
    /// Writes `rows [R, C]` into the variable `log [K, C]` from row `at` (u32 `[1]`) on; what does not fit is dropped. The
    /// node's value is an empty tensor.
    ///
    /// # Errors
    /// The numbers of columns differ, or the tensors have other types.
    pub fn write_rows(&mut self, log: VarView, rows: NodeId, at: NodeId) -> Result<NodeId, ShapeError> {
        self.apply(WriteRows { log }, &[rows, at])
    }
}
