//! What a device that fails in the middle of a training leaves behind.

use std::path::Path;

use super::{Event, Fit, Outcome, Start};
use crate::train::TrainError;
use crate::train::checkpoint::LAST;

impl Fit {
    /// Runs the loop. With a folder, `last.safetensors` and `metrics.jsonl` are written after each epoch, `best.safetensors` after each
    /// better one. A device that fails ends it; nothing is written after that, so the last checkpoint stays what it is.
    ///
    /// # Errors
    /// NaN in loss or gradient, a device ([`TrainError::Fault`]) or a disk that fails, or a stop that was asked for.
    pub fn run(
        &mut self,
        start: Start,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, TrainError> {
        self.last_turn = None;
        self.turns(start, folder, events).map_err(|e| match e {
            TrainError::Exec(source) if source.is_device_fault() => {
                TrainError::Fault { place: self.last_turn, source, kept: folder.map(|f| f.join(LAST).is_file()) }
            }
            other => other,
        })
    }
}
