//! The operating point: a threshold chosen on validation images, and what it does on others.

use serde::{Deserialize, Serialize};

use super::{Interval, RESAMPLES, Units, bootstrap_many, wilson};
use crate::metrics::RankedScores;

/// How a threshold is chosen. An image counts as positive when its score is at least the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The highest threshold that finds at least this share of the positive images.
    Sensitivity(f64),
    /// The lowest threshold that clears at least this share of the negative images.
    Specificity(f64),
    /// The largest sensitivity + specificity - 1 (Youden, Cancer 3, 1950); of equals the highest threshold.
    Youden,
}

/// A rule that no threshold can meet.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// A wanted share outside `(0, 1]`.
    #[error("a wanted sensitivity or specificity of {0}: give a share above 0 and at most 1, such as 0.95")]
    Share(f64),
    /// A class is absent.
    #[error("a threshold needs images of both classes to be chosen on: these are of one class")]
    OneClass,
    /// All negatives score as high as the highest score.
    #[error("no threshold clears so many negative images: as many share the highest score; ask for less")]
    NotReached,
}

/// The threshold that `rule` asks for on these images; always one of the scores.
///
/// # Errors
/// [`RuleError`].
pub fn choose_threshold(positive: &[bool], scores: &[f64], rule: Rule) -> Result<f64, RuleError> {
    if let Rule::Sensitivity(wanted) | Rule::Specificity(wanted) = rule
        && !(wanted > 0.0 && wanted <= 1.0)
    {
        return Err(RuleError::Share(wanted));
    }
    let points = RankedScores::new(positive, scores).cumulative();
    let (positives, negatives) = match points.last() {
        Some(&(_, p, n)) if p > 0 && n > 0 => (p, n),
        _ => return Err(RuleError::OneClass),
    };
    let sensitivity = |&(_, tp, _): &(f64, u64, u64)| tp as f64 / positives as f64;
    let specificity = |&(_, _, fp): &(f64, u64, u64)| (negatives - fp) as f64 / negatives as f64;
    // Times positives * negatives, so that equals are equal.
    let j = |&(_, tp, fp): &(f64, u64, u64)| {
        i128::from(tp) * i128::from(negatives) - i128::from(fp) * i128::from(positives)
    };
    let found = match rule {
        Rule::Sensitivity(wanted) => points.iter().find(|p| sensitivity(p) >= wanted),
        Rule::Specificity(wanted) => points.iter().take_while(|p| specificity(p) >= wanted).last(),
        Rule::Youden => points.iter().reduce(|best, p| if j(p) > j(best) { p } else { best }),
    };
    found.map(|r| r.0).ok_or(RuleError::NotReached)
}

/// One decision an image: 1 where the score is at least `threshold`.
#[must_use]
pub fn decide(scores: &[f64], threshold: f64) -> Vec<u32> {
    scores.iter().map(|&s| u32::from(s >= threshold)).collect()
}

/// A share with its intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The images that it is about: positives for the sensitivity, those called positive for the precision, ...
    pub of: u64,
    /// The share; `None` where there is no such image.
    pub value: Option<f64>,
    /// Wilson's 95 % interval, images taken as independent.
    pub images: Option<Interval>,
    /// Bootstrap 95 % interval over patients, where they are known.
    pub patients: Option<Interval>,
}

/// What a threshold does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Scores from here on count as positive.
    pub threshold: f64,
    /// Positive images called positive.
    pub true_positives: u64,
    /// Negative images called positive.
    pub false_positives: u64,
    /// Negative images called negative.
    pub true_negatives: u64,
    /// Positive images called negative: the ones that were missed.
    pub false_negatives: u64,
    /// Share of the positive images called positive.
    pub sensitivity: Rate,
    /// Share of the negative images called negative.
    pub specificity: Rate,
    /// Share of the images called positive that are: the positive predictive value at the share of positives found here.
    pub precision: Rate,
    /// Share of the images called negative that are.
    pub negative_predictive_value: Rate,
    /// Share of right decisions.
    pub accuracy: Rate,
}

