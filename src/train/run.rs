//! Run folders: what `train` leaves behind, report included.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::TrainError;
use super::checkpoint::{self, BEST, LAST};
use super::config::TrainConfig;
use super::describe::{data_info, title};
use super::evaluate::assess;
use super::fit::{Event, Fit, GOOD, METRICS, NUMBERS, Outcome};
use super::predictions::{PREDICTIONS, Predictions, SplitPredictions};
use super::profile::Profile;
use crate::data::{Dataset, Images};
use crate::exec::Executor;
use crate::fsio;
use crate::nn::{Layer, Model};
use crate::report::data::{EpochRow, NetworkResult, Picture, RunSummary, SampleImage, SplitResult};
use crate::report::html::Block;
use crate::report::run_report;
use crate::report::tensorboard::EventLog;
use crate::stats::Units;

/// The trace of the profiled steps.
pub const TRACE: &str = "trace.json";
/// What came out of the run, in the run folder.
pub const RESULT: &str = "result.json";
/// The settings, in the run folder.
const CONFIG: &str = "config.toml";
/// The folder of the plots.
const PLOTS: &str = "plots";
/// The folder of TensorBoard's event files.
pub const TENSORBOARD: &str = "tensorboard";
/// Images of a report, at most.
const SAMPLES: usize = 24;

/// Where and on what a run happens.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The run folder.
    pub folder: &'a Path,
    /// Go on with the run that it holds.
    pub resume: bool,
    /// The device and why it was taken, for the report.
    pub device: String,
    /// Profile some steps, and write `trace.json`.
    pub profile: bool,
    /// Write TensorBoard's event files into `tensorboard`.
    pub tensorboard: bool,
}

impl Place<'_> {
    /// That there is no run in the folder, or, to resume, that there is one, or one that was killed before its first checkpoint; and that
    /// files can be written there.
    ///
    /// # Errors
    /// [`TrainError::RunExists`], [`TrainError::NoRun`] and [`TrainError::Fs`].
    pub fn check(&self) -> Result<(), TrainError> {
        let holds = |name: &str| self.folder.join(name).exists();
        let checkpoint = checkpoint::any(self.folder);
        // Only settings, or not even those: nothing was trained yet.
        let begun = self.folder.exists() && !holds(BEST) && (holds(CONFIG) || fsio::is_bare(self.folder));
        match self.resume {
            true if !checkpoint && !begun => Err(TrainError::NoRun { path: self.folder.to_owned(), missing: LAST }),
            false if checkpoint || holds(BEST) || holds(GOOD) => {
                Err(TrainError::RunExists { path: self.folder.to_owned() })
            }
            _ => Ok(fsio::check_writable(self.folder)?),
        }
    }
}

/// Takes a new folder away again in which nothing but the settings, or the log of an epoch without its checkpoint, was written.
fn abandon(folder: &Path) {
    if !checkpoint::any(folder) && [BEST, GOOD].iter().all(|name| !folder.join(name).exists()) {
        // Best effort: the error that ended the run is the one to report.
        for name in [CONFIG, METRICS, NUMBERS] {
            let _ = fs::remove_file(folder.join(name));
        }
        let _ = fs::remove_dir(folder);
    }
}

/// Raised to have a run stop.
pub type StopFlag = Arc<AtomicBool>;

/// What [`train`] leaves.
pub struct Trained {
    /// What the reports show.
    pub summary: RunSummary,
    /// The steps that were timed, where the place asks for it.
    pub profile: Option<Profile>,
    /// The device, for the next run.
    pub executor: Box<dyn Executor>,
}

