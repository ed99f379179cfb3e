//! Two classes: how well the score of the positive class ranks the images, and the counts that a clinician asks for.
//!
//! Images with equal scores cannot be told apart by any threshold, so they always move together: one point of a
//! curve for each distinct score.

use serde::{Deserialize, Serialize};

use super::ConfusionMatrix;

/// What only two classes have. The positive class is class 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinaryMetrics {
    /// Area under the ROC curve; `None` (undefined) when one of the classes is absent.
    pub roc_auc: Option<f64>,
    /// Average precision; `None` (undefined) when there is no positive image.
    pub average_precision: Option<f64>,
    /// Brier score: the mean squared error of the probability of the positive class.
    pub brier: f64,
    /// Share of the negative images that were decided negative; `None` when there is no negative image.
    pub specificity: Option<f64>,
    /// Positive images decided positive.
    pub true_positives: u64,
    /// Negative images decided positive.
    pub false_positives: u64,
    /// Negative images decided negative.
    pub true_negatives: u64,
    /// Positive images decided negative: the ones that were missed.
    pub false_negatives: u64,
}

impl BinaryMetrics {
    /// From checked input and the 2 x 2 confusion matrix of the same images.
    pub(super) fn new(positive: &[bool], scores: &[f64], confusion: &ConfusionMatrix) -> Self {
        let rows = confusion.rows();
        let (tn, fp, fn_, tp) = (rows[0][0], rows[0][1], rows[1][0], rows[1][1]);
        let ranked = RankedScores::new(positive, scores);
        Self {
            roc_auc: ranked.roc_auc(),
            average_precision: ranked.average_precision(),
            brier: brier(positive, scores),
            specificity: (tn + fp > 0).then(|| tn as f64 / (tn + fp) as f64),
            true_positives: tp,
            false_positives: fp,
            true_negatives: tn,
            false_negatives: fn_,
        }
    }
}

/// A point of the ROC curve: what happens when every score of at least `threshold` counts as positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// The score; `None` at the start, where nothing counts as positive.
    pub threshold: Option<f64>,
    /// Share of the negatives that count as positive (1 - specificity).
    pub false_positive_rate: f64,
    /// Share of the positives that count as positive (recall, sensitivity).
    pub true_positive_rate: f64,
}

/// A point of the precision-recall curve: what happens when every score of at least `threshold` counts as positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrPoint {
    /// The score; `None` at the start (recall 0, precision 1 by convention).
    pub threshold: Option<f64>,
    /// Share of the positives that count as positive.
    pub recall: f64,
    /// Share of what counts as positive that is.
    pub precision: f64,
}

/// Scores sorted once, so that the ROC-AUC of any resample of the images costs O(n) and no sort.
#[derive(Clone, Debug)]
pub struct RankedScores {
    positive: Vec<bool>,
    /// Which distinct score an image has; 0 is the highest.
    group: Vec<u32>,
    /// The distinct scores, falling.
    thresholds: Vec<f64>,
}

impl RankedScores {
    /// Sorts the scores; O(n log n). The two slices go in step; what is beyond the shorter one is left out.
    /// NaN ranks by [`f64::total_cmp`].
    #[must_use]
    pub fn new(positive: &[bool], scores: &[f64]) -> Self {
        let n = positive.len().min(scores.len()).min(u32::MAX as usize);
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
        let mut group = vec![0; n];
        let mut thresholds: Vec<f64> = Vec::new();
        for &i in &order {
            let score = scores[i as usize];
            // `==`, so that 0 and -0 are one score.
            if thresholds.last().is_none_or(|&last| last != score) {
                thresholds.push(score);
            }
            group[i as usize] = thresholds.len() as u32 - 1;
        }
        Self { positive: positive[..n].to_vec(), group, thresholds }
    }

    /// `(positives, negatives)` of each distinct score, highest first, counting each index as often as it comes.
    /// Indices out of range are left out.
    fn counts(&self, indices: impl Iterator<Item = usize>) -> Vec<(u64, u64)> {
        let mut counts = vec![(0, 0); self.thresholds.len()];
        for i in indices {
            if let (Some(&group), Some(&positive)) = (self.group.get(i), self.positive.get(i)) {
                let cell = &mut counts[group as usize];
                if positive {
                    cell.0 += 1;
                } else {
                    cell.1 += 1;
                }
            }
        }
        counts
    }

    fn all_counts(&self) -> Vec<(u64, u64)> {
        self.counts(0..self.positive.len())
    }

    /// ROC-AUC of all images.
    #[must_use]
    pub fn roc_auc(&self) -> Option<f64> {
        auc(&self.all_counts())
    }

