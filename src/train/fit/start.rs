//! Where a loop begins: afresh, or from the checkpoints of a folder.

use std::path::Path;

use super::saving::{Begun, read_seconds};
use super::{Fit, Journal};
use crate::optim::Scheduler;
use crate::report::data::EpochRow;
use crate::train::TrainError;
use crate::train::checkpoint::{self, Best, EpochRowNoTime, Loaded};
use crate::train::init;

/// Where a loop begins: see [`Fit::start`].
#[derive(Clone, Debug)]
pub struct Start {
    pub(super) scheduler: Scheduler,
    pub(super) epochs: Vec<EpochRow>,
    pub(super) best: Option<Best>,
    pub(super) step: u64,
    /// The first epoch of each stage that has begun.
    pub(super) begun: Vec<u32>,
    /// The epoch in whose midst it is.
    pub(super) within: Option<Begun>,
    pub(super) journal: Journal,
    pub(super) resumed: bool,
    /// Whether `last.safetensors` is what it begins with.
    pub(super) whole: bool,
    pub(super) notes: Vec<String>,
    pub(super) warning: Option<String>,
}

impl Start {
    /// The epochs that a resumed run has behind it.
    #[must_use]
    pub fn epochs(&self) -> &[EpochRow] {
        &self.epochs
    }
}

impl Fit {
    /// The beginning of a new run, with the weights of `init` where the settings name any; or, with a folder, of one that goes on
    /// from its `last.safetensors`. Nothing is written.
    ///
    /// # Errors
    /// The weights of `init` or the checkpoints do not read, or belong to another network, optimizer or data set.
    pub fn start(&mut self, resume: Option<&Path>) -> Result<Start, TrainError> {
        let Some(folder) = resume else {
            let scheduler = self.scheduler(0)?;
            let notes = init::put(&self.config, &self.model, &mut self.store)?;
            if self.config.init.is_some() {
                checkpoint::write_shared(self.executor.as_mut(), &self.store)?;
            }
            return Ok(Start {
                scheduler,
                epochs: Vec::new(),
                best: None,
                step: 0,
                begun: Vec::new(),
                within: None,
                journal: Journal::default(),
                resumed: false,
                whole: false,
                notes,
                warning: None,
            });
        };
        let (executor, gradients) = (self.executor.as_mut(), self.gradients.as_ref());
        let loaded =
            checkpoint::load_last(folder, executor, &mut self.store, &self.slots, gradients, &self.content_hash)?;
        let Loaded { state, best, rows, whole, warning } = loaded;
        // The checkpoint holds no times, so that equal runs write equal checkpoints; the log has them.
        let times = read_seconds(folder);
        let time = |e: &EpochRowNoTime| times.iter().find(|t| t.0 == e.epoch).map_or(0.0, |t| t.1);
        let epochs: Vec<EpochRow> = state.epochs.iter().map(|e| e.with_seconds(time(e))).collect();
        let begun = if state.begun.is_empty() { self.planned(epochs.len() as u32) } else { state.begun };
        let within = state.within.map(|w| Begun { rows, seconds: w.seconds });
        let scheduler = match self.upcoming(&begun, &epochs, within.is_some()) {
            // A stage that begins does so afresh: `run` clears the optimizer.
            Some((stage, true)) => self.scheduler(stage)?,
            Some((stage, false)) => {
                self.enter(stage)?;
                Scheduler::resume(self.schedule(stage), self.stages[stage].plan.lr, state.scheduler)?
            }
            None => self.scheduler(0)?,
        };
        Ok(Start {
            scheduler,
            epochs,
            best,
            step: state.step,
            begun,
            within,
            journal: state.numbers,
            resumed: true,
            whole,
            notes: Vec::from_iter(other_kernels(state.kernels.as_deref(), self.executor.kernel_set().as_deref())),
            warning,
        })
    }
}

/// What to say where a run goes on with other kernels than it began with: it goes on well, but to other last bits.
fn other_kernels(before: Option<&str>, now: Option<&str>) -> Option<String> {
    let words = |set: Option<&str>| set.map_or("the table's".to_owned(), |s| format!("another set ({s})"));
    (before != now).then(|| {
        format!(
            "the run so far took {} kernels, now {}: the weights will differ in their last bits from a run without a break; see `radiograd tune --list` and --no-tune",
            words(before),
            words(now)
        )
    })
}
