//! Checkpoints: `last.safetensors` holds all that a run needs to go on, `best.safetensors` the weights to use.
//!
//! Both hold the network's tensors under their own names, and for each batch-norm the `num_batches_tracked` that PyTorch's
//! state_dict has beside its running statistics: the number of steps. `last` adds the optimizer's vectors as `optimizer.NAME` and the
//! state of the loop in the metadata key `radiograd.state`. Where the best weights are not its own, it holds them too, as
//! `radiograd.best.NAME`: so no two files have to agree, and `best.safetensors` can be written again. Within an epoch it also has the log so
//! far (`radiograd.log`) and the gradients that wait for an update (`radiograd.gradients`).
//!
//! Each file has a hash of itself ([`crate::weights::seal`]), and the `last` before the last one stays as `last.previous.safetensors`.

mod files;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::fit::Journal;
use super::numbers::spoiled_tensors;
use super::step::LOG_COLUMNS;
use crate::exec::Executor;
use crate::graph::VarView;
use crate::optim::SchedulerState;
use crate::report::data::EpochRow;
use crate::store::{Param, ParamStore, Role};
use crate::tensor::{Data, Tensor};
use crate::weights::{self, NamedTensor, Pair, TensorData, WeightsFile, matching::match_tensors};

pub use files::{Found, any, find, holds, reason};

/// Name of the checkpoint to go on from.
pub const LAST: &str = "last.safetensors";
/// Name of the best weights.
pub const BEST: &str = "best.safetensors";
/// Name of the checkpoint before that.
pub const PREVIOUS: &str = "last.previous.safetensors";
const STATE: &str = "radiograd.state";
const PREFIX: &str = "optimizer.";
const BEST_PREFIX: &str = "radiograd.best.";
const LOG: &str = "radiograd.log";
const GRADIENTS: &str = "radiograd.gradients";

/// The loop's state after a whole epoch, or within one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// Steps done.
    pub step: u64,
    /// The schedule's state.
    pub scheduler: SchedulerState,
    /// All finished epochs.
    pub epochs: Vec<EpochRowNoTime>,
    /// The epoch with the lowest validation loss so far; 0 before the first.
    pub best_epoch: u32,
    /// The first epoch of each stage that has begun; empty where an older version wrote it: as planned.
    #[serde(default)]
    pub begun: Vec<u32>,
    /// BLAKE3 of the data that the run sees.
    pub content_hash: String,
    /// The kernels that measuring put in place of the table's; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<String>,
    /// How many steps the best weights had behind them; absent where an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_step: Option<u64>,
    /// How far the epoch after `epochs` has come; absent between two epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// What the run met that is out of the ordinary.
    #[serde(default, skip_serializing_if = "Journal::is_empty")]
    pub numbers: Journal,
}

impl LoopState {
    /// Where it was taken, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self.within {
            None => format!("taken after epoch {}", self.epochs.len()),
            Some(Within { steps, .. }) => format!("taken in epoch {} after step {steps}", self.epochs.len() + 1),
        }
    }
}

/// A place within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Within {
    /// Its steps that are done.
    pub steps: usize,
    /// Wall time that they took.
    pub seconds: f64,
}

/// The best weights so far.
#[derive(Clone, Debug)]
pub struct Best {
    /// The epoch that they come from.
    pub epoch: u32,
    /// The steps that they had behind them.
    pub step: u64,
    /// The network's tensors.
    pub tensors: Vec<NamedTensor>,
}

/// What a checkpoint takes beside the weights and the loop's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The best weights, where they are not those of the checkpoint.
    pub best: Option<&'a [NamedTensor]>,
    /// Within an epoch: its log so far.
    pub rows: Option<&'a [[f32; LOG_COLUMNS]]>,
    /// Within an epoch: where gradients wait for an update.
    pub gradients: Option<&'a VarView>,
}

