//! Every score of a set of images with its intervals.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::calibration::expected_error;
use super::{Interval, RESAMPLES, Units, bootstrap_many, calibration_pairs};
use crate::metrics::{MetricsError, RankedScores, argmax, check};

/// Bins of the expected calibration error.
pub(super) const BINS: usize = 10;

/// A score as scikit-learn defines it, but undefined instead of 0 where it is 0/0. With two classes precision, recall and F1
/// are those of class 1, the positive one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// Share of right decisions.
    Accuracy,
    /// Share of the images called positive that are.
    Precision,
    /// Share of the positive images called positive: the sensitivity.
    Recall,
    /// Share of the negative images called negative.
    Specificity,
    /// Harmonic mean of precision and recall.
    F1,
    /// Mean of the F1 of all classes, 0 for one that is absent.
    MacroF1,
    /// Area under the ROC curve; with more than two classes the mean over the classes of one against the rest.
    RocAuc,
    /// Average precision.
    AveragePrecision,
    /// Mean squared error of the probability of the positive class; with more than two classes the sum over the classes.
    Brier,
    /// Mean of `-ln p(true class)`.
    LogLoss,
    /// Expected calibration error over 10 bins of equal width; see [`super::Reliability`].
    Ece,
}

impl Score {
    /// The scores that exist for so many classes.
    #[must_use]
    pub fn of(classes: usize) -> &'static [Self] {
        use Score::{
            Accuracy, AveragePrecision, Brier, Ece, F1, LogLoss, MacroF1, Precision, Recall, RocAuc, Specificity,
        };
        if classes == 2 {
            &[Accuracy, Precision, Recall, Specificity, F1, RocAuc, AveragePrecision, Brier, LogLoss, Ece]
        } else {
            &[Accuracy, MacroF1, RocAuc, Brier, LogLoss, Ece]
        }
    }

    /// Whether more is better.
    #[must_use]
    pub fn rising(self) -> bool {
        !matches!(self, Self::Brier | Self::LogLoss | Self::Ece)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Accuracy => "accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Specificity => "specificity",
            Self::F1 => "F1",
            Self::MacroF1 => "macro F1",
            Self::RocAuc => "ROC-AUC",
            Self::AveragePrecision => "average precision",
            Self::Brier => "Brier",
            Self::LogLoss => "log loss",
            Self::Ece => "ECE",
        })
    }
}

/// A score with its intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Which one.
    pub score: Score,
    /// Its value; `None` where it is undefined.
    pub value: Option<f64>,
    /// Bootstrap 95 % interval over images, taken as independent.
    pub images: Option<Interval>,
    /// Bootstrap 95 % interval over patients; `None` where they are not known.
    pub patients: Option<Interval>,
}

impl Estimate {
    /// The interval to believe: over patients where they are known, else over images.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        self.patients.or(self.images)
    }
}

/// Labels and probabilities prepared so that the scores of any resample cost O(n).
#[derive(Clone, Debug)]
pub struct Scored {
    classes: usize,
    labels: Vec<u32>,
    decisions: Vec<u32>,
    /// With two classes that of class 1, else one a class.
    ranked: Vec<RankedScores>,
    losses: Vec<f64>,
    squares: Vec<f64>,
    confidence: Vec<(f64, bool)>,
}

impl Scored {
    /// Prepares row-major probabilities `[labels.len(), classes]`; O(n log n).
    ///
    /// # Errors
    /// [`MetricsError`], as [`check`].
    pub fn new(labels: &[u32], probabilities: &[f64], classes: usize) -> Result<Self, MetricsError> {
        check(labels, probabilities, classes)?;
        let rows = || labels.iter().zip(probabilities.chunks_exact(classes));
        let ranked = |class: usize| {
            let positive: Vec<bool> = labels.iter().map(|&l| l as usize == class).collect();
            let scores: Vec<f64> = probabilities.chunks_exact(classes).map(|row| row[class]).collect();
            RankedScores::new(&positive, &scores)
        };
        let square = |(&label, row): (&u32, &[f64])| {
            let apart = |(k, p): (usize, &f64)| (p - f64::from(u8::from(k == label as usize))).powi(2);
            let sum: f64 = row.iter().enumerate().map(apart).sum();
            // Two classes are counted once.
            if classes == 2 { apart((1, &row[1])) } else { sum }
        };
        let (confidence, so) = calibration_pairs(labels, probabilities, classes);
        Ok(Self {
            classes,
            labels: labels.to_vec(),
            decisions: probabilities.chunks_exact(classes).map(argmax).collect(),
            ranked: if classes == 2 { vec![ranked(1)] } else { (0..classes).map(ranked).collect() },
            losses: rows().map(|(&l, row)| -row[l as usize].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()).collect(),
            squares: rows().map(square).collect(),
            confidence: confidence.into_iter().zip(so).collect(),
        })
    }

    /// How many images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never true: [`Scored::new`] refuses it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The decision of each image: the class of the largest probability.
    #[must_use]
    pub fn decisions(&self) -> &[u32] {
        &self.decisions
    }

