//! What is made of predictions once they are there: the mean of several networks, operating points, temperatures.

use serde::Serialize;

use super::TrainError;
use super::predictions::SplitPredictions;
use crate::metrics::{argmax, log_loss};
use crate::report::data::{Calibrated, Choice, Scaled, SplitResult, Threshold};
use crate::stats::{
    Binning, OperatingPoint, Reliability, Rule, TemperatureError, apply_temperature, calibration_pairs,
    choose_threshold, fit_temperature, reliability,
};

/// The sensitivity that a report chooses a threshold for.
pub const WANTED: f64 = 0.95;
/// Bins of the reliability tables.
pub const BINS: usize = 10;

/// The mean of the probabilities of several networks on the same images.
///
/// # Errors
/// [`TrainError::Setting`] where the images differ, or there is no network.
pub fn mean_of(members: Vec<SplitPredictions>) -> Result<SplitPredictions, TrainError> {
    let count = members.len() as f64;
    let mut members = members.into_iter();
    let mut mean = members.next().ok_or_else(|| TrainError::setting("run", "no network is named"))?;
    for member in members {
        if let Some(what) = mean.differs(&member) {
            let problem = format!("the runs speak of other {} images ({what}); their mean means nothing", mean.split);
            return Err(TrainError::setting("run", problem));
        }
        mean.probabilities.iter_mut().zip(&member.probabilities).for_each(|(m, p)| *m += p);
    }
    mean.probabilities.iter_mut().for_each(|p| *p /= count);
    Ok(mean)
}

/// A threshold chosen on validation images, and what it does there and on the images measured.
#[derive(Clone, Debug, Serialize)]
pub struct Operating {
    /// What was asked for.
    pub rule: Rule,
    /// On the validation images, on which it was chosen.
    pub validation: OperatingPoint,
    /// On the images measured.
    pub measured: OperatingPoint,
}

/// Chooses a threshold on `validation` and applies it to `measured`; two classes.
///
/// # Errors
/// [`TrainError::Rule`], or [`TrainError::Setting`] for other than two classes.
pub fn operate(
    validation: &SplitPredictions,
    measured: &SplitPredictions,
    classes: usize,
    rule: Rule,
    seed: u32,
) -> Result<Operating, TrainError> {
    if classes != 2 {
        return Err(TrainError::setting("sensitivity", format!("a threshold needs two classes, not {classes}")));
    }
    let threshold = choose_threshold(&validation.positive(), &validation.column(1, classes), rule)?;
    let point = |s: &SplitPredictions| {
        OperatingPoint::new(&s.positive(), &s.column(1, classes), threshold, s.units().as_ref(), seed)
    };
    Ok(Operating { rule, validation: point(validation), measured: point(measured) })
}

/// How well probabilities are calibrated.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// Mean of `-ln p(true class)`.
    pub log_loss: f64,
    /// Ten bins of equal width.
    pub equal_width: Reliability,
    /// Ten bins of equally many images.
    pub equal_mass: Reliability,
}

/// The calibration of a set.
///
/// # Errors
/// Probabilities that make no sense.
pub fn calibration(set: &SplitPredictions, classes: usize) -> Result<Calibration, TrainError> {
    let log_loss = log_loss(&set.labels, &set.probabilities, classes)?;
    let (confidence, so) = calibration_pairs(&set.labels, &set.probabilities, classes);
    let table = |binning| {
        reliability(&confidence, &so, BINS, binning).ok_or_else(|| TrainError::setting("split", "holds no image"))
    };
    Ok(Calibration { log_loss, equal_width: table(Binning::EqualWidth)?, equal_mass: table(Binning::EqualMass)? })
}

/// A temperature fitted on validation images, and what it does there and on the images measured.
#[derive(Clone, Debug, Serialize)]
pub struct Temperature {
    /// Logits are divided by it.
    pub temperature: f64,
    /// The validation images, on which it was fitted, as they were.
    pub validation_before: Calibration,
    /// The validation images after.
    pub validation_after: Calibration,
    /// The images measured as they were.
    pub measured_before: Calibration,
    /// The images measured after.
    pub measured_after: Calibration,
}

/// Fits a temperature on `validation`, and applies it to both sets, the probabilities of which it replaces.
///
/// # Errors
/// [`TrainError::Temperature`].
pub fn scale(
    validation: &mut SplitPredictions,
    measured: &mut SplitPredictions,
    classes: usize,
) -> Result<Temperature, TrainError> {
    let temperature = fit_temperature(&validation.labels, &validation.probabilities, classes)?;
    let (validation_before, measured_before) = (calibration(validation, classes)?, calibration(measured, classes)?);
    for set in [&mut *validation, &mut *measured] {
        set.probabilities = apply_temperature(&set.probabilities, classes, temperature);
    }
    Ok(Temperature {
        temperature,
        validation_before,
        validation_after: calibration(validation, classes)?,
        measured_before,
        measured_after: calibration(measured, classes)?,
    })
}

