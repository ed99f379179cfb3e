//! The built-in set: synthetic images that look like chest radiographs, made from a seed.
//!
//! Nothing here says anything about patients. It exists so that the engine, the studies and the tests have images
//! wherever they run, and so that explanations can be checked: the place of every opacity is known.
//!
//! Class 0, `NORMAL`: a thorax with ribs, vessels, heart, spine, diaphragm. Class 1, `PNEUMONIA`: the same with one to
//! three soft opacities in the lungs. What would give the class away cheaply varies in both classes alike: exposure,
//! contrast, position, haze, the size of the heart, round nodules, rib crossings, wires.

mod anatomy;
mod draw;
mod write;

use std::path::Path;

use rayon::prelude::*;

use super::error::DataError;
use super::folder::Counter;
use super::images::Images;
use super::{Dataset, LoadOptions, Need, Stage, check_bytes, check_classes};
use crate::rng::{Stream, bits};

pub use draw::{Opacity, draw};
pub use write::{Written, write_folder};

/// The names of the classes, by label.
pub const CLASSES: [&str; 2] = ["NORMAL", "PNEUMONIA"];

/// How many images each split of the phantom set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhantomSizes {
    /// Images to fit.
    pub train: usize,
    /// Images to choose models on, of other patients.
    pub val: usize,
    /// Test images, of other patients again.
    pub test: usize,
}

impl Default for PhantomSizes {
    fn default() -> Self {
        Self { train: 1200, val: 200, test: 300 }
    }
}

impl PhantomSizes {
    /// Divides a number of images in the proportion of the default sizes, at least two a split.
    #[must_use]
    pub fn of_total(images: usize) -> Self {
        let share = |part: usize| ((images as u128 * part as u128 / 1700) as usize).max(2);
        let (val, test) = (share(200), share(300));
        Self { train: images.saturating_sub(val + test).max(2), val, test }
    }
}

/// One synthetic image.
#[derive(Clone, Debug, PartialEq)]
pub struct PhantomImage {
    /// `H*W` grey bytes.
    pub pixels: Vec<u8>,
    /// 0 normal, 1 with opacities.
    pub label: u32,
    /// Where the opacities are; none for label 0.
    pub opacities: Vec<Opacity>,
    /// Such as `person17`.
    pub patient: String,
    /// File name without extension, such as `person17_phantom_2`; the patient rule of image folders reads it.
    pub name: String,
}

/// Which image of which patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Number of the patient.
    pub patient: u32,
    /// Number of the image of this patient.
    pub shot: u32,
    /// 0 normal, 1 pneumonia; a patient has one label.
    pub label: u32,
}

/// The patients of a split start at this number, so that no two splits share one.
fn first_patient(split: &str) -> u32 {
    match split {
        "train" => 0,
        "val" => 1_000_000,
        _ => 2_000_000,
    }
}

/// The images of a split: patients with one to three images, normal and ill in turn.
#[must_use]
pub fn plan(split: &str, images: usize, seed: u32) -> Vec<Shot> {
    let mut out = Vec::with_capacity(images);
    for patient in first_patient(split).. {
        if out.len() >= images {
            break;
        }
        // A handful of images is one a patient, so that both classes are there.
        let shots = if images < 12 { 1 } else { 1 + bits(seed, patient, Stream::Phantom as u32, 0) % 3 };
        out.extend((0..shots).map(|shot| Shot { patient, shot, label: patient % 2 }));
    }
    out.truncate(images);
    out
}

/// All images of a split (`train`, `val` or `test`), drawn in parallel at `size` (height, width).
///
/// # Errors
/// [`DataError::Options`] for a size out of range.
pub fn generate(split: &str, images: usize, size: (usize, usize), seed: u32) -> Result<Vec<PhantomImage>, DataError> {
    super::check_size(size, 1)?;
    Ok(plan(split, images, seed).into_par_iter().map(|shot| draw(seed, shot, size)).collect())
}