/// An epoch without its wall time: two runs with the same seed write the same checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRowNoTime {
    /// 1, 2, ...
    pub epoch: u32,
    /// As in [`EpochRow`].
    pub train_loss: f64,
    /// As in [`EpochRow`].
    pub train_accuracy: Option<f64>,
    /// As in [`EpochRow`].
    pub val_loss: f64,
    /// As in [`EpochRow`].
    pub val_accuracy: f64,
    /// As in [`EpochRow`].
    pub learning_rate: f64,
}

impl EpochRowNoTime {
    /// Leaves the time out.
    #[must_use]
    pub fn of(row: &EpochRow) -> Self {
        Self {
            epoch: row.epoch,
            train_loss: row.train_loss,
            train_accuracy: row.train_accuracy,
            val_loss: row.val_loss,
            val_accuracy: row.val_accuracy,
            learning_rate: row.learning_rate,
        }
    }

    /// With a time.
    #[must_use]
    pub fn with_seconds(&self, seconds: f64) -> EpochRow {
        EpochRow {
            epoch: self.epoch,
            train_loss: self.train_loss,
            train_accuracy: self.train_accuracy,
            val_loss: self.val_loss,
            val_accuracy: self.val_accuracy,
            learning_rate: self.learning_rate,
            seconds,
        }
    }
}

/// The network's tensors as the executor has them now.
///
/// # Errors
/// The device failed.
pub fn network_tensors(executor: &mut dyn Executor, params: &[Param]) -> Result<Vec<NamedTensor>, TrainError> {
    let trainable = executor.read_var(ParamStore::TRAINABLE)?;
    let buffers = executor.read_var(ParamStore::BUFFERS)?;
    Ok(tensors_of(params, &trainable, &buffers))
}

/// The network's tensors as ranges of the two variables that hold them.
#[must_use]
pub fn tensors_of(params: &[Param], trainable: &Tensor, buffers: &Tensor) -> Vec<NamedTensor> {
    let (trainable, buffers) = (trainable.to_f32(), buffers.to_f32());
    let tensor = |p: &Param| {
        let from = if p.role == Role::Trainable { &trainable } else { &buffers };
        let data = from[p.view.offset..p.view.offset + p.view.spec.numel()].to_vec();
        NamedTensor { name: p.name.clone(), shape: p.view.spec.shape.to_vec(), data: TensorData::F32(data) }
    };
    params.iter().map(tensor).collect()
}

/// PyTorch's counter of training steps beside the running statistics of each batch-norm. Nothing here reads it.
fn counters(tensors: &[NamedTensor], steps: u64) -> Vec<NamedTensor> {
    let norms = tensors.iter().filter_map(|t| t.name.strip_suffix("running_mean"));
    let counter = |norm: &str| NamedTensor {
        name: format!("{norm}num_batches_tracked"),
        shape: Vec::new(),
        data: TensorData::I64(vec![i64::try_from(steps).unwrap_or(i64::MAX)]),
    };
    norms.map(counter).collect()
}

/// Writes the weights to use, which `steps` steps have made.
///
/// # Errors
/// They hold NaN or infinity, or the file cannot be written.
pub fn save_best(
    path: &Path,
    tensors: &[NamedTensor],
    steps: u64,
    metadata: &BTreeMap<String, String>,
) -> Result<(), TrainError> {
    refuse_spoiled(path, tensors)?;
    Ok(weights::save_sealed(path, &with_counters(tensors, steps), metadata, None)?)
}

/// No checkpoint replaces a good one that holds NaN or infinity.
fn refuse_spoiled(path: &Path, tensors: &[NamedTensor]) -> Result<(), TrainError> {
    match spoiled_tensors(tensors) {
        None => Ok(()),
        Some(tensor) => Err(TrainError::SpoiledCheckpoint { path: path.to_owned(), tensor: Box::new(tensor) }),
    }
}

/// The weights to use as they stand in a file.
#[must_use]
pub fn with_counters(tensors: &[NamedTensor], steps: u64) -> Vec<NamedTensor> {
    [tensors, &counters(tensors, steps)].concat()
}

