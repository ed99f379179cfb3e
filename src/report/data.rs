//! What a report is made of: plain data, without a trace of how it was computed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::{Metrics, MetricsError, PrPoint, RocPoint, argmax, precision_recall_curve, roc_curve};
use crate::stats::{Estimate, Interval, OperatingPoint, Reliability, Rule, Score, Scored, Units, wilson};

/// One epoch of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// 1, 2, ...
    pub epoch: u32,
    /// Mean loss over the training images, as seen by the optimizer.
    pub train_loss: f64,
    /// Share of right decisions on the training images, if it was counted.
    pub train_accuracy: Option<f64>,
    /// Mean loss over the validation images.
    pub val_loss: f64,
    /// Share of right decisions on the validation images.
    pub val_accuracy: f64,
    /// Learning rate at the end of the epoch.
    pub learning_rate: f64,
    /// Wall time, validation included.
    pub seconds: f64,
}

/// Where a threshold comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// 0.5, at which two classes are equally likely.
    Default,
    /// Chosen on the validation images by a rule.
    Validation(Rule),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Default => "default threshold".to_owned(),
            Self::Validation(Rule::Sensitivity(s)) => format!("sensitivity {s} on validation"),
            Self::Validation(Rule::Specificity(s)) => format!("specificity {s} on validation"),
            Self::Validation(Rule::Youden) => "largest Youden index on validation".to_owned(),
        })
    }
}

/// What a threshold does to one set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Where it comes from.
    pub choice: Choice,
    /// What it does.
    pub point: OperatingPoint,
}

/// Whether the probabilities on one set of images mean what they say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// The probabilities as they are, in bins of equal width.
    pub before: Reliability,
    /// Mean of `-ln p(true class)`.
    pub log_loss: f64,
    /// The same at another temperature; or why there is none.
    pub scaled: Result<Scaled, String>,
}

/// Probabilities at a temperature fitted on validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// Logits are divided by it.
    pub temperature: f64,
    /// In bins of equal width.
    pub after: Reliability,
    /// Mean of `-ln p(true class)`.
    pub log_loss: f64,
}

/// What a network achieves on one set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitResult {
    /// What the set is called: `validation`, `test`, ...
    pub name: String,
    /// All metrics.
    pub metrics: Metrics,
    /// Wilson's 95 % interval of the accuracy.
    pub accuracy_interval: Interval,
    /// Bootstrap 95 % interval of the ROC-AUC over images; `None` where that is undefined.
    pub auc_interval: Option<Interval>,
    /// Every score with its bootstrap intervals, over images and, where they are known, over patients.
    #[serde(default)]
    pub estimates: Vec<Estimate>,
    /// Mean loss, with the class weights and smoothing of the training if it had any; else the log loss.
    pub loss: f64,
    /// The ROC curve; empty where it is undefined.
    pub roc: Vec<RocPoint>,
    /// The precision-recall curve; empty where it is undefined.
    pub pr: Vec<PrPoint>,
    /// What thresholds do, the default one first; empty unless there are two classes.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// How far its probabilities can be trusted.
    #[serde(default)]
    pub calibration: Option<Calibrated>,
}

impl SplitResult {
    /// [`SplitResult::of_patients`] of images whose patients are not known.
    ///
    /// # Errors
    /// [`MetricsError`] for labels or probabilities that make no sense.
    pub fn new(
        name: impl Into<String>,
        labels: &[u32],
        probabilities: &[f64],
        classes: usize,
        seed: u32,
    ) -> Result<Self, MetricsError> {
        Self::of_patients(name, labels, probabilities, classes, None, seed)
    }

