//! What a comparison of runs says: plain data, and its verdicts in words.

use serde::Serialize;

use super::data::EpochRow;
use crate::metrics::{ConfusionMatrix, PrPoint, RocPoint};
use crate::stats::{AucDifference, Estimate, Interval, McNemar, MeanDifference, MeanStd, Score};

/// The chance of a false finding that is put up with.
pub const LEVEL: f64 = 0.05;

/// A row of the table of runs.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// Its name.
    pub name: String,
    /// The group that it belongs to.
    pub group: Option<String>,
    /// Its network, where the settings are there.
    pub model: Option<String>,
    /// Its seed.
    pub seed: Option<u32>,
    /// Every score with its intervals.
    pub scores: Vec<Estimate>,
    /// DeLong's 95 % interval of the ROC-AUC, images taken as independent.
    pub delong: Option<Interval>,
    /// Images by true class (rows) and decision.
    pub confusion: ConfusionMatrix,
    /// How it was trained, where its folder tells.
    pub training: Option<Training>,
    /// Log loss on its validation images, by which weights and runs are chosen.
    pub validation_loss: Option<f64>,
    /// The ROC curve, for the page; empty where it is undefined.
    #[serde(skip)]
    pub roc: Vec<RocPoint>,
    /// The precision-recall curve, for the page; empty where it is undefined.
    #[serde(skip)]
    pub pr: Vec<PrPoint>,
}

/// What a run's folder tells of its training.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// Trained parameters.
    pub parameters: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The course of it.
    pub epochs: Vec<EpochRow>,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
}

impl RunRow {
    /// The value of a score.
    #[must_use]
    pub fn value(&self, score: Score) -> Option<f64> {
        self.scores.iter().find(|e| e.score == score).and_then(|e| e.value)
    }
}

/// The difference of one score between two runs, first minus second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The difference.
    pub value: f64,
    /// Paired bootstrap 95 % interval over images.
    pub images: Option<Interval>,
    /// Paired bootstrap 95 % interval over patients, where they are known.
    pub patients: Option<Interval>,
    /// Two-sided p-value of the test, images taken as independent.
    pub p: Option<f64>,
    /// The same after Holm's correction for all pairs.
    pub p_holm: Option<f64>,
    /// Which one is better, if that can be said: the corrected p-value is below 0.05 and no bootstrap interval holds 0.
    pub verdict: Verdict,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The first is better.
    First,
    /// The second is better.
    Second,
    /// They cannot be told apart on these images.
    NotToldApart,
}

/// Two runs on the same images.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Name of the one.
    pub first: String,
    /// Name of the other.
    pub second: String,
    /// Difference of the accuracies; the test is McNemar's, exact.
    pub accuracy: Difference,
    /// McNemar's test in full.
    pub mcnemar: McNemar,
    /// Adjusted Wald interval of the difference of the accuracies (Bonett and Price), images taken as independent.
    pub accuracy_wald: Option<Interval>,
    /// Difference of the ROC-AUC; the test is DeLong's, of two classes only.
    pub auc: Option<Difference>,
    /// DeLong's test in full.
    pub delong: Option<AucDifference>,
    /// The verdicts as sentences.
    pub sentences: Vec<String>,
}

/// The runs of one setting.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Accuracy over its runs.
    pub accuracy: MeanStd,
    /// Student's 95 % interval of the mean accuracy: training again, on the same images.
    pub accuracy_interval: Option<Interval>,
    /// ROC-AUC over its runs, where all have one.
    pub auc: Option<MeanStd>,
    /// Student's 95 % interval of the mean ROC-AUC.
    pub auc_interval: Option<Interval>,
}

/// Two groups, by Welch's test.
#[derive(Clone, Debug, Serialize)]
pub struct GroupPair {
    /// Name of the one.
    pub first: String,
    /// Name of the other.
    pub second: String,
    /// Difference of the mean accuracies.
    pub accuracy: Option<MeanDifference>,
    /// The p-value after Holm's correction for all pairs of groups.
    pub accuracy_p_holm: Option<f64>,
    /// Difference of the mean ROC-AUC.
    pub auc: Option<MeanDifference>,
    /// The p-value after Holm's correction for all pairs of groups.
    pub auc_p_holm: Option<f64>,
    /// The verdicts as sentences.
    pub sentences: Vec<String>,
}

/// Everything that a comparison says.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The split.
    pub split: String,
    /// Images in it.
    pub images: usize,
    /// Patients in it, where they are known.
    pub patients: Option<usize>,
    /// Class names.
    pub classes: Vec<String>,
    /// Images of each class.
    pub class_counts: Vec<u64>,
    /// All runs, those of groups included.
    pub runs: Vec<RunRow>,
    /// Pairs of runs that stand alone.
    pub pairs: Vec<Pair>,
    /// The run that the others are compared with; `None` where every pair is.
    pub against: Option<String>,
    /// Groups of runs.
    pub groups: Vec<Group>,
    /// Pairs of groups.
    pub group_pairs: Vec<GroupPair>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// What the one who asked for it adds: published figures, what the images are.
    pub remarks: Vec<String>,
}

