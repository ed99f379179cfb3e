//! The journal: one line of JSON a finished trial, in `trials.jsonl` or, of a shard, in `trials-I-of-N.jsonl`.
//!
//! A line is appended by one write and synced before the next trial counts as finished. A process that is killed leaves at
//! most a line without its end, which the next start cuts off. The files of all shards are read, so that a trial is never
//! trained twice; each process writes to its own file alone, under a lock.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{SearchError, Shard};
use crate::fsio::{self, FsError};

/// A finished trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The trial.
    pub id: String,
    /// What varies, by name, as text.
    pub settings: BTreeMap<String, String>,
    /// Its seed.
    pub seed: u32,
    /// Epochs that were asked for.
    pub epochs: u32,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Wall time.
    pub seconds: f64,
    /// BLAKE3 of the images that it saw.
    pub data: String,
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// With a network.
    Done(Scores),
    /// Without one.
    Failed {
        /// Why, in one line.
        reason: String,
    },
}

/// Figures of the kept weights on the validation images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The epoch whose weights were kept: that of the lowest validation loss.
    pub best_epoch: u32,
    /// Log loss.
    pub val_loss: f64,
    /// Share of right decisions.
    pub val_accuracy: f64,
    /// Area under the ROC curve, where it is defined.
    pub val_auc: Option<f64>,
    /// Trained parameters.
    pub parameters: u64,
}

impl Record {
    /// The figures, if there are any.
    #[must_use]
    pub fn scores(&self) -> Option<&Scores> {
        match &self.outcome {
            Outcome::Done(scores) => Some(scores),
            Outcome::Failed { .. } => None,
        }
    }
}

/// Finished trials by id.
#[derive(Clone, Debug, Default)]
pub struct Results(BTreeMap<String, Record>);

impl Results {
    /// The record of a trial.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.0.get(id)
    }

    /// Takes a record. Of two of one trial the first counts, but one with figures goes before a failed one.
    pub fn insert(&mut self, record: Record) {
        match self.0.get(&record.id) {
            Some(old) if old.scores().is_some() || record.scores().is_none() => {}
            _ => {
                self.0.insert(record.id.clone(), record);
            }
        }
    }

    /// All records by id.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.values()
    }

    /// Forgets the failed ones, so that they are tried again.
    pub fn forget_failed(&mut self) {
        self.0.retain(|_, r| r.scores().is_some());
    }

    /// Reads every journal of a folder, whole lines only.
    ///
    /// # Errors
    /// A file that cannot be read, or a whole line that is no trial.
    pub fn read(dir: &Path) -> Result<Self, SearchError> {
        let mut all = Self::default();
        for path in journals(dir)? {
            let bytes = fsio::read(&path)?;
            for (number, line) in whole_lines(&bytes).split_terminator('\n').enumerate() {
                let fail = |problem: String| SearchError::Journal { path: path.clone(), line: number + 1, problem };
                all.insert(serde_json::from_str(line).map_err(|e| fail(e.to_string()))?);
            }
        }
        Ok(all)
    }
}

/// The text up to its last end of line.
fn whole_lines(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    let end = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    String::from_utf8_lossy(&bytes[..end])
}

