//! How good a classifier's answers are: counts, rates and ranking scores, each defined as scikit-learn defines it.
//!
//! Everything is computed in `f64` from the true labels and one row of probabilities an image. The decision is
//! the class of the largest probability (the first of equals). A rate whose denominator is zero is `0`
//! (scikit-learn's `zero_division=0`); a number that does not exist at all, such as the ROC-AUC of a set that
//! holds one class only, is `None`.

mod binary;
mod confusion;

use serde::{Deserialize, Serialize};

pub use binary::{
    BinaryMetrics, PrPoint, RankedScores, RocPoint, average_precision, brier, precision_recall_curve, roc_auc,
    roc_curve,
};
pub use confusion::{ClassMetrics, ConfusionMatrix, NotSquare};

/// Labels or probabilities from which nothing can be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricsError {
    /// No image at all.
    #[error("no image to measure: labels and probabilities are empty; check that the split holds images")]
    Empty,
    /// Fewer than two classes.
    #[error("{classes} class(es): metrics need at least 2; give a one-column sigmoid as [1 - p, p]")]
    TooFewClasses {
        /// Columns of the probabilities.
        classes: usize,
    },
    /// The probabilities are not one row of `classes` a label.
    #[error("{labels} labels need {labels} x {classes} probabilities, but {values} were given; pass one row a label")]
    LengthMismatch {
        /// How many labels.
        labels: usize,
        /// How many classes.
        classes: usize,
        /// How many probabilities.
        values: usize,
    },
    /// A label names a class that does not exist.
    #[error("label {label} of image {index} is out of range: there are {classes} classes, 0..={}", classes - 1)]
    LabelOutOfRange {
        /// The image's position.
        index: usize,
        /// Its label.
        label: u32,
        /// How many classes.
        classes: usize,
    },
    /// A value is NaN, infinite or outside `[0, 1]`.
    #[error(
        "{value} of image {index}, class {class}, is no probability in [0, 1]; apply softmax or sigmoid first, \
         or look for a diverged training"
    )]
    NotAProbability {
        /// The image's position.
        index: usize,
        /// The column.
        class: usize,
        /// The value.
        value: f64,
    },
    /// A row does not sum to one.
    #[error("the probabilities of image {index} sum to {sum}, not to 1; normalise each row")]
    RowSum {
        /// The image's position.
        index: usize,
        /// The sum of its row.
        sum: f64,
    },
}

/// How far a row may be from summing to one: half-precision rounding passes, raw logits do not.
const ROW_SUM_TOLERANCE: f64 = 1e-2;

/// All metrics of one set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// How many images.
    pub count: u64,
    /// Rows are the true classes, columns the decisions.
    pub confusion: ConfusionMatrix,
    /// Share of right decisions.
    pub accuracy: f64,
    /// Precision, recall, F1 and support of each class.
    pub classes: Vec<ClassMetrics>,
    /// Mean of the F1 of all classes, each counted alike, absent ones included.
    pub macro_f1: f64,
    /// Mean of `-ln p(true class)`; see [`log_loss`].
    pub log_loss: f64,
    /// What only two classes have; class 1 is the positive one.
    pub binary: Option<BinaryMetrics>,
}

impl Metrics {
    /// Computes every metric; O(n log n) in the number of images.
    ///
    /// `probabilities` is row-major `[labels.len(), classes]`. With two classes the second is the positive one.
    ///
    /// # Errors
    /// [`MetricsError`] when the set is empty, lengths differ, a label is out of range or a value is no probability.
    pub fn new(labels: &[u32], probabilities: &[f64], classes: usize) -> Result<Self, MetricsError> {
        check(labels, probabilities, classes)?;
        let decisions: Vec<u32> = probabilities.chunks_exact(classes).map(argmax).collect();
        let confusion = ConfusionMatrix::new(labels, &decisions, classes);
        let per_class = confusion.classes();
        let binary = (classes == 2).then(|| {
            let positive: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
            let scores: Vec<f64> = probabilities.chunks_exact(2).map(|row| row[1]).collect();
            BinaryMetrics::new(&positive, &scores, &confusion)
        });
        Ok(Self {
            count: labels.len() as u64,
            accuracy: confusion.accuracy(),
            macro_f1: per_class.iter().map(|c| c.f1).sum::<f64>() / classes as f64,
            log_loss: mean_negative_log(labels, probabilities, classes),
            classes: per_class,
            confusion,
            binary,
        })
    }

    /// Precision, recall (sensitivity), F1 and support of the positive class; `None` unless there are two classes.
    #[must_use]
    pub fn positive(&self) -> Option<&ClassMetrics> {
        if self.binary.is_some() { self.classes.get(1) } else { None }
    }

    /// ROC-AUC; `None` when it is undefined: more than two classes, or one of the two is absent.
    #[must_use]
    pub fn roc_auc(&self) -> Option<f64> {
        self.binary.as_ref().and_then(|b| b.roc_auc)
    }

    /// Right decisions.
    #[must_use]
    pub fn correct(&self) -> u64 {
        self.confusion.correct()
    }
}

