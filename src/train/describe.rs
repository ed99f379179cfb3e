//! What a report says and shows of the images, before the training takes them.

use std::collections::{BTreeMap, BTreeSet};

use super::step::Augmentation;
use super::{TrainConfig, TrainError, preview};
use crate::cpu;
use crate::data::{Dataset, Images, Originals};
use crate::report::data::{ContactSheet, DataInfo, Named, Picture, Pictures, SizeBin, SizeRow, Sizes, SplitCounts};

/// Names on a page, at most, of files that were left out and of patients in two sets.
const NAMED: usize = 100;
/// Bars of a figure of sizes, about.
const BINS: u32 = 10;
/// Images of a contact sheet.
const SHEET: usize = 12;
/// Rows of a contact sheet that shows what augmentation does.
const ROWS: usize = 6;

/// What a report says about the images: counts, sizes, what was left out, patients in two sets; and their pictures.
///
/// # Errors
/// A setting of the augmentation out of its range.
pub fn data_info(data: &Dataset, config: &TrainConfig) -> Result<DataInfo, TrainError> {
    let splits = data
        .splits()
        .map(|(name, images)| SplitCounts {
            name: title(name).to_owned(),
            counts: images.class_counts(data.classes.len()).into_iter().map(|n| n as u64).collect(),
            patients: {
                let known: BTreeSet<&String> = known_patients(images).collect();
                (!known.is_empty()).then_some(known.len() as u64)
            },
        })
        .collect();
    let skipped = data.skipped.iter().take(NAMED).map(|s| (s.name.clone(), s.reason.clone())).collect();
    Ok(DataInfo {
        source: data.source.clone(),
        synthetic: data.synthetic,
        class_names: data.classes.clone(),
        splits,
        notes: data.notes.clone(),
        sizes: sizes(&data.originals),
        skipped: Named { total: data.skipped.len() as u64, first: skipped },
        shared_patients: shared_patients(data),
        pictures: match &data.train {
            Some(train) => Pictures { means: means(train, &data.classes), sheet: sheet(train, &data.classes, config)? },
            None => Pictures::default(),
        },
    })
}

/// What a split is called on a page.
pub(super) fn title(split: &str) -> &str {
    match split {
        "val" => "validation",
        "official_val" => "official validation",
        other => other,
    }
}

/// An image of an unknown patient carries its own name.
fn known_patients(images: &Images) -> impl Iterator<Item = &String> {
    images.patients.iter().zip(&images.names).filter(|(patient, name)| patient != name).map(|(patient, _)| patient)
}

fn shared_patients(data: &Dataset) -> Option<Named> {
    let mut sets: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
    for (name, images) in data.splits() {
        for patient in known_patients(images).collect::<BTreeSet<_>>() {
            sets.entry(patient).or_default().push(title(name));
        }
    }
    let shared = || sets.iter().filter(|(_, sets)| sets.len() > 1);
    let first = shared().take(NAMED).map(|(patient, sets)| ((*patient).clone(), sets.join(", "))).collect();
    (!sets.is_empty()).then(|| Named { total: shared().count() as u64, first })
}

fn sizes(originals: &[Originals]) -> Option<Sizes> {
    let sets = originals.iter().filter(|o| !o.sizes.is_empty()).map(|o| {
        let spread = |mut sides: Vec<u32>| {
            sides.sort_unstable();
            [sides[0], sides[(sides.len() - 1) / 2], sides[sides.len() - 1]]
        };
        SizeRow {
            set: o.set.to_owned(),
            images: o.sizes.len() as u64,
            distinct: o.sizes.iter().collect::<BTreeSet<_>>().len() as u64,
            width: spread(o.sizes.iter().map(|s| s.0).collect()),
            height: spread(o.sizes.iter().map(|s| s.1).collect()),
        }
    });
    let sets: Vec<SizeRow> = sets.collect();
    let all = || originals.iter().flat_map(|o| &o.sizes);
    let (widths, heights) = (bins(all().map(|s| s.0)), bins(all().map(|s| s.1)));
    (!sets.is_empty()).then_some(Sizes { sets, widths, heights })
}

