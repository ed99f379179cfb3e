//! What can end a training.

use std::path::PathBuf;

use super::numbers::NonFinite;

/// Training, evaluation or prediction failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The images.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// The network.
    #[error(transparent)]
    Model(#[from] crate::nn::ModelError),
    /// Recording.
    #[error("recording the step failed: {0}")]
    Shape(#[from] crate::shape::ShapeError),
    /// Running.
    #[error(transparent)]
    Exec(#[from] crate::exec::ExecError),
    /// A device that failed in the middle of training.
    #[error("{}{source}{}", when(place.as_ref()), what_is_kept(*kept))]
    Fault {
        /// The epoch and the step of it, from 1, that was begun last.
        place: Option<(u32, usize)>,
        /// What failed. What is read back belongs to the step begun last or to one before.
        #[source]
        source: Box<crate::exec::ExecError>,
        /// Whether there is a checkpoint to go on from; `None` where none is written.
        kept: Option<bool>,
    },
    /// Weight files.
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightsError),
    /// Weights that belong to another network.
    #[error(transparent)]
    Match(#[from] crate::weights::matching::MatchError),
    /// Weights that do not go into the network.
    #[error("weights {}: {source}", path.display())]
    Adopt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: Box<crate::weights::AdoptError>,
    },
    /// Weights that are not there.
    #[error("{name}: {problem}")]
    NoWeights {
        /// As a person named them.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Optimizer settings.
    #[error(transparent)]
    Optimizer(#[from] crate::optim::OptimError),
    /// Schedule settings.
    #[error(transparent)]
    Schedule(#[from] crate::optim::ScheduleError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// The report.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// A file.
    #[error(transparent)]
    Fs(#[from] crate::fsio::FsError),
    /// A setting out of range.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its name on the command line or in the config file.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A config file that does not read.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The run folder holds a run already.
    #[error("{} already holds a run: continue it with --resume, or name another folder with --out", path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// Two trainings into one folder.
    #[error("{} is being trained into by another process: wait for it, or name another folder with --out", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing to resume or evaluate.
    #[error("{} holds no finished checkpoint ({missing} is missing): train first", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// The file.
        missing: &'static str,
    },
    /// A checkpoint that does not belong to this run.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file of predictions that does not read.
    #[error("{}: {problem}; write it anew with `radiograd eval --predictions`", path.display())]
    Predictions {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A folder without predictions.
    #[error(
        "{} holds no predictions.csv, nor a folder with one: `radiograd train` writes it, and for an older run          `radiograd eval --run RUN --split test --predictions RUN/predictions.csv`",
        path.display()
    )]
    NoPredictions {
        /// The folder.
        path: PathBuf,
    },
    /// Runs that cannot be held against each other.
    #[error("{0}")]
    NotComparable(String),
    /// A threshold that no image gives.
    #[error(transparent)]
    Rule(#[from] crate::stats::RuleError),
    /// A temperature that cannot be fitted.
    #[error(transparent)]
    Temperature(#[from] crate::stats::TemperatureError),
    /// A setting that does not read, or that there is not.
    #[error("{place}{error}")]
    Key {
        /// Where it was given, with a colon; empty where that goes without saying.
        place: String,
        /// What is wrong.
        #[source]
        error: super::SettingError,
    },
    /// Asked to stop.
    #[error("stopped {}", place(*.epoch, *.step, *.steps))]
    Interrupted {
        /// The epoch that is not finished, from 1.
        epoch: u32,
        /// Its steps that are done.
        step: usize,
        /// The steps that it has.
        steps: usize,
        /// Whether there is a checkpoint to go on from.
        kept: bool,
    },
    /// NaN or infinity.
    #[error(
        "the {what} became NaN or infinite in epoch {epoch}, step {step}{}: try a lower --lr, --clip-grad-norm or --on-nan halve-lr{}",
        details(tensor.as_deref(), tried.as_deref()),
        where_kept(kept.as_ref())
    )]
    Diverged {
        /// Loss, gradient, weights or validation output.
        what: &'static str,
        /// From 1.
        epoch: u32,
        /// From 1.
        step: usize,
        /// The first tensor in graph order; `None` where nobody looked, or where it does not show with every value kept.
        tensor: Option<Box<NonFinite>>,
        /// What was done about it in vain.
        tried: Option<String>,
        /// The file with the last weights whose loss and gradient were finite.
        kept: Option<PathBuf>,
    },
    /// A run cannot begin with such weights.
    #[error("the weights to begin with hold NaN or infinity: {0}; begin with others")]
    SpoiledWeights(Box<NonFinite>),
    /// NaN or infinity in what was to be written into a checkpoint.
    #[error("{} was not written, because it would hold NaN or infinity: {tensor}", path.display())]
    SpoiledCheckpoint {
        /// The file, which is as it was.
        path: PathBuf,
        /// The first of the tensors.
        tensor: Box<NonFinite>,
    },
}

fn details(tensor: Option<&NonFinite>, tried: Option<&str>) -> String {
    let tensor = tensor.map(|t| format!(", first in {t}")).unwrap_or_default();
    tensor + &tried.map(|t| format!("; {t}")).unwrap_or_default()
}

fn where_kept(kept: Option<&PathBuf>) -> String {
    kept.map(|path| format!("; the last good weights are in {}", path.display())).unwrap_or_default()
}

/// Where a training was stopped.
fn place(epoch: u32, step: usize, steps: usize) -> String {
    match step {
        0 if epoch <= 1 => "before the first step".to_owned(),
        0 => format!("after epoch {}", epoch - 1),
        _ => format!("in epoch {epoch} after step {step} of {steps}"),
    }
}

fn when(place: Option<&(u32, usize)>) -> String {
    place.map(|(epoch, step)| format!("epoch {epoch}, step {step}: ")).unwrap_or_default()
}

fn what_is_kept(kept: Option<bool>) -> &'static str {
    match kept {
        Some(true) => "; the last checkpoint is kept: the same command with --resume goes on",
        Some(false) => "; there was no checkpoint yet: the same command begins anew",
        None => "",
    }
}

impl From<super::SettingError> for TrainError {
    fn from(error: super::SettingError) -> Self {
        Self::Key { place: String::new(), error }
    }
}

impl TrainError {
    /// Says where a setting was given.
    pub(crate) fn at(self, place: &str) -> Self {
        match self {
            Self::Key { error, .. } => Self::Key { place: format!("{place}: "), error },
            other => other,
        }
    }

    pub(crate) fn setting(setting: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { setting, problem: problem.into() }
    }
}
