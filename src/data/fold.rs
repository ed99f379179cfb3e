//! Patient-wise cross-validation: the training images in `k` folds, each the test set once.
//!
//! With [`Fold`] in the options, [`super::load`] reads the training images alone. The fold becomes `test`, a share of the
//! patients of the other folds becomes `val` (the weights are chosen on it, so they are never chosen on the fold that is
//! measured), and the rest is `train`. The test images of the source are not read: they stay unseen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::patient::TooFew;
use crate::rng::{Rng, Stream};

/// Kept apart from the draws of [`super::patient::hold_out`], which has one step a class.
const STEP: u32 = 0x8000_0000;

/// One fold of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    /// Which one, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Fold {
    /// What is wrong with it, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match (self.index, self.of) {
            (_, of) if !(2..=1000).contains(&of) => Some(format!("of = {of}: there must be 2 to 1000 folds")),
            (index, of) if index >= of => Some(format!("index = {index}: {of} folds are numbered 0 to {}", of - 1)),
            _ => None,
        }
    }
}

/// Gives every image its fold, `0..of`: whole patients, and of each class nearly equally many images in every fold.
///
/// Class by class, patients are taken from the one with most images to those with fewest, equal ones in random order, and
/// each goes to the fold that has fewest images of the class so far (of equals the one with fewest images in all). A
/// patient with images of several classes counts with the class of most of them. The result depends on the set of
/// patients and on `seed`, not on the order of the images.
///
/// # Errors
/// [`TooFew`] for a class that would be missing in a fold, or outside it.
pub fn folds(labels: &[u32], patients: &[String], classes: usize, of: u32, seed: u32) -> Result<Vec<u32>, TooFew> {
    let of = of.max(1) as usize;
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (&label, patient) in labels.iter().zip(patients) {
        counts.entry(patient).or_insert_with(|| vec![0; classes])[label as usize] += 1;
    }
    let mut by_class: Vec<Vec<(&str, &Vec<usize>)>> = vec![Vec::new(); classes];
    for (patient, n) in &counts {
        let most = n.iter().copied().max().unwrap_or(0);
        by_class[n.iter().position(|&k| k == most).unwrap_or(0)].push((patient, n));
    }
    let mut chosen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut held = vec![vec![0_usize; classes]; of];
    for (class, group) in by_class.iter_mut().enumerate() {
        Rng::new(seed, STEP | class as u32, Stream::Split as u32).shuffle(group);
        group.sort_by_key(|(_, n)| std::cmp::Reverse(n.iter().sum::<usize>()));
        for &(patient, n) in group.iter() {
            let least = (0..of).min_by_key(|&f| (held[f][class], held[f].iter().sum::<usize>(), f)).unwrap_or(0);
            chosen.insert(patient, least as u32);
            held[least].iter_mut().zip(n).for_each(|(h, n)| *h += n);
        }
    }
    for class in 0..classes {
        let all: usize = held.iter().map(|h| h[class]).sum();
        if held.iter().any(|h| h[class] == 0 || h[class] == all) {
            let patients = counts.values().filter(|n| n[class] > 0).count();
            return Err(TooFew { class, images: all, patients });
        }
    }
    Ok(patients.iter().map(|p| chosen.get(p.as_str()).copied().unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `(labels, patients)`: 150 patients of class 0 with 1 to 7 films, 40 of class 1, and some with films of both.
    fn images() -> (Vec<u32>, Vec<String>) {
        let (mut labels, mut patients) = (Vec::new(), Vec::new());
        for p in 0..190_u32 {
            for film in 0..=p % 7 {
                labels.push(u32::from(p >= 150) ^ u32::from(p % 31 == 6 && film == 0));
                patients.push(format!("p{p}"));
            }
        }
        (labels, patients)
    }

    #[test]
    fn folds_part_the_patients_and_keep_the_shares() {
        let (labels, patients) = images();
        for (of, seed) in [(2, 0), (5, 0), (5, 1), (10, 3)] {
            let fold = folds(&labels, &patients, 2, of, seed).unwrap();
            let mut seen = BTreeSet::new();
            for f in 0..of {
                let of_fold: BTreeSet<&String> =
                    (0..fold.len()).filter(|&i| fold[i] == f).map(|i| &patients[i]).collect();
                assert!(of_fold.iter().all(|p| seen.insert((*p).clone())), "a patient is in two folds");
                for class in 0..2 {
                    let all = labels.iter().filter(|&&l| l == class).count() as f64;
                    let here = (0..fold.len()).filter(|&i| fold[i] == f && labels[i] == class).count() as f64;
                    let share = here / all * f64::from(of);
                    assert!((share - 1.0).abs() < 0.25, "fold {f} of {of}, class {class}: {share} of its part");
                }
            }
            assert_eq!(seen.len(), 190, "every patient is in a fold");
        }
    }

    #[test]
    fn the_order_of_the_images_changes_nothing_and_the_seed_does() {
        let (labels, patients) = images();
        let fold = folds(&labels, &patients, 2, 5, 7).unwrap();
        let reversed = |v: &[u32]| v.iter().rev().copied().collect::<Vec<_>>();
        let names: Vec<String> = patients.iter().rev().cloned().collect();
        assert_eq!(folds(&reversed(&labels), &names, 2, 5, 7).unwrap(), reversed(&fold));
        assert_ne!(folds(&labels, &patients, 2, 5, 8).unwrap(), fold);
    }

    #[test]
    fn too_few_patients_are_said() {
        let patients: Vec<String> = ["a", "a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let few = folds(&[0, 0, 0, 1, 1, 1], &patients, 2, 3, 0);
        assert_eq!(few, Err(TooFew { class: 0, images: 3, patients: 2 }));
        assert!(folds(&[0, 0, 0, 1, 1, 1], &patients, 2, 2, 0).is_ok());
    }

    #[test]
    fn bad_folds_are_named() {
        for (index, of, part) in [(0, 1, "2 to 1000"), (5, 5, "0 to 4"), (0, 0, "2 to 1000")] {
            assert!(Fold { index, of }.problem().unwrap().contains(part));
        }
        assert_eq!(Fold { index: 4, of: 5 }.problem(), None);
    }
}
