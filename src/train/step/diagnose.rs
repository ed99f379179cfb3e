//! A step, an update or an evaluation that gave no numbers, run again with its values kept.

use super::{EvalPass, Host, TrainStep, Turn, in_turn, update, word};
use crate::exec::{ExecError, Executor};
use crate::train::numbers::{NonFinite, first_non_finite};

/// Sets the variables to what they were before the step.
pub(in crate::train) type Restore<'a> = &'a mut dyn FnMut(&mut dyn Executor) -> Result<(), ExecError>;

impl TrainStep {
    /// The first tensor of a step with NaN or infinity.
    pub(in crate::train) fn first_non_finite(
        &self,
        executor: &mut dyn Executor,
        host: Host<'_>,
        turn: &Turn<'_>,
        restore: Restore<'_>,
    ) -> Result<Option<NonFinite>, ExecError> {
        first_non_finite(executor, &self.graph, &mut |executor, program| {
            restore(executor)?;
            self.set(executor, program, host, turn)
        })
    }

    /// The first tensor with NaN or infinity of an update that is a program of its own.
    pub(in crate::train) fn first_non_finite_of_update(
        &self,
        executor: &mut dyn Executor,
        (lr, number): (f64, u64),
        restore: Restore<'_>,
    ) -> Result<Option<NonFinite>, ExecError> {
        let Some(late) = &self.late else { return Ok(None) };
        first_non_finite(executor, &late.graph, &mut |executor, program| {
            restore(executor)?;
            executor.set(program, late.first_row, &word(0))?;
            update::set_hypers(executor, program, &late.hypers, lr, number)
        })
    }
}

impl EvalPass {
    /// The first tensor with NaN or infinity in the batch of an image.
    pub(in crate::train) fn first_non_finite(
        &self,
        executor: &mut dyn Executor,
        host: Host<'_>,
        image: usize,
    ) -> Result<Option<NonFinite>, ExecError> {
        let Some((first, chosen)) = in_turn(self.len, self.batch).nth(image / self.batch) else { return Ok(None) };
        first_non_finite(executor, &self.graph, &mut |executor, program| {
            self.feed.set(executor, program, &chosen, host)?;
            executor.set(program, self.row, &word(first as u32))
        })
    }
}
