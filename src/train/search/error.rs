//! What can end a search. A trial that fails does not.

use std::path::PathBuf;

use crate::train::TrainError;

/// A search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Training, files, data or device.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A file or folder.
    #[error(transparent)]
    Fs(#[from] crate::fsio::FsError),
    /// The report.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// The grid makes no sense.
    #[error("{0}")]
    Grid(String),
    /// The folder belongs to another search.
    #[error(
        "{} holds another search ({difference}): name another folder with --out, or go on with its grid.toml",
        dir.display()
    )]
    OtherGrid {
        /// The folder.
        dir: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// The folder holds no search.
    #[error("{} holds no search (grid.toml is missing): start one with `radiograd search GRID.toml --out DIR`", dir.display())]
    NoSearch {
        /// The folder.
        dir: PathBuf,
    },
    /// The images are not those that the finished trials saw.
    #[error(
        "trial {id} in {} was trained on other images than these: restore the data, or name another folder with --out",
        dir.display()
    )]
    OtherData {
        /// The folder.
        dir: PathBuf,
        /// A finished trial.
        id: String,
    },
    /// Another process works on the same journal.
    #[error("another process is at work on {}: wait for it, or stop it", path.display())]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// The journal was written by something else.
    #[error("{}: line {line} is no trial: {problem}; move the file away to start anew", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// Trials are missing.
    #[error(
        "{missing} of {expected} trials are missing in {}: run the shards that did not finish again, or give --partial",
        dir.display()
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// How many.
        missing: usize,
        /// Of how many.
        expected: usize,
    },
    /// Every trial failed.
    #[error("no trial of {} succeeded; the first failed with: {reason}", dir.display())]
    AllFailed {
        /// The folder.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Asked to stop.
    #[error("stopped with {finished} of {expected} trials finished: the same command goes on")]
    Interrupted {
        /// Trials in the journal.
        finished: usize,
        /// Trials in all, as far as they are known.
        expected: usize,
    },
    /// Asked to stop during the last training.
    #[error("stopped while the best trial was trained once more: the same command goes on")]
    RefitInterrupted,
}