/// Writes the checkpoint to go on from. With `keep` the one that was there becomes `last.previous.safetensors`.
///
/// # Errors
/// It would hold NaN or infinity, the device failed, or the file cannot be written.
pub fn save_last(
    folder: &Path,
    executor: &mut dyn Executor,
    (params, slots): (&[Param], &[(String, VarView)]),
    (metadata, state): (&BTreeMap<String, String>, &LoopState),
    extras: Extras<'_>,
    keep: bool,
) -> Result<(), TrainError> {
    let path = folder.join(LAST);
    let vector =
        |name: String, value: Vec<f32>| NamedTensor { name, shape: vec![value.len()], data: TensorData::F32(value) };
    let mut tensors = network_tensors(executor, params)?;
    tensors.extend(counters(&tensors, state.step));
    for (name, slot) in slots {
        tensors.push(vector(format!("{PREFIX}{name}"), executor.read_var(slot.var)?.to_f32()));
    }
    for best in extras.best.unwrap_or_default() {
        tensors.push(NamedTensor { name: format!("{BEST_PREFIX}{}", best.name), ..best.clone() });
    }
    // Before the log, whose rows of updates that were left out are NaN.
    refuse_spoiled(&path, &tensors)?;
    if let Some(rows) = extras.rows {
        let shape = vec![rows.len(), LOG_COLUMNS];
        tensors.push(NamedTensor { name: LOG.to_owned(), shape, data: TensorData::F32(rows.as_flattened().to_vec()) });
    }
    if let Some(gradients) = extras.gradients {
        tensors.push(vector(GRADIENTS.to_owned(), executor.read_var(gradients.var)?.to_f32()));
    }
    let mut metadata = metadata.clone();
    let text = serde_json::to_string(state).map_err(|e| problem(&path, e.to_string()))?;
    metadata.insert(STATE.to_owned(), text);
    let previous = keep.then(|| folder.join(PREVIOUS));
    Ok(weights::save_sealed(&path, &tensors, &metadata, previous.as_deref())?)
}

fn problem(path: &Path, problem: String) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), problem }
}

/// What [`load_last`] gives beside what it puts onto the device.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The loop's state.
    pub state: LoopState,
    /// The best weights.
    pub best: Option<Best>,
    /// The log of the epoch that has begun; empty between two.
    pub rows: Vec<[f32; LOG_COLUMNS]>,
    /// Whether `last.safetensors` is whole.
    pub whole: bool,
    /// What to say loudly.
    pub warning: Option<String>,
}

