//! What a data set holds: counts, sizes, colour modes, unreadable files, duplicates, patients in two splits.
//!
//! A summary is made to find faults, so an empty class or a single class is reported and is no error here. Splits are
//! the folders or arrays as they are: nothing is held out of train.

mod collect;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::error::DataError;
use super::{LoadOptions, Skipped, Source};
use collect::{Collected, Item};

/// Everything that `data summary` tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The data.
    pub source: String,
    /// True for the phantom set.
    pub synthetic: bool,
    /// Class names over all splits, sorted.
    pub classes: Vec<String>,
    /// One a split: train, val, test, as far as they exist.
    pub splits: Vec<SplitSummary>,
    /// Height, width and channels at which `mean` and `std` were taken.
    pub size: (usize, usize, usize),
    /// Mean of x/255 over train, a value a channel; empty without train.
    pub mean: Vec<f64>,
    /// Standard deviation (population) of x/255 over train, a value a channel.
    pub std: Vec<f64>,
    /// Files that cannot be read or decoded.
    pub unreadable: Vec<Skipped>,
    /// Groups of files with the same bytes.
    pub duplicates: Vec<Group>,
    /// Groups of files with other bytes but the same decoded pixels.
    pub pixel_duplicates: Vec<Group>,
    /// Patients whose images stand in more than one split, by the file names.
    pub shared_patients: Vec<SharedPatient>,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitSummary {
    /// `train`, `val` or `test`.
    pub name: String,
    /// Readable images.
    pub images: usize,
    /// Files that could not be read.
    pub unreadable: usize,
    /// Different patients; `None` where file names do not tell any.
    pub patients: Option<usize>,
    /// Class by class, in the order of [`Summary::classes`].
    pub classes: Vec<ClassSummary>,
    /// Images of the largest class over those of the smallest; `None` with an empty class.
    pub imbalance: Option<f64>,
    /// Smallest, median and largest width in pixels.
    pub width: Option<Spread>,
    /// Smallest, median and largest height in pixels.
    pub height: Option<Spread>,
    /// How many different sizes there are.
    pub distinct_sizes: usize,
    /// Images of each way of storing pixels (`L8`, `Rgb8`, ...).
    pub modes: BTreeMap<String, usize>,
}

/// One class of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassSummary {
    /// Its name.
    pub name: String,
    /// Readable images.
    pub images: usize,
    /// Share of the split's readable images, 0 to 1.
    pub share: f64,
    /// Files that could not be read.
    pub unreadable: usize,
    /// Different patients; `None` where file names do not tell any.
    pub patients: Option<usize>,
}

/// Smallest, median (the lower of two) and largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: u32,
    /// Median.
    pub median: u32,
    /// Largest.
    pub max: u32,
}

/// Images that are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// They stand in more than one split: what is measured on the other split is too good.
    pub across_splits: bool,
    /// They stand in more than one class: at least one label is wrong.
    pub across_classes: bool,
}

/// A patient with images in several splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedPatient {
    /// The patient.
    pub patient: String,
    /// The splits.
    pub splits: Vec<String>,
}

/// Looks at every image of every split. `options` gives the size and channels of the mean and deviation, the phantom
/// set's seed and sizes, and where progress is told; nothing is cached.
///
/// # Errors
/// [`DataError`] where there are no images at all, where an `.npz` file is damaged, and under `strict` for the first
/// file that cannot be decoded.
pub fn summarise(source: &Source, options: &LoadOptions) -> Result<Summary, DataError> {
    options.check()?;
    let Collected { source, synthetic, classes, splits, items } = collect::collect(source, options)?;
    let splits = splits.iter().map(|name| split(name, &classes, &items)).collect();
    let (mean, std) = moments(&items, options);
    let unreadable = items
        .iter()
        .filter_map(|i| i.facts.as_ref().err().map(|e| Skipped { name: i.name.clone(), reason: e.clone() }))
        .collect();
    let duplicates = groups(&items, |f| f.content);
    let contents = |names: &[String]| {
        let of = |i: &&Item| names.binary_search(&i.name).is_ok();
        items.iter().filter(of).filter_map(|i| i.facts.as_ref().ok()).map(|f| f.content).collect::<BTreeSet<_>>().len()
    };
    let pixel_duplicates = groups(&items, |f| f.pixels).into_iter().filter(|g| contents(&g.names) > 1).collect();
    Ok(Summary {
        source,
        synthetic,
        classes,
        splits,
        size: (options.size.0, options.size.1, options.channels),
        mean,
        std,
        unreadable,
        duplicates,
        pixel_duplicates,
        shared_patients: shared_patients(&items),
    })
}

