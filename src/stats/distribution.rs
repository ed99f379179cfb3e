//! Tail probabilities and quantiles, from `statrs`; `None` where a number does not exist.

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

/// The chance that a standard normal number is at least as far from 0 as `z`.
#[must_use]
pub fn normal_two_sided(z: f64) -> Option<f64> {
    let normal = Normal::new(0.0, 1.0).ok()?;
    (!z.is_nan()).then(|| (2.0 * normal.sf(z.abs())).min(1.0))
}

/// The chance that a chi-squared number with `freedom` degrees of freedom is above `x`.
#[must_use]
pub fn chi_squared_sf(x: f64, freedom: f64) -> Option<f64> {
    let law = ChiSquared::new(freedom).ok()?;
    (x >= 0.0).then(|| law.sf(x))
}

/// The two-sided exact p-value of `successes` in `trials` fair coin throws: twice the smaller tail, at most 1, as
/// `scipy.stats.binomtest` has it. 1 for no throw; `None` for more successes than throws.
#[must_use]
pub fn binomial_two_sided(successes: u64, trials: u64) -> Option<f64> {
    if successes > trials {
        return None;
    }
    let law = Binomial::new(0.5, trials).ok()?;
    Some((2.0 * law.cdf(successes.min(trials - successes))).min(1.0))
}

/// The `q` quantile of Student's t with `freedom` degrees of freedom; `None` for `q` outside `(0, 1)`.
#[must_use]
pub fn t_quantile(q: f64, freedom: f64) -> Option<f64> {
    let law = StudentsT::new(0.0, 1.0, freedom).ok()?;
    (q > 0.0 && q < 1.0).then(|| law.inverse_cdf(q))
}

/// The chance that a number of Student's t is at least as far from 0 as `t`.
#[must_use]
pub fn t_two_sided(t: f64, freedom: f64) -> Option<f64> {
    let law = StudentsT::new(0.0, 1.0, freedom).ok()?;
    (!t.is_nan()).then(|| (2.0 * law.sf(t.abs())).min(1.0))
}