/// Trains into a run folder: `config.toml`, `metrics.jsonl`, `best.safetensors`, `last.safetensors`, plots, `result.json`,
/// `predictions.csv`, `report.html`; `trace.json` where some steps are profiled, `tensorboard` where that is asked for. Nothing is written before data, network and
/// device have been found to fit. Once `stop` is raised, the run ends after the step and leaves a checkpoint.
///
/// A run that is resumed goes on from its newest checkpoint that is whole; one that was killed before the first begins anew.
///
/// # Errors
/// See [`TrainError`]; [`TrainError::Interrupted`] where it was stopped, [`TrainError::Busy`] where another process trains into the folder.
pub fn train(
    config: &TrainConfig,
    data: Dataset,
    executor: Box<dyn Executor>,
    place: &Place<'_>,
    stop: Option<StopFlag>,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Trained, TrainError> {
    place.check()?;
    config.validate()?;
    let info = data_info(&data, config)?;
    let classes = data.classes.clone();
    let mut fit = Fit::new(config, data, executor)?;
    let saved = place.folder.join(CONFIG);
    let resume = place.resume && checkpoint::any(place.folder);
    if resume || (place.resume && saved.exists()) {
        TrainConfig::read(&saved)?.allows(fit.config())?;
    }
    if let Some(stop) = stop {
        fit.stop_when(stop);
    }
    fit.save_every(config.checkpoint_every());
    let start = fit.start(resume.then_some(place.folder))?;
    if place.resume && !resume {
        events(Event::Note("the run was stopped before its first checkpoint: it begins anew"));
    }
    if place.profile {
        fit.profile(&start);
    }
    let text = fit.config().to_toml()?;
    let fresh = !place.folder.exists();
    fsio::create_dir(place.folder)?;
    let busy = || TrainError::Busy { path: place.folder.to_owned() };
    let _lock = fsio::lock_dir(place.folder).ok_or_else(busy)?;
    fsio::sweep(place.folder);
    fsio::sweep(&place.folder.join(PLOTS));
    let mut curves = place.tensorboard.then(|| Curves::open(&place.folder.join(TENSORBOARD), start.epochs(), events));
    let mut tell = |event: Event<'_>| {
        if let (Some(curves), Event::Epoch { row, .. }) = (&mut curves, event) {
            curves.add(row, events);
        }
        events(event);
    };
    let outcome = fsio::write_atomic(&saved, text.as_bytes())
        .map_err(TrainError::from)
        .and_then(|()| fit.run(start, Some(place.folder), &mut tell))
        .inspect_err(|_| {
            if fresh {
                abandon(place.folder);
            }
        })?;
    let Measured { network, samples, predictions } = measure(&mut fit, &outcome)?;
    Predictions { classes, splits: predictions }.write(&place.folder.join(PREDICTIONS))?;
    let summary = RunSummary {
        name: place.folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
        config: settings(fit.config())?,
        environment: {
            let kernels = fit.kernel_set().unwrap_or_else(|| "the table's".to_owned());
            let mut environment = environment(&place.device);
            environment.insert(1, ("kernels".to_owned(), kernels));
            environment.extend(fit.remarks().map(|words| ("numbers".to_owned(), words)));
            environment
        },
        data: info,
        network,
        samples,
    };
    write_report(place.folder, &summary)?;
    let profile = fit.take_profile();
    if let Some(profile) = &profile {
        fsio::write_atomic(&place.folder.join(TRACE), profile.trace().to_string().as_bytes())?;
    }
    Ok(Trained { summary, profile, executor: fit.into_executor() })
}

/// The curves of a run for TensorBoard. What goes wrong with them is told once and ends no training.
pub(super) struct Curves(Option<EventLog>);

