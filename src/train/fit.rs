//! The loop: epochs of steps, validation after each, the best weights kept.

mod guard;
mod journal;
mod live;
mod setup;
mod stage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use web_time::Instant;

use super::TrainError;
use super::checkpoint::{self, BEST, EpochRowNoTime, LAST, LoopState};
use super::config::TrainConfig;
use super::profile::Profile;
use super::step::{EvalPass, Host, LOG_COLUMNS, Turn, probabilities};
use crate::data::Images;
use crate::exec::{Executor, Program};
use crate::graph::{Graph, VarView};
use crate::nn::Model;
use crate::optim::{Schedule, Scheduler};
use crate::report::data::EpochRow;
use crate::store::{Param, ParamStore, VarId};
use crate::weights::{self, NamedTensor, WeightsFile};
use guard::Walk;
use journal::Journal;
use stage::{Current, Stage};

pub use guard::GOOD;
pub use journal::NUMBERS;
pub use live::{Inspection, LayerValues, Live, Validated};

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
}

/// A network with its data on a device, ready to train.
pub struct Fit {
    config: TrainConfig,
    model: Model,
    classes: usize,
    params: Vec<Param>,
    store: ParamStore,
    executor: Box<dyn Executor>,
    stages: Vec<Stage>,
    current: Current,
    slots: Vec<(String, VarView)>,
    /// The sum of gradients, where several batches make an update.
    sum: Option<VarId>,
    evals: Vec<(&'static str, EvalPass, Program)>,
    train: Arc<Images>,
    others: Vec<(&'static str, Arc<Images>)>,
    steps: usize,
    content_hash: String,
    metadata: BTreeMap<String, String>,
    profile: Option<Profile>,
    journal: Journal,
    stop: Option<(Arc<AtomicBool>, StopAt)>,
}

/// Where a loop that is asked to stop does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAt {
    /// At the next step.
    Step,
    /// After the epoch and its checkpoint.
    Epoch,
}

/// Where a loop begins: see [`Fit::start`].
#[derive(Clone, Debug)]
pub struct Start {
    scheduler: Scheduler,
    epochs: Vec<EpochRow>,
    best_epoch: u32,
    best: Option<Vec<NamedTensor>>,
    step: u64,
    /// The first epoch of each stage that has begun.
    begun: Vec<u32>,
    notes: Vec<String>,
}

impl Start {
    /// The epochs that a resumed run has behind it.
    #[must_use]
    pub fn epochs(&self) -> &[EpochRow] {
        &self.epochs
    }
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
    /// Has a run end with [`TrainError::Interrupted`] once `flag` is raised.
    pub fn stop_when(&mut self, flag: Arc<AtomicBool>, at: StopAt) {
        self.stop = Some((flag, at));
    }

    fn stopped(&self, at: StopAt) -> bool {
        self.stop.as_ref().is_some_and(|(flag, when)| *when == at && flag.load(Ordering::Relaxed))
    }

    /// Has some steps of a run that begins at `start` profiled.
    pub fn profile(&mut self, start: &Start) {
        let total = u64::from(self.config.epochs.saturating_sub(start.epochs.len() as u32)) * self.steps as u64;
        self.profile =
            Some(Profile::new(self.executor.describe(), self.executor.running(self.current.programs.step), total));
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

    /// The beginning of a new run, with the weights of `init` where the settings name any; or, with a folder, of one that goes on
    /// from its `last.safetensors`. Nothing is written.
    ///
    /// # Errors
    /// The weights of `init` or the checkpoints do not read, or belong to another network, optimizer or data set.
    pub fn start(&mut self, resume: Option<&Path>) -> Result<Start, TrainError> {
        let Some(folder) = resume else {
            let scheduler = self.scheduler(0)?;
            let notes = super::init::put(&self.config, &self.model, &mut self.store)?;
            if self.config.init.is_some() {
                checkpoint::write_shared(self.executor.as_mut(), &self.store)?;
            }
            let (epochs, begun) = (Vec::new(), Vec::new());
            return Ok(Start { scheduler, epochs, best_epoch: 0, best: None, step: 0, begun, notes });
        };
        let (path, executor) = (folder.join(LAST), self.executor.as_mut());
        let state = checkpoint::load_last(&path, executor, &mut self.store, &self.slots, &self.content_hash)?;
        // The best weights are wanted at the end only, but a damaged file must show before hours of training.
        let best = weights::load(folder.join(BEST))?;
        checkpoint::put_weights(&best, &mut self.store)?;
        // The checkpoint holds no times, so that equal runs write equal checkpoints; the log has them.
        let times = read_seconds(&folder.join("metrics.jsonl"));
        let time = |e: &EpochRowNoTime| times.iter().find(|t| t.0 == e.epoch).map_or(0.0, |t| t.1);
        let epochs: Vec<EpochRow> = state.epochs.iter().map(|e| e.with_seconds(time(e))).collect();
        let begun = if state.begun.is_empty() { self.planned(epochs.len() as u32) } else { state.begun };
        let scheduler = match self.next(&begun, &epochs) {
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
            best_epoch: state.best_epoch,
            best: Some(best.tensors),
            step: state.step,
            begun,
            notes: Vec::from_iter(other_kernels(state.kernels.as_deref(), self.executor.kernel_set().as_deref())),
        })
    }

