//! What a network said about each image, as a CSV file: `predictions.csv` of a run folder.
//!
//! One line an image: `split,image,patient,label`, then a column `p:CLASS` for each class. `split` is one of the names that
//! `--split` takes (`val`, `test`, ...), `image` the path in the data folder or a number, `label` the name of the true
//! class. Numbers are written so that reading gives the same bits. Comparisons, operating points and ensembles read this
//! file instead of running the network again.

use std::path::Path;

use super::TrainError;
use crate::data::{Images, one_line};
use crate::fsio::{self, FsError};
use crate::metrics::{MetricsError, check};
use crate::stats::Units;

/// The file in a run folder.
pub const PREDICTIONS: &str = "predictions.csv";
/// Splits of a file, at most; there are four.
const MAX_SPLITS: usize = 16;
/// Columns before the probabilities.
const FIXED: [&str; 4] = ["split", "image", "patient", "label"];

/// The images of one split with their probabilities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitPredictions {
    /// `train`, `val`, `official_val` or `test`.
    pub split: String,
    /// Name of each image.
    pub images: Vec<String>,
    /// Patient of each image.
    pub patients: Vec<String>,
    /// True class of each image.
    pub labels: Vec<u32>,
    /// Row-major `[images, classes]`.
    pub probabilities: Vec<f64>,
}

impl SplitPredictions {
    /// What a network made of a split; `probabilities` is row-major `[images.len(), classes]`.
    #[must_use]
    pub fn new(split: &str, images: &Images, probabilities: Vec<f64>) -> Self {
        Self {
            split: split.to_owned(),
            images: images.names.clone(),
            patients: images.patients.clone(),
            labels: images.labels.clone(),
            probabilities,
        }
    }

    /// How many images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True without images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The patients as units of a bootstrap, where they are known.
    #[must_use]
    pub fn units(&self) -> Option<Units> {
        Units::patients(&self.patients)
    }

    /// Whether the images are positive (class 1).
    #[must_use]
    pub fn positive(&self) -> Vec<bool> {
        self.labels.iter().map(|&l| l == 1).collect()
    }

    /// The column of one class.
    #[must_use]
    pub fn column(&self, class: usize, classes: usize) -> Vec<f64> {
        self.probabilities.chunks_exact(classes.max(1)).filter_map(|row| row.get(class).copied()).collect()
    }

    /// What differs between the images of two splits, in words; `None` for the same images in the same order with the same
    /// labels.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<String> {
        if self.len() != other.len() {
            return Some(format!("{} images against {}", self.len(), other.len()));
        }
        let images = self.images.iter().zip(&other.images);
        if let Some((a, b)) = images.clone().find(|(a, b)| a != b) {
            return Some(format!("{} against {}", one_line(a), one_line(b)));
        }
        let labels = self.labels.iter().zip(&other.labels);
        let (_, (image, _)) = labels.zip(images).find(|((a, b), _)| a != b)?;
        Some(format!("another label of {}", one_line(image)))
    }
}

/// The predictions of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// The splits that were measured.
    pub splits: Vec<SplitPredictions>,
}

