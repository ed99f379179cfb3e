//! Repeating something and saying how long it takes.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::stats::quantile;

/// When to stop repeating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Most runs.
    pub runs: usize,
    /// No run starts after this long, once there are three; where one run alone takes longer it stays at one.
    pub time: Duration,
}

/// How long the runs took, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// How many runs.
    pub runs: usize,
    /// The middle one.
    pub median: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
    /// Distance of the quartiles over the median: 0 for runs that all take the same time.
    pub spread: f64,
}

impl Times {
    /// From the runs' seconds; `None` for no run.
    #[must_use]
    pub fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_unstable_by(f64::total_cmp);
        let at = |q| quantile(&seconds, q);
        let median = at(0.5)?;
        let spread = if median > 0.0 { (at(0.75)? - at(0.25)?) / median } else { 0.0 };
        Some(Self { runs: seconds.len(), median, min: at(0.0)?, max: at(1.0)?, spread })
    }
}

/// Calls `once`, which gives the seconds that count, at least once and until the budget is spent.
///
/// # Errors
/// The first error of `once`.
pub fn repeat<E>(budget: Budget, mut once: impl FnMut() -> Result<f64, E>) -> Result<Times, E> {
    let start = Instant::now();
    let mut seconds = vec![once()?];
    if start.elapsed() < budget.time {
        while seconds.len() < budget.runs && (seconds.len() < 3 || start.elapsed() < budget.time) {
            seconds.push(once()?);
        }
    }
    Ok(Times::of(seconds).expect("there was a run"))
}

/// How long `f` takes, in seconds of wall time.
///
/// # Errors
/// Those of `f`.
pub fn wall<E>(f: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_known_runs() {
        let t = Times::of(vec![4.0, 1.0, 2.0, 3.0, 5.0]).unwrap();
        assert_eq!((t.runs, t.median, t.min, t.max), (5, 3.0, 1.0, 5.0));
        assert!((t.spread - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(Times::of(Vec::new()), None);
    }

    #[test]
    fn the_budget_is_kept() {
        let count = |runs, millis| {
            let mut n = 0;
            let budget = Budget { runs, time: Duration::from_millis(millis) };
            let times = repeat::<()>(budget, || {
                n += 1;
                Ok(f64::from(n))
            });
            times.map(|t| t.runs)
        };
        assert_eq!(count(7, 60_000), Ok(7));
        assert_eq!(count(7, 0), Ok(1));
        assert_eq!(repeat(Budget { runs: 3, time: Duration::ZERO }, || Err::<f64, _>("no")), Err("no"));
    }
}