impl Curves {
    /// Opens the folder, and adds what a resumed run had done without it.
    pub fn open(folder: &Path, done: &[EpochRow], events: &mut dyn FnMut(Event<'_>)) -> Self {
        let mut curves = Self(None);
        match EventLog::open(folder) {
            Ok(log) => curves.0 = Some(log),
            Err(e) => events(Event::Note(&format!("{e}; the training goes on without TensorBoard's files"))),
        }
        done.iter().for_each(|row| curves.add(row, events));
        curves
    }

    /// Adds an epoch.
    pub fn add(&mut self, row: &EpochRow, events: &mut dyn FnMut(Event<'_>)) {
        let Some(log) = &mut self.0 else { return };
        let mut scalars = vec![
            ("loss/train", row.train_loss),
            ("loss/validation", row.val_loss),
            ("accuracy/validation", row.val_accuracy),
            ("learning_rate", row.learning_rate),
            ("seconds", row.seconds),
        ];
        scalars.extend(row.train_accuracy.map(|a| ("accuracy/train", a)));
        if let Err(e) = log.add(row.epoch, &scalars) {
            events(Event::Note(&format!("{e}; the training goes on without TensorBoard's files")));
            self.0 = None;
        }
    }
}

/// What the kept weights do on every split.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The figures.
    pub network: NetworkResult,
    /// Sample images of the test split (or the validation split).
    pub samples: Vec<SampleImage>,
    /// What was said about each image.
    pub predictions: Vec<SplitPredictions>,
}

/// Metrics of every split with the kept weights, and sample images of the test split (or the validation split).
///
/// # Errors
/// The device failed.
pub fn measure(fit: &mut Fit, outcome: &Outcome) -> Result<Measured, TrainError> {
    let classes = fit.model().classes();
    let seed = fit.config().seed;
    let mut results = Vec::new();
    let mut samples = Vec::new();
    let mut predictions: Vec<SplitPredictions> = Vec::new();
    for split in ["val", "test", "official_val"] {
        let Some(p) = fit.predict(split)? else {
            results.push(None);
            continue;
        };
        let images = fit.images(split).ok_or_else(|| TrainError::setting("data", "lost a split"))?;
        let patients = Units::patients(&images.patients);
        let mut result = SplitResult::of_patients(title(split), &images.labels, &p, classes, patients.as_ref(), seed)?;
        if split == "test" || (split == "val" && fit.images("test").is_none()) {
            samples = pick(images, &p, classes);
        }
        predictions.push(SplitPredictions::new(split, images, p));
        // The first are those of validation, without which there is no run.
        if let [validation, ..] = &predictions[..]
            && let Some(measured) = predictions.last()
        {
            assess(&mut result, validation, measured, classes, seed)?;
        }
        results.push(Some(result));
    }
    let official = results.pop().flatten();
    let test = results.pop().flatten();
    let val = results.pop().flatten().ok_or_else(|| TrainError::setting("data", "has no validation images"))?;
    let network = NetworkResult {
        name: fit.config().model.clone(),
        spec: fit.model().network().to_string(),
        conv_layers: conv_layers(fit.model()),
        parameters: fit.model().trainable_numel() as u64,
        epochs: outcome.epochs.clone(),
        best_epoch: outcome.best_epoch,
        seconds: outcome.seconds,
        val,
        test,
        official,
        seeds: Vec::new(),
    };
    Ok(Measured { network, samples, predictions })
}

fn conv_layers(model: &Model) -> u32 {
    model.network().layers.iter().filter(|l| matches!(l, Layer::Conv { .. })).count() as u32
}

/// The worst errors first, then right decisions spread over the split.
fn pick(images: &Images, probabilities: &[f64], classes: usize) -> Vec<SampleImage> {
    let truth = |i: usize| probabilities[i * classes + images.labels[i] as usize];
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by(|&a, &b| truth(a).total_cmp(&truth(b)));
    let half = SAMPLES / 2;
    let step = (images.len() / half.max(1)).max(1);
    let spread = order.iter().rev().step_by(step).take(half);
    let mut chosen: Vec<usize> = Vec::new();
    for &i in order.iter().take(half).chain(spread) {
        if !chosen.contains(&i) {
            chosen.push(i);
        }
    }
    chosen.into_iter().filter_map(|i| sample(images, probabilities, classes, i)).collect()
}

fn sample(images: &Images, probabilities: &[f64], classes: usize, i: usize) -> Option<SampleImage> {
    let name = images.names.get(i).cloned().unwrap_or_default();
    let shape = [images.channels, images.height, images.width];
    let Picture { name, width, height, channels, pixels } = Picture::from_planes(name, images.image(i)?, shape);
    Some(SampleImage {
        name,
        width,
        height,
        channels,
        pixels,
        label: images.labels[i],
        probabilities: probabilities[i * classes..(i + 1) * classes].to_vec(),
    })
}

/// The settings as name and value.
///
/// # Errors
/// A number that cannot be written.
pub fn settings(config: &TrainConfig) -> Result<Vec<(String, String)>, TrainError> {
    let value = serde_json::to_value(config).map_err(|e| TrainError::setting("config", e.to_string()))?;
    let Some(map) = value.as_object() else { return Ok(Vec::new()) };
    let absent = |name: &str| match name {
        "schedule" => "cosine",
        "split_seed" => "as seed",
        "augment_repeats" => "as the others",
        _ => "none",
    };
    let text = |(name, value): (&String, &serde_json::Value)| {
        (name.clone(), if value.is_null() { absent(name).to_owned() } else { plain_words(value) })
    };
    Ok(map.iter().map(text).collect())
}

/// A value of a config without the marks of JSON: `adam, betas 0.9 0.999, eps 1e-8`.
fn plain_words(value: &serde_json::Value) -> String {
    use serde_json::Value::{Array, Object, String};
    match value {
        String(s) => s.clone(),
        Array(values) => values.iter().map(plain_words).collect::<Vec<_>>().join(" "),
        Object(map) => {
            let name = map.get("name").map(plain_words);
            let rest = map.iter().filter(|(key, value)| *key != "name" && !value.is_null());
            let rest = rest.map(|(key, value)| match value {
                Object(_) => format!("{key} ({})", plain_words(value)),
                _ => format!("{key} {}", plain_words(value)),
            });
            name.into_iter().chain(rest).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Device, version and command line.
#[must_use]
pub fn environment(device: &str) -> Vec<(String, String)> {
    let command: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    vec![
        ("device".to_owned(), device.to_owned()),
        ("version".to_owned(), format!("radiograd {}", env!("CARGO_PKG_VERSION"))),
        ("command".to_owned(), format!("radiograd {}", command.join(" "))),
        ("threads".to_owned(), rayon::current_num_threads().to_string()),
    ]
}

fn write_report(folder: &Path, summary: &RunSummary) -> Result<(), TrainError> {
    let report = run_report(summary);
    report.write(&folder.join("report.html"))?;
    let mut without_images = summary.clone();
    without_images.samples.clear();
    let json = serde_json::to_vec_pretty(&without_images).map_err(|e| TrainError::setting("result", e.to_string()))?;
    fsio::write_atomic(&folder.join(RESULT), &json)?;
    write_plots(folder, &report)
}

/// Every plot of a report as an SVG file of its own.
///
/// # Errors
/// A file cannot be written.
pub fn write_plots(folder: &Path, report: &crate::report::html::Report) -> Result<(), TrainError> {
    let plots = folder.join(PLOTS);
    fsio::create_dir(&plots)?;
    for section in &report.sections {
        let figures = section.blocks.iter().filter_map(|b| match b {
            Block::Figures(figures) => Some(figures),
            _ => None,
        });
        for figure in figures.flatten() {
            let title = format!("{} {}", section.title, figure.plot.title());
            let plain = title.replace(|c: char| !c.is_ascii_alphanumeric(), " ").to_ascii_lowercase();
            let name = plain.split_whitespace().collect::<Vec<_>>().join("-");
            fsio::write_atomic(&plots.join(format!("{name}.svg")), figure.plot.standalone().as_bytes())?;
        }
    }
    Ok(())
}
