//! The checkpoints of a run folder as files: which one is good, which one is damaged, and what is done about it.

use std::io::ErrorKind;
use std::path::Path;

use super::{LAST, LoopState, PREVIOUS, STATE, problem};
use crate::train::TrainError;
use crate::weights::{self, NamedTensor, WeightsError, WeightsFile};

/// A checkpoint that a run goes on from.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its tensors.
    pub file: WeightsFile,
    /// The state of the loop.
    pub state: LoopState,
    /// What to say loudly: the newest checkpoint is damaged, and this is the one before.
    pub warning: Option<String>,
}

/// Whether a folder holds a checkpoint to go on from, as far as names tell.
#[must_use]
pub fn any(folder: &Path) -> bool {
    [LAST, PREVIOUS].into_iter().any(|name| folder.join(name).exists())
}

/// Reads `last.safetensors`, or the one before where that is damaged, or is not there because a process was killed between two renames.
///
/// # Errors
/// Neither of them reads.
pub fn find(folder: &Path) -> Result<Found, TrainError> {
    let path = folder.join(LAST);
    let wrong = match read(&path) {
        Ok((file, state)) => return Ok(Found { file, state, warning: None }),
        Err(e) if !is_damage(&e) || !folder.join(PREVIOUS).exists() => return Err(e),
        Err(e) => e,
    };
    let missing = matches!(&wrong, TrainError::Weights(WeightsError::Fs(e)) if e.source.kind() == ErrorKind::NotFound);
    match read(&folder.join(PREVIOUS)) {
        Ok((file, state)) => {
            let what = if missing { "is missing".to_owned() } else { format!("is damaged ({})", reason(&wrong)) };
            let on = format!("the run goes on from the checkpoint before, {PREVIOUS}, {}", state.place());
            let warning = format!("{} {what}: {on}", path.display());
            Ok(Found { file, state, warning: Some(warning) })
        }
        Err(e) => {
            let wrong = if missing { "it is missing".to_owned() } else { reason(&wrong) };
            let text = format!("it and {PREVIOUS} are damaged ({wrong}; {})", reason(&e));
            Err(problem(
                &path,
                format!("{text}: start a new run; --init {} takes the best weights into it", folder.display()),
            ))
        }
    }
}

/// What is wrong with a file that does not read, without its name and without advice.
#[must_use]
pub fn reason(e: &TrainError) -> String {
    let text = match e {
        TrainError::Weights(WeightsError::Format { source, .. }) => source.to_string(),
        TrainError::Weights(WeightsError::Fs(e)) => e.source.to_string(),
        TrainError::Checkpoint { problem, .. } => problem.clone(),
        other => other.to_string(),
    };
    text.split(';').next().unwrap_or_default().to_owned()
}

/// Whether an error says that a file is not what was written, and not that it belongs elsewhere or may not be read.
fn is_damage(e: &TrainError) -> bool {
    match e {
        TrainError::Weights(WeightsError::Fs(e)) => {
            !matches!(e.source.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
        }
        TrainError::Weights(_) | TrainError::Checkpoint { .. } => true,
        _ => false,
    }
}

fn read(path: &Path) -> Result<(WeightsFile, LoopState), TrainError> {
    let file = weights::load(path)?;
    let text = file
        .metadata
        .get(STATE)
        .ok_or_else(|| problem(path, "holds weights but no state to resume from".to_owned()))?;
    let state = serde_json::from_str(text).map_err(|e| problem(path, format!("its state does not read: {e}")))?;
    Ok((file, state))
}

/// Whether a file holds these tensors, and perhaps others.
///
/// # Errors
/// It does not read.
pub fn holds(path: &Path, tensors: &[NamedTensor]) -> Result<bool, TrainError> {
    let file = weights::load(path)?;
    Ok(tensors.iter().all(|t| file.get(&t.name) == Some(t)))
}