    /// ROC-AUC of a resample, given by its indices; `None` when it holds one class only.
    #[must_use]
    pub fn roc_auc_of(&self, indices: &[u32]) -> Option<f64> {
        auc(&self.counts(indices.iter().map(|&i| i as usize)))
    }

    /// Average precision of all images.
    #[must_use]
    pub fn average_precision(&self) -> Option<f64> {
        mean_precision(&self.all_counts())
    }

    /// Average precision of a resample, given by its indices; `None` when it holds no positive image.
    #[must_use]
    pub fn average_precision_of(&self, indices: &[u32]) -> Option<f64> {
        mean_precision(&self.counts(indices.iter().map(|&i| i as usize)))
    }

    /// Each distinct score, falling, with the positive and the negative images that score at least as high.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(f64, u64, u64)> {
        let (mut positives, mut negatives) = (0, 0);
        let add = |(&threshold, (p, n)): (&f64, (u64, u64))| {
            positives += p;
            negatives += n;
            (threshold, positives, negatives)
        };
        self.thresholds.iter().zip(self.all_counts()).map(add).collect()
    }
}

/// Average precision from `(positives, negatives)` of each distinct score, falling.
fn mean_precision(counts: &[(u64, u64)]) -> Option<f64> {
    let positives: u64 = counts.iter().map(|c| c.0).sum();
    if positives == 0 {
        return None;
    }
    let (mut tp, mut above, mut sum) = (0, 0, 0.0);
    for &(p, n) in counts {
        tp += p;
        above += p + n;
        if p > 0 {
            sum += p as f64 / positives as f64 * (tp as f64 / above as f64);
        }
    }
    Some(sum)
}

