//! How far to trust a measured number: intervals for proportions and for any metric, and the spread over seeds.
//!
//! All intervals are of 95 %. They speak about drawing other *images* from the same source, taken as independent;
//! several films of one patient are not, so on such data the true interval is somewhat wider. They say nothing about
//! images from another hospital.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::metrics::{RankedScores, check};
use crate::rng::{Rng, Stream};

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Resamples of [`bootstrap`] that are enough for a 95 % percentile interval.
pub const RESAMPLES: u32 = 1000;

/// An interval, both ends included. Shown as `[0.717, 0.989]`; the precision of the format applies to both ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(f, "[{:.digits$}, {:.digits$}]", self.low, self.high)
    }
}

impl Interval {
    /// Whether `value` lies inside.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Whether the two share a point.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// Wilson's score interval of 95 % for a proportion, without continuity correction (Wilson, Journal of the American
/// Statistical Association 22, 1927): with `p = successes / trials`, `n = trials` and `z = 1.96`,
///
/// `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`
///
/// It stays in `[0, 1]` and is honest for few trials and for proportions near 0 or 1, where the textbook `p ± z·se` is not.
/// `None` when there is no trial or there are more successes than trials.
#[must_use]
pub fn wilson(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let z2 = Z * Z;
    let middle = p + z2 / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // At the ends the exact bound is 0 or 1; say so rather than 1e-17.
    let low = if successes == 0 { 0.0 } else { ((middle - half) / scale).max(0.0) };
    let high = if successes == trials { 1.0 } else { ((middle + half) / scale).min(1.0) };
    Some(Interval { low, high })
}

/// Percentile bootstrap of 95 % (Efron, "Bootstrap Methods", Annals of Statistics 7, 1979): `resamples` times, `count`
/// images are drawn with replacement, `statistic` is computed on their indices, and the 2.5 % and 97.5 % quantiles are kept.
///
/// Resample `r` depends on `(seed, r)` only, so the result is the same whatever the number of threads. A resample
/// where the statistic is undefined (`None` or NaN) is left out; when these are more than one in twenty, or nothing
/// was drawn, the interval is `None`.
pub fn bootstrap<F>(count: usize, resamples: u32, seed: u32, statistic: F) -> Option<Interval>
where
    F: Fn(&[u32]) -> Option<f64> + Sync,
{
    let size = u32::try_from(count).ok().filter(|&n| n > 0)?;
    let mut values: Vec<f64> = (0..resamples)
        .into_par_iter()
        .map_init(
            || vec![0; count],
            |indices, resample| {
                let mut rng = Rng::new(seed, resample, Stream::Bootstrap as u32);
                indices.fill_with(|| rng.below(size));
                statistic(indices).filter(|v| !v.is_nan())
            },
        )
        .flatten()
        .collect();
    let defined = values.len() as u64;
    if defined == 0 || defined * 20 < u64::from(resamples) * 19 {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
}

/// [`bootstrap`] interval of the accuracy of `decisions`; `None` when the lengths differ or there is no image.
#[must_use]
pub fn bootstrap_accuracy(labels: &[u32], decisions: &[u32], seed: u32) -> Option<Interval> {
    if labels.len() != decisions.len() {
        return None;
    }
    bootstrap(labels.len(), RESAMPLES, seed, |indices| {
        let right = indices.iter().filter(|&&i| labels[i as usize] == decisions[i as usize]).count();
        Some(right as f64 / indices.len() as f64)
    })
}

/// [`bootstrap`] interval of the ROC-AUC; the scores are sorted once, not once a resample. `None` when the AUC is undefined.
#[must_use]
pub fn bootstrap_auc(positive: &[bool], scores: &[f64], seed: u32) -> Option<Interval> {
    if positive.len() != scores.len() {
        return None;
    }
    let ranked = RankedScores::new(positive, scores);
    ranked.roc_auc()?;
    bootstrap(positive.len(), RESAMPLES, seed, |indices| ranked.roc_auc_of(indices))
}

/// [`bootstrap`] interval of the mean log loss of row-major probabilities `[labels.len(), classes]`; `None` for
/// labels and probabilities that [`check`] refuses.
#[must_use]
pub fn bootstrap_log_loss(labels: &[u32], probabilities: &[f64], classes: usize, seed: u32) -> Option<Interval> {
    check(labels, probabilities, classes).ok()?;
    let losses: Vec<f64> = labels
        .iter()
        .zip(probabilities.chunks_exact(classes))
        .map(|(&l, row)| -row[l as usize].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln())
        .collect();
    bootstrap(losses.len(), RESAMPLES, seed, |indices| {
        mean_std(&indices.iter().map(|&i| losses[i as usize]).collect::<Vec<_>>()).map(|m| m.mean)
    })
}

/// The `q` quantile of rising values by linear interpolation (type 7 of Hyndman and Fan, The American Statistician 50,
/// 1996; the default of `numpy.quantile`). `None` for no value or `q` outside `[0, 1]`.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    if sorted.is_empty() || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let at = q * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let low = sorted[below];
    let high = sorted[(below + 1).min(sorted.len() - 1)];
    Some(low + (high - low) * (at - below as f64))
}

/// Mean and spread of a few measurements, such as one metric over several seeds.
/// Shown as `0.969 ± 0.004 (n = 3)`; the precision of the format applies to both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation, with `n - 1` in the denominator (Bessel); `None` for a single measurement.
    pub std: Option<f64>,
    /// How many measurements.
    pub count: usize,
}

