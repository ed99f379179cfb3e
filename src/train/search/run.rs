//! The loop: what is not in the journal is trained, some trials side by side, and appended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use super::candidates::{Plan, Trial, word};
use super::{Journal, Outcome, Record, Results, Scores, SearchError, Shard};
use crate::data::{Dataset, one_line};
use crate::exec::{ExecError, Executor};
use crate::fsio;
use crate::metrics::Metrics;
use crate::train::{Fit, Shared, TrainConfig, TrainError};

/// What the search computes on.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Makes a device for one of the trials that run side by side, on the thread that uses it.
    pub device: &'a (dyn Fn() -> Result<Box<dyn Executor>, ExecError> + Sync),
    /// Loads training and validation images as a config wants them.
    pub load: &'a (dyn Fn(&TrainConfig) -> Result<Dataset, TrainError> + Sync),
    /// The device is the CPU: trials share the pixels in memory, where a GPU has a copy on each device.
    pub cpu: bool,
}

/// How to go about it.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Trials side by side.
    pub jobs: usize,
    /// Threads of each of them.
    pub threads: usize,
    /// The part of the trials to take.
    pub shard: Option<Shard>,
    /// Stop after so many trials.
    pub limit: Option<usize>,
    /// A folder with the settings, log and weights of each trial below this one.
    pub keep: Option<&'a Path>,
    /// Raised to stop at the next step.
    pub stop: Arc<AtomicBool>,
}

/// What the loop tells.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// So many trials are there to run, on this rung.
    Stage {
        /// From 0.
        rung: usize,
        /// Rungs in all.
        rungs: usize,
        /// Trials to run.
        pending: usize,
        /// Trials of the rung that are in the journal.
        finished: usize,
    },
    /// A trial is in the journal.
    Trial(&'a Record),
}

/// What makes two configs see the same images.
type DataKey = (usize, usize, u64, u32, bool, Vec<String>);

fn data_key(c: &TrainConfig) -> DataKey {
    let excluded = c.exclude_patients.clone();
    (c.size, c.channels, c.val_fraction.to_bits(), c.split_seed.unwrap_or(c.seed), c.strict, excluded)
}

/// Images in memory, each set loaded once and dropped when the trials have gone on to the next.
struct Shelf<'a> {
    machine: Machine<'a>,
    sets: Mutex<Vec<(DataKey, Shared)>>,
}

impl Shelf<'_> {
    fn take(&self, config: &TrainConfig) -> Result<Shared, TrainError> {
        let key = data_key(config);
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, data)) = sets.iter().find(|(k, _)| *k == key) {
            return Ok(data.clone());
        }
        sets.retain(|(_, data)| data.in_use());
        // A thread of its own decodes with all cores, whatever pool the trial runs in.
        let load = self.machine.load;
        let loaded = std::thread::scope(|s| s.spawn(|| load(config)).join());
        let data = loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let data = Shared::from(data);
        let data = if self.machine.cpu { data.streamed() } else { data };
        sets.push((key, data.clone()));
        Ok(data)
    }
}

