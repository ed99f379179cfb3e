//! Why a command failed.

use crate::bench::custom::CustomError;
use crate::check::CheckError;
use crate::data::DataError;
use crate::exec::ExecError;
use crate::explain::ExplainError;
use crate::fsio::FsError;
use crate::metrics::MetricsError;
use crate::nn::ModelError;
use crate::onnx::OnnxError;
use crate::shape::ShapeError;
use crate::train::TrainError;
use crate::train::search::SearchError;
use crate::weights::WeightsError;
use crate::weights::download::DownloadError;

/// A command failed; what is printed is one line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Training, evaluation or prediction.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A training that was stopped.
    #[error("{reason}; {next}")]
    Stopped {
        /// Where.
        #[source]
        reason: TrainError,
        /// How it goes on.
        next: String,
    },
    /// A search.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Figures that cannot be computed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The device.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The data set.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The `--model` text.
    #[error("--model: {0}")]
    Model(#[from] ModelError),
    /// Shapes that do not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A kernel of one's own.
    #[error(transparent)]
    Custom(#[from] CustomError),
    /// A file that could not be fetched.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An explanation.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// A network as ONNX.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A file or folder.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// stdout takes nothing.
    #[error("cannot write to standard output: {0}; free space there or send it elsewhere")]
    Output(std::io::Error),
    /// The reader of stdout has gone away, which is no failure of the command.
    #[error("standard output was closed")]
    Closed,
    /// Anything else, in words.
    #[error("{0}")]
    Message(String),
}

impl Failure {
    /// Whether the command was asked to stop, by Ctrl-C or a signal.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Train(TrainError::Interrupted { .. })
                | Self::Stopped { .. }
                | Self::Download(DownloadError::Interrupted)
                | Self::Search(SearchError::Interrupted { .. } | SearchError::RefitInterrupted)
        )
    }
}

impl From<CheckError> for Failure {
    fn from(e: CheckError) -> Self {
        match e {
            CheckError::Shape(e) => Self::Shape(e),
            CheckError::Exec(e) => Self::Exec(e),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Output(e) }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        std::io::Error::from(e).into()
    }
}
