//! How the numbers of a tensor are spread.

use serde::Serialize;

use super::encode::range;

/// Bars of a histogram.
pub const BINS: usize = 32;

/// Numbers of a tensor in bins of equal width. Zeros are counted apart, because ReLU makes so many.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// How many numbers there are.
    pub count: usize,
    /// How many of them are exactly 0.
    pub zeros: usize,
    /// The smallest.
    pub low: f32,
    /// The largest.
    pub high: f32,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (divided by the count).
    pub std: f64,
    /// Root of the sum of their squares.
    pub norm: f64,
    /// How many of those that are not 0 lie in each bin from `low` to `high`; empty without any.
    pub bins: Vec<usize>,
}

impl Histogram {
    /// Of these numbers.
    #[must_use]
    pub fn of(values: &[f32]) -> Self {
        let (low, high) = range(values);
        let zeros = values.iter().filter(|&&v| v == 0.0).count();
        let n = values.len().max(1) as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let square = |about: f64| values.iter().map(|&v| (f64::from(v) - about).powi(2)).sum::<f64>();
        let mut bins = vec![0; if zeros < values.len() { BINS } else { 0 }];
        let width = (f64::from(high) - f64::from(low)) / BINS as f64;
        for &v in values.iter().filter(|&&v| v != 0.0) {
            let bin = if width > 0.0 { ((f64::from(v) - f64::from(low)) / width) as usize } else { 0 };
            bins[bin.min(BINS - 1)] += 1;
        }
        Self {
            count: values.len(),
            zeros,
            low,
            high,
            mean,
            std: (square(mean) / n).sqrt(),
            norm: square(0.0).sqrt(),
            bins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_counted_once() {
        let values: Vec<f32> = (0..1000).map(|i| if i % 3 == 0 { 0.0 } else { (i as f32).sin() }).collect();
        let h = Histogram::of(&values);
        assert_eq!(h.zeros + h.bins.iter().sum::<usize>(), h.count);
        assert_eq!((h.count, h.zeros), (1000, 334));
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / 1000.0;
        assert!((h.mean - mean).abs() < 1e-12 && h.low < -0.99 && h.high > 0.99);
        assert!((h.norm * h.norm / 1000.0 - (h.std * h.std + h.mean * h.mean)).abs() < 1e-9);
    }

    #[test]
    fn few_numbers_are_no_trouble() {
        assert_eq!(Histogram::of(&[]), Histogram::default());
        assert_eq!(Histogram::of(&[0.0; 3]).bins, Vec::<usize>::new());
        assert_eq!(Histogram::of(&[2.0; 3]).bins[0], 3);
    }
}