/// Counts over ranges of a round width, empty ones between others included.
fn bins(values: impl Iterator<Item = u32> + Clone) -> Vec<SizeBin> {
    let (Some(least), Some(most)) = (values.clone().min(), values.clone().max()) else { return Vec::new() };
    let wanted = (most - least) / BINS + 1;
    let mut power = 1;
    while power * 10 <= wanted {
        power *= 10;
    }
    let step = [1, 2, 5, 10].map(|f| f * power).into_iter().find(|s| *s >= wanted).unwrap_or(wanted);
    let first = least / step;
    let mut counts = vec![0_u64; (most / step - first + 1) as usize];
    values.for_each(|v| counts[(v / step - first) as usize] += 1);
    let range = |k: u32| {
        if step == 1 || least == most { [least + k; 2] } else { [(first + k) * step, (first + k + 1) * step - 1] }
    };
    (0..).zip(counts).map(|(k, count)| SizeBin { from: range(k)[0], to: range(k)[1], count }).collect()
}

/// The mean image of each class that has one.
fn means(images: &Images, classes: &[String]) -> Vec<Picture> {
    let stride = images.stride();
    let shape = [images.channels, images.height, images.width];
    let mut out = Vec::new();
    for (class, name) in (0_u32..).zip(classes) {
        let mut sums = vec![0_u64; stride];
        let mut count = 0_u64;
        for (pixels, _) in images.pixels.chunks_exact(stride.max(1)).zip(&images.labels).filter(|(_, l)| **l == class) {
            sums.iter_mut().zip(pixels).for_each(|(sum, v)| *sum += u64::from(*v));
            count += 1;
        }
        if count > 0 {
            let mean: Vec<u8> = sums.iter().map(|s| ((s + count / 2) / count) as u8).collect();
            out.push(Picture::from_planes(format!("{name}, mean of {count}"), &mean, shape));
        }
    }
    out
}