    /// Computes metrics, intervals and curves from labels and row-major probabilities `[labels.len(), classes]`.
    /// `patients` are the units of a second bootstrap, `seed` is that of both. The loss is set to the log loss.
    ///
    /// # Errors
    /// [`MetricsError`] for labels or probabilities that make no sense.
    pub fn of_patients(
        name: impl Into<String>,
        labels: &[u32],
        probabilities: &[f64],
        classes: usize,
        patients: Option<&Units>,
        seed: u32,
    ) -> Result<Self, MetricsError> {
        let metrics = Metrics::new(labels, probabilities, classes)?;
        let accuracy_interval = wilson(metrics.correct(), metrics.count).ok_or(MetricsError::Empty)?;
        let estimates = Scored::new(labels, probabilities, classes)?.estimates(patients, seed);
        let auc_interval = estimates.iter().find(|e| e.score == Score::RocAuc && classes == 2).and_then(|e| e.images);
        let (mut roc, mut pr) = (Vec::new(), Vec::new());
        if classes == 2 {
            let positive: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
            let scores: Vec<f64> = probabilities.chunks_exact(2).map(|row| row[1]).collect();
            roc = roc_curve(&positive, &scores);
            pr = precision_recall_curve(&positive, &scores);
        }
        let loss = metrics.log_loss;
        Ok(Self {
            name: name.into(),
            metrics,
            accuracy_interval,
            auc_interval,
            estimates,
            loss,
            roc,
            pr,
            thresholds: Vec::new(),
            calibration: None,
        })
    }

    /// A score with its intervals.
    #[must_use]
    pub fn estimate(&self, score: Score) -> Option<&Estimate> {
        self.estimates.iter().find(|e| e.score == score)
    }
}

/// One repetition of a training with another seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u32,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Wall time of the training.
    pub seconds: f64,
    /// Validation accuracy of the kept weights.
    pub val_accuracy: f64,
    /// Validation loss of the kept weights.
    pub val_loss: f64,
    /// Test accuracy, if there is a test set.
    pub test_accuracy: Option<f64>,
    /// Test ROC-AUC, if it is defined.
    pub test_auc: Option<f64>,
}

/// One network, trained and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkResult {
    /// Its short name, such as `cnn2`.
    pub name: String,
    /// Its chain of layers.
    pub spec: String,
    /// Convolution layers; the published figures are matched by it.
    pub conv_layers: u32,
    /// Trained parameters.
    pub parameters: u64,
    /// The course of the training.
    pub epochs: Vec<EpochRow>,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Wall time of the training.
    pub seconds: f64,
    /// On held-out training images (of other patients).
    pub val: SplitResult,
    /// On the test images.
    pub test: Option<SplitResult>,
    /// On the small official validation folder.
    pub official: Option<SplitResult>,
    /// All repetitions, the one shown in full among them; empty or one if it was not repeated.
    pub seeds: Vec<SeedResult>,
}

impl NetworkResult {
    /// The sets it was measured on: validation, test, official.
    pub fn splits(&self) -> impl Iterator<Item = &SplitResult> {
        std::iter::once(&self.val).chain(&self.test).chain(&self.official)
    }
}

/// How many images of each class a set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// The set's name.
    pub name: String,
    /// Images of each class.
    pub counts: Vec<u64>,
    /// Patients, where they are known.
    pub patients: Option<u64>,
}

/// Images of a range of widths or heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeBin {
    /// The least of the range, in pixels.
    pub from: u32,
    /// The most of it.
    pub to: u32,
    /// Images.
    pub count: u64,
}

/// Widths and heights of one set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeRow {
    /// The folder or array.
    pub set: String,
    /// Images.
    pub images: u64,
    /// Different sizes.
    pub distinct: u64,
    /// Smallest, median (the lower of two) and largest width in pixels.
    pub width: [u32; 3],
    /// Smallest, median and largest height in pixels.
    pub height: [u32; 3],
}

/// How large the images were before they were resized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The sets.
    pub sets: Vec<SizeRow>,
    /// Widths over all sets.
    pub widths: Vec<SizeBin>,
    /// Heights over all sets.
    pub heights: Vec<SizeBin>,
}

/// Some of many names, each with what there is to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// How many there are in all.
    pub total: u64,
    /// The first of them.
    pub first: Vec<(String, String)>,
}

