//! Image folders: `{train,val,test}/CLASS/*`, or `CLASS/*` alone, all of which is `train`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fast_image_resize::Resizer;
use rayon::prelude::*;

use super::cache::{self, Decoded};
use super::error::{DataError, one_line, shown};
use super::images::Images;
use super::patient::patient_of;
use super::{Dataset, LoadOptions, Need, Originals, Skipped, Stage, check_bytes, check_classes, decode, split_train};
use crate::fsio::FsError;

/// One file of a class folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub path: PathBuf,
    /// Path relative to the data folder, with `/`.
    pub name: String,
    pub patient: String,
    pub class: u32,
}

/// The class folders of a split and their files, both sorted by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    pub classes: Vec<String>,
    pub entries: Vec<Entry>,
}

/// A data folder, and which splits it has.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The folder that holds `train`, `val`, `test`, or the classes.
    pub root: PathBuf,
    /// No split folders: the classes lie directly in `root`.
    pub flat: bool,
    pub has: [bool; 3],
}

pub(super) const SPLITS: [&str; 3] = ["train", "val", "test"];

pub(super) fn ignored(name: &str) -> bool {
    name.starts_with('.')
        || name == "__MACOSX"
        || name.eq_ignore_ascii_case("thumbs.db")
        || name.eq_ignore_ascii_case("desktop.ini")
}

/// Names in a folder without those that systems leave behind, sorted.
fn names(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let fail = |e| DataError::Fs(FsError::new("read", folder, e));
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !ignored(&name) {
            out.push((name, entry.path()));
        }
    }
    // The path decides between names that differ only in what is no UTF-8.
    out.sort();
    Ok(out)
}

fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    Ok(names(folder)?.into_iter().filter(|(_, path)| path.is_dir()).collect())
}

/// Finds the splits in `path`, or in the only folder inside it that has any.
pub(crate) fn layout(path: &Path) -> Result<Layout, DataError> {
    let has = |folder: &Path| SPLITS.map(|s| folder.join(s).is_dir());
    let here = has(path);
    if here.contains(&true) {
        return Ok(Layout { root: path.to_owned(), flat: false, has: here });
    }
    let inside = folders(path)?;
    let nested: Vec<&PathBuf> = inside.iter().map(|f| &f.1).filter(|f| has(f).contains(&true)).collect();
    match nested[..] {
        [one] => return Ok(Layout { root: one.clone(), flat: false, has: has(one) }),
        [a, b, ..] => {
            let hint = format!("{} and {} both have splits: give one of them", shown(a), shown(b));
            return Err(DataError::NoImages { path: path.to_owned(), hint });
        }
        [] => {}
    }
    for (_, class) in &inside {
        if names(class)?.iter().any(|(_, file)| file.is_file()) {
            return Ok(Layout { root: path.to_owned(), flat: true, has: [true, false, false] });
        }
    }
    let hint = match inside.len() {
        0 => "it has no folders inside".to_owned(),
        n => format!("none of its {n} folders holds files"),
    };
    Err(DataError::NoImages { path: path.to_owned(), hint })
}

impl Layout {
    pub fn folder(&self, split: &str) -> PathBuf {
        if self.flat { self.root.clone() } else { self.root.join(split) }
    }

    /// Classes and files of one split.
    pub fn list(&self, split: &'static str) -> Result<Listing, DataError> {
        let folder = self.folder(split);
        let prefix = if self.flat { String::new() } else { format!("{split}/") };
        let mut listing = Listing { classes: Vec::new(), entries: Vec::new() };
        for (class, path) in folders(&folder)? {
            let label = listing.classes.len() as u32;
            for (file, path) in names(&path)? {
                let name = format!("{prefix}{class}/{file}");
                let patient = patient_of(&file).map_or_else(|| name.clone(), str::to_owned);
                listing.entries.push(Entry { path, name, patient, class: label });
            }
            listing.classes.push(class);
        }
        if listing.classes.is_empty() {
            let hint = "it has no class folders".to_owned();
            return Err(DataError::NoImages { path: folder, hint });
        }
        Ok(listing)
    }

