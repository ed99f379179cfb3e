//! What is to be known of every image, gathered from each kind of source.

use std::collections::BTreeSet;
use std::path::Path;

use fast_image_resize::Resizer;
use rayon::prelude::*;

use super::super::error::{DataError, shown};
use super::super::folder::{self, Counter, Entry};
use super::super::npz::{self, Npz};
use super::super::{LoadOptions, Source, Stage, decode, phantom};

/// One image, readable or not.
pub(super) struct Item {
    pub split: &'static str,
    pub class: String,
    pub name: String,
    /// `None` where the file name follows no rule.
    pub patient: Option<String>,
    pub facts: Result<Facts, String>,
}

/// What a readable image is like.
pub(super) struct Facts {
    pub content: [u8; 32],
    pub pixels: [u8; 32],
    pub width: u32,
    pub height: u32,
    pub mode: String,
    /// Sum and sum of squares of each channel of the resized image.
    pub sums: [(u64, u64); 3],
}

pub(super) struct Collected {
    pub source: String,
    pub synthetic: bool,
    pub classes: Vec<String>,
    pub splits: Vec<&'static str>,
    pub items: Vec<Item>,
}

pub(super) fn collect(source: &Source, o: &LoadOptions) -> Result<Collected, DataError> {
    match source {
        Source::Folder(path) => from_folder(path, o),
        Source::Npz(path) => from_npz(path, o),
        Source::Phantom => from_phantom(o),
    }
}

/// `pixels`: interleaved, of `o.channels`.
fn facts(
    resizer: &mut Resizer,
    (pixels, width, height): (&[u8], u32, u32),
    content: Option<[u8; 32]>,
    mode: String,
    o: &LoadOptions,
) -> Result<Facts, String> {
    let plane = o.size.0 * o.size.1;
    let mut resized = vec![0; o.channels * plane];
    decode::resize_into(resizer, (pixels, width, height, o.channels), o.size, &mut resized)?;
    let mut sums = [(0, 0); 3];
    for (sum, plane) in sums.iter_mut().zip(resized.chunks_exact(plane)) {
        for &v in plane {
            sum.0 += u64::from(v);
            sum.1 += u64::from(v) * u64::from(v);
        }
    }
    let mut hash = blake3::Hasher::new();
    hash.update(&width.to_le_bytes()).update(&height.to_le_bytes()).update(pixels);
    let hash = *hash.finalize().as_bytes();
    Ok(Facts { content: content.unwrap_or(hash), pixels: hash, width, height, mode, sums })
}

fn from_folder(path: &Path, o: &LoadOptions) -> Result<Collected, DataError> {
    let layout = folder::layout(path)?;
    let mut out =
        Collected { source: shown(path), synthetic: false, classes: Vec::new(), splits: Vec::new(), items: Vec::new() };
    let mut classes = BTreeSet::new();
    for (split, _) in ["train", "val", "test"].into_iter().zip(layout.has).filter(|s| s.1) {
        let list = layout.list(split)?;
        let counter = Counter::new(o, Stage::Decoding, split, list.entries.len());
        let read = |resizer: &mut Resizer, entry: &Entry| {
            let facts = decode::read_file(&entry.path).and_then(|bytes| {
                let p = decode::decode(&bytes, o.channels)?;
                let content = *blake3::hash(&bytes).as_bytes();
                facts(resizer, (&p.pixels, p.width, p.height), Some(content), p.mode, o)
            });
            counter.add();
            facts
        };
        let all: Vec<_> = list.entries.par_iter().map_init(Resizer::new, |r, e| read(r, e)).collect();
        for (entry, facts) in list.entries.into_iter().zip(all) {
            if let (true, Err(reason)) = (o.strict, &facts) {
                return Err(DataError::Unreadable { path: entry.path, reason: reason.clone() });
            }
            out.items.push(Item {
                split,
                class: list.classes[entry.class as usize].clone(),
                patient: (entry.patient != entry.name).then_some(entry.patient),
                name: entry.name,
                facts,
            });
        }
        classes.extend(list.classes);
        out.splits.push(split);
    }
    out.classes = classes.into_iter().collect();
    Ok(out)
}

fn from_npz(path: &Path, o: &LoadOptions) -> Result<Collected, DataError> {
    let mut npz = Npz::open(path)?;
    let splits: Vec<&'static str> = ["train", "val", "test"].into_iter().filter(|s| npz.has_split(s)).collect();
    let mut out =
        Collected { source: shown(path), synthetic: false, classes: Vec::new(), splits: Vec::new(), items: Vec::new() };
    if splits.is_empty() {
        return Err(npz.no_splits());
    }
    for split in splits {
        let labels = npz.labels(split)?;
        if out.classes.is_empty() {
            out.classes = npz::classes(path, split, &labels)?;
        }
        let labels = npz::check_labels(path, split, &labels, &out.classes)?;
        let items = &mut out.items;
        let classes = &out.classes;
        let read = npz.images(split, |array, at, block| {
            let [n, h, w, c] = array.shape;
            npz::check_count(split, n, labels.len())?;
            let mode = if c == 1 { "L8" } else { "Rgb8" };
            let block: Vec<Facts> = block
                .par_chunks_exact(h * w * c)
                .map_init(Resizer::new, |resizer, image| {
                    let image = npz::convert(image, c, o.channels);
                    facts(resizer, (&image, w as u32, h as u32), None, mode.to_owned(), o)
                })
                .collect::<Result<_, _>>()?;
            o.report(Stage::Reading, split, at + block.len(), n);
            for (i, facts) in (at..).zip(block) {
                let (class, name) = (classes[labels[i] as usize].clone(), format!("{split}/{i}"));
                items.push(Item { split, class, name, patient: None, facts: Ok(facts) });
            }
            Ok(())
        })?;
        npz::check_count(split, read.shape[0], labels.len())
            .map_err(|problem| npz.error(&format!("{split}_images"), problem))?;
        out.splits.push(split);
    }
    Ok(out)
}

fn from_phantom(o: &LoadOptions) -> Result<Collected, DataError> {
    let mut items = Vec::new();
    for (split, n) in [("train", o.phantom.train), ("val", o.phantom.val), ("test", o.phantom.test)] {
        let (h, w) = (o.size.0 as u32, o.size.1 as u32);
        for image in phantom::generate(split, n, o.size, o.seed)? {
            let pixels = npz::convert(&image.pixels, 1, o.channels);
            items.push(Item {
                split,
                class: phantom::CLASSES[image.label as usize & 1].to_owned(),
                name: format!("{split}/{}", image.name),
                patient: Some(image.patient),
                facts: facts(&mut Resizer::new(), (&pixels, w, h), None, "L8".into(), o),
            });
        }
        o.report(Stage::Drawing, split, n, n);
    }
    Ok(Collected {
        source: format!("phantom (synthetic images, seed {})", o.seed),
        synthetic: true,
        classes: phantom::CLASSES.map(str::to_owned).to_vec(),
        splits: vec!["train", "val", "test"],
        items,
    })
}
