//! What a device that fails in the middle of a training leaves behind.

use std::path::Path;

use super::{Event, Fit, Outcome, Start};
use crate::train::TrainError;
use crate::train::checkpoint::LAST;

impl Fit {
    /// Runs the loop. With a folder, `metrics.jsonl` and `last.safetensors` are written after each epoch, `best.safetensors` after each
    /// better one; and `last.safetensors` within an epoch where the run is stopped, or as often as [`Fit::save_every`] says. A device that
    /// fails ends it; nothing is written after that, so the last checkpoint stays what it is.
    ///
    /// # Errors
    /// NaN or infinity that the settings do not bear, a device ([`TrainError::Fault`]) or a disk that fails; [`TrainError::Interrupted`] where it was stopped.
    pub fn run(
        &mut self,
        start: Start,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, TrainError> {
        self.last_turn = None;
        self.turns(start, folder, events).map_err(|e| match e {
            TrainError::Exec(source) if source.is_device_fault() => TrainError::Fault {
                place: self.last_turn,
                source: Box::new(source),
                kept: folder.map(|f| f.join(LAST).is_file()),
            },
            other => other,
        })
    }
}