    fn missing(&self, split: &'static str) -> DataError {
        let hint = if self.flat {
            "its class folders lie directly in it, all of which is train; put them into train/ and test/".to_owned()
        } else {
            let there: Vec<&str> = SPLITS.into_iter().zip(self.has).filter(|s| s.1).map(|s| s.0).collect();
            let hint = format!("it has {}", there.join(" and "));
            match split {
                "val" => format!("{hint}; val is held out of a train folder (the folder val is called official_val)"),
                _ => format!("{hint}; choose another split or another folder"),
            }
        };
        DataError::MissingSplit { path: self.root.clone(), split, hint }
    }
}

pub(crate) fn load(path: &Path, o: &LoadOptions) -> Result<Dataset, DataError> {
    let layout = layout(path)?;
    gather(&layout, path, o, &mut |split| layout.list(split), &mut |split, list, data| {
        read_split(&layout.root, split, list, o, data)
    })
}

/// The classes and files of a split.
type List<'a> = dyn FnMut(&'static str) -> Result<Listing, DataError> + 'a;
/// The images of a split.
type Read<'a> = dyn FnMut(&'static str, Listing, &mut Dataset) -> Result<Images, DataError> + 'a;

/// A data set from the lists and the images of its splits.
pub(super) fn gather(
    layout: &Layout,
    path: &Path,
    o: &LoadOptions,
    list: &mut List<'_>,
    read: &mut Read<'_>,
) -> Result<Dataset, DataError> {
    let [train_there, val_there, test_there] = layout.has;
    let wanted = |split, need, there| match (need, there) {
        (Need::No, _) | (Need::IfPresent, false) => Ok(false),
        (Need::Yes, false) => Err(layout.missing(split)),
        (_, true) => Ok(true),
    };
    let wants_train = wanted("train", o.splits.train, train_there)?;
    let wants_val = wanted("val", o.splits.val, train_there)?;
    let wants_official = wanted("official_val", o.splits.official_val, val_there && !layout.flat)?;
    let wants_test = wanted("test", o.splits.test, test_there)?;

    let mut data = Dataset { source: shown(path), ..Dataset::default() };
    let excluded = patients_of(&o.exclude_patients)?;
    // All lists first: a missing class folder shows before minutes of decoding.
    let mut lists: Vec<(&'static str, Listing)> = Vec::new();
    for (split, wants) in [("train", wants_train || wants_val), ("val", wants_official), ("test", wants_test)] {
        if wants {
            let mut list = list(split)?;
            if split == "train" && !excluded.is_empty() {
                data.notes.push(list.exclude(&excluded));
            }
            check_list(&layout.root, split, &list)?;
            lists.push((split, list));
        }
    }
    if let Some((first, list)) = lists.first() {
        data.classes.clone_from(&list.classes);
        for (split, other) in &lists[1..] {
            if other.classes != list.classes {
                let (found, expected) = (one_line(&other.classes.join(", ")), one_line(&list.classes.join(", ")));
                let path = layout.root.clone();
                return Err(DataError::ClassesDiffer { path, split, found, other: first, expected });
            }
        }
    }
    if layout.flat && wants_train {
        data.notes.push("the class folders lie directly in the folder: all of it is train".into());
    }
    for (split, list) in lists {
        let images = read(split, list, &mut data)?;
        match split {
            "train" => {
                let (train, val) = split_train(&layout.root, images, &data.classes, o, &mut data.notes)?;
                if wants_val && val.is_none() && o.splits.val == Need::Yes {
                    let hint = "the validation fraction is 0; give one above".to_owned();
                    return Err(DataError::MissingSplit { path: layout.root.clone(), split: "val", hint });
                }
                data.train = wants_train.then_some(train);
                data.val = val.filter(|_| wants_val);
            }
            "val" => data.official_val = Some(images),
            _ => data.test = Some(images),
        }
    }
    Ok(data)
}

impl Listing {
    /// Leaves out the images of some patients, and says how many those were.
    fn exclude(&mut self, patients: &BTreeSet<String>) -> String {
        let (all, mut gone) = (self.entries.len(), BTreeSet::new());
        self.entries.retain(|entry| match patients.get(&entry.patient) {
            Some(patient) => {
                gone.insert(patient);
                false
            }
            None => true,
        });
        let (images, people) = (all - self.entries.len(), gone.len());
        format!("exclude_patients: {images} of the {all} training images are left out, of {people} patients")
    }
}

/// The patients that the names of files tell of in some folders: sets, splits or classes.
fn patients_of(roots: &[PathBuf]) -> Result<BTreeSet<String>, DataError> {
    fn collect(folder: &Path, depth: usize, into: &mut BTreeSet<String>) -> Result<(), DataError> {
        for (name, path) in names(folder)? {
            if !path.is_dir() {
                into.extend(patient_of(&name).map(str::to_owned));
            } else if depth > 0 {
                collect(&path, depth - 1, into)?;
            }
        }
        Ok(())
    }
    let mut all = BTreeSet::new();
    for root in roots {
        let mut here = BTreeSet::new();
        // A folder around the set, the split, the class.
        collect(root, 3, &mut here)?;
        if here.is_empty() {
            return Err(DataError::Options(format!(
                "exclude_patients: no file in {} names its patient (person1_virus_2.jpeg, IM-0001-0001.jpeg); give another folder",
                shown(root)
            )));
        }
        all.append(&mut here);
    }
    Ok(all)
}

/// What the list alone tells: a single class, an empty class.
fn check_list(root: &Path, split: &'static str, list: &Listing) -> Result<(), DataError> {
    let labels: Vec<u32> = list.entries.iter().map(|e| e.class).collect();
    check_classes(root, split, &list.classes, &labels, &[])
}

fn read_split(
    root: &Path,
    split: &'static str,
    list: Listing,
    o: &LoadOptions,
    data: &mut Dataset,
) -> Result<Images, DataError> {
    let decoded = decode_all(root, split, &list.entries, o, &mut data.notes)?;
    assemble(root, split, list, decoded, o, data)
}

/// The images of a split from what was decoded of its list.
pub(super) fn assemble(
    root: &Path,
    split: &'static str,
    list: Listing,
    decoded: Decoded,
    o: &LoadOptions,
    data: &mut Dataset,
) -> Result<Images, DataError> {
    data.originals.push(Originals { set: split, sizes: decoded.sizes });
    let mut failed = decoded.failed.into_iter().peekable();
    let mut images = Images {
        channels: o.channels,
        height: o.size.0,
        width: o.size.1,
        pixels: decoded.pixels,
        labels: Vec::new(),
        names: Vec::new(),
        patients: Vec::new(),
    };
    let mut unreadable = vec![0; list.classes.len()];
    for (i, entry) in list.entries.into_iter().enumerate() {
        if let Some((_, reason)) = failed.next_if(|f| f.0 == i) {
            unreadable[entry.class as usize] += 1;
            data.skipped.push(Skipped { name: entry.name, reason });
            continue;
        }
        images.labels.push(entry.class);
        images.names.push(entry.name);
        images.patients.push(entry.patient);
    }
    check_classes(root, split, &list.classes, &images.labels, &unreadable)?;
    Ok(images)
}

/// Decodes every file of a list, or finds its pixels in the cache.
fn decode_all(
    root: &Path,
    split: &'static str,
    entries: &[Entry],
    o: &LoadOptions,
    notes: &mut Vec<String>,
) -> Result<Decoded, DataError> {
    check_bytes(root, entries.len(), o)?;
    let (n, stride) = (entries.len(), o.channels * o.size.0 * o.size.1);
    let folder = o.cache.folder();
    let decoded = match &folder {
        None => decode_files(root, split, entries, o)?.0,
        Some(folder) => {
            let counter = Counter::new(o, Stage::Reading, split, n);
            let hashes: Vec<Result<blake3::Hash, String>> = entries
                .par_iter()
                .map(|e| {
                    let hash = decode::read_file(&e.path).map(|bytes| blake3::hash(&bytes));
                    counter.add();
                    hash
                })
                .collect();
            if let Some(found) = cache::get(folder, &cache::key(&hashes, o.size, o.channels), n, stride) {
                found
            } else {
                let (mut decoded, hashes) = decode_files(root, split, entries, o)?;
                // The key is of the bytes that were decoded, even if a file changed since it was first read.
                let key = cache::key(&hashes, o.size, o.channels);
                if let Err(e) = cache::put(folder, &key, n, stride, &mut decoded) {
                    notes.push(format!("the decoded images are not kept: {}", one_line(&e.to_string())));
                }
                decoded
            }
        }
    };
    match decoded.failed.first() {
        Some((i, reason)) if o.strict => {
            Err(DataError::Unreadable { path: entries[*i].path.clone(), reason: reason.clone() })
        }
        _ => Ok(decoded),
    }
}

/// Decodes in parallel, each file straight into its place.
fn decode_files(
    root: &Path,
    split: &'static str,
    entries: &[Entry],
    o: &LoadOptions,
) -> Result<(Decoded, Vec<Result<blake3::Hash, String>>), DataError> {
    let stride = o.channels * o.size.0 * o.size.1;
    let bytes = entries.len() * stride;
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|_| DataError::TooLarge {
        path: root.to_owned(),
        images: entries.len(),
        bytes: bytes as u128,
        limit: super::MAX_BYTES,
    })?;
    pixels.resize(bytes, 0_u8);
    let counter = Counter::new(o, Stage::Decoding, split, entries.len());
    type Outcome = (Result<blake3::Hash, String>, Result<(u32, u32), String>);
    let outcomes: Vec<Outcome> = pixels
        .par_chunks_exact_mut(stride)
        .zip(entries.par_iter())
        .map_init(Resizer::new, |resizer, (out, entry)| {
            let outcome = match decode::read_file(&entry.path) {
                Err(reason) => (Err(reason.clone()), Err(reason)),
                Ok(bytes) => {
                    let done = decode::decode(&bytes, o.channels).and_then(|p| {
                        decode::resize_into(resizer, (&p.pixels, p.width, p.height, p.channels), o.size, out)?;
                        Ok((p.width, p.height))
                    });
                    (Ok(blake3::hash(&bytes)), done)
                }
            };
            counter.add();
            outcome
        })
        .collect();
    let (mut failed, mut hashes, mut sizes) = (Vec::new(), Vec::with_capacity(entries.len()), Vec::new());
    for (i, (hash, done)) in outcomes.into_iter().enumerate() {
        hashes.push(hash);
        match done {
            Ok(size) => {
                pixels.copy_within(i * stride..(i + 1) * stride, sizes.len() * stride);
                sizes.push(size);
            }
            Err(reason) => failed.push((i, reason)),
        }
    }
    pixels.truncate(sizes.len() * stride);
    Ok((Decoded { pixels, failed, sizes }, hashes))
}

/// Counts finished images over all threads and reports about a hundred times in all.
pub(crate) struct Counter<'a> {
    options: &'a LoadOptions,
    stage: Stage,
    split: &'static str,
    total: usize,
    done: AtomicUsize,
}

impl<'a> Counter<'a> {
    pub fn new(options: &'a LoadOptions, stage: Stage, split: &'static str, total: usize) -> Self {
        Self { options, stage, split, total, done: AtomicUsize::new(0) }
    }

    pub fn add(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done == self.total || done.is_multiple_of((self.total / 100).max(1)) {
            self.options.report(self.stage, self.split, done, self.total);
        }
    }
}