/// The Mann-Whitney statistic over the number of pairs: a positive above a negative counts 1, a tie one half.
/// Summed in integers, so the result is the nearest `f64` to the exact fraction, whatever the order of the images.
fn auc(counts: &[(u64, u64)]) -> Option<f64> {
    let (mut positives, mut negatives, mut twice) = (0_u64, 0_u64, 0_u128);
    for &(p, n) in counts {
        twice += u128::from(n) * (2 * u128::from(positives) + u128::from(p));
        positives += p;
        negatives += n;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    (pairs > 0).then(|| twice as f64 / (2.0 * pairs as f64))
}

/// Area under the ROC curve, as `sklearn.metrics.roc_auc_score`: the chance that a positive image scores above a
/// negative one, ties counting one half (Hanley and McNeil, Radiology 143, 1982). `None` when one class is absent.
#[must_use]
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Option<f64> {
    RankedScores::new(positive, scores).roc_auc()
}

/// Average precision, as `sklearn.metrics.average_precision_score`: the sum over the distinct scores, falling, of
/// `(recall - recall before) * precision`, without interpolation. `None` when there is no positive image.
#[must_use]
pub fn average_precision(positive: &[bool], scores: &[f64]) -> Option<f64> {
    RankedScores::new(positive, scores).average_precision()
}

/// Brier score, `mean((p - y)^2)` with `y` 1 for positive images (Brier, Monthly Weather Review 78, 1950); NaN for no image.
#[must_use]
pub fn brier(positive: &[bool], scores: &[f64]) -> f64 {
    let n = positive.len().min(scores.len());
    let sum: f64 = positive.iter().zip(scores).map(|(&y, p)| (p - f64::from(u8::from(y))).powi(2)).sum();
    sum / n as f64
}

/// The ROC curve from (0, 0) to (1, 1); points on a straight line between their neighbours are left out, which changes
/// neither the curve nor its area (scikit-learn's `drop_intermediate=True`). Empty when one class is absent.
#[must_use]
pub fn roc_curve(positive: &[bool], scores: &[f64]) -> Vec<RocPoint> {
    let ranked = RankedScores::new(positive, scores);
    let counts = ranked.all_counts();
    let positives: u64 = counts.iter().map(|c| c.0).sum();
    let negatives: u64 = counts.iter().map(|c| c.1).sum();
    if positives == 0 || negatives == 0 {
        return Vec::new();
    }
    let mut points = vec![(None, 0_u64, 0_u64)];
    for (&(p, n), &threshold) in counts.iter().zip(&ranked.thresholds) {
        let &(_, tp, fp) = points.last().unwrap_or(&(None, 0, 0));
        let next = (Some(threshold), tp + p, fp + n);
        if let [.., (_, tp0, fp0), last] = points.as_mut_slice() {
            let (up, right) = (u128::from(tp - *tp0), u128::from(fp - *fp0));
            if up * u128::from(n) == right * u128::from(p) {
                *last = next;
                continue;
            }
        }
        points.push(next);
    }
    points
        .into_iter()
        .map(|(threshold, tp, fp)| RocPoint {
            threshold,
            false_positive_rate: fp as f64 / negatives as f64,
            true_positive_rate: tp as f64 / positives as f64,
        })
        .collect()
}

/// The precision-recall curve, from recall 0 (precision 1 by convention) to the highest threshold and on to the lowest:
/// the points of `sklearn.metrics.precision_recall_curve` in reverse. Empty when there is no positive image.
#[must_use]
pub fn precision_recall_curve(positive: &[bool], scores: &[f64]) -> Vec<PrPoint> {
    let ranked = RankedScores::new(positive, scores);
    let counts = ranked.all_counts();
    let positives: u64 = counts.iter().map(|c| c.0).sum();
    if positives == 0 {
        return Vec::new();
    }
    let mut points = vec![PrPoint { threshold: None, recall: 0.0, precision: 1.0 }];
    let (mut tp, mut above) = (0, 0);
    for ((p, n), &threshold) in counts.into_iter().zip(&ranked.thresholds) {
        tp += p;
        above += p + n;
        points.push(PrPoint {
            threshold: Some(threshold),
            recall: tp as f64 / positives as f64,
            precision: tp as f64 / above as f64,
        });
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Stream};

    /// Images with scores on a coarse grid, so that many tie.
    fn tied(n: u32) -> (Vec<bool>, Vec<f64>) {
        let mut rng = Rng::new(11, 0, Stream::Sample as u32);
        let positive: Vec<bool> = (0..n).map(|_| rng.below(3) == 0).collect();
        let scores = positive.iter().map(|&p| f64::from(rng.below(20) + 4 * u32::from(p)).min(20.0) / 20.0).collect();
        (positive, scores)
    }

    #[test]
    fn auc_counts_pairs() {
        let (positive, scores) = tied(400);
        let (mut won, mut pairs) = (0.0, 0.0);
        for i in (0..400).filter(|&i| positive[i]) {
            for j in (0..400).filter(|&j| !positive[j]) {
                pairs += 1.0;
                won += if scores[i] > scores[j] {
                    1.0
                } else if scores[i] == scores[j] {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert_eq!(roc_auc(&positive, &scores), Some(won / pairs));
    }

    #[test]
    fn the_curve_has_the_area() {
        let (positive, scores) = tied(400);
        let curve = roc_curve(&positive, &scores);
        let area: f64 = curve
            .windows(2)
            .map(|w| {
                (w[1].false_positive_rate - w[0].false_positive_rate)
                    * (w[0].true_positive_rate + w[1].true_positive_rate)
                    / 2.0
            })
            .sum();
        assert!((area - roc_auc(&positive, &scores).unwrap()).abs() < 1e-12);
        assert_eq!((curve[0].threshold, curve[0].false_positive_rate), (None, 0.0));
        let last = curve.last().unwrap();
        assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
    }

    #[test]
    fn straight_pieces_are_one_piece() {
        // Two positives above two negatives: up twice, right twice.
        let curve = roc_curve(&[true, true, false, false], &[0.9, 0.8, 0.2, 0.1]);
        let xy: Vec<_> = curve.iter().map(|p| (p.false_positive_rate, p.true_positive_rate)).collect();
        assert_eq!(xy, [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
    }

    #[test]
    fn the_precision_curve_gives_the_average_precision() {
        let (positive, scores) = tied(400);
        let curve = precision_recall_curve(&positive, &scores);
        let ap: f64 = curve.windows(2).map(|w| (w[1].recall - w[0].recall) * w[1].precision).sum();
        assert!((ap - average_precision(&positive, &scores).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn a_resample_is_what_its_copy_would_be() {
        let (positive, scores) = tied(60);
        let ranked = RankedScores::new(&positive, &scores);
        let mut rng = Rng::new(5, 0, Stream::Sample as u32);
        for _ in 0..20 {
            let indices: Vec<u32> = (0..60).map(|_| rng.below(60)).collect();
            let p: Vec<bool> = indices.iter().map(|&i| positive[i as usize]).collect();
            let s: Vec<f64> = indices.iter().map(|&i| scores[i as usize]).collect();
            assert_eq!(ranked.roc_auc_of(&indices), roc_auc(&p, &s));
            assert_eq!(ranked.average_precision_of(&indices), average_precision(&p, &s));
        }
        assert_eq!(ranked.roc_auc_of(&[1000]), None);
    }

    #[test]
    fn undefined_is_none() {
        let (all, scores) = ([true, true], [0.3, 0.9]);
        assert_eq!(roc_auc(&all, &scores), None);
        assert!(roc_curve(&all, &scores).is_empty());
        assert_eq!(average_precision(&all, &scores), Some(1.0));
        assert_eq!(average_precision(&[false, false], &scores), None);
        assert!(precision_recall_curve(&[false, false], &scores).is_empty());
        assert_eq!(roc_auc(&[], &[]), None);
    }
}