/// Puts the checkpoint of a run folder onto a device: `last.safetensors`, or the one before where that is damaged. `gradients` is where
/// gradients wait for an update.
///
/// # Errors
/// Neither of them reads, or what reads belongs to another network, optimizer or data set.
pub fn load_last(
    folder: &Path,
    executor: &mut dyn Executor,
    store: &mut ParamStore,
    slots: &[(String, VarView)],
    gradients: Option<&VarView>,
    content_hash: &str,
) -> Result<Loaded, TrainError> {
    let Found { mut file, state, warning } = find(folder)?;
    let path = folder.join(if warning.is_some() { PREVIOUS } else { LAST });
    if state.content_hash != content_hash {
        return Err(problem(&path, "the data is not what this run was trained on; start a new run".to_owned()));
    }
    let mut network = Vec::new();
    let (mut vectors, mut best, mut rows, mut waiting) = (Vec::new(), Vec::new(), Vec::new(), None);
    for tensor in std::mem::take(&mut file.tensors) {
        if tensor.name.starts_with(PREFIX) {
            vectors.push(tensor);
        } else if let Some(name) = tensor.name.strip_prefix(BEST_PREFIX) {
            best.push(NamedTensor { name: name.to_owned(), ..tensor });
        } else if tensor.name == LOG {
            rows = tensor.data.as_f32().unwrap_or_default().as_chunks::<LOG_COLUMNS>().0.to_vec();
        } else if tensor.name == GRADIENTS {
            waiting = Some(tensor);
        } else {
            network.push(tensor);
        }
    }
    if rows.len() != state.within.map_or(0, |w| w.steps) {
        return Err(problem(&path, "its log is not as long as its epoch; start a new run".to_owned()));
    }
    if best.is_empty() && state.within.is_none() && state.best_epoch as usize == state.epochs.len() {
        best = network.iter().filter(|t| store.params().iter().any(|p| p.name == t.name)).cloned().collect();
    }
    let best = match best.is_empty() {
        false => Some(best),
        true if state.best_epoch == 0 => None,
        // An older version kept them in their own file alone.
        true => Some(weights::load(folder.join(BEST))?.tensors),
    };
    // That the best weights fit must show before hours of training, too.
    if let Some(tensors) = &best {
        put_weights(&WeightsFile { tensors: tensors.clone(), ..WeightsFile::default() }, store)?;
    }
    file.tensors = network;
    put_weights(&file, store)?;
    let another = "another optimizer wrote it; keep the run's --optimizer or start a new run";
    for (name, slot) in slots {
        let name = format!("{PREFIX}{name}");
        let place = vectors
            .iter()
            .position(|t| t.name == name)
            .ok_or_else(|| problem(&path, format!("{name} is missing: {another}")))?;
        write_vector(&path, executor, &vectors.swap_remove(place), slot)?;
    }
    if let Some(left) = vectors.first() {
        return Err(problem(&path, format!("{} is left over: {another}", left.name)));
    }
    if let (Some(tensor), Some(view)) = (&waiting, gradients) {
        write_vector(&path, executor, tensor, view)?;
    }
    write_shared(executor, store)?;
    let best = best.map(|tensors| {
        let tensors = tensors.into_iter().filter(|t| matches!(t.data, TensorData::F32(_))).collect();
        let a_step = state.step.checked_div(state.epochs.len() as u64).unwrap_or_default();
        let step = state.best_step.unwrap_or(u64::from(state.best_epoch) * a_step);
        Best { epoch: state.best_epoch, step, tensors }
    });
    Ok(Loaded { state, best, rows, whole: warning.is_none(), warning })
}

/// Writes a tensor of a checkpoint over a whole variable.
fn write_vector(
    path: &Path,
    executor: &mut dyn Executor,
    tensor: &NamedTensor,
    view: &VarView,
) -> Result<(), TrainError> {
    let value = tensor.data.as_f32().map(<[f32]>::to_vec).unwrap_or_default();
    if value.len() != view.spec.numel() {
        let text = format!("{} has {} values, not {}", tensor.name, value.len(), view.spec.numel());
        return Err(problem(path, text));
    }
    let value = Tensor::new(view.spec.shape.clone(), Data::F32(value)).expect("the length was checked");
    Ok(executor.write_var(view.var, &value)?)
}

/// Copies a file's tensors into a store, matched by name or else by order and shape; gives what was matched to what.
///
/// # Errors
/// Some tensor is missing, left over or of another shape.
pub fn put_weights(
    file: &weights::WeightsFile,
    store: &mut ParamStore,
) -> Result<weights::matching::Matching, TrainError> {
    let wanted: Vec<(String, Vec<usize>)> =
        store.params().iter().map(|p| (p.name.clone(), p.view.spec.shape.to_vec())).collect();
    let matching = match_tensors(&wanted, file)?.complete(&wanted, file)?;
    put_pairs(&matching.pairs, file, store);
    Ok(matching)
}

/// Copies tensors of a file into the parameters that they were matched to.
pub fn put_pairs(pairs: &[Pair], file: &weights::WeightsFile, store: &mut ParamStore) {
    for pair in pairs {
        let index = store.params().iter().position(|p| p.name == pair.model);
        let value = file.get(&pair.file).and_then(|t| t.data.as_f32());
        if let (Some(index), Some(value)) = (index, value) {
            store.set_value(index, value);
        }
    }
}

/// Sends the store's parameters and running statistics to the executor.
///
/// # Errors
/// The device failed.
pub fn write_shared(executor: &mut dyn Executor, store: &ParamStore) -> Result<(), TrainError> {
    for var in [ParamStore::TRAINABLE, ParamStore::BUFFERS] {
        if let Some(value) = store.initial(var) {
            executor.write_var(var, &value)?;
        }
    }
    Ok(())
}