impl OperatingPoint {
    /// Applies a threshold. With `patients` each rate has a bootstrap interval over them as well; `seed` is its seed. What
    /// is beyond the shorter of the slices is left out.
    #[must_use]
    pub fn new(positive: &[bool], scores: &[f64], threshold: f64, patients: Option<&Units>, seed: u32) -> Self {
        let cell = |i: usize| match (positive.get(i), scores.get(i)) {
            (Some(true), Some(&s)) => Some(if s >= threshold { 0 } else { 3 }),
            (Some(false), Some(&s)) => Some(if s >= threshold { 1 } else { 2 }),
            _ => None,
        };
        let count = |images: &mut dyn Iterator<Item = usize>| {
            let mut counts = [0_u64; 4];
            images.filter_map(cell).for_each(|c: usize| counts[c] += 1);
            counts
        };
        let counts = count(&mut (0..positive.len()));
        let drawn = patients.map_or_else(Vec::new, |units| {
            bootstrap_many(units, RESAMPLES, seed, |images| {
                let counts = count(&mut images.iter().map(|&i| i as usize));
                parts(counts).map(|(k, n)| (n > 0).then(|| k as f64 / n as f64)).to_vec()
            })
        });
        let rates: Vec<Rate> = parts(counts)
            .iter()
            .enumerate()
            .map(|(i, &(k, n))| Rate {
                of: n,
                value: (n > 0).then(|| k as f64 / n as f64),
                images: wilson(k, n),
                patients: drawn.get(i).copied().flatten(),
            })
            .collect();
        let [true_positives, false_positives, true_negatives, false_negatives] = counts;
        Self {
            threshold,
            true_positives,
            false_positives,
            true_negatives,
            false_negatives,
            sensitivity: rates[0],
            specificity: rates[1],
            precision: rates[2],
            negative_predictive_value: rates[3],
            accuracy: rates[4],
        }
    }

    /// The rates with their names.
    #[must_use]
    pub fn rates(&self) -> [(&'static str, Rate); 5] {
        [
            ("sensitivity", self.sensitivity),
            ("specificity", self.specificity),
            ("precision", self.precision),
            ("negative predictive value", self.negative_predictive_value),
            ("accuracy", self.accuracy),
        ]
    }
}

/// Hits and images of each rate.
fn parts([tp, fp, tn, fn_]: [u64; 4]) -> [(u64, u64); 5] {
    [(tp, tp + fn_), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn_), (tp + tn, tp + fp + tn + fn_)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITIVE: [bool; 6] = [true, true, false, true, false, false];
    const SCORES: [f64; 6] = [0.9, 0.8, 0.7, 0.6, 0.2, 0.1];

    #[test]
    fn rules_choose_as_they_say() {
        let choose = |rule| choose_threshold(&POSITIVE, &SCORES, rule);
        assert_eq!(choose(Rule::Sensitivity(0.5)), Ok(0.8));
        assert_eq!(choose(Rule::Sensitivity(1.0)), Ok(0.6));
        assert_eq!(choose(Rule::Specificity(1.0)), Ok(0.8));
        assert_eq!(choose(Rule::Specificity(0.6)), Ok(0.6));
        assert_eq!(choose(Rule::Youden), Ok(0.8));
        assert!(matches!(choose(Rule::Sensitivity(f64::NAN)), Err(RuleError::Share(_))));
        assert_eq!(choose(Rule::Specificity(1.5)), Err(RuleError::Share(1.5)));
        assert_eq!(choose_threshold(&[true], &[0.1], Rule::Youden), Err(RuleError::OneClass));
        assert_eq!(choose_threshold(&[true, false], &[0.5, 0.5], Rule::Specificity(0.9)), Err(RuleError::NotReached));
    }

    #[test]
    fn counts_and_rates() {
        let patients = Units::groups(&["a", "a", "b", "c", "d", "d"]);
        let p = OperatingPoint::new(&POSITIVE, &SCORES, 0.65, Some(&patients), 1);
        assert_eq!((p.true_positives, p.false_positives, p.true_negatives, p.false_negatives), (2, 1, 2, 1));
        assert_eq!((p.sensitivity.value, p.precision.of, p.accuracy.value), (Some(2.0 / 3.0), 3, Some(4.0 / 6.0)));
        assert_eq!(p.specificity.images, wilson(2, 3));
        assert!(p.accuracy.patients.unwrap().contains(4.0 / 6.0));
        let none = OperatingPoint::new(&[false], &[0.1], 0.5, None, 1);
        assert_eq!((none.sensitivity.value, none.sensitivity.images, none.precision.value), (None, None, None));
        assert_eq!(decide(&SCORES, 0.7), [1, 1, 1, 0, 0, 0]);
    }
}
