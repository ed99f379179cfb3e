//! The percentile bootstrap, of images or of whole patients.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Interval, quantile};
use crate::rng::{Rng, Stream};

/// Resamples that are enough for a 95 % percentile interval.
pub const RESAMPLES: u32 = 1000;

/// What a resample draws: single images, or patients with all of their images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// The images, those of a unit side by side.
    members: Vec<u32>,
    /// Where each unit begins, and the end of the last one.
    starts: Vec<u32>,
}

impl Units {
    /// Every image is a unit.
    #[must_use]
    pub fn images(count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self { members: (0..count).collect(), starts: (0..=count).collect() }
    }

    /// Images with the same id, such as the name of their patient, are one unit. The units stand in the order of their
    /// ids, so that the order of the images changes no draw.
    #[must_use]
    pub fn groups<T: Ord>(ids: &[T]) -> Self {
        let mut groups: BTreeMap<&T, Vec<u32>> = BTreeMap::new();
        for (i, id) in ids.iter().enumerate().take(u32::MAX as usize) {
            groups.entry(id).or_default().push(i as u32);
        }
        let mut starts = vec![0];
        let mut members = Vec::with_capacity(ids.len());
        for group in groups.into_values() {
            members.extend(group);
            starts.push(members.len() as u32);
        }
        Self { members, starts }
    }

    /// Units of patients, or `None` where no patient has more than one image, so that patients are not known or not
    /// different from images.
    #[must_use]
    pub fn patients(ids: &[String]) -> Option<Self> {
        let units = Self::groups(ids);
        (units.len() < ids.len()).then_some(units)
    }

    /// How many units there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// True without units.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images of resample `resample`: as many units as there are, drawn with replacement. A resample depends on
    /// `(seed, resample)` and the units only.
    #[must_use]
    pub fn draw(&self, seed: u32, resample: u32) -> Vec<u32> {
        let mut images = Vec::with_capacity(self.members.len() + self.members.len() / 4);
        let mut rng = Rng::new(seed, resample, Stream::Bootstrap as u32);
        let units = self.len() as u32;
        for _ in 0..units {
            let unit = rng.below(units) as usize;
            images.extend_from_slice(&self.members[self.starts[unit] as usize..self.starts[unit + 1] as usize]);
        }
        images
    }
}

/// Percentile bootstrap of 95 % (Efron, "Bootstrap Methods", Annals of Statistics 7, 1979) of several statistics at once:
/// `resamples` times, units are drawn with replacement, the statistics are computed on the images drawn, and the 2.5 %
/// and 97.5 % quantiles of each are kept. With patients as units this is the cluster bootstrap (Field and Welsh, Journal
/// of the Royal Statistical Society B 69, 2007).
///
/// The result is the same whatever the number of threads. Resamples where a statistic is undefined (`None` or NaN) are
/// left out; when these are more than one in twenty, or nothing was drawn, its interval is `None`.
pub fn bootstrap_many<F>(units: &Units, resamples: u32, seed: u32, statistics: F) -> Vec<Option<Interval>>
where
    F: Fn(&[u32]) -> Vec<Option<f64>> + Sync,
{
    if units.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<Option<f64>>> =
        (0..resamples).into_par_iter().map(|resample| statistics(&units.draw(seed, resample))).collect();
    let columns = rows.iter().map(Vec::len).min().unwrap_or(0);
    (0..columns).map(|k| percentiles(rows.iter().filter_map(|row| row[k]).collect(), resamples)).collect()
}

/// [`bootstrap_many`] of one statistic.
pub fn bootstrap<F>(units: &Units, resamples: u32, seed: u32, statistic: F) -> Option<Interval>
where
    F: Fn(&[u32]) -> Option<f64> + Sync,
{
    bootstrap_many(units, resamples, seed, |images| vec![statistic(images)]).pop().flatten()
}

