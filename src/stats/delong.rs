//! DeLong's variance of the ROC-AUC, and the test of two AUCs measured on the same images.
//!
//! With `m` positive images `x`, `n` negative ones `y` and `psi(x, y)` 1, 1/2 or 0 where `x` scores above, like or below `y`:
//! the AUC is the mean of `psi` over all pairs; `V10[i]` is its mean over `y` for `x[i]`, `V01[j]` its mean over `x` for
//! `y[j]`; and `var(AUC) = var(V10) / m + var(V01) / n` with `m - 1` and `n - 1` in the variances (DeLong, DeLong and
//! Clarke-Pearson, Biometrics 44, 1988). The means are differences of midranks, which a sort gives in O(N log N) (Sun and
//! Xu, IEEE Signal Processing Letters 21, 2014). Images are taken as independent.

use serde::{Deserialize, Serialize};

use super::interval::Z;
use super::{Interval, normal_two_sided};

/// An AUC with what its variance is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct DeLong {
    /// The area under the ROC curve.
    pub auc: f64,
    /// Its variance.
    pub variance: f64,
    /// Share of the negatives that each positive image beats.
    v10: Vec<f64>,
    /// Share of the positives that beat each negative image.
    v01: Vec<f64>,
}

/// One AUC against another on the same images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AucDifference {
    /// First minus second.
    pub difference: f64,
    /// Its variance, the correlation of the two included.
    pub variance: f64,
    /// `difference ± 1.96 sqrt(variance)`; `None` where the variance is 0.
    pub interval: Option<Interval>,
    /// `difference / sqrt(variance)`; `None` where the variance is 0.
    pub z: Option<f64>,
    /// Two-sided p-value of "the two AUCs are equal"; `None` where the variance is 0, as of two networks that rank alike.
    pub p: Option<f64>,
}

/// AUC and variance; `None` where a class has fewer than two images, lengths differ or a score is NaN.
#[must_use]
pub fn delong(positive: &[bool], scores: &[f64]) -> Option<DeLong> {
    if positive.len() != scores.len() || scores.iter().any(|s| s.is_nan()) {
        return None;
    }
    let of = |wanted: bool| -> Vec<f64> {
        positive.iter().zip(scores).filter(|(p, _)| **p == wanted).map(|(_, &s)| s).collect()
    };
    let (x, y) = (of(true), of(false));
    if x.len() < 2 || y.len() < 2 {
        return None;
    }
    let (m, n) = (x.len() as f64, y.len() as f64);
    let (inside_x, inside_y) = (midranks(&x), midranks(&y));
    let pooled = midranks(&[x, y].concat());
    let (of_x, of_y) = pooled.split_at(inside_x.len());
    let v10: Vec<f64> = of_x.iter().zip(&inside_x).map(|(all, own)| (all - own) / n).collect();
    let v01: Vec<f64> = of_y.iter().zip(&inside_y).map(|(all, own)| 1.0 - (all - own) / m).collect();
    let auc = v10.iter().sum::<f64>() / m;
    let variance = variance(&v10) / m + variance(&v01) / n;
    Some(DeLong { auc, variance, v10, v01 })
}

/// Ranks from 1; equal scores share the mean of their ranks.
fn midranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut ranks = vec![0.0; scores.len()];
    // `==`, so that 0 and -0 are one score.
    let mut before = 0;
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let rank = before as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        before += group.len();
    }
    ranks
}

/// With `n - 1` in the denominator.
fn variance(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)
}

impl DeLong {
    /// `auc ± 1.96 sqrt(variance)`, cut to `[0, 1]`. `None` where the variance is 0, as of a perfect ranking: few images that
    /// happen to be ranked rightly are no proof of an AUC of exactly 1.
    #[must_use]
    pub fn interval(&self) -> Option<Interval> {
        let half = Z * self.variance.sqrt();
        (self.variance > 0.0).then(|| Interval { low: (self.auc - half).max(0.0), high: (self.auc + half).min(1.0) })
    }

    /// This AUC minus another one of the same images; `None` where they are not as many.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Option<AucDifference> {
        if self.v10.len() != other.v10.len() || self.v01.len() != other.v01.len() {
            return None;
        }
        let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
        let (d10, d01) = (apart(&self.v10, &other.v10), apart(&self.v01, &other.v01));
        // The variance of the difference is that of the differences: no digits lost to var + var - 2 cov.
        let variance = variance(&d10) / d10.len() as f64 + variance(&d01) / d01.len() as f64;
        let difference = self.auc - other.auc;
        let (error, some) = (variance.sqrt(), variance > 0.0);
        let z = some.then(|| difference / error);
        Some(AucDifference {
            difference,
            variance,
            interval: some.then_some(Interval { low: difference - Z * error, high: difference + Z * error }),
            z,
            p: z.and_then(normal_two_sided),
        })
    }
}

/// [`DeLong::minus`] from scores; `None` as in [`delong`].
#[must_use]
pub fn delong_test(positive: &[bool], a: &[f64], b: &[f64]) -> Option<AucDifference> {
    delong(positive, a)?.minus(&delong(positive, b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auc_is_the_one_of_the_metrics() {
        let positive: Vec<bool> = (0..90).map(|i| i % 4 == 0).collect();
        let scores: Vec<f64> = (0..90).map(|i| f64::from((i * 29) % 17 + 3 * u32::from(i % 4 == 0))).collect();
        let d = delong(&positive, &scores).unwrap();
        assert!((d.auc - crate::metrics::roc_auc(&positive, &scores).unwrap()).abs() < 1e-14);
        assert!(d.interval().unwrap().contains(d.auc));
    }

    #[test]
    fn undefined_is_none() {
        let positive = [true, true, false, false];
        assert!(delong(&[true, false, false], &[0.1, 0.2, 0.3]).is_none(), "one positive image has no variance");
        assert!(delong(&positive, &[0.1, 0.2, 0.3, f64::NAN]).is_none());
        assert!(delong(&positive, &[0.1]).is_none());
        let perfect = delong(&positive, &[0.9, 0.8, 0.2, 0.1]).unwrap();
        assert_eq!((perfect.auc, perfect.interval()), (1.0, None));
        let same = delong_test(&positive, &[0.9, 0.15, 0.2, 0.1], &[9.0, 2.0, 3.0, 1.0]).unwrap();
        assert_eq!((same.difference, same.z, same.p, same.interval), (0.0, None, None, None));
    }

    #[test]
    fn turning_the_pair_round_turns_the_sign() {
        let positive: Vec<bool> = (0..60).map(|i| i % 3 == 0).collect();
        let a: Vec<f64> = (0..60).map(|i| f64::from((i * 7) % 23 + 8 * u32::from(i % 3 == 0))).collect();
        let b: Vec<f64> = (0..60).map(|i| f64::from((i * 11) % 19 + 4 * u32::from(i % 3 == 0))).collect();
        let (ab, ba) = (delong_test(&positive, &a, &b).unwrap(), delong_test(&positive, &b, &a).unwrap());
        assert!((ab.difference + ba.difference).abs() < 1e-15 && (ab.p.unwrap() - ba.p.unwrap()).abs() < 1e-12);
    }
}
