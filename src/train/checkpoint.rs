//! Checkpoints: `last.safetensors` holds all that a run needs to go on, `best.safetensors` the weights to use.
//!
//! Both hold the network's tensors under their own names, and for each batch-norm the `num_batches_tracked` that PyTorch's
//! state_dict has beside its running statistics: the number of steps. `last` adds the optimizer's vectors as `optimizer.NAME` and the
//! state of the loop in the metadata key `radiograd.state`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::numbers::spoiled_tensors;
use crate::exec::Executor;
use crate::graph::VarView;
use crate::optim::SchedulerState;
use crate::report::data::EpochRow;
use crate::store::{Param, ParamStore, Role};
use crate::tensor::{Data, Tensor};
use crate::weights::{self, NamedTensor, Pair, TensorData, matching::match_tensors};

/// Name of the checkpoint to go on from.
pub const LAST: &str = "last.safetensors";
/// Name of the best weights.
pub const BEST: &str = "best.safetensors";
const STATE: &str = "radiograd.state";
const PREFIX: &str = "optimizer.";

/// The loop's state after a whole epoch.
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
    Ok(weights::save(path, &with_counters(tensors, steps), metadata)?)
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

/// Writes the checkpoint to go on from.
///
/// # Errors
/// It would hold NaN or infinity, the device failed, or the file cannot be written.
pub fn save_last(
    path: &Path,
    executor: &mut dyn Executor,
    params: &[Param],
    slots: &[(String, VarView)],
    metadata: &BTreeMap<String, String>,
    state: &LoopState,
) -> Result<(), TrainError> {
    let mut tensors = network_tensors(executor, params)?;
    tensors.extend(counters(&tensors, state.step));
    for (name, slot) in slots {
        let value = executor.read_var(slot.var)?.to_f32();
        tensors.push(NamedTensor {
            name: format!("{PREFIX}{name}"),
            shape: vec![value.len()],
            data: TensorData::F32(value),
        });
    }
    refuse_spoiled(path, &tensors)?;
    let mut metadata = metadata.clone();
    let text = serde_json::to_string(state).map_err(|e| problem(path, e.to_string()))?;
    metadata.insert(STATE.to_owned(), text);
    Ok(weights::save(path, &tensors, &metadata)?)
}

fn problem(path: &Path, problem: String) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), problem }
}

/// Reads what [`save_last`] wrote into an executor, and gives the loop's state.
///
/// # Errors
/// The file does not read, or belongs to another network, optimizer or data set.
pub fn load_last(
    path: &Path,
    executor: &mut dyn Executor,
    store: &mut ParamStore,
    slots: &[(String, VarView)],
    content_hash: &str,
) -> Result<LoopState, TrainError> {
    let mut file = weights::load(path)?;
    let text = file
        .metadata
        .get(STATE)
        .ok_or_else(|| problem(path, "holds weights but no state to resume from".to_owned()))?;
    let state: LoopState =
        serde_json::from_str(text).map_err(|e| problem(path, format!("its state does not read: {e}")))?;
    if state.content_hash != content_hash {
        return Err(problem(path, "the data is not what this run was trained on; start a new run".to_owned()));
    }
    let (mut vectors, tensors): (Vec<_>, Vec<_>) =
        std::mem::take(&mut file.tensors).into_iter().partition(|t| t.name.starts_with(PREFIX));
    file.tensors = tensors;
    put_weights(&file, store)?;
    let another = "another optimizer wrote it; keep the run's --optimizer or start a new run";
    for (name, slot) in slots {
        let name = format!("{PREFIX}{name}");
        let place = vectors
            .iter()
            .position(|t| t.name == name)
            .ok_or_else(|| problem(path, format!("{name} is missing: {another}")))?;
        let tensor = vectors.swap_remove(place);
        let value = tensor.data.as_f32().map(<[f32]>::to_vec).unwrap_or_default();
        if value.len() != slot.spec.numel() {
            return Err(problem(path, format!("{name} has {} values, not {}", value.len(), slot.spec.numel())));
        }
        let value = Tensor::new(slot.spec.shape.clone(), Data::F32(value)).expect("the length was checked");
        executor.write_var(slot.var, &value)?;
    }
    if let Some(left) = vectors.first() {
        return Err(problem(path, format!("{} is left over: {another}", left.name)));
    }
    write_shared(executor, store)?;
    Ok(state)
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
