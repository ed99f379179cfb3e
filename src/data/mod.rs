//! Images and labels: image folders, MedMNIST `.npz` files and the built-in phantom set.
//!
//! Whatever the source, [`load`] gives a [`Dataset`]: per split one block of bytes in NCHW order, one label, name and
//! patient an image. Pixels stay bytes; the network's first kernel divides and normalises.
//!
//! The four splits:
//! - `train`: what the weights are fitted to;
//! - `val`: what models are chosen on. In a folder it is held out of `train`, whole patients at a time
//!   ([`patient::hold_out`]); in an `.npz` file it is the file's own `val`;
//! - `official_val`: the `val` folder of the Kaggle layout, 16 images only. It is reported and never chosen on;
//! - `test`: looked at once.

pub mod cache;
pub mod decode;
pub mod dropped;
mod error;
pub mod fold;
pub(crate) mod folder;
mod images;
mod npy;
mod npz;
mod order;
pub mod patient;
pub mod phantom;
pub mod summary;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use cache::CachePolicy;
pub use decode::{image_from_bytes, read_image};
pub use dropped::Dropped;
pub use error::{DataError, one_line, shown};
pub use fold::Fold;
pub use images::Images;
pub use order::{EpochOrder, Sampler, epoch_order};

/// The most bytes of pixels that one split may take in memory.
pub const MAX_BYTES: u64 = 16 << 30;

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An image folder: `{train,val,test}/CLASS/*`, or `CLASS/*` all of which is `train`; one folder around it is
    /// passed through.
    Folder(PathBuf),
    /// A MedMNIST file: `{train,val,test}_{images,labels}`.
    Npz(PathBuf),
    /// The built-in synthetic set.
    Phantom,
}

impl Source {
    /// Reads the DATA argument of the command line. `phantom` is the built-in set; a folder of that name is `./phantom`.
    ///
    /// # Errors
    /// [`DataError::NotFound`] and [`DataError::NotData`].
    pub fn parse(data: impl AsRef<OsStr>) -> Result<Self, DataError> {
        let data = data.as_ref();
        if data == "phantom" {
            return Ok(Self::Phantom);
        }
        let path = PathBuf::from(data);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Self::Folder(path)),
            Ok(meta) if meta.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) => {
                Ok(Self::Npz(path))
            }
            Ok(_) => Err(DataError::NotData { path }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(DataError::NotFound { path }),
            Err(e) => Err(crate::fsio::FsError::new("read", path, e).into()),
        }
    }

    /// The path, or the word `phantom`.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Npz(path) => path,
            Self::Phantom => Path::new("phantom"),
        }
    }
}

/// Whether a command wants a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// Not read at all.
    #[default]
    No,
    /// Read where it exists.
    IfPresent,
    /// Its absence is an error.
    Yes,
}

/// Which splits a command needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// The images to fit.
    pub train: Need,
    /// The images to choose models on.
    pub val: Need,
    /// The `val` folder of the Kaggle layout.
    pub official_val: Need,
    /// The test images.
    pub test: Need,
}

impl Splits {
    /// Train and validation, nothing else.
    pub const FIT: Self = Self { train: Need::Yes, val: Need::Yes, official_val: Need::No, test: Need::No };
    /// Train and validation, and the others where they exist: what a study reports.
    pub const STUDY: Self =
        Self { train: Need::Yes, val: Need::Yes, official_val: Need::IfPresent, test: Need::IfPresent };
    /// Test alone.
    pub const TEST: Self = Self { train: Need::No, val: Need::No, official_val: Need::No, test: Need::Yes };

