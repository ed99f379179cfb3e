//! TensorBoard event files: scalars by epoch that `tensorboard --logdir RUNS` draws while a training runs.
//!
//! A file is a row of TFRecords: the length (8 bytes, little-endian), the masked CRC-32C of these 8 bytes, the record, the masked
//! CRC-32C of the record. A record is an `Event` message of protocol buffers; the first one names the version of the
//! format (TensorFlow's `record_writer.h` and `event.proto`). TensorBoard reads the files of a folder in the order of their names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};
use prost::Message;

use crate::fsio::{self, FsError};

/// CRC-32C, of Castagnoli's polynomial.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// What the first record of a file says.
const VERSION: &str = "brain.Event:2";
/// Every file's name begins so; behind it stands when it was begun, in seconds of 10 digits.
const PREFIX: &str = "events.out.tfevents.";
/// The end of every name.
const SUFFIX: &str = ".radiograd";

/// The part of `event.proto` that is written here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// A folder of event files, to which this process adds one.
#[derive(Debug)]
pub struct EventLog {
    folder: PathBuf,
    /// Opened with the first step, so that a run that fails before it leaves nothing.
    file: Option<(PathBuf, File)>,
    steps: BTreeSet<i64>,
}

impl EventLog {
    /// Looks at the folder, which need not exist: steps that its files hold are not written again.
    ///
    /// # Errors
    /// The folder or a file in it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, FsError> {
        let mut steps = BTreeSet::new();
        for path in files(folder)? {
            // Behind a record that was cut short nothing can be read, neither here nor by TensorBoard.
            steps.extend(events(&fsio::read(&path)?).filter(|e| e.summary.is_some()).map(|e| e.step));
        }
        Ok(Self { folder: folder.to_owned(), file: None, steps })
    }

    /// Adds the scalars of a step, such as an epoch, unless the folder holds that step already. They are on disk afterwards, so that
    /// TensorBoard shows them at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, step: u32, scalars: &[(&str, f64)]) -> Result<(), FsError> {
        let step = i64::from(step);
        if self.steps.contains(&step) {
            return Ok(());
        }
        let value = |&(tag, value): &(&str, f64)| Value { tag: tag.to_owned(), simple_value: Some(value as f32) };
        let summary = Some(Summary { value: scalars.iter().map(value).collect() });
        let event = Event { wall_time: now(), step, file_version: None, summary };
        let (path, mut file) = match self.file.take() {
            Some(open) => open,
            None => self.create()?,
        };
        let fail = |e| FsError::new("write", &path, e);
        let before = file.metadata().map_err(fail)?.len();
        file.write_all(&record(&event)).and_then(|()| file.sync_data()).map_err(|e| {
            // Best effort: a torn record ends the file for its readers, and the next start opens another.
            let _ = file.set_len(before);
            fail(e)
        })?;
        self.file = Some((path, file));
        self.steps.insert(step);
        Ok(())
    }

    /// A new file, whose name comes after those of the others.
    fn create(&self) -> Result<(PathBuf, File), FsError> {
        fsio::create_dir(&self.folder)?;
        let begun = |path: PathBuf| -> Option<u64> {
            path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
        };
        let last = files(&self.folder)?.into_iter().filter_map(begun).max();
        let mut seconds = (now() as u64).max(last.map_or(0, |s| s + 1));
        loop {
            let path = self.folder.join(format!("{PREFIX}{seconds:010}{SUFFIX}"));
            match File::create_new(&path) {
                Ok(mut file) => {
                    let first = Event { wall_time: now(), file_version: Some(VERSION.to_owned()), ..Event::default() };
                    file.write_all(&record(&first)).map_err(|e| FsError::new("write", &path, e))?;
                    return Ok((path, file));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => seconds += 1,
                Err(e) => return Err(FsError::new("write", &path, e)),
            }
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// The event files of a folder in the order of their names; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, FsError> {
    let fail = |e| FsError::new("read", folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let ours = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PREFIX));
        if ours && path.is_file() {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// The CRC as it stands in a file: rotated and moved, so that the CRC of data that hold CRCs stays a good one.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A record with its frame.
fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(&data);
    out.extend_from_slice(&masked_crc(&data).to_le_bytes());
    out
}

/// The events of a file, up to the first record that is damaged or cut short.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let n = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (data, rest) = rest.split_at_checked(n)?;
        let (data_crc, rest) = rest.split_first_chunk::<4>()?;
        let whole = u32::from_le_bytes(*crc) == masked_crc(length) && u32::from_le_bytes(*data_crc) == masked_crc(data);
        bytes = rest;
        Event::decode(data).ok().filter(|_| whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path) -> Vec<Event> {
        files(folder).unwrap().iter().flat_map(|f| events(&fs::read(f).unwrap()).collect::<Vec<_>>()).collect()
    }

    /// The first two values of RFC 3720, B.4, the check value of the polynomial, and TensorFlow's mask of it.
    #[test]
    fn the_crc_is_castagnolis_and_masked() {
        assert_eq!(CRC.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC.checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
        // 0xe3069283 rotated to the right by 15 is 0x2507c60d.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn the_frame_and_the_message_are_as_the_format_says() {
        let event = Event { wall_time: 1.0, step: 3, file_version: None, summary: None };
        let bytes = record(&event);
        // Field 1, 64 bits; field 2, a varint.
        let message = [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 3];
        assert_eq!(bytes[..8], 11_u64.to_le_bytes());
        assert_eq!(bytes[8..12], masked_crc(&bytes[..8]).to_le_bytes());
        assert_eq!(bytes[12..23], message);
        assert_eq!(bytes[23..], masked_crc(&message).to_le_bytes());
        let value = Value { tag: "a".into(), simple_value: Some(0.5) };
        let summary = Summary { value: vec![value] };
        assert_eq!(summary.encode_to_vec(), [0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0, 0x3f]);
    }

    #[test]
    fn a_resumed_log_adds_a_later_file_and_doubles_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tensorboard");
        let mut log = EventLog::open(&folder).unwrap();
        assert!(!folder.exists(), "nothing is written before the first step");
        log.add(1, &[("loss/train", 0.75), ("loss/validation", 0.5)]).unwrap();
        log.add(2, &[("loss/train", 0.25)]).unwrap();
        log.add(2, &[("loss/train", 9.0)]).unwrap();
        let mut again = EventLog::open(&folder).unwrap();
        for step in 1..=3 {
            again.add(step, &[("loss/train", 0.125)]).unwrap();
        }
        let found = files(&folder).unwrap();
        assert_eq!(found.len(), 2);
        let all = read(&folder);
        assert_eq!(all.iter().filter(|e| e.file_version.as_deref() == Some(VERSION)).count(), 2);
        let points: Vec<(i64, Option<f32>)> =
            all.iter().filter_map(|e| Some((e.step, e.summary.as_ref()?.value[0].simple_value))).collect();
        assert_eq!(points, [(1, Some(0.75)), (2, Some(0.25)), (3, Some(0.125))]);
    }

    #[test]
    fn what_was_cut_short_or_damaged_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(dir.path()).unwrap();
        log.add(1, &[("a", 1.0)]).unwrap();
        log.add(2, &[("a", 2.0)]).unwrap();
        let path = files(dir.path()).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() - 20] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(EventLog::open(dir.path()).unwrap().steps, BTreeSet::from([1]));
        }
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(EventLog::open(dir.path()).unwrap().steps, BTreeSet::from([1]));
        fs::write(dir.path().join("notes.txt"), "theirs").unwrap();
        assert_eq!(files(dir.path()).unwrap().len(), 1);
    }
}
