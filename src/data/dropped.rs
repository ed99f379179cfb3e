//! An image folder that arrives file by file, as a browser hands over what is dropped onto a page. The same rules hold as for a folder
//! on disk, and the same files give the same [`Dataset`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fast_image_resize::Resizer;

use super::cache::Decoded;
use super::error::DataError;
use super::folder::{Entry, Layout, Listing, SPLITS, assemble, gather, ignored};
use super::patient::patient_of;
use super::{Dataset, LoadOptions, Need, Splits, check_bytes, check_size, decode};

/// A file that was decoded as it came: its pixels, `C*H*W`, and its width and height before; or why it is no image.
type Image = Result<(Vec<u8>, (u32, u32)), String>;

/// The files that have arrived.
pub struct Dropped {
    name: String,
    options: LoadOptions,
    resizer: Resizer,
    /// By path: the order in which files come does not matter.
    files: BTreeMap<Vec<String>, Image>,
}

impl Dropped {
    /// Nothing yet; `name` is what messages call the folder.
    ///
    /// # Errors
    /// [`DataError::Options`] for a size or channel count out of range.
    pub fn new(name: &str, options: &LoadOptions) -> Result<Self, DataError> {
        check_size(options.size, options.channels)?;
        let (name, options) = (name.to_owned(), options.clone());
        Ok(Self { name, options, resizer: Resizer::new(), files: BTreeMap::new() })
    }

    /// Whether a file of this path belongs to a data set at all: it lies in a class folder, and is none that systems leave behind.
    #[must_use]
    pub fn wants(path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        parts.len() >= 2 && !parts.iter().any(|p| ignored(p))
    }

    /// Takes a file: its path from the dropped folder on, with `/`, and its bytes. What is no image is left out and named in the
    /// data set.
    pub fn add(&mut self, path: &str, bytes: &[u8]) {
        if !Self::wants(path) {
            return;
        }
        let (size, channels) = (self.options.size, self.options.channels);
        let image = decode::decode(bytes, channels).and_then(|p| {
            let mut out = vec![0; channels * size.0 * size.1];
            decode::resize_into(&mut self.resizer, (&p.pixels, p.width, p.height, channels), size, &mut out)?;
            Ok((out, (p.width, p.height)))
        });
        let parts = path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        self.files.insert(parts, image);
    }

    /// Files that have arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True before the first file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The data set.
    ///
    /// # Errors
    /// As [`super::load`] of the same folder on disk.
    pub fn finish(self) -> Result<Dataset, DataError> {
        let root = PathBuf::from(&self.name);
        // Train and validation, and test where there is one: what a page shows.
        let splits = Splits { official_val: Need::No, ..Splits::STUDY };
        // A browser has no other folder whose patients could be left out.
        let options = LoadOptions { splits, exclude_patients: Vec::new(), ..self.options };
        let split_of = |parts: &[String]| {
            let above = parts.len().checked_sub(3).map(|i| parts[i].as_str())?;
            SPLITS.into_iter().find(|s| *s == above)
        };
        let flat = self.files.keys().all(|parts| split_of(parts).is_none());
        let mut by_split: BTreeMap<&str, Files> = BTreeMap::new();
        for (parts, image) in self.files {
            let [.., class, file] = &parts[..] else { continue };
            let Some(split) = split_of(&parts).or(flat.then_some("train")) else { continue };
            let classes = &mut by_split.entry(split).or_default().0;
            classes.entry(class.clone()).or_default().insert(file.clone(), image);
        }
        let has = SPLITS.map(|s| by_split.contains_key(s));
        let layout = Layout { root: root.clone(), flat, has };
        if !has.contains(&true) {
            return Err(DataError::NoImages { path: root, hint: "it holds no files in class folders".to_owned() });
        }
        let (mut lists, mut images) = (BTreeMap::new(), BTreeMap::new());
        for (split, files) in by_split {
            let (listing, decoded) = files.list(split, flat);
            check_bytes(&root, listing.entries.len(), &options)?;
            lists.insert(split, listing);
            images.insert(split, decoded);
        }
        let mut list = |split: &'static str| Ok(lists.remove(split).unwrap_or_default());
        let mut read = |split: &'static str, listing, data: &mut Dataset| {
            let decoded = together(images.remove(split).unwrap_or_default());
            assemble(&root, split, listing, decoded, &options, data)
        };
        let mut data = gather(&layout, Path::new(&self.name), &options, &mut list, &mut read)?;
        data.content_hash = data.hash();
        Ok(data)
    }
}