/// Checks labels and probabilities as [`Metrics::new`] does.
///
/// # Errors
/// [`MetricsError`], the first thing found.
pub fn check(labels: &[u32], probabilities: &[f64], classes: usize) -> Result<(), MetricsError> {
    if classes < 2 {
        return Err(MetricsError::TooFewClasses { classes });
    }
    if labels.len().checked_mul(classes) != Some(probabilities.len()) {
        return Err(MetricsError::LengthMismatch { labels: labels.len(), classes, values: probabilities.len() });
    }
    if labels.is_empty() {
        return Err(MetricsError::Empty);
    }
    for (index, (&label, row)) in labels.iter().zip(probabilities.chunks_exact(classes)).enumerate() {
        if label as usize >= classes {
            return Err(MetricsError::LabelOutOfRange { index, label, classes });
        }
        if let Some((class, &value)) = row.iter().enumerate().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
            return Err(MetricsError::NotAProbability { index, class, value });
        }
        let sum: f64 = row.iter().sum();
        if (sum - 1.0).abs() > ROW_SUM_TOLERANCE {
            return Err(MetricsError::RowSum { index, sum });
        }
    }
    Ok(())
}

/// The position of the largest value, the first of equals, as `numpy.argmax`; `0` for an empty row.
#[must_use]
pub fn argmax(row: &[f64]) -> u32 {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best as u32
}

/// Log loss (cross-entropy): the mean of `-ln p(true class)`, with `p` clipped to `[eps, 1 - eps]` where `eps` is the
/// machine epsilon of `f64`, as `sklearn.metrics.log_loss` clips (since its version 1.3). A wrong answer given with
/// probability 0 therefore costs at most 36.04.
///
/// # Errors
/// As [`Metrics::new`].
pub fn log_loss(labels: &[u32], probabilities: &[f64], classes: usize) -> Result<f64, MetricsError> {
    check(labels, probabilities, classes)?;
    Ok(mean_negative_log(labels, probabilities, classes))
}

/// [`log_loss`] of checked input.
fn mean_negative_log(labels: &[u32], probabilities: &[f64], classes: usize) -> f64 {
    let rows = probabilities.chunks_exact(classes);
    let total: f64 = labels
        .iter()
        .zip(rows)
        .map(|(&label, row)| -row[label as usize].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln())
        .sum();
    total / labels.len() as f64
}

/// Makes two columns, `[1 - p, p]`, of the probabilities of the positive class that a one-output network gives.
#[must_use]
pub fn two_columns(positive: &[f64]) -> Vec<f64> {
    positive.iter().flat_map(|&p| [1.0 - p, p]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_is_named() {
        let ok = [0.4, 0.6, 0.7, 0.3];
        let error = |labels: &[u32], p: &[f64], classes| Metrics::new(labels, p, classes).unwrap_err();
        assert_eq!(error(&[], &[], 2), MetricsError::Empty);
        assert_eq!(error(&[0], &[1.0], 1), MetricsError::TooFewClasses { classes: 1 });
        assert_eq!(error(&[0], &[], 0), MetricsError::TooFewClasses { classes: 0 });
        assert_eq!(error(&[0], &ok, 2), MetricsError::LengthMismatch { labels: 1, classes: 2, values: 4 });
        assert_eq!(error(&[0, 2], &ok, 2), MetricsError::LabelOutOfRange { index: 1, label: 2, classes: 2 });
        assert!(matches!(
            error(&[0, 1], &[0.4, 0.6, f64::NAN, 0.3], 2),
            MetricsError::NotAProbability { index: 1, class: 0, .. }
        ));
        assert!(matches!(
            error(&[0, 1], &[0.4, 0.6, 2.5, -1.5], 2),
            MetricsError::NotAProbability { index: 1, class: 0, .. }
        ));
        assert!(matches!(error(&[0, 1], &[0.4, 0.6, 0.1, 0.1], 2), MetricsError::RowSum { index: 1, .. }));
        for e in [error(&[], &[], 2), error(&[0, 2], &ok, 2), error(&[0], &ok, 2)] {
            assert!(!e.to_string().contains('\n'), "{e}");
        }
    }

    #[test]
    fn an_even_row_is_decided_for_the_first_class() {
        assert_eq!(argmax(&[0.5, 0.5]), 0);
        assert_eq!(argmax(&[0.2, 0.4, 0.4]), 1);
        let m = Metrics::new(&[1, 0], &[0.5, 0.5, 0.5, 0.5], 2).unwrap();
        assert_eq!(m.confusion.rows(), [[1, 0], [1, 0]]);
        assert_eq!(m.roc_auc(), Some(0.5));
    }

    #[test]
    fn a_sure_and_wrong_answer_costs_the_clip() {
        let loss = log_loss(&[0], &[0.0, 1.0], 2).unwrap();
        assert!((loss - 36.043_653_389_117_15).abs() < 1e-9, "{loss}");
        let right = log_loss(&[1], &[0.0, 1.0], 2).unwrap();
        assert!((0.0..1e-15).contains(&right), "{right}");
    }

    #[test]
    fn one_column_becomes_two() {
        assert_eq!(two_columns(&[0.25, 1.0]), [0.75, 0.25, 0.0, 1.0]);
    }

    #[test]
    fn survives_json() {
        let m = Metrics::new(&[1, 0, 1], &[0.25, 0.75, 0.5, 0.5, 0.875, 0.125], 2).unwrap();
        let text = serde_json::to_string(&m).unwrap();
        assert!(text.contains("\"confusion\":[[1,0],[1,1]]"), "{text}");
        assert_eq!(serde_json::from_str::<Metrics>(&text).unwrap(), m);
        let ragged = text.replace("[[1,0],[1,1]]", "[[1,0],[1]]");
        assert!(serde_json::from_str::<Metrics>(&ragged).unwrap_err().to_string().contains("square"));
    }
}