pub(crate) fn load(o: &LoadOptions) -> Result<Dataset, DataError> {
    let path = Path::new("phantom");
    if o.splits.official_val == Need::Yes {
        let hint = "only image folders have one; choose val".to_owned();
        return Err(DataError::MissingSplit { path: path.to_owned(), split: "official_val", hint });
    }
    let split = |name: &'static str, need: Need, images: usize| -> Result<Option<Images>, DataError> {
        if need == Need::No {
            return Ok(None);
        }
        check_bytes(path, images, o)?;
        let counter = Counter::new(o, Stage::Drawing, name, images);
        let drawn: Vec<PhantomImage> = plan(name, images, o.seed)
            .into_par_iter()
            .map(|shot| {
                let image = draw(o.seed, shot, o.size);
                counter.add();
                image
            })
            .collect();
        let labels: Vec<u32> = drawn.iter().map(|i| i.label).collect();
        let classes = CLASSES.map(str::to_owned);
        check_classes(path, name, &classes, &labels, &[])?;
        let mut out = Images {
            channels: o.channels,
            height: o.size.0,
            width: o.size.1,
            pixels: Vec::with_capacity(images * o.channels * o.size.0 * o.size.1),
            labels,
            names: Vec::with_capacity(images),
            patients: Vec::with_capacity(images),
        };
        for image in drawn {
            for _ in 0..o.channels {
                out.pixels.extend_from_slice(&image.pixels);
            }
            out.names.push(format!("{name}/{}", image.name));
            out.patients.push(image.patient);
        }
        Ok(Some(out))
    };
    Ok(Dataset {
        classes: CLASSES.map(str::to_owned).to_vec(),
        source: format!("phantom (synthetic images, seed {})", o.seed),
        synthetic: true,
        train: split("train", o.splits.train, o.phantom.train)?,
        val: split("val", o.splits.val, o.phantom.val)?,
        test: split("test", o.splits.test, o.phantom.test)?,
        notes: vec!["synthetic images: no figure measured on them says anything about patients".into()],
        ..Dataset::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_images_and_another_seed_others() {
        let a = generate("train", 20, (32, 40), 3).unwrap();
        assert_eq!(a, generate("train", 20, (32, 40), 3).unwrap());
        let b = generate("train", 20, (32, 40), 4).unwrap();
        assert!(a.iter().zip(&b).all(|(a, b)| a.pixels != b.pixels));
        assert!(a.iter().all(|i| i.pixels.len() == 32 * 40));
        // A longer set begins with the shorter one.
        assert_eq!(generate("train", 30, (32, 40), 3).unwrap()[..20], a);
    }

    #[test]
    fn splits_share_no_patient_and_classes_are_even() {
        let sets: Vec<Vec<Shot>> =
            ["train", "val", "test"].into_iter().zip([1200, 200, 300]).map(|(s, n)| plan(s, n, 0)).collect();
        for (i, set) in sets.iter().enumerate() {
            let ill = set.iter().filter(|s| s.label == 1).count() as f64 / set.len() as f64;
            assert!((0.42..0.58).contains(&ill), "{ill}");
            for other in &sets[..i] {
                assert!(!set.iter().any(|a| other.iter().any(|b| a.patient == b.patient)));
            }
        }
        let mut shots = std::collections::BTreeMap::<u32, Vec<u32>>::new();
        sets[0].iter().for_each(|s| shots.entry(s.patient).or_default().push(s.label));
        assert!(shots.values().any(|l| l.len() > 1) && shots.values().all(|l| l.iter().all(|x| x == &l[0])));
        for n in 2..40 {
            assert!(plan("test", n, 1).iter().any(|s| s.label == 1), "{n}");
        }
    }

    #[test]
    fn opacities_are_where_they_are_said_to_be() {
        // The same patient drawn ill and well differs at the opacities and nowhere else.
        let (h, w) = (96, 80);
        let mut checked = 0;
        for patient in 0..40 {
            let ill = draw(7, Shot { patient, shot: 0, label: 1 }, (h, w));
            let well = draw(7, Shot { patient, shot: 0, label: 0 }, (h, w));
            assert!(well.opacities.is_empty() && (1..=3).contains(&ill.opacities.len()));
            for row in 0..h {
                for col in 0..w {
                    let (x, y) = (col as f32 + 0.5, row as f32 + 0.5);
                    let inside =
                        ill.opacities.iter().any(|o| (x - o.x).abs() <= o.rx + 0.01 && (y - o.y).abs() <= o.ry + 0.01);
                    let (a, b) = (ill.pixels[row * w + col], well.pixels[row * w + col]);
                    assert!(inside || a == b, "patient {patient}: {x} {y}");
                    assert!(a >= b, "an opacity only adds");
                }
            }
            for o in &ill.opacities {
                let i = (o.y as usize).min(h - 1) * w + (o.x as usize).min(w - 1);
                checked += usize::from(ill.pixels[i] > well.pixels[i] || well.pixels[i] > 240);
            }
        }
        assert!(checked >= 40, "{checked}");
    }

    #[test]
    fn brightness_does_not_tell_the_class() {
        // The best threshold on mean brightness is little better than chance.
        let set = generate("train", 600, (32, 32), 0).unwrap();
        let mut means: Vec<(u64, u32)> =
            set.iter().map(|i| (i.pixels.iter().map(|&v| u64::from(v)).sum(), i.label)).collect();
        means.sort_unstable();
        let ill = means.iter().filter(|m| m.1 == 1).count();
        let mut below = 0;
        let mut best = 0;
        for (i, m) in means.iter().enumerate() {
            below += usize::from(m.1 == 0);
            let right = below + ill - (i + 1 - below);
            best = best.max(right).max(means.len() - right);
        }
        assert!(best < 390, "{best} of 600");
    }

    #[test]
    fn any_size_is_drawn() {
        for size in [(1, 1), (1, 50), (3, 2), (200, 7)] {
            let images = generate("test", 3, size, 1).unwrap();
            assert!(images.iter().all(|i| i.pixels.len() == size.0 * size.1));
        }
        assert!(matches!(generate("test", 3, (0, 4), 1), Err(DataError::Options(_))));
    }
}
