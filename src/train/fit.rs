//! The loop: epochs of steps, validation after each, the best weights kept.

mod faults;
mod guard;
mod journal;
mod live;
mod saving;
mod setup;
mod stage;
mod start;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use web_time::Instant;

use super::TrainError;
use super::checkpoint::{self, Best};
use super::config::TrainConfig;
use super::profile::Profile;
use super::step::{EvalPass, Host, LOG_COLUMNS, Turn, probabilities};
use crate::data::Images;
use crate::exec::{Executor, Program};
use crate::graph::{Graph, VarView};
use crate::nn::Model;
use crate::optim::{Schedule, Scheduler};
use crate::report::data::EpochRow;
use crate::store::{Param, ParamStore};
use crate::weights::WeightsFile;
use guard::Walk;
use saving::{Begun, Keeper, Now, Ran};
use stage::{Current, Stage};

pub use guard::GOOD;
pub use journal::{Entry, Happened, Journal, NUMBERS};
pub use live::{Inspection, LayerValues, Live, Validated};
pub use saving::METRICS;
pub use start::Start;

/// Steps between two looks at the log.
const LOOK_EVERY: usize = 50;
/// Images in a step of an evaluation pass, at most.
pub const EVAL_BATCH: usize = 64;

/// What the loop tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Some steps are done.
    Step {
        /// From 1.
        epoch: u32,
        /// Steps done in this epoch.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// Mean loss of the steps looked at last.
        loss: f64,
    },
    /// An epoch is done.
    Epoch {
        /// Its figures.
        row: &'a EpochRow,
        /// Whether its weights are the best so far.
        best: bool,
    },
    /// Something that a person should know.
    Note(&'a str),
    /// Something that a person must know, also one who asked for quiet.
    Warning(&'a str),
}

/// A network with its data on a device, ready to train.
pub struct Fit {
    config: TrainConfig,
    model: Model,
    classes: usize,
    /// The epoch and the step of it, from 1, that was begun last.
    last_turn: Option<(u32, usize)>,
    params: Vec<Param>,
    store: ParamStore,
    executor: Box<dyn Executor>,
    stages: Vec<Stage>,
    current: Current,
    slots: Vec<(String, VarView)>,
    /// Where gradients are summed up until an update.
    gradients: Option<VarView>,
    evals: Vec<(&'static str, EvalPass, Program)>,
    train: Arc<Images>,
    others: Vec<(&'static str, Arc<Images>)>,
    steps: usize,
    content_hash: String,
    metadata: BTreeMap<String, String>,
    profile: Option<Profile>,
    journal: Journal,
    stop: Option<Arc<AtomicBool>>,
    every: Option<Duration>,
}

/// What a finished loop gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All epochs.
    pub epochs: Vec<EpochRow>,
    /// The one whose weights are kept, and loaded on the device again.
    pub best_epoch: u32,
    /// Wall time of the loop in seconds.
    pub seconds: f64,
}

impl Fit {
    /// Has a run end with [`TrainError::Interrupted`] after the step in which `flag` is raised. One that has a folder leaves a checkpoint
    /// there from which it goes on to the same bits.
    pub fn stop_when(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Some(flag);
    }

    fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Has a run write a checkpoint within an epoch too, where the last one is so old.
    pub fn save_every(&mut self, every: Option<Duration>) {
        self.every = every;
    }

    /// Has some steps of a run that begins at `start` profiled.
    pub fn profile(&mut self, start: &Start) {
        let total = u64::from(self.config.epochs.saturating_sub(start.epochs.len() as u32)) * self.steps as u64;
        // A program that is no more has its say when it runs.
        let running = self.executor.running(self.current.programs.step).ok();
        self.profile = running.map(|graph| Profile::new(self.executor.describe(), graph, total));
    }

    /// What was profiled, if [`Fit::profile`] asked for it.
    pub fn take_profile(&mut self) -> Option<Profile> {
        self.profile.take()
    }

    /// Gives the device back.
    #[must_use]
    pub fn into_executor(self) -> Box<dyn Executor> {
        self.executor
    }

    /// The settings, with what the data decided filled in.
    #[must_use]
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The recorded step of a stage.
    #[must_use]
    pub fn recorded(&self, stage: usize) -> &Graph {
        &self.stages[stage].step.graph
    }

    /// The network.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> String {
        self.executor.describe()
    }

    /// The kernels that measuring put in place of the table's; `None` where there are none.
    #[must_use]
    pub fn kernel_set(&self) -> Option<String> {
        self.executor.kernel_set()
    }

    /// The images of a split other than train.
    #[must_use]
    pub fn images(&self, split: &str) -> Option<&Images> {
        self.others.iter().find(|(name, _)| *name == split).map(|(_, images)| &**images)
    }

    /// The training images.
    #[must_use]
    pub fn train_images(&self) -> &Images {
        &self.train
    }

    /// Probabilities `[n, classes]` of a split with the present weights; `None` for a split that was not loaded.
    ///
    /// # Errors
    /// The device failed.
    pub fn predict(&mut self, split: &str) -> Result<Option<Vec<f64>>, TrainError> {
        let Some((_, pass, program)) = self.evals.iter().find(|(name, ..)| *name == split) else { return Ok(None) };
        let Some((_, host)) = self.others.iter().find(|(name, _)| *name == split) else { return Ok(None) };
        let logits = pass.run(self.executor.as_mut(), *program, &**host)?;
        Ok(Some(probabilities(&logits, self.model.outputs())))
    }

    /// Loss and accuracy of the validation images; or the first image for which the network gives no numbers.
    fn validate(&mut self) -> Result<Result<(f64, f64), usize>, TrainError> {
        let p = self.predict_validation()?;
        let p = p.ok_or_else(|| TrainError::setting("data", "has no validation images"))?;
        if let Some(bad) = p.iter().position(|p| !p.is_finite()) {
            return Ok(Err(bad / self.classes.max(1)));
        }
        let labels = &self.images("val").expect("it was just predicted").labels;
        let metrics = crate::metrics::Metrics::new(labels, &p, self.classes)?;
        Ok(Ok((metrics.log_loss, metrics.accuracy)))
    }

    /// As [`Fit::next`], but an epoch that has begun comes to its end, whatever else is asked for by then.
    fn upcoming(&self, begun: &[u32], epochs: &[EpochRow], within: bool) -> Option<(usize, bool)> {
        match begun.len().checked_sub(1).filter(|_| within) {
            Some(stage) if stage < self.stages.len() => Some((stage, false)),
            _ => self.next(begun, epochs),
        }
    }

    /// [`Fit::run`], whose errors do not say yet where they came.
    fn turns(
        &mut self,
        start: Start,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, TrainError> {
        let begin = Instant::now();
        let Start {
            mut scheduler,
            mut epochs,
            mut best,
            mut step,
            mut begun,
            mut within,
            journal,
            resumed,
            whole,
            notes,
            warning,
        } = start;
        self.journal = journal;
        let mut keeper = Keeper::new(folder, whole, step, self.every);
        let now =
            Now { step, scheduler: &scheduler, epochs: &epochs, begun: &begun, best: best.as_ref(), within: None };
        let repaired = keeper.tidy(self, resumed, now)?;
        warning.iter().chain(&repaired).for_each(|text| events(Event::Warning(text)));
        notes.iter().for_each(|note| events(Event::Note(note)));
        let earlier: f64 = epochs.iter().map(|e| e.seconds).sum();
        let mut entered = false;
        while let Some((stage, begins)) = self.upcoming(&begun, &epochs, within.is_some()) {
            let start = Instant::now();
            let epoch = epochs.len() as u32 + 1;
            if self.stopped() && within.is_none() {
                return Err(self.interrupted(epoch, 0, &keeper, step));
            }
            if begins {
                begun.push(epoch);
                if stage > 0 {
                    scheduler = self.begin(stage)?;
                    self.journal.begin_stage();
                }
            }
            if begins || !entered {
                entered = true;
                self.current.first = begun[stage];
                self.announce(&begun, &epochs, events);
                self.cache(events)?;
            }
            let Begun { rows, seconds } = within.take().unwrap_or_default();
            let (rows, (val_loss, val_accuracy)) =
                match self.epoch(epoch, rows, &mut step, &mut scheduler, &keeper, events)? {
                    Ran::Whole(rows, validated) => (rows, validated),
                    Ran::Until(rows) => {
                        let midst = Begun { rows, seconds: seconds + start.elapsed().as_secs_f64() };
                        if !keeper.has(step) && step > 0 {
                            let within = Some(&midst);
                            let (best, scheduler) = (best.as_ref(), &scheduler);
                            keeper.save(self, Now { step, scheduler, epochs: &epochs, begun: &begun, best, within })?;
                        }
                        if self.stopped() {
                            return Err(self.interrupted(epoch, midst.rows.len(), &keeper, step));
                        }
                        within = Some(midst);
                        continue;
                    }
                };
            let (train_loss, train_accuracy) = (mean(&rows, 0), mean(&rows, 1) / self.config.batch as f64);
            let row = EpochRow {
                epoch,
                train_loss,
                train_accuracy: Some(train_accuracy),
                val_loss,
                val_accuracy,
                learning_rate: scheduler.lr(),
                seconds: seconds + start.elapsed().as_secs_f64(),
            };
            if self.per_epoch(stage) {
                scheduler.step(Some(val_loss));
            }
            let better = epochs.iter().all(|e| val_loss < e.val_loss);
            epochs.push(row);
            if better {
                let tensors = checkpoint::network_tensors(self.executor.as_mut(), &self.params)?;
                best = Some(Best { epoch, step, tensors });
            }
            let (best, scheduler) = (best.as_ref(), &scheduler);
            keeper.save(self, Now { step, scheduler, epochs: &epochs, begun: &begun, best, within: None })?;
            events(Event::Epoch { row: &row, best: better });
        }
        keeper.finish(self, best.as_ref())?;
        let best_epoch = best.as_ref().map_or(0, |best| best.epoch);
        self.restore(best)?;
        Ok(Outcome { epochs, best_epoch, seconds: earlier + begin.elapsed().as_secs_f64() })
    }

    /// That a run was stopped in front of a step of an epoch.
    fn interrupted(&self, epoch: u32, step: usize, keeper: &Keeper<'_>, done: u64) -> TrainError {
        TrainError::Interrupted { epoch, step, steps: self.steps, kept: keeper.has(done) }
    }

    /// Loads the best weights again.
    fn restore(&mut self, best: Option<Best>) -> Result<(), TrainError> {
        let Some(Best { tensors, .. }) = best else { return Ok(()) };
        let file = WeightsFile { tensors, ..WeightsFile::default() };
        checkpoint::put_weights(&file, &mut self.store)?;
        checkpoint::write_shared(self.executor.as_mut(), &self.store)
    }

    /// One epoch of training images, or what is left of it where `rows` of its log are there, and a look at the validation images.
    fn epoch(
        &mut self,
        epoch: u32,
        rows: Vec<[f32; LOG_COLUMNS]>,
        step: &mut u64,
        scheduler: &mut Scheduler,
        keeper: &Keeper<'_>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Ran, TrainError> {
        let order = self.config.sampler.epoch(&self.train.labels, self.classes, self.config.seed, epoch);
        let first = rows.len();
        let mut walk = Walk { epoch, order: &order, row: first, step: *step, scheduler: scheduler.clone() };
        let (mut guard, folder) = (self.guard(&walk, rows)?, keeper.folder());
        let validated = loop {
            while walk.row < self.steps {
                let ends = self.stopped() || (walk.row > first && keeper.is_due());
                if !ends {
                    self.go_on(&mut guard, &mut walk, folder, events)?;
                } else if self.look(&mut guard, &mut walk, folder, events)? {
                    (*step, *scheduler) = (walk.step, walk.scheduler);
                    return Ok(Ran::Until(guard.rows));
                }
            }
            // Validation may take long as well.
            if self.stopped() {
                break None;
            }
            match self.validate()? {
                Ok(figures) => break Some(figures),
                Err(image) => self.bad_validation(&mut guard, &mut walk, image, folder, events)?,
            }
        };
        (*step, *scheduler) = (walk.step, walk.scheduler);
        let Some(figures) = validated else { return Ok(Ran::Until(guard.rows)) };
        self.journal.end_epoch(epoch, events);
        Ok(Ran::Whole(guard.rows, figures))
    }

    /// Which of the optimizer's steps, counted from 1, a step of an epoch belongs to. It counts the steps of its stage.
    fn update_number(&self, epoch: u32, row: usize) -> u64 {
        let accumulate = self.config.accumulate;
        let before = u64::from(epoch - self.current.first) * (self.steps / accumulate) as u64;
        before + (row / accumulate) as u64 + 1
    }

    /// What the run met that is out of the ordinary, in a line; `None` where there was nothing.
    #[must_use]
    pub fn remarks(&self) -> Option<String> {
        self.journal.words()
    }

    /// Whether the schedule of a stage goes on once an epoch, not once an update.
    fn per_epoch(&self, stage: usize) -> bool {
        matches!(self.stages[stage].plan.schedule, Some(Schedule::ReduceOnPlateau { .. }))
    }

    /// Submits a step of an epoch, and the update that belongs to it.
    fn turn(
        &mut self,
        (epoch, row): (u32, usize),
        (chosen, repeats): (&[u32], &[bool]),
        step: &mut u64,
        scheduler: &mut Scheduler,
    ) -> Result<(), TrainError> {
        self.last_turn = Some((epoch, row + 1));
        let accumulate = self.config.accumulate;
        let (stage, programs) = (self.current.stage, self.current.programs);
        let (lr, update) = (scheduler.lr(), self.update_number(epoch, row));
        let turn = Turn { chosen, repeats, seed: self.config.seed, step: *step, update, lr, row };
        let (recorded, executor) = (&self.stages[stage].step, self.executor.as_mut());
        let host = Host { images: &self.train, features: self.current.features() };
        let profile = self.profile.as_mut().and_then(|p| p.next_wanted().then_some(p));
        match profile {
            Some(profile) => profile.push(recorded.run_profiled(executor, programs.step, host, &turn)?),
            None => recorded.run(executor, programs.step, host, &turn)?,
        }
        *step += 1;
        if (row + 1) % accumulate == 0 {
            recorded.update(executor, programs, lr, update)?;
            if !self.per_epoch(stage) {
                scheduler.step(None);
            }
        }
        Ok(())
    }
}

/// The mean of a column of the log, without the rows of updates that were left out.
fn mean(rows: &[[f32; LOG_COLUMNS]], column: usize) -> f64 {
    let counted = || rows.iter().filter(|row| !is_bad(row));
    counted().map(|r| f64::from(r[column])).sum::<f64>() / counted().count().max(1) as f64
}

/// Whether a row of the log tells of NaN or infinity in loss or gradient. The host tests bits as they are, unlike a shader.
fn is_bad(&[loss, _, squared, others]: &[f32; LOG_COLUMNS]) -> bool {
    !loss.is_finite() || !squared.is_finite() || others.is_nan() || others > 0.0
}

/// Refuses rows of the log whose loss or gradient is NaN or infinite.
fn check_finite(rows: &[[f32; LOG_COLUMNS]], epoch: u32, first: usize) -> Result<(), TrainError> {
    let Some(i) = rows.iter().position(is_bad) else { return Ok(()) };
    let what = if rows[i][0].is_finite() { "gradient" } else { "loss" };
    Err(TrainError::Diverged { what, epoch, step: first + i + 1, tensor: None, tried: None, kept: None })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, TrainError> {
    serde_json::to_string(value).map_err(|e| TrainError::setting("config", e.to_string()))
}