    /// Exactly one split, by the name that `--split` takes: `train`, `val`, `official_val` or `test`.
    ///
    /// # Errors
    /// [`DataError::Options`] for any other name.
    pub fn only(name: &str) -> Result<Self, DataError> {
        let mut splits = Self::default();
        let place = match name {
            "train" => &mut splits.train,
            "val" => &mut splits.val,
            "official_val" => &mut splits.official_val,
            "test" => &mut splits.test,
            other => {
                let other = one_line(other);
                return Err(DataError::Options(format!(
                    "--split {other:?}: no such split; give train, val, official_val or test"
                )));
            }
        };
        *place = Need::Yes;
        Ok(splits)
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading files to learn whether the cache holds them.
    Reading,
    /// Decoding and resizing.
    Decoding,
    /// Drawing phantom images.
    Drawing,
}

/// How far a stage of one split has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// The split.
    pub split: &'static str,
    /// Images done. Calls from several threads may arrive out of order; `done == total` arrives once.
    pub done: usize,
    /// Images in all.
    pub total: usize,
}

/// Called as images are read, from any thread.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How to load.
#[derive(Clone)]
pub struct LoadOptions {
    /// Height and width in pixels.
    pub size: (usize, usize),
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Which splits are needed.
    pub splits: Splits,
    /// Share of each class's training images that is held out for validation, by patient; 0 holds out none.
    pub val_fraction: f64,
    /// Image folders whose patients are left out of train and validation; test images stay as they are.
    pub exclude_patients: Vec<PathBuf>,
    /// Measure one fold of the training images instead of the source's own test images; see [`fold`].
    pub fold: Option<Fold>,
    /// Decides which patients are held out, and what the phantom set looks like.
    pub seed: u32,
    /// An unreadable file is an error instead of being skipped.
    pub strict: bool,
    /// Where decoded pixels are kept.
    pub cache: CachePolicy,
    /// Told how far loading has come.
    pub progress: Option<ProgressFn>,
    /// How many images the phantom set has.
    pub phantom: phantom::PhantomSizes,
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("size", &self.size)
            .field("channels", &self.channels)
            .field("splits", &self.splits)
            .field("val_fraction", &self.val_fraction)
            .field("exclude_patients", &self.exclude_patients)
            .field("fold", &self.fold)
            .field("seed", &self.seed)
            .field("strict", &self.strict)
            .field("cache", &self.cache)
            .field("phantom", &self.phantom)
            .finish_non_exhaustive()
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            size: (64, 64),
            channels: 1,
            splits: Splits::FIT,
            val_fraction: 0.15,
            exclude_patients: Vec::new(),
            fold: None,
            seed: 0,
            strict: false,
            cache: CachePolicy::User,
            progress: None,
            phantom: phantom::PhantomSizes::default(),
        }
    }
}

impl LoadOptions {
    pub(crate) fn report(&self, stage: Stage, split: &'static str, done: usize, total: usize) {
        if let Some(call) = &self.progress {
            call(Progress { stage, split, done, total });
        }
    }

    fn check(&self) -> Result<(), DataError> {
        check_size(self.size, self.channels)?;
        if !(0.0..=0.9).contains(&self.val_fraction) {
            return Err(DataError::Options(format!(
                "validation fraction {}: must lie between 0 and 0.9",
                self.val_fraction
            )));
        }
        match self.fold.and_then(|f| f.problem()) {
            Some(problem) => Err(DataError::Options(format!("fold: {problem}"))),
            None => Ok(()),
        }
    }
}

pub(crate) fn check_size((h, w): (usize, usize), channels: usize) -> Result<(), DataError> {
    let limit = decode::MAX_SIDE as usize;
    if h == 0 || w == 0 || h > limit || w > limit {
        return Err(DataError::Options(format!("image size {h}x{w}: each side must be 1 to {limit} pixels")));
    }
    if channels != 1 && channels != 3 {
        return Err(DataError::Options(format!("{channels} channels: images have 1 (grey) or 3 (RGB)")));
    }
    Ok(())
}

