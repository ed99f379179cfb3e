//! A measurement repeated: over seeds, and over the folds of a cross-validation.

use serde::{Deserialize, Serialize};

use super::{Interval, mean_std, t_quantile, t_two_sided};

/// Student's 95 % interval of the mean of independent repetitions, such as seeds: `mean ± t(0.975, n - 1) s / sqrt(n)`. It
/// speaks about training again on the same images, not about other images. `None` for fewer than two values.
#[must_use]
pub fn t_interval(values: &[f64]) -> Option<Interval> {
    interval(values, 1.0 / values.len() as f64)
}

/// The 95 % interval of the mean over folds (and seeds, all in one list) with the correction of Nadeau and Bengio
/// ("Inference for the Generalization Error", Machine Learning 52, 2003): folds share most of their training images, so
/// the variance of the mean is `(1/n + held_out / fitted) s²` and not `s² / n`, with `n - 1` degrees of freedom.
///
/// `held_out` and `fitted` are the images measured and fitted in a fold. `None` for fewer than two values, or no image
/// fitted.
#[must_use]
pub fn corrected_interval(values: &[f64], held_out: f64, fitted: f64) -> Option<Interval> {
    if !(held_out >= 0.0 && fitted > 0.0) {
        return None;
    }
    interval(values, 1.0 / values.len() as f64 + held_out / fitted)
}

/// `mean ± t sqrt(factor s²)`.
fn interval(values: &[f64], factor: f64) -> Option<Interval> {
    let m = mean_std(values)?;
    let half = t_quantile(0.975, (values.len() - 1) as f64)? * m.std? * factor.sqrt();
    half.is_finite().then_some(Interval { low: m.mean - half, high: m.mean + half })
}

/// The difference of two means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanDifference {
    /// First minus second.
    pub difference: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Two-sided p-value of "the means are equal".
    pub p: f64,
}

/// Welch's test of two groups of independent repetitions, the variances of which may differ (Welch, Biometrika 34, 1947).
/// `None` for a group of fewer than two values, or without any spread in either.
#[must_use]
pub fn welch(a: &[f64], b: &[f64]) -> Option<MeanDifference> {
    let (ma, mb) = (mean_std(a)?, mean_std(b)?);
    let (va, vb) = (ma.std?.powi(2) / a.len() as f64, mb.std?.powi(2) / b.len() as f64);
    let variance = va + vb;
    if variance <= 0.0 || !variance.is_finite() {
        return None;
    }
    let freedom = variance.powi(2) / (va.powi(2) / (a.len() - 1) as f64 + vb.powi(2) / (b.len() - 1) as f64);
    let difference = ma.mean - mb.mean;
    let half = t_quantile(0.975, freedom)? * variance.sqrt();
    Some(MeanDifference {
        difference,
        interval: Interval { low: difference - half, high: difference + half },
        p: t_two_sided(difference / variance.sqrt(), freedom)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_is_none() {
        assert_eq!((t_interval(&[]), t_interval(&[0.5])), (None, None));
        assert_eq!(corrected_interval(&[0.1, 0.2], 1.0, 0.0), None);
        assert_eq!(welch(&[0.5, 0.5], &[0.4, 0.4]), None);
        assert_eq!(welch(&[0.5], &[0.4, 0.3]), None);
        let same = t_interval(&[0.5, 0.5]).unwrap();
        assert_eq!((same.low, same.high), (0.5, 0.5));
    }

    #[test]
    fn the_correction_widens() {
        let values = [0.9, 0.92, 0.88, 0.91, 0.9];
        let (plain, corrected) = (t_interval(&values).unwrap(), corrected_interval(&values, 1.0, 4.0).unwrap());
        let ratio = (corrected.high - corrected.low) / (plain.high - plain.low);
        // sqrt((1/5 + 1/4) / (1/5)) = 1.5
        assert!((ratio - 1.5).abs() < 1e-12, "{ratio}");
    }
}