fn patients<'a>(items: impl Iterator<Item = &'a Item>) -> Option<usize> {
    let known: BTreeSet<&str> = items.filter_map(|i| i.patient.as_deref()).collect();
    (!known.is_empty()).then_some(known.len())
}

fn split(name: &str, classes: &[String], items: &[Item]) -> SplitSummary {
    let of: Vec<&Item> = items.iter().filter(|i| i.split == name).collect();
    let facts: Vec<_> = of.iter().filter_map(|i| i.facts.as_ref().ok()).collect();
    let images = facts.len();
    let classes: Vec<ClassSummary> = classes
        .iter()
        .map(|class| {
            let of: Vec<&Item> = of.iter().copied().filter(|i| &i.class == class).collect();
            let readable = of.iter().filter(|i| i.facts.is_ok()).count();
            ClassSummary {
                name: class.clone(),
                images: readable,
                share: if images == 0 { 0.0 } else { readable as f64 / images as f64 },
                unreadable: of.len() - readable,
                patients: patients(of.into_iter()),
            }
        })
        .collect();
    let most = classes.iter().map(|c| c.images).max().unwrap_or(0);
    let least = classes.iter().map(|c| c.images).min().unwrap_or(0);
    let mut modes = BTreeMap::new();
    facts.iter().for_each(|f| *modes.entry(f.mode.clone()).or_insert(0) += 1);
    SplitSummary {
        name: name.to_owned(),
        images,
        unreadable: of.len() - images,
        patients: patients(of.into_iter()),
        classes,
        imbalance: (least > 0).then(|| most as f64 / least as f64),
        width: spread(facts.iter().map(|f| f.width)),
        height: spread(facts.iter().map(|f| f.height)),
        distinct_sizes: facts.iter().map(|f| (f.width, f.height)).collect::<BTreeSet<_>>().len(),
        modes,
    }
}

fn spread(values: impl Iterator<Item = u32>) -> Option<Spread> {
    let mut values: Vec<u32> = values.collect();
    values.sort_unstable();
    let (&min, &max) = (values.first()?, values.last()?);
    Some(Spread { min, median: values[(values.len() - 1) / 2], max })
}

/// Mean and standard deviation of x/255 a channel, from exact sums.
fn moments(items: &[Item], o: &LoadOptions) -> (Vec<f64>, Vec<f64>) {
    let train: Vec<_> = items.iter().filter(|i| i.split == "train").filter_map(|i| i.facts.as_ref().ok()).collect();
    if train.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let n = train.len() as u128 * (o.size.0 * o.size.1) as u128;
    (0..o.channels)
        .map(|c| {
            let add = |pick: fn(&(u64, u64)) -> u64| train.iter().map(|f| u128::from(pick(&f.sums[c]))).sum::<u128>();
            let (sum, squares) = (add(|s| s.0), add(|s| s.1));
            let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
            (sum as f64 / n as f64 / 255.0, variance.sqrt() / 255.0)
        })
        .unzip()
}

fn groups(items: &[Item], by: impl Fn(&collect::Facts) -> [u8; 32]) -> Vec<Group> {
    let mut same: BTreeMap<[u8; 32], Vec<&Item>> = BTreeMap::new();
    for item in items {
        if let Ok(facts) = &item.facts {
            same.entry(by(facts)).or_default().push(item);
        }
    }
    let mut out: Vec<Group> = same
        .into_values()
        .filter(|g| g.len() > 1)
        .map(|g| {
            let mut names: Vec<String> = g.iter().map(|i| i.name.clone()).collect();
            names.sort();
            Group {
                names,
                across_splits: g.iter().any(|i| i.split != g[0].split),
                across_classes: g.iter().any(|i| i.class != g[0].class),
            }
        })
        .collect();
    out.sort_by(|a, b| a.names.cmp(&b.names));
    out
}

fn shared_patients(items: &[Item]) -> Vec<SharedPatient> {
    let mut splits: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for item in items {
        if let Some(patient) = &item.patient {
            splits.entry(patient).or_default().insert(item.split);
        }
    }
    splits
        .into_iter()
        .filter(|(_, s)| s.len() > 1)
        .map(|(p, s)| SharedPatient { patient: p.to_owned(), splits: s.into_iter().map(str::to_owned).collect() })
        .collect()
}