/// Some training images; beside them, where training changes images at random, what it may make of them.
fn sheet(images: &Images, classes: &[String], config: &TrainConfig) -> Result<Option<ContactSheet>, TrainError> {
    if images.is_empty() || images.stride() == 0 {
        return Ok(None);
    }
    let shape = [images.channels, images.height, images.width];
    let usual = config.augment.as_ref().filter(|a| !a.is_identity());
    let repeats = config.augment_repeats.as_ref();
    let changed = usual.is_some() || repeats.is_some_and(|a| !a.is_identity());
    let chosen = preview::choose(images, classes.len(), if changed { ROWS } else { SHEET }, config.seed);
    let class = |i: usize| classes.get(images.labels[i] as usize).cloned().unwrap_or_default();
    let rows = chosen.iter().map(|&i| (images.names.get(i).cloned().unwrap_or_default(), class(i))).collect();
    let name = |row: usize, i: usize| format!("{} {}", row + 1, class(i));
    if !changed {
        let picture = |(row, &i): (usize, &usize)| Some(Picture::from_planes(name(row, i), images.image(i)?, shape));
        let pictures = chosen.iter().enumerate().filter_map(picture).collect();
        return Ok(Some(ContactSheet { columns: Vec::new(), pictures, rows }));
    }
    // Not the device that trains: its memory is counted, and the pictures are the same to within a rounding.
    let mut executor = cpu::Executor::<f32>::fast();
    let augmentation = Augmentation { images: usual, repeats };
    let draws = if repeats.is_some() { 2 } else { 3 };
    let sheet = preview::sheet(&mut executor, images, &chosen, augmentation, draws, config.seed)?;
    let head = |kind: &str| (1..=draws).map(|k| format!("{kind} {k}")).collect::<Vec<_>>();
    let mut columns = vec!["as it is".to_owned()];
    columns.extend(head("draw"));
    if repeats.is_some() {
        columns.extend(head("repeat"));
    }
    let mut pictures = Vec::new();
    for (row, (planes, &i)) in sheet.rows.iter().zip(&chosen).enumerate() {
        for (column, planes) in planes.iter().enumerate() {
            let name = name(row, i);
            let name = if column == 0 { name } else { format!("{name}, {}", columns[column]) };
            pictures.push(Picture::from_planes(name, planes, shape));
        }
    }
    Ok(Some(ContactSheet { columns, pictures, rows }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::augment::Augment;

    fn images(names: &[(&str, &str)]) -> Images {
        Images {
            channels: 1,
            height: 1,
            width: 2,
            pixels: (0..names.len() * 2).map(|v| (v * 10) as u8).collect(),
            labels: (0..names.len()).map(|i| (i % 2) as u32).collect(),
            names: names.iter().map(|n| n.0.to_owned()).collect(),
            patients: names.iter().map(|n| n.1.to_owned()).collect(),
        }
    }

    fn data() -> Dataset {
        Dataset {
            classes: vec!["A".into(), "B".into()],
            source: "here".into(),
            synthetic: false,
            train: Some(images(&[("a", "p1"), ("b", "p2"), ("c", "p2"), ("d", "d")])),
            val: None,
            official_val: Some(images(&[("e", "e")])),
            test: Some(images(&[("f", "p2"), ("g", "p3")])),
            skipped: (0..150)
                .map(|i| crate::data::Skipped { name: format!("{i}.png"), reason: "the file is empty".into() })
                .collect(),
            originals: vec![
                Originals { set: "train", sizes: vec![(100, 90), (340, 90), (999, 90), (180, 90)] },
                Originals { set: "test", sizes: vec![(110, 90), (110, 90)] },
            ],
            notes: Vec::new(),
            content_hash: String::new(),
        }
    }

    #[test]
    fn what_is_found_is_counted_and_named_in_bounds() {
        let info = data_info(&data(), &TrainConfig::default()).unwrap();
        let shared = info.shared_patients.unwrap();
        assert_eq!(shared, Named { total: 1, first: vec![("p2".into(), "train, test".into())] });
        let patients: Vec<Option<u64>> = info.splits.iter().map(|s| s.patients).collect();
        assert_eq!(patients, [Some(2), None, Some(2)], "an image with a name of its own is no known patient");
        assert_eq!((info.skipped.total, info.skipped.first.len()), (150, NAMED));
        let sizes = info.sizes.unwrap();
        assert_eq!((sizes.sets[0].distinct, sizes.sets[0].width), (4, [100, 180, 999]));
        assert_eq!((sizes.sets[1].distinct, sizes.sets[1].height), (1, [90; 3]));
        assert_eq!(sizes.heights, [SizeBin { from: 90, to: 90, count: 6 }]);
        assert_eq!(sizes.widths[0], SizeBin { from: 100, to: 199, count: 4 });
        assert_eq!(sizes.widths.iter().map(|b| b.count).sum::<u64>(), 6);
    }

    #[test]
    fn ranges_are_round_and_hold_every_value() {
        for values in [vec![5], vec![5, 6], vec![1, 2916], vec![224, 225, 240], vec![0, 20_000]] {
            let bins = bins(values.iter().copied());
            assert!(bins.len() <= 12, "{bins:?}");
            for v in values {
                assert_eq!(bins.iter().filter(|b| b.from <= v && v <= b.to && b.count > 0).count(), 1, "{v}: {bins:?}");
            }
        }
        assert!(bins(std::iter::empty()).is_empty());
    }

    #[test]
    fn means_and_sheet_show_the_training_images() {
        let info = data_info(&data(), &TrainConfig::default()).unwrap();
        // Class A: images 0 and 2, [0, 10] and [40, 50].
        assert_eq!((info.pictures.means.len(), &info.pictures.means[0].pixels), (2, &vec![20, 30]));
        assert_eq!(info.pictures.means[0].name, "A, mean of 2");
        let sheet = info.pictures.sheet.unwrap();
        assert_eq!((sheet.columns.len(), sheet.pictures.len(), sheet.rows.len()), (0, 4, 4));
        let augment = Augment::preset("light");
        let info = data_info(&data(), &TrainConfig { augment, ..TrainConfig::default() }).unwrap();
        let sheet = info.pictures.sheet.unwrap();
        assert_eq!((sheet.columns.len(), sheet.pictures.len(), sheet.rows.len()), (4, 16, 4));
        assert!(sheet.pictures[0].name.starts_with("1 ") && sheet.pictures[1].name.ends_with(", draw 1"));
    }
}
