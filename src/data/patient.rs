//! Which patient a file belongs to, and the split of `train` by patient.

use std::collections::BTreeMap;

use crate::rng::{Rng, Stream};

/// The patient that a file name tells of, or `None` where it follows no known rule (such a file is its own patient).
///
/// | file name | patient |
/// |---|---|
/// | `person123_bacteria_4.jpeg` | `person123` |
/// | `IM-0115-0001.jpeg`, `IM-0115-0001-0002.jpeg` | `IM-0115` |
/// | `NORMAL2-IM-1427-0001.jpeg` | `NORMAL2-IM-1427` |
#[must_use]
pub fn patient_of(file_name: &str) -> Option<&str> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    if let Some(rest) = file_name.strip_prefix("person") {
        let n = digits(rest);
        return (n > 0 && rest[n..].starts_with('_')).then(|| &file_name[..6 + n]);
    }
    let mut at = 0;
    if let Some(rest) = file_name.strip_prefix("NORMAL") {
        let n = digits(rest);
        if !rest[n..].starts_with('-') {
            return None;
        }
        at = 6 + n + 1;
    }
    let n = digits(file_name[at..].strip_prefix("IM-")?);
    let end = at + 3 + n;
    let image = file_name[end..].strip_prefix('-')?;
    (n > 0 && digits(image) > 0).then(|| &file_name[..end])
}

/// A class that cannot stand on both sides.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFew {
    /// Number of the class.
    pub class: usize,
    /// Its images.
    pub images: usize,
    /// Its patients.
    pub patients: usize,
}