/// Trains what is missing, stage after stage, and appends it to the journal. Returns whether everything is there (of this
/// shard); `results` then hold it.
///
/// # Errors
/// [`SearchError::Interrupted`] after [`Options::stop`]; a device, disk or data set that fails; images that are not those of the
/// finished trials. A trial that fails by itself is a record.
pub fn run(
    dir: &Path,
    plan: &Plan,
    results: &mut Results,
    journal: &mut Journal,
    (machine, options): (Machine<'_>, &Options<'_>),
    told: &mut dyn FnMut(Told<'_>),
) -> Result<bool, SearchError> {
    let shelf = Shelf { machine, sets: Mutex::new(Vec::new()) };
    let mut left = options.limit.unwrap_or(usize::MAX);
    loop {
        let stages = plan.stages(results)?;
        let Some(stage) = stages.last() else { return Ok(true) };
        let mine = match options.shard {
            Some(shard) => shard.take(stage.trials.clone()),
            None => stage.trials.clone(),
        };
        check_data(dir, &mine, results, &shelf)?;
        let count = mine.len();
        let mut pending: Vec<Trial> = mine.into_iter().filter(|t| results.get(&t.id).is_none()).collect();
        if pending.is_empty() {
            return Ok(true);
        }
        // Trials on the same images follow each other, so that no more than one or two sets are in memory.
        pending.sort_by_cached_key(|t| (data_key(&t.config), t.id.clone()));
        let finished = count - pending.len();
        told(Told::Stage { rung: stage.rung, rungs: plan.rungs().len(), pending: pending.len(), finished });
        let whole = pending.len() <= left;
        pending.truncate(left);
        left -= pending.len();
        batch(plan, &pending, &shelf, options, &mut |record| {
            journal.append(&record)?;
            told(Told::Trial(&record));
            results.insert(record);
            Ok(())
        })?;
        if options.stop.load(Ordering::Relaxed) {
            let finished = results.iter().count();
            return Err(SearchError::Interrupted { finished, expected: plan.expected() });
        }
        if !whole {
            return Ok(false);
        }
    }
}

/// That the finished trials saw the images that the others will see.
fn check_data(dir: &Path, trials: &[Trial], results: &Results, shelf: &Shelf<'_>) -> Result<(), SearchError> {
    if trials.iter().all(|t| results.get(&t.id).is_some()) {
        return Ok(());
    }
    let mut seen: BTreeMap<DataKey, &Record> = BTreeMap::new();
    for trial in trials {
        if let Some(record) = results.get(&trial.id) {
            seen.entry(data_key(&trial.config)).or_insert(record);
        }
    }
    // One set is enough to notice: the others come from the same place.
    let pending = trials.iter().find(|t| results.get(&t.id).is_none() && seen.contains_key(&data_key(&t.config)));
    if let Some(trial) = pending
        && let Some(record) = seen.get(&data_key(&trial.config))
        && shelf.take(&trial.config)?.content_hash() != record.data
    {
        return Err(SearchError::OtherData { dir: dir.to_owned(), id: record.id.clone() });
    }
    Ok(())
}

/// Runs trials side by side; `finished` gets each record on this thread.
fn batch(
    plan: &Plan,
    trials: &[Trial],
    shelf: &Shelf<'_>,
    options: &Options<'_>,
    finished: &mut dyn FnMut(Record) -> Result<(), SearchError>,
) -> Result<(), SearchError> {
    let next = AtomicUsize::new(0);
    // Raised by the first error; Ctrl-C raises the caller's flag.
    let broken = AtomicBool::new(false);
    let over = || broken.load(Ordering::Relaxed) || options.stop.load(Ordering::Relaxed);
    let (send, receive) = mpsc::channel::<Result<Record, SearchError>>();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, trials.len().max(1)) {
            let send = send.clone();
            let (next, over) = (&next, &over);
            scope.spawn(move || {
                let work = || {
                    let mut worker = Worker { shelf, options, executor: None };
                    while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !over()) {
                        match worker.train(plan, trial) {
                            Ok(Some(record)) => drop(send.send(Ok(record))),
                            Ok(None) => return,
                            Err(e) => return drop(send.send(Err(e))),
                        }
                    }
                };
                match rayon::ThreadPoolBuilder::new().num_threads(options.threads.max(1)).build() {
                    // Everything that the executor shares out stays in this pool.
                    Ok(pool) => pool.install(work),
                    Err(e) => {
                        let problem = format!("no threads could be started: {e}; give a smaller --jobs");
                        drop(send.send(Err(SearchError::Grid(problem))));
                    }
                }
            });
        }
        drop(send);
        let mut failure = None;
        for message in receive {
            // Trials that end after a failure are kept too.
            let outcome = message.and_then(&mut *finished);
            if let Err(e) = outcome {
                broken.store(true, Ordering::Relaxed);
                failure.get_or_insert(e);
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

/// One of the trials side by side, after another.
struct Worker<'a> {
    shelf: &'a Shelf<'a>,
    options: &'a Options<'a>,
    executor: Option<Box<dyn Executor>>,
}

impl Worker<'_> {
    /// Trains one trial; `None` where it was stopped.
    fn train(&mut self, plan: &Plan, trial: &Trial) -> Result<Option<Record>, SearchError> {
        let data = self.shelf.take(&trial.config)?;
        let begin = Instant::now();
        let hash = data.content_hash().to_owned();
        let outcome = match self.fit(trial, data) {
            Ok(scores) => Outcome::Done(scores),
            Err(SearchError::Train(TrainError::Interrupted { .. })) => return Ok(None),
            Err(SearchError::Train(e)) if is_its_own(&e) => Outcome::Failed { reason: one_line(&e.to_string()) },
            Err(e) => return Err(e),
        };
        let point = &plan.candidates[trial.candidate].point;
        Ok(Some(Record {
            id: trial.id.clone(),
            settings: plan.axes.iter().zip(point).map(|(a, v)| (a.name.clone(), word(v))).collect(),
            seed: trial.config.seed,
            epochs: trial.config.epochs,
            outcome,
            seconds: begin.elapsed().as_secs_f64(),
            data: hash,
        }))
    }

    fn fit(&mut self, trial: &Trial, data: Shared) -> Result<Scores, SearchError> {
        let executor = match self.executor.take() {
            Some(executor) => executor,
            None => (self.shelf.machine.device)().map_err(TrainError::from)?,
        };
        let mut fit = Fit::new(&trial.config, data, executor)?;
        fit.stop_when(Arc::clone(&self.options.stop));
        let scores = self.scores(trial, &mut fit);
        self.executor = Some(fit.into_executor());
        scores
    }

    fn scores(&self, trial: &Trial, fit: &mut Fit) -> Result<Scores, SearchError> {
        let folder = self.options.keep.map(|keep| keep.join(&trial.id));
        if let Some(folder) = &folder {
            fsio::create_dir(folder)?;
            fsio::write_atomic(&folder.join("config.toml"), fit.config().to_toml()?.as_bytes())?;
        }
        let start = fit.start(None)?;
        let outcome = fit.run(start, folder.as_deref(), &mut |_| {})?;
        let none = || TrainError::setting("data", "has no validation images");
        let p = fit.predict("val")?.ok_or_else(none)?;
        let labels = &fit.images("val").ok_or_else(none)?.labels;
        let metrics = Metrics::new(labels, &p, fit.model().classes()).map_err(TrainError::from)?;
        Ok(Scores {
            best_epoch: outcome.best_epoch,
            val_loss: metrics.log_loss,
            val_accuracy: metrics.accuracy,
            val_auc: metrics.roc_auc(),
            parameters: fit.model().trainable_numel() as u64,
        })
    }
}

/// Whether a failure is the trial's own, by its settings, or one that the next trial would meet as well.
fn is_its_own(e: &TrainError) -> bool {
    match e {
        TrainError::Diverged { .. }
        | TrainError::Model(_)
        | TrainError::Shape(_)
        | TrainError::Setting { .. }
        | TrainError::Optimizer(_)
        | TrainError::Schedule(_)
        | TrainError::Metrics(_) => true,
        TrainError::Exec(e) | TrainError::Fault { source: e, .. } => {
            matches!(e, ExecError::TooLarge { .. } | ExecError::OutOfMemory(_))
        }
        _ => false,
    }
}