impl fmt::Display for MeanStd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(f, "{:.digits$}", self.mean)?;
        if let Some(std) = self.std {
            write!(f, " ± {std:.digits$}")?;
        }
        write!(f, " (n = {})", self.count)
    }
}

/// Mean and sample standard deviation; `None` for no value. The deviation is computed in two passes, which does not
/// lose digits when the spread is far below the mean.
#[must_use]
pub fn mean_std(values: &[f64]) -> Option<MeanStd> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let std = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    Some(MeanStd { mean, std, count: values.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(interval: Interval, low: f64, high: f64, tolerance: f64) {
        assert!(
            (interval.low - low).abs() < tolerance && (interval.high - high).abs() < tolerance,
            "{interval} is not [{low}, {high}]"
        );
    }

    #[test]
    fn wilson_of_known_counts() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3: to four digits.
        near(wilson(81, 263).unwrap(), 0.2553, 0.3662, 5e-5);
        near(wilson(15, 148).unwrap(), 0.0624, 0.1605, 5e-5);
        near(wilson(0, 20).unwrap(), 0.0, 0.1611, 5e-5);
        near(wilson(1, 29).unwrap(), 0.0061, 0.1718, 5e-5);
        assert_eq!(wilson(20, 20).unwrap().high, 1.0);
        assert_eq!((wilson(0, 0), wilson(3, 2)), (None, None));
    }

    #[test]
    fn wilson_mirrors() {
        for (k, n) in [(1, 16), (13, 16), (300, 624)] {
            let (a, b) = (wilson(k, n).unwrap(), wilson(n - k, n).unwrap());
            near(a, 1.0 - b.high, 1.0 - b.low, 1e-12);
        }
    }

    #[test]
    fn bootstrap_of_a_proportion_agrees_with_the_normal_theory() {
        let labels = vec![1; 1000];
        let decisions: Vec<u32> = (0..1000).map(|i| u32::from(i % 5 != 0)).collect();
        let got = bootstrap_accuracy(&labels, &decisions, 3).unwrap();
        let half = Z * (0.8_f64 * 0.2 / 1000.0).sqrt();
        near(got, 0.8 - half, 0.8 + half, 0.004);
    }

    #[test]
    fn bootstrap_does_not_depend_on_threads() {
        let positive: Vec<bool> = (0..200).map(|i| i % 3 == 0).collect();
        let scores: Vec<f64> = (0..200).map(|i| f64::from((i * 37) % 101 + 30 * u32::from(i % 3 == 0))).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bootstrap_auc(&positive, &scores, 9).unwrap())
        };
        let one = run(1);
        assert_eq!(one, run(4));
        assert_ne!(one, bootstrap_auc(&positive, &scores, 10).unwrap());
        let auc = crate::metrics::roc_auc(&positive, &scores).unwrap();
        assert!(one.contains(auc) && one.high - one.low < 0.2, "{one} around {auc}");
    }

    #[test]
    fn bootstrap_undefined() {
        assert_eq!(bootstrap(0, 100, 1, |_| Some(1.0)), None);
        assert_eq!(bootstrap(10, 0, 1, |_| Some(1.0)), None);
        assert_eq!(bootstrap(10, 100, 1, |_| None), None);
        assert_eq!(bootstrap(10, 100, 1, |i| (i[0] != 0).then_some(1.0)), None, "one in ten is too many");
        assert_eq!(bootstrap_auc(&[true, true], &[0.1, 0.2], 1), None);
        let all = bootstrap(10, 100, 1, |_| Some(0.5)).unwrap();
        assert_eq!((all.low, all.high), (0.5, 0.5));
    }

    #[test]
    fn log_loss_interval_holds_the_loss() {
        let labels: Vec<u32> = (0..100).map(|i| i % 2).collect();
        let p: Vec<f64> = (0..100)
            .flat_map(|i| {
                let q = f64::from(i % 10) / 20.0 + 0.25;
                [1.0 - q, q]
            })
            .collect();
        let loss = crate::metrics::log_loss(&labels, &p, 2).unwrap();
        assert!(bootstrap_log_loss(&labels, &p, 2, 1).unwrap().contains(loss));
        assert_eq!(bootstrap_log_loss(&labels, &p[1..], 2, 1), None);
    }

    #[test]
    fn quantiles_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0.025, 0.5, 0.975]) = [1.075, 3.0, 7.7]
        let v = [1.0, 2.0, 4.0, 8.0];
        assert!((quantile(&v, 0.025).unwrap() - 1.075).abs() < 1e-12);
        assert_eq!(quantile(&v, 0.5), Some(3.0));
        assert!((quantile(&v, 0.975).unwrap() - 7.7).abs() < 1e-12);
        assert_eq!((quantile(&v, 1.0), quantile(&v, 1.1), quantile(&[], 0.5)), (Some(8.0), None, None));
    }

    #[test]
    fn mean_and_sample_deviation() {
        // statistics.stdev([2, 4, 4, 4, 5, 5, 7, 9]) = 2.138089935299395
        let m = mean_std(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((m.mean, m.count), (5.0, 8));
        assert!((m.std.unwrap() - 2.138_089_935_299_395).abs() < 1e-12);
        assert_eq!(m.to_string(), "5.000 ± 2.138 (n = 8)");
        let one = mean_std(&[0.5]).unwrap();
        assert_eq!((one.std, one.to_string()), (None, "0.500 (n = 1)".to_owned()));
        assert_eq!(mean_std(&[]), None);
    }
}
