//! The order in which an epoch visits the images, and how often each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, Stream};

/// Which images an epoch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Each image once.
    #[default]
    Shuffle,
    /// As many images as with `shuffle`, every class equally often: images of a rare class are repeated, and of a frequent
    /// one another part has its turn each epoch (all images in a random order, and then all again in another).
    Balanced,
    /// Each image once, and then images of each class but the largest again, until all classes have as many.
    Oversample,
}

impl Sampler {
    /// Its name in a config file and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shuffle => "shuffle",
            Self::Balanced => "balanced",
            Self::Oversample => "oversample",
        }
    }

    /// How many images of each class an epoch has, of as many as there are. A class without images stays without.
    #[must_use]
    pub fn counts(self, counts: &[usize]) -> Vec<usize> {
        let present = counts.iter().filter(|&&n| n > 0).count().max(1);
        let each = match self {
            Self::Shuffle => return counts.to_vec(),
            Self::Balanced => counts.iter().sum::<usize>() / present,
            Self::Oversample => counts.iter().copied().max().unwrap_or(0),
        };
        counts.iter().map(|&n| if n > 0 { each } else { 0 }).collect()
    }

    /// The images of an epoch (from 1), in order: a function of labels, seed and number of the epoch alone.
    ///
    /// Repeats go through a class image by image, in a new order each time it has been gone through, and an epoch goes on where
    /// the one before it ended: so each image of a class is repeated as often as any other, give or take one.
    #[must_use]
    pub fn epoch(self, labels: &[u32], classes: usize, seed: u32, epoch: u32) -> EpochOrder {
        if self == Self::Shuffle {
            let images = epoch_order(labels.len(), seed, epoch);
            return EpochOrder { repeats: vec![false; images.len()], images };
        }
        let mut members = vec![Vec::new(); classes];
        for (i, &label) in (0_u32..).zip(labels) {
            if let Some(class) = members.get_mut(label as usize) {
                class.push(i);
            }
        }
        let counts: Vec<usize> = members.iter().map(Vec::len).collect();
        let mut chosen = Vec::new();
        for (class, (members, wanted)) in members.iter().zip(self.counts(&counts)).enumerate() {
            let whole = if wanted >= members.len() { members.len() } else { 0 };
            chosen.extend(members[..whole].iter().map(|&i| (i, false)));
            let more = wanted - whole;
            let first = u64::from(epoch.saturating_sub(1)) * more as u64;
            chosen.extend(turns(members, seed, class as u32, first, more).into_iter().map(|i| (i, whole > 0)));
        }
        Rng::new(seed, epoch, Stream::Shuffle as u32).shuffle(&mut chosen);
        let (images, repeats) = chosen.into_iter().unzip();
        EpochOrder { images, repeats }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sampler {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Shuffle, Self::Balanced, Self::Oversample]
            .into_iter()
            .find(|sampler| sampler.name() == s)
            .ok_or_else(|| "give shuffle, balanced or oversample".to_owned())
    }
}

/// What an epoch visits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    /// The images, by number.
    pub images: Vec<u32>,
    /// Whether the epoch has the image at this place in addition to once as it is.
    pub repeats: Vec<bool>,
}

/// Places `first..first + n` of an endless sequence that goes through `members` again and again, each time in an order of its
/// own.
fn turns(members: &[u32], seed: u32, class: u32, first: u64, n: usize) -> Vec<u32> {
    let len = members.len() as u64;
    if len == 0 {
        return Vec::new();
    }
    let mut order: (u64, Vec<u32>) = (u64::MAX, Vec::new());
    (first..first + n as u64)
        .map(|place| {
            let round = place / len;
            if order.0 != round {
                order = (round, members.to_vec());
                Rng::new(seed, round as u32, Stream::Balance as u32 + class).shuffle(&mut order.1);
            }
            order.1[(place % len) as usize]
        })
        .collect()
}

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

    /// 8 images of class 0, 19 of class 1, 3 of class 2, mixed.
    fn labels() -> Vec<u32> {
        (0..30).map(|i| if i % 10 == 4 { 2 } else { u32::from(i % 4 != 1) }).collect()
    }

    fn counts(labels: &[u32], images: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; 3];
        images.iter().for_each(|&i| counts[labels[i as usize] as usize] += 1);
        counts
    }

    #[test]
    fn shuffling_is_the_order_of_the_epoch() {
        let order = Sampler::Shuffle.epoch(&labels(), 3, 5, 2);
        assert_eq!(order.images, epoch_order(30, 5, 2));
        assert!(order.repeats.iter().all(|r| !r));
        assert_eq!(Sampler::Shuffle.counts(&[7, 20, 3]), [7, 20, 3]);
    }

    #[test]
    fn classes_are_drawn_equally_often() {
        let labels = labels();
        let there = counts(&labels, &(0..30).collect::<Vec<_>>());
        assert_eq!(there, [8, 19, 3]);
        for (sampler, each) in [(Sampler::Balanced, 10), (Sampler::Oversample, 19)] {
            assert_eq!(sampler.counts(&there), [each; 3]);
            let mut times = vec![0_usize; 30];
            for epoch in 1..=40 {
                let order = sampler.epoch(&labels, 3, 1, epoch);
                assert_eq!(counts(&labels, &order.images), [each; 3], "{sampler} epoch {epoch}");
                assert_eq!(order, sampler.epoch(&labels, 3, 1, epoch));
                assert_ne!(order, sampler.epoch(&labels, 3, 1, epoch + 1));
                assert_ne!(order, sampler.epoch(&labels, 3, 2, epoch));
                // Each image of a class with repeats comes once as it is. Of a class that has turns no image comes again before all
                // others have come, so at most twice where a turn ends within the epoch.
                let mut first = vec![0; 30];
                for (&i, &repeat) in order.images.iter().zip(&order.repeats) {
                    times[i as usize] += 1;
                    first[i as usize] += usize::from(!repeat);
                }
                for (i, &label) in labels.iter().enumerate() {
                    let once = there[label as usize] <= each;
                    assert!(if once { first[i] == 1 } else { first[i] <= 2 }, "{sampler}: {first:?}");
                }
            }
            // Over the epochs, no image of a class comes more often than another, give or take one.
            for class in 0..3 {
                let of: Vec<usize> = (0..30).filter(|&i| labels[i] == class).map(|i| times[i]).collect();
                let (least, most) = (of.iter().min().unwrap(), of.iter().max().unwrap());
                assert!(most - least <= 1, "{sampler}, class {class}: {of:?}");
                assert_eq!(of.iter().sum::<usize>(), 40 * each);
            }
        }
    }

    #[test]
    fn classes_without_images_stay_without() {
        assert_eq!(Sampler::Balanced.counts(&[0, 5, 9]), [0, 7, 7]);
        assert_eq!(Sampler::Oversample.counts(&[4, 0]), [4, 0]);
        assert!(Sampler::Oversample.epoch(&[], 2, 1, 1).images.is_empty());
        assert_eq!(Sampler::Oversample.epoch(&[1, 1], 3, 1, 1).images.len(), 2);
        assert_eq!("balanced".parse(), Ok(Sampler::Balanced));
        assert!("even".parse::<Sampler>().unwrap_err().contains("oversample"));
    }
}
