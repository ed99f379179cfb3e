//! Intervals for proportions, quantiles, and the spread of a few measurements.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the standard normal distribution.
pub(super) const Z: f64 = 1.959_963_984_540_054;

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
