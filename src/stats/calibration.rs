//! Whether a probability means what it says: of the images given 0.8, are 80 % positive?

use serde::{Deserialize, Serialize};

use super::quantile;

/// How probabilities are put into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binning {
    /// Bins of equal width over `[0, 1]`.
    EqualWidth,
    /// Bins of about equally many images: the edges are quantiles.
    EqualMass,
}

/// The images whose probability lies in `(low, high]` (in the first bin also `low`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// How many images.
    pub count: u64,
    /// Mean of their probabilities.
    pub confidence: f64,
    /// Share of them where what was foretold is so.
    pub share: f64,
}

/// A reliability table, and the errors that it shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// How the bins were made.
    pub binning: Binning,
    /// The bins that hold an image, rising.
    pub bins: Vec<Bin>,
    /// Expected calibration error: the mean of `|share - confidence|` over the images (Naeini, Cooper and Hauskrecht, AAAI
    /// 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    pub ece: f64,
    /// Maximum calibration error: the largest `|share - confidence|` of a bin.
    pub mce: f64,
}

/// The probability that calibration is about, and whether what it foretold is so: with two classes that of the positive
/// class, as in scikit-learn's `calibration_curve`; with more that of the decided class, as in Guo et al.
#[must_use]
pub fn calibration_pairs(labels: &[u32], probabilities: &[f64], classes: usize) -> (Vec<f64>, Vec<bool>) {
    let rows = probabilities.chunks_exact(classes.max(1));
    labels
        .iter()
        .zip(rows)
        .map(|(&label, row)| {
            let class = if classes == 2 { 1 } else { crate::metrics::argmax(row) };
            (row[class as usize], label == class)
        })
        .unzip()
}

/// The table of `bins` bins; `None` for no bin, no image, lengths that differ or a value that is no probability.
///
/// Edges and their sides are those of scikit-learn's `calibration_curve` (strategies `uniform` and `quantile`).
#[must_use]
pub fn reliability(confidence: &[f64], so: &[bool], bins: usize, binning: Binning) -> Option<Reliability> {
    let fits = confidence.len() == so.len() && confidence.iter().all(|p| (0.0..=1.0).contains(p));
    if bins == 0 || confidence.is_empty() || !fits {
        return None;
    }
    let edges: Vec<f64> = match binning {
        Binning::EqualWidth => equal_edges(bins),
        Binning::EqualMass => {
            let mut sorted = confidence.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            (0..=bins).map(|k| quantile(&sorted, k as f64 / bins as f64)).collect::<Option<_>>()?
        }
    };
    let sums = sum_bins(&edges, confidence.iter().copied().zip(so.iter().copied()));
    let bins: Vec<Bin> = edges
        .windows(2)
        .zip(sums)
        .filter(|(_, s)| s.count > 0)
        .map(|(edge, s)| {
            let n = s.count as f64;
            Bin { low: edge[0], high: edge[1], count: s.count, confidence: s.confidence / n, share: s.so as f64 / n }
        })
        .collect();
    let gap = |b: &Bin| (b.share - b.confidence).abs();
    let ece = bins.iter().map(|b| b.count as f64 * gap(b)).sum::<f64>() / confidence.len() as f64;
    let mce = bins.iter().map(gap).fold(0.0, f64::max);
    Some(Reliability { binning, bins, ece, mce })
}

/// `bins + 1` edges over `[0, 1]`, as `numpy.linspace` has them.
fn equal_edges(bins: usize) -> Vec<f64> {
    let step = 1.0 / bins as f64;
    (0..bins).map(|k| k as f64 * step).chain([1.0]).collect()
}

#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    confidence: f64,
    so: u64,
}

fn sum_bins(edges: &[f64], pairs: impl Iterator<Item = (f64, bool)>) -> Vec<Sums> {
    let inner = edges.get(1..edges.len() - 1).unwrap_or_default();
    let mut sums = vec![Sums::default(); inner.len() + 1];
    for (p, so) in pairs {
        let s = &mut sums[inner.partition_point(|&edge| edge < p)];
        s.count += 1;
        s.confidence += p;
        s.so += u64::from(so);
    }
    sums
}

/// The expected calibration error over `bins` bins of equal width; `None` for no image.
pub(super) fn expected_error(bins: usize, pairs: impl Iterator<Item = (f64, bool)>) -> Option<f64> {
    let sums = sum_bins(&equal_edges(bins), pairs);
    let images: u64 = sums.iter().map(|s| s.count).sum();
    let apart: f64 = sums.iter().map(|s| (s.so as f64 - s.confidence).abs()).sum();
    (images > 0).then(|| apart / images as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_of_equal_width_and_mass() {
        let p = [0.0, 0.1, 0.2, 0.2, 0.9, 1.0];
        let so = [false, false, true, false, true, true];
        let width = reliability(&p, &so, 5, Binning::EqualWidth).unwrap();
        let counts: Vec<u64> = width.bins.iter().map(|b| b.count).collect();
        assert_eq!(counts, [4, 2], "an edge belongs to the bin below it");
        // Bin one: 1 of 4 against a mean of 0.125; bin two: 2 of 2 against 0.95.
        assert!((width.ece - (4.0 * 0.125 + 2.0 * 0.05) / 6.0).abs() < 1e-12, "{}", width.ece);
        assert!((width.mce - 0.125).abs() < 1e-12);
        let pairs = p.iter().copied().zip(so);
        assert!((expected_error(5, pairs).unwrap() - width.ece).abs() < 1e-15);
        let mass = reliability(&p, &so, 2, Binning::EqualMass).unwrap();
        assert_eq!(mass.bins.iter().map(|b| b.count).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(mass.bins[0].high, 0.2);
    }

    #[test]
    fn undefined_is_none() {
        assert_eq!(reliability(&[], &[], 5, Binning::EqualWidth), None);
        assert_eq!(reliability(&[0.5], &[true], 0, Binning::EqualWidth), None);
        assert_eq!(reliability(&[1.5], &[true], 5, Binning::EqualMass), None);
        assert_eq!(reliability(&[0.5], &[], 5, Binning::EqualMass), None);
        assert_eq!(expected_error(5, std::iter::empty()), None);
    }

    #[test]
    fn two_classes_speak_of_the_positive_one_and_more_of_the_decision() {
        assert_eq!(calibration_pairs(&[0, 1], &[0.7, 0.3, 0.8, 0.2], 2), (vec![0.3, 0.2], vec![false, true]));
        assert_eq!(calibration_pairs(&[2, 0], &[0.1, 0.2, 0.7, 0.2, 0.5, 0.3], 3), (vec![0.7, 0.5], vec![true, false]));
    }
}
