//! What a run met that is out of the ordinary, for its reader: steps without numbers, and gradients much longer than usual.
//! `numbers.jsonl` has a line for each.

use std::collections::VecDeque;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Event, json};
use crate::train::TrainError;

/// The file in the run folder; there is none where nothing happened.
pub const NUMBERS: &str = "numbers.jsonl";
/// Lines of it, at most.
const LINES: usize = 1000;
/// Notes of one kind in an epoch, at most.
const NOTES: usize = 3;

/// A line of [`NUMBERS`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1.
    pub epoch: u32,
    /// From 1, in its epoch.
    pub step: usize,
    /// What happened.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// Its update was left out.
    LeftOut {
        /// Loss, gradient, weights or validation output.
        what: String,
        /// The first tensor that was NaN or infinite.
        tensor: Option<String>,
    },
    /// The run went back and halved its learning rate.
    Halved {
        /// Loss, gradient, weights or validation output.
        what: String,
        /// The first tensor that was NaN or infinite.
        tensor: Option<String>,
        /// How many steps of the epoch were kept.
        back_to: usize,
        /// The rate from there on.
        learning_rate: f64,
    },
    /// The norm of its gradient was far above that of the steps before.
    LongGradient {
        /// The norm.
        norm: f64,
        /// The median before it.
        usual: f64,
    },
}

impl Happened {
    fn kind(&self) -> usize {
        match self {
            Self::LeftOut { .. } => 0,
            Self::Halved { .. } => 1,
            Self::LongGradient { .. } => 2,
        }
    }
}

/// All that a run met so far. A checkpoint holds it, so that a run that goes on says and judges the same as one without a break.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    entries: Vec<Entry>,
    /// How many of each kind were met in the present epoch, for what is told.
    #[serde(skip)]
    now: [usize; 3],
    norms: Norms,
}

impl Journal {
    /// Whether nothing was met, and no norm judged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.norms.last.is_empty()
    }

    /// What was met, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a reader should be told in one line; `None` where nothing happened.
    pub(super) fn words(&self) -> Option<String> {
        let count = |kind: usize| self.entries.iter().filter(|e| e.what.kind() == kind).count();
        let words = [(0, "updates left out"), (1, "halvings of the learning rate"), (2, "gradients of unusual length")];
        let words = words.map(|(kind, what)| (count(kind), what));
        let words: Vec<String> = words.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        (!words.is_empty()).then(|| format!("{} ({NUMBERS})", words.join(", ")))
    }

    /// Adds a line, and tells it where there were few of its kind in this epoch.
    pub(super) fn add(&mut self, entry: Entry, events: &mut dyn FnMut(Event<'_>)) {
        let kind = entry.what.kind();
        self.now[kind] += 1;
        // Halvings are few by themselves.
        if self.now[kind] <= NOTES || kind == 1 {
            events(Event::Note(&note(&entry)));
        }
        if self.entries.len() < LINES {
            self.entries.push(entry);
        }
    }

    /// Ends an epoch.
    pub(super) fn end_epoch(&mut self, epoch: u32, events: &mut dyn FnMut(Event<'_>)) {
        for (kind, what) in [(0, "updates left out"), (2, "gradients of unusual length")] {
            if self.now[kind] > NOTES {
                events(Event::Note(&format!("epoch {epoch}: {} {what}; see {NUMBERS}", self.now[kind])));
            }
        }
        self.now = [0; 3];
    }

    /// Forgets which gradients are usual, where another part of the network begins to learn.
    pub(super) fn begin_stage(&mut self) {
        self.norms = Norms::default();
    }

    /// Judges the squared norm of the gradient of a step.
    pub(super) fn norm(&mut self, (epoch, step): (u32, usize), squared: f32, events: &mut dyn FnMut(Event<'_>)) {
        if let Some(usual) = self.norms.judge(squared) {
            let what = Happened::LongGradient { norm: f64::from(squared).sqrt(), usual };
            self.add(Entry { epoch, step, what }, events);
        }
    }

    /// Writes the file, unless it says so already.
    pub(super) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(NUMBERS);
        let mut text = String::new();
        for entry in &self.entries {
            text.push_str(&json(entry)?);
            text.push('\n');
        }
        if crate::fsio::read(&path).unwrap_or_default() == text.as_bytes() {
            return Ok(());
        }
        Ok(crate::fsio::write_atomic(&path, text.as_bytes())?)
    }
}

fn note(Entry { epoch, step, what }: &Entry) -> String {
    let first = |tensor: &Option<String>| tensor.as_ref().map_or_else(String::new, |t| format!(", first in {t}"));
    match what {
        Happened::LeftOut { what, tensor } => format!(
            "epoch {epoch}, step {step}: the {what} became NaN or infinite{}; this update is left out",
            first(tensor)
        ),
        Happened::Halved { what, tensor, back_to, learning_rate } => format!(
            "epoch {epoch}, step {step}: the {what} became NaN or infinite{}; back to the end of step {back_to}, and on with half the learning rate, {learning_rate:e}",
            first(tensor)
        ),
        Happened::LongGradient { norm, usual } => {
            format!("epoch {epoch}, step {step}: the gradient's norm is {norm:.3e}, usually {usual:.3e}")
        }
    }
}

/// Steps by which the usual norm is known.
const WINDOW: usize = 200;
/// Fewer steps say nothing.
const FEWEST: usize = 30;
/// How many robust standard deviations of the logarithm make an outlier.
const DEVIATIONS: f64 = 6.0;
/// And how many times the median.
const TIMES: f64 = 5.0;
/// The median absolute deviation of a normal distribution is its standard deviation over this.
const MAD: f64 = 1.4826;

/// Squares of the last norms, as the log has them. Norms vary by factors, so their logarithms are judged: an outlier is above their median by 6
/// standard deviations, estimated by the median absolute deviation, and by a factor of 5 at least.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Norms {
    last: VecDeque<f32>,
}