fn percentiles(mut values: Vec<f64>, resamples: u32) -> Option<Interval> {
    values.retain(|v| !v.is_nan());
    let defined = values.len() as u64;
    if defined == 0 || defined * 20 < u64::from(resamples) * 19 {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RankedScores;

    fn share(flags: &[bool], images: &[u32]) -> Option<f64> {
        let hits = images.iter().filter(|&&i| flags[i as usize]).count();
        (!images.is_empty()).then(|| hits as f64 / images.len() as f64)
    }

    #[test]
    fn a_proportion_agrees_with_the_normal_theory() {
        let right: Vec<bool> = (0..1000).map(|i| i % 5 != 0).collect();
        let got = bootstrap(&Units::images(1000), RESAMPLES, 3, |images| share(&right, images)).unwrap();
        let half = 1.96 * (0.8_f64 * 0.2 / 1000.0).sqrt();
        assert!((got.low - 0.8 + half).abs() < 0.004 && (got.high - 0.8 - half).abs() < 0.004, "{got}");
    }

    #[test]
    fn patients_with_equal_films_widen_the_interval_as_theory_says() {
        // 100 patients with 4 equal films each carry as much as 100 films: the interval is twice as wide.
        let patients: Vec<u32> = (0..400).map(|i| i / 4).collect();
        let right: Vec<bool> = patients.iter().map(|p| p % 5 != 0).collect();
        let width = |units: &Units| {
            let i = bootstrap(units, 4000, 7, |images| share(&right, images)).unwrap();
            i.high - i.low
        };
        let ratio = width(&Units::groups(&patients)) / width(&Units::images(400));
        assert!((ratio - 2.0).abs() < 0.15, "{ratio}");
    }

    #[test]
    fn units_are_whole_and_do_not_depend_on_the_order() {
        let ids = ["b", "a", "b", "c"];
        let units = Units::groups(&ids);
        assert_eq!((units.len(), &units.members, &units.starts), (3, &vec![1, 0, 2, 3], &vec![0, 1, 3, 4]));
        for resample in 0..50 {
            let drawn = units.draw(1, resample);
            let count = |i| drawn.iter().filter(|&&d| d == i).count();
            assert_eq!(count(0), count(2), "both films of patient b, or none");
        }
        let names: Vec<String> = ids.map(str::to_owned).to_vec();
        assert_eq!(Units::patients(&names), Some(units));
        assert_eq!(Units::patients(&names[1..]), None, "three patients of one film each");
        assert!(Units::groups::<u32>(&[]).is_empty() && Units::groups::<u32>(&[]).draw(0, 0).is_empty());
    }

    #[test]
    fn threads_change_nothing() {
        let positive: Vec<bool> = (0..200).map(|i| i % 3 == 0).collect();
        let scores: Vec<f64> = (0..200).map(|i| f64::from((i * 37) % 101 + 30 * u32::from(i % 3 == 0))).collect();
        let ranked = RankedScores::new(&positive, &scores);
        let run = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let units = Units::images(200);
            pool.install(|| bootstrap(&units, RESAMPLES, seed, |images| ranked.roc_auc_of(images)).unwrap())
        };
        let one = run(1, 9);
        assert_eq!(one, run(4, 9));
        assert_ne!(one, run(1, 10));
        let auc = crate::metrics::roc_auc(&positive, &scores).unwrap();
        assert!(one.contains(auc) && one.high - one.low < 0.2, "{one} around {auc}");
    }

    #[test]
    fn undefined_is_none() {
        let ten = Units::images(10);
        assert_eq!(bootstrap(&Units::images(0), 100, 1, |_| Some(1.0)), None);
        assert_eq!(bootstrap(&ten, 0, 1, |_| Some(1.0)), None);
        assert_eq!(bootstrap(&ten, 100, 1, |_| None), None);
        assert_eq!(bootstrap(&ten, 100, 1, |i| (i[0] != 0).then_some(1.0)), None, "one in ten is too many");
        let both = bootstrap_many(&ten, 100, 1, |_| vec![Some(0.5), None]);
        assert_eq!(both, [Some(Interval { low: 0.5, high: 0.5 }), None]);
    }
}