/// Chooses the images held out for validation: whole patients, class by class, as near to `fraction` of the class's
/// images as whole patients allow, and at least one patient on each side.
///
/// A patient with images of several classes counts with the class of most of them. The choice depends on the set of
/// patients and on `seed`, not on the order of the images.
///
/// Returns one flag an image, true for validation.
///
/// # Errors
/// [`TooFew`] where a class would be missing on one side.
pub fn hold_out(
    labels: &[u32],
    patients: &[String],
    classes: usize,
    fraction: f64,
    seed: u32,
) -> Result<Vec<bool>, TooFew> {
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (&label, patient) in labels.iter().zip(patients) {
        counts.entry(patient).or_insert_with(|| vec![0; classes])[label as usize] += 1;
    }
    let mut by_class: Vec<Vec<(&str, usize)>> = vec![Vec::new(); classes];
    for (patient, n) in &counts {
        let most = n.iter().copied().max().unwrap_or(0);
        let class = n.iter().position(|&k| k == most).unwrap_or(0);
        by_class[class].push((patient, n.iter().sum()));
    }
    let mut held: BTreeMap<&str, ()> = BTreeMap::new();
    for (class, group) in by_class.iter_mut().enumerate() {
        let total: usize = group.iter().map(|p| p.1).sum();
        let target = ((fraction * total as f64).round() as usize).max(1);
        Rng::new(seed, class as u32, Stream::Split as u32).shuffle(group);
        let (mut taken, mut left) = (0_usize, group.len());
        for &(patient, size) in group.iter() {
            let nearer = (taken + size).abs_diff(target) < taken.abs_diff(target);
            if left > 1 && nearer {
                held.insert(patient, ());
                taken += size;
                left -= 1;
            }
        }
        // Every patient is so large that holding it out misses the target by more than holding out none: the smallest.
        if taken == 0
            && group.len() > 1
            && let Some(&(patient, _)) = group.iter().min_by_key(|p| p.1)
        {
            held.insert(patient, ());
        }
    }
    let flags: Vec<bool> = patients.iter().map(|p| held.contains_key(p.as_str())).collect();
    for class in 0..classes {
        let of_class = || labels.iter().zip(&flags).filter(|(l, _)| **l as usize == class);
        let (val, all) = (of_class().filter(|(_, f)| **f).count(), of_class().count());
        if val == 0 || val == all {
            let patients = counts.values().filter(|n| n[class] > 0).count();
            return Err(TooFew { class, images: all, patients });
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_patients() {
        for (name, patient) in [
            ("person123_bacteria_4.jpeg", Some("person123")),
            ("person1_virus_6.jpeg", Some("person1")),
            ("IM-0115-0001.jpeg", Some("IM-0115")),
            ("IM-0640-0001-0002.jpeg", Some("IM-0640")),
            ("NORMAL2-IM-1427-0001.jpeg", Some("NORMAL2-IM-1427")),
            ("COVID-1004.jpeg", None),
            ("person_1.jpeg", None),
            ("person12.jpeg", None),
            ("personne_3.png", None),
            ("IM-0115.jpeg", None),
            ("IM--1.jpeg", None),
            ("NORMALIM-1-1.png", None),
            ("IM-é-1.png", None),
            ("", None),
        ] {
            assert_eq!(patient_of(name), patient, "{name}");
        }
    }

    fn patients(sizes: &[usize], class: u32, labels: &mut Vec<u32>, names: &mut Vec<String>) {
        for (p, &n) in sizes.iter().enumerate() {
            for _ in 0..n {
                labels.push(class);
                names.push(format!("c{class}p{p}"));
            }
        }
    }

    #[test]
    fn whole_patients_near_the_fraction_in_every_class() {
        let (mut labels, mut names) = (vec![], vec![]);
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i % 7).collect();
        patients(&sizes, 0, &mut labels, &mut names);
        patients(&sizes[..40], 1, &mut labels, &mut names);
        for seed in 0..20 {
            let held = hold_out(&labels, &names, 2, 0.15, seed).unwrap();
            for class in 0..2 {
                let of = |f: bool| (0..labels.len()).filter(|&i| labels[i] == class && held[i] == f).count() as f64;
                let share = of(true) / (of(true) + of(false));
                assert!((share - 0.15).abs() < 0.02, "class {class}: {share}");
            }
            for i in 0..names.len() {
                for j in 0..i {
                    assert!(names[i] != names[j] || held[i] == held[j]);
                }
            }
        }
        let first = hold_out(&labels, &names, 2, 0.15, 1).unwrap();
        assert_eq!(first, hold_out(&labels, &names, 2, 0.15, 1).unwrap());
        assert_ne!(first, hold_out(&labels, &names, 2, 0.15, 2).unwrap());
    }

    #[test]
    fn the_order_of_the_images_does_not_matter() {
        let (mut labels, mut names) = (vec![], vec![]);
        patients(&[3, 1, 2, 5, 1], 0, &mut labels, &mut names);
        patients(&[1, 4, 2], 1, &mut labels, &mut names);
        let held = hold_out(&labels, &names, 2, 0.3, 4).unwrap();
        labels.reverse();
        names.reverse();
        let mut again = hold_out(&labels, &names, 2, 0.3, 4).unwrap();
        again.reverse();
        assert_eq!(held, again);
    }

    #[test]
    fn too_few_patients_are_an_error_and_two_are_enough() {
        let (mut labels, mut names) = (vec![], vec![]);
        patients(&[50, 60], 0, &mut labels, &mut names);
        patients(&[9], 1, &mut labels, &mut names);
        assert_eq!(hold_out(&labels, &names, 2, 0.15, 0), Err(TooFew { class: 1, images: 9, patients: 1 }));
        names[110] = "other".into();
        let held = hold_out(&labels, &names, 2, 0.15, 0).unwrap();
        assert_eq!(held.iter().filter(|f| **f).count(), 50 + 1);
        // One patient with images of both classes and nobody else.
        let one = vec!["p".to_owned(); 2];
        assert_eq!(hold_out(&[0, 1], &one, 2, 0.15, 0), Err(TooFew { class: 0, images: 1, patients: 1 }));
    }
}