impl Norms {
    /// Takes the square of a norm; gives the usual norm where this is an outlier.
    fn judge(&mut self, squared: f32) -> Option<f64> {
        // Where nothing learns, the norm is zero and has no logarithm.
        if !(squared.is_finite() && squared > 0.0) {
            return None;
        }
        let log_of = |squared: f32| f64::from(squared).ln() / 2.0;
        let usual = (self.last.len() >= FEWEST).then(|| {
            let mut sorted: Vec<f64> = self.last.iter().map(|&s| log_of(s)).collect();
            let middle = median(&mut sorted);
            sorted.iter_mut().for_each(|l| *l = (*l - middle).abs());
            (middle, MAD * median(&mut sorted))
        });
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(squared);
        let (middle, deviation) = usual?;
        (log_of(squared) - middle > (DEVIATIONS * deviation).max(TIMES.ln())).then(|| middle.exp())
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[half - 1], values[half]) } else { values[half] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_far_above_the_usual_is_an_outlier() {
        let mut norms = Norms::default();
        let mut judge = |norm: f32| norms.judge(norm * norm);
        let noise = |i: usize| 1.0 + 0.3 * ((i * 37 % 11) as f32 / 11.0);
        assert_eq!(judge(1e9), None, "the first has nothing to be held against");
        for i in 0..100 {
            assert_eq!(judge(noise(i)), None);
        }
        assert_eq!(judge(4.0), None, "four times is not five");
        assert_eq!(judge(1e-3), None, "short gradients are no danger");
        assert_eq!(judge(0.0), None);
        let usual = judge(20.0).unwrap();
        assert!((1.0..1.3).contains(&usual), "{usual}");
        // Where norms vary much, five times is usual.
        let mut wide = Norms::default();
        for i in 0..100 {
            assert_eq!(wide.judge((1 << (2 * (i * 7 % 10))) as f32), None);
        }
        assert_eq!(wide.judge(4e6), None);
    }

    #[test]
    fn notes_are_few_and_lines_are_kept() {
        let mut journal = Journal::default();
        let mut told = 0;
        for step in 1..=10 {
            let what = Happened::LeftOut { what: "loss".to_owned(), tensor: None };
            journal.add(Entry { epoch: 2, step, what }, &mut |_| told += 1);
        }
        journal.end_epoch(2, &mut |_| told += 1);
        assert_eq!(told, NOTES + 1);
        assert_eq!(journal.words().unwrap(), "10 updates left out (numbers.jsonl)");
        let folder = tempfile::tempdir().unwrap();
        journal.write(folder.path()).unwrap();
        let lines = std::fs::read_to_string(folder.path().join(NUMBERS)).unwrap();
        let read: Vec<Entry> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, journal.entries);
        let kept: Journal = serde_json::from_str(&serde_json::to_string(&journal).unwrap()).unwrap();
        assert_eq!(kept, journal, "a checkpoint keeps it");
        Journal::default().write(folder.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(NUMBERS)).unwrap(),
            "",
            "a run that goes on says what it knows"
        );
        assert_eq!(Journal::default().words(), None);
    }
}