/// Refuses a split whose pixels would not fit into [`MAX_BYTES`].
pub(crate) fn check_bytes(path: &Path, images: usize, o: &LoadOptions) -> Result<(), DataError> {
    let bytes = images as u128 * (o.channels * o.size.0 * o.size.1) as u128;
    if bytes > u128::from(MAX_BYTES) {
        return Err(DataError::TooLarge { path: path.to_owned(), images, bytes, limit: MAX_BYTES });
    }
    Ok(())
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its path relative to the data folder.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
}

/// How large the readable images of one set were before they were resized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Originals {
    /// The folder or array that they come from: `train` (what is held out of it included), `val` or `test`.
    pub set: &'static str,
    /// Width and height of each image in pixels.
    pub sizes: Vec<(u32, u32)>,
}

/// Everything that a command asked for, in memory.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// What was loaded, for reports.
    pub source: String,
    /// True for the phantom set: no figure measured on it says anything about patients.
    pub synthetic: bool,
    /// The images to fit.
    pub train: Option<Images>,
    /// The images to choose models on.
    pub val: Option<Images>,
    /// The `val` folder of the Kaggle layout.
    pub official_val: Option<Images>,
    /// The test images.
    pub test: Option<Images>,
    /// Files that were left out, by name.
    pub skipped: Vec<Skipped>,
    /// Sizes of the images as they were found; empty for images that a program drew.
    pub originals: Vec<Originals>,
    /// How the splits came about, one sentence each; for the log and the report.
    pub notes: Vec<String>,
    /// BLAKE3 of the sizes, labels, names and pixels of all loaded splits: equal hashes mean the same data, split alike.
    pub content_hash: String,
}

impl Dataset {
    /// The loaded splits and their names, in the order train, val, `official_val`, test.
    pub fn splits(&self) -> impl Iterator<Item = (&'static str, &Images)> {
        [("train", &self.train), ("val", &self.val), ("official_val", &self.official_val), ("test", &self.test)]
            .into_iter()
            .filter_map(|(name, images)| images.as_ref().map(|i| (name, i)))
    }

    fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        for class in &self.classes {
            hash.update(&(class.len() as u64).to_le_bytes()).update(class.as_bytes());
        }
        for (name, images) in self.splits() {
            hash.update(name.as_bytes());
            images.hash_into(&mut hash);
        }
        hash.finalize().to_hex().to_string()
    }
}

/// Loads what `options.splits` asks for, and nothing else.
///
/// # Errors
/// [`DataError`]: options out of range, a needed split that is missing, a class without readable images, a single class,
/// a file that is no image under `strict`, and whatever the files themselves have wrong.
pub fn load(source: &Source, options: &LoadOptions) -> Result<Dataset, DataError> {
    options.check()?;
    let mut data = match options.fold {
        None => read(source, options)?,
        Some(fold) => load_fold(source, options, fold)?,
    };
    data.content_hash = data.hash();
    Ok(data)
}

/// As [`load`], of a `.npz` file that is in memory and called `name`.
///
/// # Errors
/// As [`load`].
pub fn load_npz(name: &str, bytes: Vec<u8>, options: &LoadOptions) -> Result<Dataset, DataError> {
    options.check()?;
    let mut data = npz::load_bytes(Path::new(name), bytes, options)?;
    data.content_hash = data.hash();
    Ok(data)
}

fn read(source: &Source, options: &LoadOptions) -> Result<Dataset, DataError> {
    if !options.exclude_patients.is_empty() && !matches!(source, Source::Folder(_)) {
        let path = shown(source.path());
        let problem = format!("exclude_patients: the images of {path} do not name their patients; leave it out");
        return Err(DataError::Options(problem));
    }
    match source {
        Source::Folder(path) => folder::load(path, options),
        Source::Npz(path) => npz::load(path, options),
        Source::Phantom => phantom::load(options),
    }
}