/// What every sentence about two equals says.
const NOT_TOLD: &str = "cannot be told apart";
/// So many sentences are read; of more, those about two equals are counted.
const READABLE: usize = 12;

impl Comparison {
    /// The verdicts to show: all of them where they are few, else those that tell two apart, and how many do not.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let groups = self.group_pairs.iter().flat_map(|g| &g.sentences);
        let all: Vec<&String> = groups.chain(self.pairs.iter().flat_map(|p| &p.sentences)).collect();
        if all.len() <= READABLE {
            return all.into_iter().cloned().collect();
        }
        let told: Vec<String> = all.iter().filter(|s| !s.contains(NOT_TOLD)).map(|s| (*s).clone()).collect();
        let rest = match all.len() - told.len() {
            0 => None,
            1 => Some(format!("The two of one more comparison {NOT_TOLD}; `compare --json` has all of them in words.")),
            n => {
                Some(format!("The two of {n} more comparisons {NOT_TOLD}; `compare --json` has all of them in words."))
            }
        };
        told.into_iter().chain(rest).collect()
    }
}

impl Pair {
    /// The verdicts as sentences; `pairs` is how many Holm's correction was for.
    #[must_use]
    pub fn words(&self, split: &str, images: usize, pairs: usize) -> Vec<String> {
        let about = About { split, images, pairs };
        let mut sentences = vec![about.sentence(self, &self.accuracy, true)];
        if let Some(auc) = &self.auc {
            sentences.push(match self.delong {
                Some(d) if d.variance == 0.0 => {
                    format!("{} and {} rank these images alike.", self.first, self.second)
                }
                _ => about.sentence(self, auc, false),
            });
        }
        sentences
    }
}

/// What every sentence needs to know.
struct About<'a> {
    split: &'a str,
    images: usize,
    pairs: usize,
}

impl About<'_> {
    fn sentence(&self, pair: &Pair, d: &Difference, accuracy: bool) -> String {
        let number = |v: f64| if accuracy { format!("{:.1}", 100.0 * v) } else { format!("{v:.4}") };
        let (unit, score, test) =
            if accuracy { (" points", "accuracy", "McNemar, exact") } else { ("", "ROC-AUC", "DeLong") };
        let over = if d.patients.is_some() { "patients" } else { "images" };
        // Told from the winner's side, so that the difference is positive.
        let turned = d.verdict == Verdict::Second;
        let sign = if turned { -1.0 } else { 1.0 };
        let interval = d.patients.or(d.images).map_or("no interval".to_owned(), |i| {
            let (low, high) = if turned { (-i.high, -i.low) } else { (i.low, i.high) };
            format!("95 % interval {} to {} over {over}", number(low), number(high))
        });
        let p = d.p_holm.or(d.p).map_or(String::new(), |p| {
            let holm = if self.pairs > 1 { format!(", Holm over {} pairs", self.pairs) } else { String::new() };
            format!(", {} ({test}{holm})", p_text(p))
        });
        let figures = format!("difference {}{unit}, {interval}{p}", number(sign * d.value));
        let (winner, loser) = if turned { (&pair.second, &pair.first) } else { (&pair.first, &pair.second) };
        if d.verdict == Verdict::NotToldApart {
            let (images, split) = (self.images, self.split);
            format!("{winner} and {loser} {NOT_TOLD} by {score} on these {images} {split} images: {figures}.")
        } else {
            format!("{winner} has the better {score}, {loser} the worse: {figures}.")
        }
    }
}

impl GroupPair {
    /// The verdicts as sentences; `pairs` is how many Holm's correction was for.
    #[must_use]
    pub fn words(&self, pairs: usize) -> Vec<String> {
        let sentence = |name: &str, d: Option<MeanDifference>, p: Option<f64>, scale: f64, digits: usize| {
            let (d, p) = d.zip(p)?;
            let turned = d.difference < 0.0;
            let (a, b) = if turned { (&self.second, &self.first) } else { (&self.first, &self.second) };
            let words = if p < LEVEL && !d.interval.contains(0.0) {
                format!("over its runs {a} has the better mean {name} than {b}")
            } else {
                format!("the runs of {a} and {b} {NOT_TOLD} by mean {name}")
            };
            let holm = if pairs > 1 { format!(", Holm over {pairs} pairs") } else { String::new() };
            let (low, high) =
                if turned { (-d.interval.high, -d.interval.low) } else { (d.interval.low, d.interval.high) };
            Some(format!(
                "{words}: difference {:.digits$}, 95 % interval {:.digits$} to {:.digits$}, {} (Welch{holm}). This speaks of \
                 training again on these images, not of other images.",
                d.difference.abs() * scale,
                low * scale,
                high * scale,
                p_text(p)
            ))
        };
        [
            sentence("accuracy (points)", self.accuracy, self.accuracy_p_holm, 100.0, 1),
            sentence("ROC-AUC", self.auc, self.auc_p_holm, 1.0, 4),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// `p = 0.03`, or `p < 0.001`.
#[must_use]
pub fn p_text(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_p_values_are_not_spelled_out() {
        assert_eq!([0.0, 0.0312, 0.6, 1.0].map(p_text), ["p < 0.001", "p = 0.031", "p = 0.60", "p = 1.00"]);
    }
}
