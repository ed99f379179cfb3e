//! What a loop writes while it runs, and in which order: the log, `last.safetensors`, and `best.safetensors` after a better epoch.
//!
//! `last` alone decides how a run goes on: it has the best weights too where they are not its own. So a process may end between any two of
//! these writes, and [`Keeper::tidy`] brings the other files up to it.

use std::path::Path;
use std::time::Duration;

use web_time::Instant;

use super::{Fit, json};
use crate::optim::Scheduler;
use crate::report::data::EpochRow;
use crate::train::TrainError;
use crate::train::checkpoint::{
    self, BEST, Best, EpochRowNoTime, Extras, LAST, LoopState, PREVIOUS, Within, save_best, save_last,
};
use crate::train::step::LOG_COLUMNS;

/// The log of a run, in its folder: a line of JSON an epoch.
pub const METRICS: &str = "metrics.jsonl";

/// An epoch that has begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun {
    /// Its log so far, a row a step.
    pub rows: Vec<[f32; LOG_COLUMNS]>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// How far [`Fit::epoch`] came.
pub(super) enum Ran {
    /// To the end; with loss and accuracy of the validation images.
    Whole(Vec<[f32; LOG_COLUMNS]>, (f64, f64)),
    /// To a step after which a checkpoint is wanted.
    Until(Vec<[f32; LOG_COLUMNS]>),
}

/// What of the loop goes into a checkpoint.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub step: u64,
    pub scheduler: &'a Scheduler,
    pub epochs: &'a [EpochRow],
    pub begun: &'a [u32],
    pub best: Option<&'a Best>,
    pub within: Option<&'a Begun>,
}

/// The files of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeper<'a> {
    folder: Option<&'a Path>,
    /// Whether `last.safetensors` is this run's, and whole: only then may it take the place of the one before.
    whole: bool,
    /// The steps that it has behind it.
    saved: u64,
    at: Instant,
    every: Option<Duration>,
}

impl<'a> Keeper<'a> {
    /// Of a run that begins after so many steps; `whole` says whether the folder's `last.safetensors` is what it begins with.
    pub fn new(folder: Option<&'a Path>, whole: bool, saved: u64, every: Option<Duration>) -> Self {
        Self { folder, whole, saved, at: Instant::now(), every }
    }

    /// Where the files are, if any are written.
    pub fn folder(&self) -> Option<&'a Path> {
        self.folder
    }

    /// Whether the next step must wait for a checkpoint.
    pub fn is_due(&self) -> bool {
        self.folder.is_some() && self.every.is_some_and(|every| self.at.elapsed() >= every)
    }

    /// Whether the folder holds what `steps` steps have made.
    pub fn has(&self, steps: u64) -> bool {
        self.folder.is_some() && self.saved == steps && steps > 0
    }

    /// Brings log and best weights up to `last.safetensors`, from which the run goes on; gives what to say loudly about it. A run that
    /// begins takes the checkpoints away that another one left in its place.
    pub fn tidy(&self, fit: &Fit, resumed: bool, now: Now<'_>) -> Result<Option<String>, TrainError> {
        let Some(folder) = self.folder else { return Ok(None) };
        if !resumed {
            remove(&folder.join(PREVIOUS))?;
            return Ok(None);
        }
        write_metrics(&folder.join(METRICS), now.epochs)?;
        fit.journal.write(folder)?;
        let (Some(best), path) = (now.best, folder.join(BEST)) else { return Ok(None) };
        let problem = match checkpoint::holds(&path, &best.tensors) {
            Ok(true) => return Ok(None),
            // Of an epoch that the damaged checkpoint had and this one has not: it comes again, and these weights are good until then.
            Ok(false) if !self.whole => return Ok(None),
            Ok(false) => None,
            // Killed between the two files of the first epoch.
            Err(_) if !path.exists() => None,
            Err(e) => Some(format!("{} is damaged ({})", path.display(), checkpoint::reason(&e))),
        };
        save_best(&path, &best.tensors, best.step, &fit.metadata)?;
        Ok(problem.map(|what| format!("{what}: it was written again from {LAST}")))
    }

    /// That `best.safetensors` is the best of the whole run.
    pub fn finish(&self, fit: &Fit, best: Option<&Best>) -> Result<(), TrainError> {
        let (Some(folder), Some(best)) = (self.folder, best) else { return Ok(()) };
        let path = folder.join(BEST);
        match checkpoint::holds(&path, &best.tensors) {
            Ok(true) => Ok(()),
            _ => save_best(&path, &best.tensors, best.step, &fit.metadata),
        }
    }

    /// Writes a checkpoint, with the log and the best weights where they changed.
    pub fn save(&mut self, fit: &mut Fit, now: Now<'_>) -> Result<(), TrainError> {
        let Some(folder) = self.folder else { return Ok(()) };
        let between = now.within.is_none();
        if between {
            write_metrics(&folder.join(METRICS), now.epochs)?;
        }
        let best_epoch = now.best.map_or(0, |best| best.epoch);
        // The best weights are those of the checkpoint itself right after the epoch that made them.
        let own = between && best_epoch as usize == now.epochs.len();
        let state = LoopState {
            step: now.step,
            scheduler: now.scheduler.state().clone(),
            epochs: now.epochs.iter().map(EpochRowNoTime::of).collect(),
            best_epoch,
            begun: now.begun.to_vec(),
            content_hash: fit.content_hash.clone(),
            kernels: fit.executor.kernel_set(),
            best_step: now.best.map(|best| best.step),
            numbers: fit.journal.clone(),
            within: now.within.map(|begun| Within { steps: begun.rows.len(), seconds: begun.seconds }),
        };
        let extras = Extras {
            best: now.best.filter(|_| !own).map(|best| &best.tensors[..]),
            rows: now.within.map(|begun| &begun.rows[..]),
            gradients: fit.gradients.as_ref().filter(|_| !between),
        };
        let executor = fit.executor.as_mut();
        save_last(folder, executor, (&fit.params, &fit.slots), (&fit.metadata, &state), extras, self.whole)?;
        fit.journal.write(folder)?;
        (self.whole, self.saved, self.at) = (true, now.step, Instant::now());
        if let Some(best) = now.best.filter(|_| own) {
            save_best(&folder.join(BEST), &best.tensors, best.step, &fit.metadata)?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(crate::fsio::FsError::new("remove", path, e).into()),
        _ => Ok(()),
    }
}

/// Epochs and their seconds from the log of a run; what does not read is left out.
pub(super) fn read_seconds(folder: &Path) -> Vec<(u32, f64)> {
    let text = crate::fsio::read(&folder.join(METRICS)).unwrap_or_default();
    let rows = text.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice::<EpochRow>(line).ok());
    rows.map(|row| (row.epoch, row.seconds)).collect()
}

/// Writes a line of JSON an epoch, unless the file says so already.
fn write_metrics(path: &Path, epochs: &[EpochRow]) -> Result<(), TrainError> {
    let mut text = String::new();
    for row in epochs {
        text.push_str(&json(row)?);
        text.push('\n');
    }
    if text.is_empty() || crate::fsio::read(path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(());
    }
    Ok(crate::fsio::write_atomic(path, text.as_bytes())?)
}