/// The training images of the source, divided as [`fold`] says.
fn load_fold(source: &Source, o: &LoadOptions, fold: Fold) -> Result<Dataset, DataError> {
    let path = source.path();
    if o.splits.official_val == Need::Yes {
        let hint = "the run measures a fold of the training images; choose train, val or test".to_owned();
        return Err(DataError::MissingSplit { path: path.to_owned(), split: "official_val", hint });
    }
    let splits = Splits { train: Need::Yes, ..Splits::default() };
    let mut data = read(source, &LoadOptions { splits, ..o.clone() })?;
    let Some(mut train) = data.train.take() else { return Ok(data) };
    let whole = train.len();
    let of = fold::folds(&train.labels, &train.patients, data.classes.len(), fold.of, o.seed).map_err(|e| {
        let class = data.classes[e.class].clone();
        DataError::TooFewForFolds { path: path.to_owned(), class, patients: e.patients, folds: fold.of }
    })?;
    let flags: Vec<bool> = of.iter().map(|&f| f == fold.index).collect();
    let test = train.take(&flags);
    let number = fold.index + 1;
    data.notes.push(format!(
        "test: fold {number} of {}, {} of the {whole} training images; the test images of the source are not read",
        fold.of,
        test.len()
    ));
    let (train, val) = hold_out(path, train, &data.classes, o, &mut data.notes)?;
    if val.is_none() && o.splits.val == Need::Yes {
        let hint = "the validation fraction is 0; give one above".to_owned();
        return Err(DataError::MissingSplit { path: path.to_owned(), split: "val", hint });
    }
    data.train = (o.splits.train != Need::No).then_some(train);
    data.val = val.filter(|_| o.splits.val != Need::No);
    data.test = (o.splits.test != Need::No).then_some(test);
    Ok(data)
}

/// Every class must have an image, and there must be two classes.
fn check_classes(
    path: &Path,
    split: &'static str,
    classes: &[String],
    labels: &[u32],
    unreadable: &[usize],
) -> Result<(), DataError> {
    let path = path.to_owned();
    if labels.is_empty() {
        return Err(DataError::NoImages {
            path,
            hint: format!("{split}: {} unreadable", unreadable.iter().sum::<usize>()),
        });
    }
    if let [class] = classes {
        return Err(DataError::OneClass { path, split, class: class.clone() });
    }
    let mut seen = vec![0_usize; classes.len()];
    labels.iter().for_each(|&l| seen[l as usize] += 1);
    match seen.iter().position(|&n| n == 0) {
        Some(c) => {
            let unreadable = unreadable.get(c).copied().unwrap_or(0);
            Err(DataError::EmptyClass { path, split, class: classes[c].clone(), unreadable })
        }
        None => Ok(()),
    }
}

/// Divides the training images by patient into train and validation, and says how in a note. Where a fold is asked for,
/// [`load_fold`] does that later.
fn split_train(
    path: &Path,
    train: Images,
    classes: &[String],
    o: &LoadOptions,
    notes: &mut Vec<String>,
) -> Result<(Images, Option<Images>), DataError> {
    if o.fold.is_some() { Ok((train, None)) } else { hold_out(path, train, classes, o, notes) }
}

fn hold_out(
    path: &Path,
    mut train: Images,
    classes: &[String],
    o: &LoadOptions,
    notes: &mut Vec<String>,
) -> Result<(Images, Option<Images>), DataError> {
    if o.val_fraction == 0.0 {
        notes.push("all training images are fitted, none held out for validation".into());
        return Ok((train, None));
    }
    let held =
        patient::hold_out(&train.labels, &train.patients, classes.len(), o.val_fraction, o.seed).map_err(|e| {
            let class = classes[e.class].clone();
            DataError::TooFewPatients { path: path.to_owned(), class, images: e.images, patients: e.patients }
        })?;
    let val = train.take(&held);
    let people = val.patients.iter().collect::<std::collections::BTreeSet<_>>().len();
    notes.push(format!(
        "validation: {} images of {people} patients held out of the {} training images (no patient on both sides)",
        val.len(),
        held.len()
    ));
    Ok((train, Some(val)))
}
