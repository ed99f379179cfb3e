//! Temperature scaling: one number, fitted on validation images, that makes a network less (or more) sure of itself.

use crate::metrics::{MetricsError, check};

/// How far from 1 a temperature may be, either way.
const LIMIT: f64 = 1000.0;
/// What a probability of 0 counts as: below it every `f64` is subnormal.
const LEAST: f64 = f64::MIN_POSITIVE;

/// A temperature that cannot be fitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TemperatureError {
    /// Labels or probabilities that make no sense.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The loss falls for ever as the temperature goes to 0.
    #[error(
        "no temperature is the best: every validation image is decided rightly, however sure the network is made; take \
         more validation images"
    )]
    AllRight,
    /// The loss falls for ever as the temperature grows.
    #[error(
        "no temperature is the best: on the validation images the network is no better than giving each class the same \
         probability; train it longer"
    )]
    Useless,
}

/// Probabilities at another temperature: the softmax of `logits / temperature` (Guo et al., "On Calibration of Modern Neural
/// Networks", ICML 2017), computed from the probabilities, whose logarithms are logits. Decisions and the ranking of two
/// classes do not change.
#[must_use]
pub fn apply_temperature(probabilities: &[f64], classes: usize, temperature: f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(probabilities.len());
    for row in probabilities.chunks_exact(classes.max(1)) {
        softmax_into(&mut out, row.iter().map(|&p| logit(p) / temperature));
    }
    out
}

fn logit(p: f64) -> f64 {
    p.max(LEAST).ln()
}

fn softmax_into(out: &mut Vec<f64>, logits: impl Iterator<Item = f64> + Clone) {
    let max = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let start = out.len();
    out.extend(logits.map(|z| (z - max).exp()));
    let sum: f64 = out[start..].iter().sum();
    out[start..].iter_mut().for_each(|v| *v /= sum);
}

/// The temperature with the least mean log loss on these images.
///
/// The loss is convex in `b = 1 / temperature`, with the slope `mean(sum_k p_k z_k - z_label)` and the curvature
/// `mean(var_p(z))`: Newton's method, kept inside a bracket that shrinks with every step, finds the root of the slope to the last digits.
///
/// # Errors
/// [`TemperatureError`].
pub fn fit_temperature(labels: &[u32], probabilities: &[f64], classes: usize) -> Result<f64, TemperatureError> {
    check(labels, probabilities, classes)?;
    let logits: Vec<f64> = probabilities.iter().map(|&p| logit(p)).collect();
    let slope = |b: f64| slope_and_curvature(labels, &logits, classes, b);
    let (mut low, mut high) = (1.0 / LIMIT, LIMIT);
    if slope(low).0 >= 0.0 {
        return Err(TemperatureError::Useless);
    }
    if slope(high).0 <= 0.0 {
        return Err(TemperatureError::AllRight);
    }
    let mut b = 1.0;
    for _ in 0..200 {
        let (g, h) = slope(b);
        if g == 0.0 {
            break;
        }
        if g > 0.0 {
            high = b;
        } else {
            low = b;
        }
        let newton = b - g / h;
        // The geometric middle: temperatures of 0.1 and 10 are equally far from 1.
        let next = if newton > low && newton < high { newton } else { (low * high).sqrt() };
        let done = (next - b).abs() <= 1e-15 * b;
        b = next;
        if done {
            break;
        }
    }
    Ok(1.0 / b)
}

fn slope_and_curvature(labels: &[u32], logits: &[f64], classes: usize, b: f64) -> (f64, f64) {
    let (mut g, mut h) = (0.0, 0.0);
    let mut p = Vec::with_capacity(classes);
    for (&label, z) in labels.iter().zip(logits.chunks_exact(classes)) {
        p.clear();
        softmax_into(&mut p, z.iter().map(|z| z * b));
        // Differences to the label's logit: right decisions near certainty cancel nowhere.
        let own = z[label as usize];
        let mean: f64 = p.iter().zip(z).map(|(p, z)| p * (z - own)).sum();
        g += mean;
        h += p.iter().zip(z).map(|(p, z)| p * (z - own - mean).powi(2)).sum::<f64>();
    }
    let n = labels.len() as f64;
    (g / n, h / n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{log_loss, two_columns};

    /// Four images in five are right, each given with 0.99.
    fn too_sure() -> (Vec<u32>, Vec<f64>) {
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i % 5 != 0)).collect();
        (labels, two_columns(&[0.99; 100]))
    }

    #[test]
    fn a_network_too_sure_is_cooled_to_its_accuracy() {
        let (labels, p) = too_sure();
        let t = fit_temperature(&labels, &p, 2).unwrap();
        // logit(0.99) / T = logit(0.8)
        assert!((t - 99_f64.ln() / 4_f64.ln()).abs() < 1e-12, "{t}");
        let cooled = apply_temperature(&p, 2, t);
        assert!((cooled[1] - 0.8).abs() < 1e-12 && (cooled[0] - 0.2).abs() < 1e-12);
        assert!(log_loss(&labels, &cooled, 2).unwrap() < log_loss(&labels, &p, 2).unwrap());
        assert!((fit_temperature(&labels, &cooled, 2).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn sure_rows_stay_probabilities() {
        let hot = apply_temperature(&[0.0, 1.0, 1e-320, 1.0], 2, 3.0);
        assert!(hot.iter().all(|p| (0.0..=1.0).contains(p)) && hot[0] > 0.0, "{hot:?}");
        let same = apply_temperature(&[0.25, 0.75], 2, 1.0);
        assert!((same[0] - 0.25).abs() < 1e-15 && (same[1] - 0.75).abs() < 1e-15, "{same:?}");
    }

    #[test]
    fn no_minimum_is_said() {
        let p = two_columns(&[0.2, 0.9]);
        assert_eq!(fit_temperature(&[0, 1], &p, 2), Err(TemperatureError::AllRight));
        assert_eq!(fit_temperature(&[1, 0], &p, 2), Err(TemperatureError::Useless));
        assert!(matches!(fit_temperature(&[], &[], 2), Err(TemperatureError::Metrics(MetricsError::Empty))));
    }
}