    /// Every score of a resample, in the order of [`Score::of`]. Indices out of range are left out.
    #[must_use]
    pub fn values(&self, images: &[u32]) -> Vec<Option<f64>> {
        let images: Vec<u32> = images.iter().copied().filter(|&i| (i as usize) < self.len()).collect();
        let n = images.len();
        let mut confusion = vec![vec![0_u64; self.classes]; self.classes];
        for &i in &images {
            confusion[self.labels[i as usize] as usize][self.decisions[i as usize] as usize] += 1;
        }
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let row = |k: usize| confusion[k].iter().sum::<u64>();
        let column = |k: usize| confusion.iter().map(|r| r[k]).sum::<u64>();
        let f1 = |k: usize| ratio(2 * confusion[k][k], row(k) + column(k));
        let mean = |v: &[f64]| (n > 0).then(|| images.iter().map(|&i| v[i as usize]).sum::<f64>() / n as f64);
        let score = |score: &Score| match score {
            Score::Accuracy => ratio((0..self.classes).map(|k| confusion[k][k]).sum(), n as u64),
            Score::Precision => ratio(confusion[1][1], column(1)),
            Score::Recall => ratio(confusion[1][1], row(1)),
            Score::Specificity => ratio(confusion[0][0], row(0)),
            Score::F1 => f1(1),
            Score::MacroF1 => {
                (n > 0).then(|| (0..self.classes).map(|k| f1(k).unwrap_or(0.0)).sum::<f64>() / self.classes as f64)
            }
            Score::RocAuc => {
                let each: Option<Vec<f64>> = self.ranked.iter().map(|r| r.roc_auc_of(&images)).collect();
                each.map(|a| a.iter().sum::<f64>() / a.len() as f64)
            }
            Score::AveragePrecision => self.ranked[0].average_precision_of(&images),
            Score::Brier => mean(&self.squares),
            Score::LogLoss => mean(&self.losses),
            Score::Ece => expected_error(BINS, images.iter().map(|&i| self.confidence[i as usize])),
        };
        Score::of(self.classes).iter().map(score).collect()
    }

    /// Every score with its intervals; `patients` are the units of [`Units::patients`].
    #[must_use]
    pub fn estimates(&self, patients: Option<&Units>, seed: u32) -> Vec<Estimate> {
        let all: Vec<u32> = (0..self.len() as u32).collect();
        let values = self.values(&all);
        let draw = |units: &Units| bootstrap_many(units, RESAMPLES, seed, |images| self.values(images));
        let by_image = draw(&Units::images(self.len()));
        let by_patient = patients.map_or_else(Vec::new, draw);
        let interval = |all: &[Option<Interval>], i: usize| all.get(i).copied().flatten();
        Score::of(self.classes)
            .iter()
            .zip(values)
            .enumerate()
            .map(|(i, (&score, value))| Estimate {
                score,
                value,
                images: interval(&by_image, i).filter(|_| value.is_some()),
                patients: interval(&by_patient, i).filter(|_| value.is_some()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_whole_set_gives_the_metrics() {
        let labels: Vec<u32> = (0..120).map(|i| u32::from(i % 3 == 0)).collect();
        let p: Vec<f64> = (0..120_u32)
            .flat_map(|i| {
                let q = f64::from((i * 7) % 50 + 20 * u32::from(i % 3 == 0)) / 80.0;
                [1.0 - q, q]
            })
            .collect();
        let m = Metrics::new(&labels, &p, 2).unwrap();
        let patients = Units::groups(&(0..120).map(|i| i / 4).collect::<Vec<u32>>());
        let b = m.binary.as_ref().unwrap();
        for e in Scored::new(&labels, &p, 2).unwrap().estimates(Some(&patients), 4) {
            let want = match e.score {
                Score::Accuracy => m.accuracy,
                Score::Precision => m.classes[1].precision,
                Score::Recall => m.classes[1].recall,
                Score::Specificity => b.specificity.unwrap(),
                Score::F1 => m.classes[1].f1,
                Score::RocAuc => b.roc_auc.unwrap(),
                Score::AveragePrecision => b.average_precision.unwrap(),
                Score::Brier => b.brier,
                Score::LogLoss => m.log_loss,
                _ => continue,
            };
            assert!((e.value.unwrap() - want).abs() < 1e-12, "{e:?}");
            assert!(e.images.unwrap().contains(want) && e.patients.unwrap().contains(want), "{e:?}");
            assert_eq!(e.interval(), e.patients);
        }
    }

    #[test]
    fn what_is_undefined_says_so() {
        let all_negative = Scored::new(&[0, 0], &[0.9, 0.1, 0.8, 0.2], 2).unwrap();
        let values = all_negative.values(&[0, 1, 7]);
        for (score, value) in Score::of(2).iter().zip(values) {
            let undefined =
                matches!(score, Score::Precision | Score::Recall | Score::F1 | Score::RocAuc | Score::AveragePrecision);
            assert_eq!(value.is_none(), undefined, "{score}");
        }
        assert!(all_negative.values(&[]).iter().all(Option::is_none));
        assert!(Scored::new(&[], &[], 2).is_err());
    }
}