impl Predictions {
    /// A split by its name.
    #[must_use]
    pub fn split(&self, name: &str) -> Option<&SplitPredictions> {
        self.splits.iter().find(|s| s.split == name)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let fail = |e: csv::Error| FsError::new("write", path, std::io::Error::other(e));
        let mut out = csv::Writer::from_writer(Vec::new());
        let header = FIXED.iter().map(|s| (*s).to_owned()).chain(self.classes.iter().map(|c| format!("p:{c}")));
        out.write_record(header).map_err(fail)?;
        let k = self.classes.len().max(1);
        for split in &self.splits {
            for (i, row) in split.probabilities.chunks_exact(k).enumerate() {
                let label = self.classes.get(split.labels[i] as usize).map_or("", String::as_str);
                let names = [&split.split, &split.images[i], &split.patients[i], label];
                let record = names.iter().map(|s| (*s).to_owned()).chain(row.iter().map(|p| format!("{p:?}")));
                out.write_record(record).map_err(fail)?;
            }
        }
        let bytes = out.into_inner().map_err(|e| FsError::new("write", path, e.into_error()))?;
        fsio::write_atomic(path, &bytes)?;
        Ok(())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`TrainError::Predictions`] names the line and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = fsio::read(path)?;
        Self::parse(&bytes).map_err(|problem| TrainError::Predictions { path: path.to_owned(), problem })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let broken = |e: csv::Error| one_line(&e.to_string());
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader.headers().map_err(broken)?.clone();
        let fixed = header.iter().take(FIXED.len()).eq(FIXED);
        let classes: Option<Vec<String>> =
            header.iter().skip(FIXED.len()).map(|c| c.strip_prefix("p:").map(str::to_owned)).collect();
        let classes = classes
            .filter(|c| fixed && c.len() >= 2)
            .ok_or("the first line is not split,image,patient,label,p:CLASS,p:CLASS,...".to_owned())?;
        let mut splits: Vec<SplitPredictions> = Vec::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            let label = classes
                .iter()
                .position(|c| *c == record[3])
                .ok_or_else(|| format!("line {line}: {} is none of the classes", one_line(&record[3])))?;
            let at = match splits.iter().position(|s| s.split == record[0]) {
                Some(at) => at,
                // Looked up line by line: a file with a split for each line would take for ever.
                None if splits.len() == MAX_SPLITS => {
                    return Err(format!("line {line}: {} is the {}th split", one_line(&record[0]), MAX_SPLITS + 1));
                }
                None => {
                    splits.push(SplitPredictions { split: record[0].to_owned(), ..SplitPredictions::default() });
                    splits.len() - 1
                }
            };
            let split = &mut splits[at];
            for text in record.iter().skip(FIXED.len()) {
                let p = text.parse().map_err(|_| format!("line {line}: {} is no number", one_line(text)))?;
                split.probabilities.push(p);
            }
            split.images.push(record[1].to_owned());
            split.patients.push(record[2].to_owned());
            split.labels.push(label as u32);
        }
        for split in &splits {
            check(&split.labels, &split.probabilities, classes.len())
                .map_err(|e: MetricsError| format!("split {}: {e}", one_line(&split.split)))?;
        }
        if splits.is_empty() {
            return Err("it holds no prediction".to_owned());
        }
        Ok(Self { classes, splits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Predictions {
        let split = |name: &str| SplitPredictions {
            split: name.to_owned(),
            images: vec!["test/A, B/\"1\".png".to_owned(), "2".to_owned()],
            patients: vec!["p1".to_owned(), "p\n2".to_owned()],
            labels: vec![0, 1],
            probabilities: vec![0.1 + 0.2, 1.0 - (0.1 + 0.2), 1e-300, 1.0],
        };
        Predictions { classes: vec!["A, B".to_owned(), "b".to_owned()], splits: vec![split("val"), split("test")] }
    }

    #[test]
    fn what_is_written_is_read_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PREDICTIONS);
        example().write(&path).unwrap();
        let read = Predictions::read(&path).unwrap();
        assert_eq!(read, example());
        assert_eq!(read.split("test").unwrap().column(1, 2)[1], 1.0);
        assert!(read.split("train").is_none());
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let head = "split,image,patient,label,p:a,p:b\n";
        for (text, part) in [
            ("".to_owned(), "the first line"),
            ("split,image,label,p:a,p:b\n".to_owned(), "the first line"),
            (head.to_owned(), "no prediction"),
            (format!("{head}test,x,x,a,0.5,0.5\ntest,y,y,c,0.5,0.5\n"), "line 3: c is none"),
            (format!("{head}test,x,x,a,0.5,half\n"), "line 2: half is no number"),
            (format!("{head}test,x,x,a,0.5\n"), "line: 2"),
            (format!("{head}test,x,x,a,0.5,NaN\n"), "split test"),
            (format!("{head}test,x,x,a,0.9,0.9\n"), "sum to 1.8"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(PREDICTIONS);
            std::fs::write(&path, text).unwrap();
            let error = Predictions::read(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(PREDICTIONS) && !error.contains('\n'), "{part}: {error}");
        }
    }

    #[test]
    fn other_images_are_named() {
        let a = example().splits.remove(0);
        assert_eq!(a.differs(&a), None);
        let mut b = a.clone();
        b.labels[1] = 0;
        assert_eq!(a.differs(&b).unwrap(), "another label of 2");
        b.images[0] = "3".to_owned();
        assert!(a.differs(&b).unwrap().ends_with("against 3"));
        b.labels.pop();
        assert_eq!(a.differs(&b).unwrap(), "2 images against 1");
    }
}