/// A picture, its pixels row by row with the channels side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// What it shows.
    pub name: String,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 for grey, 3 for RGB.
    pub channels: u32,
    /// The pixels.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// From pixels `[channels, height, width]`, as networks see them.
    #[must_use]
    pub fn from_planes(name: impl Into<String>, planes: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        let area = height * width;
        let pixels = (0..area).flat_map(|p| (0..channels).filter_map(move |c| planes.get(c * area + p)).copied());
        Self {
            name: name.into(),
            width: width as u32,
            height: height as u32,
            channels: channels as u32,
            pixels: pixels.collect(),
        }
    }
}

/// Some training images as the network sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContactSheet {
    /// What each column shows; one name where the pictures stand in no columns.
    pub columns: Vec<String>,
    /// The pictures, row by row.
    pub pictures: Vec<Picture>,
    /// File and class of each row.
    pub rows: Vec<(String, String)>,
}

/// Pictures of the images; no part of the files with figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pictures {
    /// The mean training image of each class.
    pub means: Vec<Picture>,
    /// Some of the training images.
    pub sheet: Option<ContactSheet>,
}

/// The images that a report is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataInfo {
    /// Where they come from: a path, or `phantom`.
    pub source: String,
    /// Drawn by a program, not taken of people. The report says so at the top.
    pub synthetic: bool,
    /// The classes; with two, the second is the positive one.
    pub class_names: Vec<String>,
    /// The sets.
    pub splits: Vec<SplitCounts>,
    /// What a reader must know: how the split was made, known flaws of the set, skipped files.
    pub notes: Vec<String>,
    /// Sizes of the images as they were found; `None` for images that a program drew.
    #[serde(default)]
    pub sizes: Option<Sizes>,
    /// Files that were left out, and why.
    #[serde(default)]
    pub skipped: Named,
    /// Patients with images in more than one of the sets, and which; `None` where no patient is known.
    #[serde(default)]
    pub shared_patients: Option<Named>,
    /// Pictures, where they were made.
    #[serde(skip)]
    pub pictures: Pictures,
}

impl DataInfo {
    /// The name of a class, or `class N` for one without.
    #[must_use]
    pub fn class_name(&self, class: usize) -> String {
        self.class_names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

/// An image with what the network made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleImage {
    /// Its file name.
    pub name: String,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 for grey, 3 for RGB (interleaved).
    pub channels: u32,
    /// The pixels as the network saw them, row by row.
    pub pixels: Vec<u8>,
    /// The true class.
    pub label: u32,
    /// The probability of each class.
    pub probabilities: Vec<f64>,
}

impl SampleImage {
    /// The image alone.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let Self { name, width, height, channels, pixels, .. } = self;
        Picture { name: name.clone(), width: *width, height: *height, channels: *channels, pixels: pixels.clone() }
    }

    /// The decided class.
    #[must_use]
    pub fn decision(&self) -> u32 {
        argmax(&self.probabilities)
    }

    /// The probability of the true class; 0 when there is none.
    #[must_use]
    pub fn true_probability(&self) -> f64 {
        self.probabilities.get(self.label as usize).copied().unwrap_or(0.0)
    }
}

/// One training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run's name.
    pub name: String,
    /// Settings, as shown: `("batch", "32")`.
    pub config: Vec<(String, String)>,
    /// Device, version, command line.
    pub environment: Vec<(String, String)>,
    /// The images.
    pub data: DataInfo,
    /// The network and its results.
    pub network: NetworkResult,
    /// Images of the test or validation set, in any number and order; the report picks from them.
    pub samples: Vec<SampleImage>,
}

/// A figure that others published for a network of some depth on the small official validation folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedFigure {
    /// Convolution layers.
    pub conv_layers: u32,
    /// Images decided rightly.
    pub correct: u64,
    /// Images in all.
    pub images: u64,
    /// Validation loss.
    pub loss: f64,
}

/// The comparison of networks of several depths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthStudy {
    /// Settings that all networks share.
    pub config: Vec<(String, String)>,
    /// Device, version, command line.
    pub environment: Vec<(String, String)>,
    /// The images.
    pub data: DataInfo,
    /// The networks.
    pub networks: Vec<NetworkResult>,
    /// Published figures; never shown beside synthetic data.
    pub published: Vec<PublishedFigure>,
}
