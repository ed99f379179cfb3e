//! Two classifiers on the same images: whose right decisions the other one lacks.

use serde::{Deserialize, Serialize};

use super::interval::Z;
use super::{Interval, binomial_two_sided, chi_squared_sf};

/// McNemar's test of equal accuracy (McNemar, Psychometrika 12, 1947). Only images that one of the two decides rightly and
/// the other wrongly say anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Images that the first alone decides rightly.
    pub first_only: u64,
    /// Images that the second alone decides rightly.
    pub second_only: u64,
    /// Exact two-sided p-value: under equal accuracy, which of the two is right is a fair coin. 1 without such images.
    pub exact_p: f64,
    /// `max(|first_only - second_only| - 1, 0)² / (first_only + second_only)`, with the continuity correction of Edwards
    /// (Psychometrika 13, 1948); `None` without such images.
    pub chi_squared: Option<f64>,
    /// The p-value of `chi_squared` with one degree of freedom.
    pub chi_squared_p: Option<f64>,
}

/// The test from the two counts.
#[must_use]
pub fn mcnemar(first_only: u64, second_only: u64) -> McNemar {
    let differ = first_only.saturating_add(second_only);
    let chi_squared =
        (differ > 0).then(|| (first_only.abs_diff(second_only) as f64 - 1.0).max(0.0).powi(2) / differ as f64);
    McNemar {
        first_only,
        second_only,
        exact_p: binomial_two_sided(first_only, differ).unwrap_or(1.0),
        chi_squared,
        chi_squared_p: chi_squared.and_then(|x| chi_squared_sf(x, 1.0)),
    }
}

/// The difference of two accuracies on the same `images`, first minus second, with an adjusted Wald interval of 95 %
/// (Bonett and Price, Journal of Educational and Behavioral Statistics 37, 2012): with `p = (first_only + 1) / (n + 2)` and
/// `q = (second_only + 1) / (n + 2)`, `p - q ± 1.96 sqrt((p + q - (p - q)²) / (n + 2))`, cut to `[-1, 1]`.
///
/// `None` for no image or counts that do not fit.
#[must_use]
pub fn paired_difference(first_only: u64, second_only: u64, images: u64) -> Option<(f64, Interval)> {
    if images == 0 || first_only.checked_add(second_only)? > images {
        return None;
    }
    let n = images as f64 + 2.0;
    let (p, q) = ((first_only as f64 + 1.0) / n, (second_only as f64 + 1.0) / n);
    let half = Z * ((p + q - (p - q).powi(2)) / n).sqrt();
    let difference = (first_only as f64 - second_only as f64) / images as f64;
    Some((difference, Interval { low: (p - q - half).max(-1.0), high: (p - q + half).min(1.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_differs_says_nothing() {
        let none = mcnemar(0, 0);
        assert_eq!((none.exact_p, none.chi_squared, none.chi_squared_p), (1.0, None, None));
        assert_eq!((mcnemar(7, 7).exact_p, mcnemar(7, 7).chi_squared_p), (1.0, Some(1.0)));
        assert_eq!((paired_difference(0, 0, 0), paired_difference(3, 2, 4)), (None, None));
    }

    #[test]
    fn five_of_five_is_one_in_sixteen() {
        assert!((mcnemar(5, 0).exact_p - 0.0625).abs() < 1e-15);
        let (difference, interval) = paired_difference(5, 0, 50).unwrap();
        assert_eq!(difference, 0.1);
        assert!(interval.contains(difference), "{interval}");
    }
}