/// The journals of a folder, by name.
fn journals(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let fail = |e| FsError::new("read", dir, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let middle = name.strip_prefix("trials").and_then(|n| n.strip_suffix(".jsonl"));
        if middle.is_some_and(|m| m.is_empty() || m.starts_with('-')) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The file that one process appends to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Held as long as the journal is open.
    _lock: File,
    /// Bytes of a torn line that were cut off.
    cut: u64,
}

impl Journal {
    /// Opens the journal of a folder, or of a shard in it, alone, and cuts off what a killed process left half written.
    ///
    /// # Errors
    /// [`SearchError::Locked`] where another process has it, or a file that cannot be written.
    pub fn open(dir: &Path, shard: Option<Shard>) -> Result<Self, SearchError> {
        let name = shard.map_or_else(|| "trials".to_owned(), |s| format!("trials-{}-of-{}", s.index, s.of));
        let path = dir.join(format!("{name}.jsonl"));
        // A file of its own: some systems let nobody else read a locked file, and shards read each other's journals.
        let lock_path = dir.join(format!("{name}.lock"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| FsError::new("write", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SearchError::Locked { path }),
            // A file system without locks: two processes would still append whole lines.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(FsError::new("lock", &lock_path, e).into()),
        }
        let fail = |e| FsError::new("write", &path, e);
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(fail)?;
        let bytes = fsio::read(&path)?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        let cut = (bytes.len() - whole) as u64;
        if cut > 0 {
            file.set_len(whole as u64).map_err(fail)?;
            file.sync_all().map_err(fail)?;
        }
        // The file itself must be found after a crash.
        if let Ok(folder) = File::open(dir) {
            let _ = folder.sync_all();
        }
        Ok(Self { path, file, _lock: lock, cut })
    }

    /// Bytes of a torn line that were cut off at the start.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Appends a trial: one write, then a sync.
    ///
    /// # Errors
    /// The disk; what was written of the line is taken back.
    pub fn append(&mut self, record: &Record) -> Result<(), SearchError> {
        let fail = |e: io::Error| FsError::new("write", &self.path, e);
        let mut line = serde_json::to_vec(record).map_err(|e| fail(e.into()))?;
        line.push(b'\n');
        let before = self.file.metadata().map_err(fail)?.len();
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|e| {
            // Best effort: a torn line that stays is cut off at the next start.
            let _ = self.file.set_len(before);
            fail(e).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, val_loss: f64) -> Record {
        let scores = Scores { best_epoch: 1, val_loss, val_accuracy: 0.5, val_auc: None, parameters: 7 };
        Record {
            id: id.to_owned(),
            settings: BTreeMap::from([("lr".to_owned(), "0.1".to_owned())]),
            seed: 0,
            epochs: 1,
            outcome: Outcome::Done(scores),
            seconds: 0.25,
            data: "d".to_owned(),
        }
    }

    fn failed(id: &str) -> Record {
        Record { outcome: Outcome::Failed { reason: "it burst".to_owned() }, ..record(id, 0.0) }
    }

    #[test]
    fn what_is_appended_is_read_again_bit_by_bit() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), None).unwrap();
        let all = [record("a", 0.1 + 0.2), failed("b")];
        all.iter().for_each(|r| journal.append(r).unwrap());
        let read = Results::read(dir.path()).unwrap();
        assert_eq!(read.iter().cloned().collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_torn_line_is_cut_off_at_every_length_and_the_journal_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trials.jsonl");
        Journal::open(dir.path(), None).unwrap().append(&record("a", 0.5)).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut next = serde_json::to_vec(&record("b", 0.4)).unwrap();
        next.push(b'\n');
        for torn in 0..next.len() {
            fs::write(&path, [&whole[..], &next[..torn]].concat()).unwrap();
            // Those who only read leave the torn line to its writer.
            assert_eq!(Results::read(dir.path()).unwrap().iter().count(), 1);
            let mut journal = Journal::open(dir.path(), None).unwrap();
            assert_eq!(journal.cut(), torn as u64);
            journal.append(&record("c", 0.3)).unwrap();
            drop(journal);
            let ids: Vec<String> = Results::read(dir.path()).unwrap().iter().map(|r| r.id.clone()).collect();
            assert_eq!(ids, ["a", "c"], "{torn}");
        }
    }

    #[test]
    fn a_trial_counts_once_and_figures_go_before_failure() {
        let mut all = Results::default();
        [failed("a"), record("a", 0.5), record("a", 0.4), failed("a"), failed("b"), failed("b")]
            .into_iter()
            .for_each(|r| all.insert(r));
        assert_eq!(all.iter().count(), 2);
        assert_eq!(all.get("a").and_then(Record::scores).map(|s| s.val_loss), Some(0.5));
        all.forget_failed();
        assert!(all.get("b").is_none() && all.get("a").is_some());
    }

    #[test]
    fn shards_have_files_of_their_own_and_one_process_each() {
        let dir = tempfile::tempdir().unwrap();
        let shards = [0, 1].map(|index| Shard { index, of: 2 });
        let mut open = shards.map(|s| Journal::open(dir.path(), Some(s)).unwrap());
        let again = Journal::open(dir.path(), Some(shards[0])).unwrap_err();
        assert!(matches!(again, SearchError::Locked { .. }), "{again}");
        open[0].append(&record("a", 0.5)).unwrap();
        open[1].append(&record("b", 0.5)).unwrap();
        assert_eq!(Results::read(dir.path()).unwrap().iter().count(), 2);
        drop(open);
        Journal::open(dir.path(), Some(shards[0])).unwrap();
    }

    #[test]
    fn a_whole_line_that_is_no_trial_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("trials.jsonl"), "{\"id\": 3}\n").unwrap();
        let error = Results::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 1 is no trial") && !error.contains('\n'), "{error}");
    }
}
