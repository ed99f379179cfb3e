//! The order in which an epoch visits the images.

use crate::rng::{Rng, Stream};

/// A permutation of `0..n` that depends on `seed` and `epoch` alone, so that a run that is resumed at any
/// epoch sees the very order it would have seen without the break.
#[must_use]
pub fn epoch_order(n: usize, seed: u32, epoch: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(n).unwrap_or(u32::MAX)).collect();
    Rng::new(seed, epoch, Stream::Shuffle as u32).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_its_own_permutation() {
        let sorted: Vec<u32> = (0..257).collect();
        let (a, b) = (epoch_order(257, 5, 0), epoch_order(257, 5, 1));
        assert_ne!(a, b);
        assert_ne!(a, epoch_order(257, 6, 0));
        assert_eq!(a, epoch_order(257, 5, 0));
        for mut order in [a, b] {
            order.sort_unstable();
            assert_eq!(order, sorted);
        }
        assert!(epoch_order(0, 1, 1).is_empty());
    }

    #[test]
    fn places_are_even() {
        // Where image 0 lands over many epochs: mean (n-1)/2, standard error sqrt((n^2-1)/12/epochs).
        let (n, epochs) = (50_usize, 2000_u32);
        let sum: usize = (0..epochs).map(|e| epoch_order(n, 9, e).iter().position(|&i| i == 0).unwrap()).sum();
        let mean = sum as f64 / f64::from(epochs);
        let error = ((n * n - 1) as f64 / 12.0 / f64::from(epochs)).sqrt();
        assert!((mean - 24.5).abs() < 4.0 * error, "{mean}");
    }
}
