//! What can be wrong with data, each in one line: what, where, what to do.

use std::path::{Path, PathBuf};

use crate::fsio::FsError;

/// Data that cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The DATA argument names nothing that exists.
    #[error("{}: no such file or folder; give an image folder, a MedMNIST .npz file or the word phantom", shown(path))]
    NotFound {
        /// The argument.
        path: PathBuf,
    },
    /// The DATA argument is a file, and no `.npz`.
    #[error(
        "{}: neither a folder nor a .npz file; give an image folder, a MedMNIST .npz file or the word phantom",
        shown(path)
    )]
    NotData {
        /// The argument.
        path: PathBuf,
    },
    /// A folder without `{train,val,test}/CLASS/*` and without `CLASS/*`.
    #[error("{}: no images found; the folder must hold train/CLASS/*, test/CLASS/* or CLASS/* ({hint})", shown(path))]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// What was seen instead.
        hint: String,
    },
    /// A split that the command needs is not there.
    #[error("{}: has no {split} split; {hint}", shown(path))]
    MissingSplit {
        /// The data.
        path: PathBuf,
        /// Which split.
        split: &'static str,
        /// What to do.
        hint: String,
    },
    /// Only one class: there is nothing to tell apart.
    #[error("{} {split}: only one class, {class:?}; a classifier needs at least two", shown(path))]
    OneClass {
        /// The data.
        path: PathBuf,
        /// Which split.
        split: &'static str,
        /// The class.
        class: String,
    },
    /// A class without a readable image.
    #[error(
        "{} {split}: class {class:?} has no readable image ({unreadable} unreadable); add images or remove the class",
        shown(path)
    )]
    EmptyClass {
        /// The data.
        path: PathBuf,
        /// Which split.
        split: &'static str,
        /// The class.
        class: String,
        /// How many of its files could not be read.
        unreadable: usize,
    },
    /// Two splits have different classes.
    #[error(
        "{}: {split} has the classes {found}, {other} has {expected}; give every split the same class folders",
        shown(path)
    )]
    ClassesDiffer {
        /// The data.
        path: PathBuf,
        /// The split that differs.
        split: &'static str,
        /// Its classes.
        found: String,
        /// The split that it is compared with.
        other: &'static str,
        /// The classes of that one.
        expected: String,
    },
    /// A class has too few patients to stand on both sides of the split.
    #[error(
        "{}: class {class:?} has {images} images of {patients} patients in train, too few to hold any out for \
         validation; add patients, or train without validation",
        shown(path)
    )]
    TooFewPatients {
        /// The data.
        path: PathBuf,
        /// The class.
        class: String,
        /// Its images.
        images: usize,
        /// Its patients.
        patients: usize,
    },
    /// More folds than patients of a class.
    #[error(
        "{}: class {class:?} has {patients} patients, too few for {folds} folds with the class in each; ask for fewer folds",
        shown(path)
    )]
    TooFewForFolds {
        /// The data.
        path: PathBuf,
        /// The class.
        class: String,
        /// Its patients.
        patients: usize,
        /// The folds asked for.
        folds: u32,
    },
    /// A file that could not be decoded, where that is not allowed.
    #[error("{}: cannot be decoded: {reason}; replace or remove the file", shown(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in a `.npz` file.
    #[error("{}: {key}: {problem}", shown(path))]
    Npz {
        /// The file.
        path: PathBuf,
        /// The array in it, or `file`.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A label below zero or beyond the last class.
    #[error(
        "{}: {key}[{index}] is {label}, but the labels of this file must be 0 to {last}; correct the label",
        shown(path)
    )]
    LabelOutOfRange {
        /// The file.
        path: PathBuf,
        /// The array in it.
        key: String,
        /// Number of the image.
        index: usize,
        /// Its label.
        label: i64,
        /// The largest class.
        last: i64,
    },
    /// More memory than a data set may take.
    #[error(
        "{}: {images} images at this size take {bytes} bytes, the limit is {limit}; choose a smaller --size",
        shown(path)
    )]
    TooLarge {
        /// The data.
        path: PathBuf,
        /// Number of images.
        images: usize,
        /// Bytes that they would take.
        bytes: u128,
        /// [`super::MAX_BYTES`].
        limit: u64,
    },
    /// An option outside its range.
    #[error("{0}")]
    Options(String),
    /// A folder that is to be written has content.
    #[error("{}: the folder has content and is left as it is; give a new or an empty folder", shown(path))]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder that the system would not read or write.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// A path for a one-line message: control characters are escaped.
#[must_use]
pub fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Makes any text one line: control characters are escaped.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_whatever_the_path() {
        let e = DataError::NotFound { path: PathBuf::from("a\nb\tc") };
        let text = e.to_string();
        assert!(text.contains("a\\nb\\tc") && !text.contains('\n'), "{text}");
    }
}
