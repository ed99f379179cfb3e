//! Loading the real reference data that the environment variable `RADIOGRAD_DATA` names; without it these tests say that
//! they are skipped.

use std::fs;
use std::path::{Path, PathBuf};

use radiograd::data::summary::summarise;
use radiograd::data::{CachePolicy, Dataset, LoadOptions, Source, Splits, load, read_image};

fn options(size: usize, splits: Splits) -> LoadOptions {
    LoadOptions { size: (size, size), splits, cache: CachePolicy::Off, ..LoadOptions::default() }
}

fn folder(dir: &Path) -> Source {
    Source::parse(dir).unwrap()
}

fn patients_are_apart(data: &Dataset) {
    let (train, val) = (data.train.as_ref().unwrap(), data.val.as_ref().unwrap());
    let held: std::collections::HashSet<_> = val.patients.iter().collect();
    assert!(train.patients.iter().all(|p| !held.contains(p)));
}

/// The folder of the reference data, or a printed line that says why there is none.
fn real(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("RADIOGRAD_DATA") else {
        println!("skipped: RADIOGRAD_DATA does not name a folder with the reference data ({name})");
        return None;
    };
    let path = Path::new(&root).join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn real_chest_xray() {
    let Some(path) = real("chest_xray") else { return };
    let dir = tempfile::tempdir().unwrap();
    let o = LoadOptions { cache: CachePolicy::Folder(dir.path().to_owned()), ..options(64, Splits::STUDY) };
    let start = std::time::Instant::now();
    let data = load(&folder(&path), &o).unwrap();
    let cold = start.elapsed();
    let start = std::time::Instant::now();
    let again = load(&folder(&path), &o).unwrap();
    println!("chest_xray at 64: cold {cold:.1?}, warm {:.1?}; {:?}", start.elapsed(), data.notes);
    assert_eq!(data.content_hash, again.content_hash);
    patients_are_apart(&data);
    assert!(data.skipped.is_empty());
    let counts: Vec<_> = data.splits().map(|(_, i)| i.class_counts(2)).collect();
    assert_eq!([counts[0][0] + counts[1][0], counts[0][1] + counts[1][1]], [1341, 3875]);
    assert_eq!((&counts[2], &counts[3]), (&vec![8, 8], &vec![234, 390]));
    for (train, val) in counts[0].iter().zip(&counts[1]) {
        let share = *val as f64 / (train + val) as f64;
        assert!((share - 0.15).abs() < 0.005, "{share}");
    }
}

#[test]
fn real_covid3_and_originals() {
    if let Some(path) = real("covid3") {
        let data = load(&folder(&path), &options(32, Splits::STUDY)).unwrap();
        patients_are_apart(&data);
        let (train, val) = (data.train.unwrap().class_counts(3), data.val.unwrap().class_counts(3));
        assert_eq!((0..3).map(|c| train[c] + val[c]).collect::<Vec<_>>(), [460, 1266, 3418]);
        assert_eq!(data.test.unwrap().class_counts(3), [116, 317, 855]);
        assert!(data.official_val.is_none());
    }
    if let Some(path) = real("originals") {
        let data = load(&folder(&path), &options(64, Splits::FIT)).unwrap();
        patients_are_apart(&data);
        assert_eq!(data.train.unwrap().len() + data.val.unwrap().len(), 28);
        let summary = summarise(&folder(&path), &options(64, Splits::default())).unwrap();
        assert_eq!(summary.splits[0].modes.values().sum::<usize>(), 28);
        assert_eq!(summary.splits[0].modes["Rgb8"], 4);
        let first = fs::read_dir(path.join("NORMAL")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(read_image(&first, (64, 64), 3).unwrap().len(), 3 * 64 * 64);
    }
}

#[test]
fn real_pneumoniamnist() {
    let Some(path) = real("pneumoniamnist.npz") else { return };
    let source = Source::parse(&path).unwrap();
    let data = load(&source, &options(28, Splits::STUDY)).unwrap();
    assert_eq!(data.classes, ["normal", "pneumonia"]);
    let counts: Vec<_> = data.splits().map(|(n, i)| (n, i.len())).collect();
    assert_eq!(counts, [("train", 4708), ("val", 524), ("test", 624)]);
    assert_eq!(data.test.unwrap().class_counts(2), [234, 390]);
    let summary = summarise(&source, &options(28, Splits::default())).unwrap();
    println!("{summary}");
    assert!((summary.mean[0] - 0.5719).abs() < 1e-3, "{:?}", summary.mean);
}