    /// Runs the loop. With a folder, `last.safetensors` and `metrics.jsonl` are written after each epoch,
    /// `best.safetensors` after each better one.
    ///
    /// # Errors
    /// NaN or infinity that the settings do not bear, a device or a disk that fails.
    pub fn run(
        &mut self,
        start: Start,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, TrainError> {
        let begin = Instant::now();
        let Start { mut scheduler, mut epochs, mut best_epoch, best: mut best_weights, mut step, mut begun, notes } =
            start;
        notes.iter().for_each(|note| events(Event::Note(note)));
        let earlier: f64 = epochs.iter().map(|e| e.seconds).sum();
        let done = epochs.len();
        self.journal = Journal::open(folder, done as u32);
        while let Some((stage, begins)) = self.next(&begun, &epochs) {
            let start = Instant::now();
            let epoch = epochs.len() as u32 + 1;
            if begins {
                begun.push(epoch);
                if stage > 0 {
                    scheduler = self.begin(stage)?;
                    self.journal.begin_stage();
                }
            }
            if begins || epochs.len() == done {
                self.current.first = begun[stage];
                self.announce(&begun, &epochs, events);
                self.cache(events)?;
            }
            let [(train_loss, train_accuracy), (val_loss, val_accuracy)] =
                self.epoch(epoch, &mut step, &mut scheduler, folder, events)?;
            let row = EpochRow {
                epoch,
                train_loss,
                train_accuracy: Some(train_accuracy),
                val_loss,
                val_accuracy,
                learning_rate: scheduler.lr(),
                seconds: start.elapsed().as_secs_f64(),
            };
            if self.per_epoch(stage) {
                scheduler.step(Some(val_loss));
            }
            let best = epochs.iter().all(|e| val_loss < e.val_loss);
            epochs.push(row);
            if best {
                best_epoch = epoch;
                let tensors = checkpoint::network_tensors(self.executor.as_mut(), &self.params)?;
                if let Some(folder) = folder {
                    checkpoint::save_best(&folder.join(BEST), &tensors, step, &self.metadata)?;
                }
                best_weights = Some(tensors);
            }
            if let Some(folder) = folder {
                let state = LoopState {
                    step,
                    scheduler: scheduler.state().clone(),
                    epochs: epochs.iter().map(EpochRowNoTime::of).collect(),
                    best_epoch,
                    begun: begun.clone(),
                    content_hash: self.content_hash.clone(),
                    kernels: self.executor.kernel_set(),
                };
                let path = folder.join(LAST);
                let executor = self.executor.as_mut();
                checkpoint::save_last(&path, executor, &self.params, &self.slots, &self.metadata, &state)?;
                write_metrics(&folder.join("metrics.jsonl"), &epochs)?;
                self.journal.write(folder)?;
            }
            events(Event::Epoch { row: &row, best });
            if self.stopped(StopAt::Epoch) && self.next(&begun, &epochs).is_some() {
                return Err(TrainError::Interrupted { epoch });
            }
        }
        self.restore(best_weights)?;
        Ok(Outcome { epochs, best_epoch, seconds: earlier + begin.elapsed().as_secs_f64() })
    }

    /// Loads the best weights again.
    fn restore(&mut self, best: Option<Vec<NamedTensor>>) -> Result<(), TrainError> {
        let Some(tensors) = best else { return Ok(()) };
        let file = WeightsFile { tensors, ..WeightsFile::default() };
        checkpoint::put_weights(&file, &mut self.store)?;
        checkpoint::write_shared(self.executor.as_mut(), &self.store)
    }

    /// One epoch of training images, and a look at the validation images; gives loss and accuracy of both.
    fn epoch(
        &mut self,
        epoch: u32,
        step: &mut u64,
        scheduler: &mut Scheduler,
        folder: Option<&Path>,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<[(f64, f64); 2], TrainError> {
        let order = self.config.sampler.epoch(&self.train.labels, self.classes, self.config.seed, epoch);
        let mut walk = Walk { epoch, order: &order, row: 0, step: *step, scheduler: scheduler.clone() };
        let mut guard = self.guard(&walk, Vec::new())?;
        let validated = loop {
            while walk.row < self.steps {
                if self.stopped(StopAt::Step) {
                    return Err(TrainError::Interrupted { epoch: epoch - 1 });
                }
                self.go_on(&mut guard, &mut walk, folder, events)?;
            }
            match self.validate()? {
                Ok(figures) => break figures,
                Err(image) => self.bad_validation(&mut guard, &mut walk, image, folder, events)?,
            }
        };
        (*step, *scheduler) = (walk.step, walk.scheduler);
        self.journal.end_epoch(epoch, events);
        Ok([(mean(&guard.rows, 0), mean(&guard.rows, 1) / self.config.batch as f64), validated])
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

/// Refuses rows of the log whose loss or gradient is NaN or infinite.
fn check_finite(rows: &[[f32; LOG_COLUMNS]], epoch: u32, first: usize) -> Result<(), TrainError> {
    let Some(i) = rows.iter().position(is_bad) else { return Ok(()) };
    let what = if rows[i][0].is_finite() { "gradient" } else { "loss" };
    Err(TrainError::Diverged { what, epoch, step: first + i + 1, tensor: None, tried: None, kept: None })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, TrainError> {
    serde_json::to_string(value).map_err(|e| TrainError::setting("config", e.to_string()))
}

/// Epochs and their seconds from the log of a run; what does not read is left out.
fn read_seconds(path: &Path) -> Vec<(u32, f64)> {
    let text = crate::fsio::read(path).unwrap_or_default();
    let rows = text.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice::<EpochRow>(line).ok());
    rows.map(|row| (row.epoch, row.seconds)).collect()
}

/// Writes a line of JSON an epoch.
fn write_metrics(path: &Path, epochs: &[EpochRow]) -> Result<(), TrainError> {
    let mut text = String::new();
    for row in epochs {
        text.push_str(&json(row)?);
        text.push('\n');
    }
    Ok(crate::fsio::write_atomic(path, text.as_bytes())?)
}