/// Puts what thresholds do on `measured`, and its calibration, into its result. Thresholds and the temperature are those of
/// `validation`; where there can be none, the calibration says why.
///
/// # Errors
/// Probabilities that make no sense.
pub fn assess(
    result: &mut SplitResult,
    validation: &SplitPredictions,
    measured: &SplitPredictions,
    classes: usize,
    seed: u32,
) -> Result<(), TrainError> {
    if classes == 2 {
        let rule = Rule::Sensitivity(WANTED);
        let (positive, scores) = (measured.positive(), measured.column(1, classes));
        // Without positive validation images no threshold can be chosen, and the default one stands alone.
        let chosen = choose_threshold(&validation.positive(), &validation.column(1, classes), rule).ok();
        let choices = [Some((Choice::Default, 0.5)), chosen.map(|t| (Choice::Validation(rule), t))];
        let units = measured.units();
        let threshold = |(choice, threshold)| Threshold {
            choice,
            point: OperatingPoint::new(&positive, &scores, threshold, units.as_ref(), seed),
        };
        result.thresholds = choices.into_iter().flatten().map(threshold).collect();
    }
    let before = calibration(measured, classes)?;
    let scaled = match fit_temperature(&validation.labels, &validation.probabilities, classes) {
        Err(TemperatureError::Metrics(e)) => return Err(e.into()),
        Err(e) => Err(e.to_string()),
        Ok(temperature) => {
            let probabilities = apply_temperature(&measured.probabilities, classes, temperature);
            let after = calibration(&SplitPredictions { probabilities, ..measured.clone() }, classes)?;
            Ok(Scaled { temperature, after: after.equal_width, log_loss: after.log_loss })
        }
    };
    result.calibration = Some(Calibrated { before: before.equal_width, log_loss: before.log_loss, scaled });
    Ok(())
}

/// Whether each image is decided rightly, by the largest probability.
#[must_use]
pub fn right(set: &SplitPredictions, classes: usize) -> Vec<bool> {
    set.probabilities.chunks_exact(classes.max(1)).zip(&set.labels).map(|(row, &l)| argmax(row) == l).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(split: &str, positive: &[f64]) -> SplitPredictions {
        let n = positive.len();
        SplitPredictions {
            split: split.to_owned(),
            images: (0..n).map(|i| i.to_string()).collect(),
            patients: (0..n).map(|i| (i / 2).to_string()).collect(),
            labels: (0..n).map(|i| u32::from(i % 3 != 0)).collect(),
            probabilities: crate::metrics::two_columns(positive),
        }
    }

    #[test]
    fn means_are_of_the_same_images() {
        let mean = mean_of(vec![set("test", &[0.5, 1.0]), set("test", &[0.25, 0.5])]).unwrap();
        assert_eq!(mean.column(1, 2), [0.375, 0.75]);
        let error = mean_of(vec![set("test", &[0.5, 1.0]), set("test", &[0.25])]).unwrap_err().to_string();
        assert!(error.contains("2 images against 1"), "{error}");
        assert!(mean_of(Vec::new()).is_err());
    }

    #[test]
    fn a_threshold_of_validation_is_applied_elsewhere() {
        let (val, test) = (set("val", &[0.4, 0.9, 0.3, 0.1, 0.8, 0.7]), set("test", &[0.2, 0.25, 0.9, 0.95, 0.6, 0.1]));
        let o = operate(&val, &test, 2, Rule::Sensitivity(1.0), 0).unwrap();
        assert_eq!((o.validation.threshold, o.validation.sensitivity.value), (0.3, Some(1.0)));
        assert_eq!((o.measured.true_positives, o.measured.false_negatives, o.measured.false_positives), (2, 2, 1));
        assert!(operate(&val, &test, 3, Rule::Youden, 0).is_err());
    }

    #[test]
    fn a_report_gets_what_the_statistics_say() {
        let val = set("val", &[0.4, 0.9, 0.3, 0.1, 0.8, 0.7, 0.2, 0.6]);
        let test = set("test", &[0.2, 0.25, 0.9, 0.95, 0.6, 0.1]);
        let mut result = SplitResult::new("test", &test.labels, &test.probabilities, 2, 0).unwrap();
        assess(&mut result, &val, &test, 2, 0).unwrap();
        let operated = operate(&val, &test, 2, Rule::Sensitivity(WANTED), 0).unwrap();
        assert_eq!(result.thresholds[1].point, operated.measured);
        assert_eq!((result.thresholds[0].point.threshold, result.thresholds[0].choice), (0.5, Choice::Default));
        let (mut v, mut t) = (val.clone(), test.clone());
        let scaled = scale(&mut v, &mut t, 2).unwrap();
        let c = result.calibration.unwrap();
        assert_eq!((c.before, c.log_loss), (scaled.measured_before.equal_width, scaled.measured_before.log_loss));
        let s = c.scaled.unwrap();
        assert_eq!((s.temperature, s.after), (scaled.temperature, scaled.measured_after.equal_width));
        // Validation images that are all right leave no best temperature, which is said and is no error.
        let sure = set("val", &[0.1, 0.9, 0.9]);
        let mut result = SplitResult::new("test", &test.labels, &test.probabilities, 2, 0).unwrap();
        assess(&mut result, &sure, &test, 2, 0).unwrap();
        assert!(result.calibration.unwrap().scaled.unwrap_err().contains("every validation image"));
    }

    #[test]
    fn scaling_lowers_the_loss_where_it_was_fitted() {
        let sure: Vec<f64> = (0..30).map(|i| if i % 7 == 0 { 0.001 } else { 0.999 }).collect();
        let (mut val, mut test) = (set("val", &sure), set("test", &sure));
        let t = scale(&mut val, &mut test, 2).unwrap();
        assert!(t.temperature > 1.0 && t.validation_after.log_loss < t.validation_before.log_loss);
        assert_eq!(t.measured_after.log_loss, log_loss(&test.labels, &test.probabilities, 2).unwrap());
        assert_eq!(right(&val, 2), right(&set("val", &sure), 2), "decisions stay");
    }
}