/// The files of a split by class and name.
#[derive(Default)]
struct Files(BTreeMap<String, BTreeMap<String, Image>>);

impl Files {
    fn list(self, split: &str, flat: bool) -> (Listing, Vec<Image>) {
        let prefix = if flat { String::new() } else { format!("{split}/") };
        let (mut listing, mut images) = (Listing::default(), Vec::new());
        for ((class, files), label) in self.0.into_iter().zip(0..) {
            for (file, image) in files {
                let name = format!("{prefix}{class}/{file}");
                let patient = patient_of(&file).map_or_else(|| name.clone(), str::to_owned);
                listing.entries.push(Entry { path: PathBuf::from(&name), name, patient, class: label });
                images.push(image);
            }
            listing.classes.push(class);
        }
        (listing, images)
    }
}

fn together(images: Vec<Image>) -> Decoded {
    let mut decoded = Decoded { pixels: Vec::new(), failed: Vec::new(), sizes: Vec::new() };
    for (i, image) in images.into_iter().enumerate() {
        match image {
            Ok((pixels, size)) => {
                decoded.pixels.extend(pixels);
                decoded.sizes.push(size);
            }
            Err(reason) => decoded.failed.push((i, reason)),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::{PhantomSizes, write_folder};
    use crate::data::{CachePolicy, Source, load};

    fn files(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, into) } else { into.push(path) }
        }
    }

    #[test]
    fn a_dropped_folder_is_the_folder_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        write_folder(&root, PhantomSizes { train: 40, val: 8, test: 8 }, (20, 20), 3).unwrap();
        std::fs::write(root.join("train/NORMAL/broken.png"), b"no image").unwrap();
        let splits = Splits { official_val: Need::No, ..Splits::STUDY };
        let options = LoadOptions { size: (16, 16), splits, cache: CachePolicy::Off, ..LoadOptions::default() };
        let mut paths = Vec::new();
        files(&root, &mut paths);
        paths.reverse();
        for (from, flat) in [(dir.path().to_owned(), false), (root.join("train"), true)] {
            let on_disk = load(&Source::Folder(if flat { from.clone() } else { root.clone() }), &options).unwrap();
            let mut dropped = Dropped::new("set", &options).unwrap();
            for path in &paths {
                let Ok(name) = path.strip_prefix(&from) else { continue };
                dropped.add(name.to_str().unwrap(), &std::fs::read(path).unwrap());
            }
            dropped.add("set/.DS_Store", b"");
            let data = dropped.finish().unwrap();
            assert_eq!(data.content_hash, on_disk.content_hash, "flat: {flat}");
            assert_eq!((data.skipped.len(), &data.classes), (1, &on_disk.classes));
            assert_eq!(data.val.unwrap().patients, on_disk.val.unwrap().patients);
        }
    }

    #[test]
    fn what_is_no_set_of_images_is_said() {
        let options = LoadOptions::default();
        let error = Dropped::new("x", &options).unwrap().finish().unwrap_err().to_string();
        assert!(error.contains("no files in class folders"), "{error}");
        let mut one = Dropped::new("x", &options).unwrap();
        one.add("x/a/1.png", b"");
        assert!(one.finish().unwrap_err().to_string().contains("only one class"));
        assert!(Dropped::wants("a/b.png") && !Dropped::wants("b.png") && !Dropped::wants("a/.b.png"));
    }
}
