//! `radiograd train`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::device::DeviceChoice;
use super::format::{giga, seconds};
use super::loading::TransferArgs;
use super::{Context, Failure, interrupt, loading};
use crate::data::{Sampler, Splits, load};
use crate::ops::augment::settings::PRESETS;
use crate::optim::OptimizerKind;
use crate::report::data::RunSummary;
use crate::report::split_table;
use crate::report::table::Table;
use crate::train::profile::ProfileSummary;
use crate::train::run::{self, Place};
use crate::train::{Augment, OnNan, Override, TrainConfig, TrainError, init};

/// Trains a network into a run folder.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  radiograd train --data chest_xray --model cnn2 --size 64 --epochs 6 --out runs/cnn2\n  \
        radiograd train --data chest_xray --model resnet34 --init resnet34 --grey sum --size 224   (see `radiograd weights`)\n  \
        radiograd train --data set.npz --model cnn2 --size 64 --init runs/cnn2"
)]
pub struct TrainArgs {
    /// Settings in TOML; options given here win over it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Image folder, MedMNIST .npz file, or `phantom`
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Network: a name (mlp, cnn3, resnet34, ...) or a chain such as conv16-relu-[conv16-bn]+-relu-gap-flatten-dense2
    #[arg(long, value_name = "SPEC")]
    pub model: Option<String>,
    /// Height and width of the images in pixels
    #[arg(long)]
    pub size: Option<usize>,
    /// 1 (grey) or 3 (RGB)
    #[arg(long)]
    pub channels: Option<usize>,
    /// Passes over the training images
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Images in a step
    #[arg(long)]
    pub batch: Option<usize>,
    /// Batches whose gradients are averaged before the weights change
    #[arg(long, value_name = "N")]
    pub accumulate: Option<usize>,
    /// Hold few activations and compute the others twice: less memory, about a third more work
    #[arg(long)]
    pub recompute: bool,
    /// Compute the output of the frozen layers in front of a stage once, instead of at each step; its images are not augmented
    #[arg(long)]
    pub cache_features: bool,
    /// Scale the gradient down where its norm is larger
    #[arg(long, value_name = "NORM", allow_negative_numbers = true)]
    pub clip_grad_norm: Option<f64>,
    /// What to do where loss, gradient or weights become NaN or infinite: stop (with the last good weights kept), skip (leave the
    /// update out) or halve-lr (go back some steps, and on with half the learning rate)
    #[arg(long, value_name = "HOW")]
    pub on_nan: Option<OnNan>,
    /// Learning rate that the schedule starts from
    #[arg(long, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// adam, adamw, sgd or rmsprop, with parameters: sgd:momentum=0.9,nesterov=true
    #[arg(long)]
    pub optimizer: Option<OptimizerKind>,
    /// cosine (over the whole run), constant, one_cycle or plateau; others in the config file
    #[arg(long)]
    pub schedule: Option<String>,
    /// balanced (the default) or none: how much each class counts in the loss
    #[arg(long)]
    pub class_weights: Option<String>,
    /// shuffle (each image once an epoch), balanced (every class equally often) or oversample (images of the smaller classes
    /// again until all have as many)
    #[arg(long)]
    pub sampler: Option<Sampler>,
    /// How training images are changed at random: none, light or strong (which mirrors some, and so their hearts); others in
    /// the config file
    #[arg(long, value_name = "NAME", value_parser = preset)]
    pub augment: Option<Augment>,
    /// How the images are changed that the sampler repeats: none, light or strong
    #[arg(long, value_name = "NAME", value_parser = preset)]
    pub augment_repeats: Option<Augment>,
    /// Share of the label spread over all classes
    #[arg(long, allow_negative_numbers = true)]
    pub label_smoothing: Option<f64>,
    /// Share of the training images held out for validation, by patient
    #[arg(long, allow_negative_numbers = true)]
    pub val_fraction: Option<f64>,
    /// Leave patients of this folder of images (a set, a split or a class) out of training and validation; again for further folders
    #[arg(long, value_name = "DIR")]
    pub exclude_patients: Vec<String>,
    /// Stop after so many epochs without a better validation loss, or go on with the next stage where one is left; 0: never
    #[arg(long)]
    pub patience: Option<u32>,
    /// Weights to begin with: a .safetensors or .pth file, a run folder (its best weights), or the name of published ones that `radiograd
    /// weights get` has fetched. A last layer of other classes begins anew; all else must fit
    #[arg(long, value_name = "FILE")]
    pub init: Option<String>,
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Any setting of the config file, by its key: --set optimizer.weight_decay=0.1; wins over file and options
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Fail on an unreadable image instead of leaving it out
    #[arg(long)]
    pub strict: bool,
    /// The run folder; a new one below `runs` where none is named
    #[arg(long, value_name = "RUN")]
    pub out: Option<PathBuf>,
    /// Go on with the run in the folder that --out names
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Minutes between two checkpoints within an epoch, beside those after each epoch (10 where nothing is said); 0: none
    #[arg(long, value_name = "MINUTES", allow_negative_numbers = true)]
    pub checkpoint_minutes: Option<f64>,
    /// Write the curves into RUN/tensorboard, for `tensorboard --logdir RUN`
    #[arg(long)]
    pub tensorboard: bool,
    /// Profile the 3rd to the 8th step: a table of time by op, and RUN/trace.json, which Perfetto opens
    #[arg(long)]
    pub profile: bool,
}

/// A finished run.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: RunSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileSummary>,
}

impl TrainArgs {
    fn config(&self, seed: Option<u32>) -> Result<TrainConfig, Failure> {
        let resumed = self.out.as_ref().map(|out| out.join("config.toml")).filter(|_| self.resume);
        let c = match &self.config {
            Some(path) => TrainConfig::read(path)?,
            None => match resumed {
                Some(path) if path.is_file() => TrainConfig::read(&path)?,
                _ => TrainConfig::default(),
            },
        };
        // Options are settings too; --set comes last, so that it wins over both.
        let mut sets = Vec::new();
        put(&mut sets, "data", &self.data)?;
        put(&mut sets, "model", &self.model)?;
        put(&mut sets, "size", &self.size)?;
        put(&mut sets, "channels", &self.channels)?;
        put(&mut sets, "epochs", &self.epochs)?;
        put(&mut sets, "batch", &self.batch)?;
        put(&mut sets, "accumulate", &self.accumulate)?;
        put(&mut sets, "recompute", &self.recompute.then_some(true))?;
        put(&mut sets, "cache_features", &self.cache_features.then_some(true))?;
        put(&mut sets, "clip_grad_norm", &self.clip_grad_norm)?;
        put(&mut sets, "on_nan", &self.on_nan)?;
        put(&mut sets, "lr", &self.lr)?;
        put(&mut sets, "optimizer", &self.optimizer)?;
        put(&mut sets, "label_smoothing", &self.label_smoothing)?;
        put(&mut sets, "val_fraction", &self.val_fraction)?;
        put(&mut sets, "exclude_patients", &(!self.exclude_patients.is_empty()).then_some(&self.exclude_patients))?;
        put(&mut sets, "patience", &self.patience)?;
        put(&mut sets, "seed", &seed)?;
        put(&mut sets, "strict", &self.strict.then_some(true))?;
        put(&mut sets, "checkpoint_minutes", &self.checkpoint_minutes)?;
        put(&mut sets, "sampler", &self.sampler)?;
        put(&mut sets, "augment", &self.augment)?;
        put(&mut sets, "augment_repeats", &self.augment_repeats)?;
        put(&mut sets, "init", &self.init)?;
        let rules: Vec<String> = self.transfer.key_map.iter().map(ToString::to_string).collect();
        put(&mut sets, "key_map", &(!rules.is_empty()).then_some(rules))?;
        put(&mut sets, "grey", &self.transfer.grey)?;
        match self.class_weights.as_deref() {
            Some(other) if !["none", "balanced"].contains(&other) => {
                return Err(Failure::Message(format!("--class-weights {other}: is none or balanced")));
            }
            _ => put(&mut sets, "class_weights", &self.class_weights)?,
        }
        match self.schedule.as_deref() {
            Some(other) if !["cosine", "constant", "one_cycle", "plateau"].contains(&other) => {
                let known = "cosine, constant, one_cycle or plateau; others go into the config file";
                return Err(Failure::Message(format!("--schedule {other}: is {known}")));
            }
            _ => put(&mut sets, "schedule", &self.schedule)?,
        }
        sets.extend(self.set.iter().cloned());
        loading::set(&c, &sets)
    }
}

/// An option as a setting, where it was given.
fn put<T: Serialize>(to: &mut Vec<Override>, key: &str, value: &Option<T>) -> Result<(), Failure> {
    if let Some(value) = value {
        let value = toml::Value::try_from(value).map_err(|e| Failure::Message(format!("{key}: {e}")))?;
        to.push(Override::new(key, value));
    }
    Ok(())
}

/// The augmentation of that name.
pub(super) fn preset(name: &str) -> Result<Augment, String> {
    Augment::preset(name).ok_or_else(|| format!("give {PRESETS}"))
}

/// Runs the command.
///
/// # Errors
/// Everything that can end a training.
pub fn run(args: &TrainArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config(cx.seed)?;
    config.validate()?;
    config.check_network(&config.model)?;
    // Weights that are not there should show before minutes of reading images. A run that goes on has its own.
    if let (Some(weights), false) = (&config.init, args.resume) {
        init::find(weights)?;
    }
    let options = loading::options(&config, Splits::STUDY, cx);
    let opened = cx.open()?;
    let device = opened.line();
    let executor = opened.device.into_executor();
    let out = args.out.clone().unwrap_or_else(|| loading::fresh_folder(&config.model));
    let place =
        Place { folder: &out, resume: args.resume, device, profile: args.profile, tensorboard: args.tensorboard };
    place.check()?;
    let data = load(&loading::source(&config.data)?, &options)?;
    loading::say_notes(&data, cx);
    let mut progress = loading::Progress::new(cx, config.epochs, "");
    let stop = interrupt::flag(cx, "after this step")?;
    let trained = run::train(&config, data, executor, &place, Some(stop), &mut |event| progress.tell(event));
    progress.end();
    let run::Trained { summary, profile, .. } = trained.map_err(|e| stopped(e, args, &out, cx))?;
    let mut plain = summary.clone();
    plain.samples.clear();
    let positive = summary.data.class_name(1);
    let table = split_table(&summary.network, &positive).to_text();
    let profile = profile.map(|p| p.summary());
    let timed = profile.as_ref().map(|p| profile_text(p, &out.join(run::TRACE))).unwrap_or_default();
    let text = format!(
        "{table}\n{timed}best epoch {} of {}; everything is in {} (report.html opens in a browser)\n{}",
        summary.network.best_epoch,
        summary.network.epochs.len(),
        out.display(),
        loading::NOTICE,
    );
    cx.result(text, &Report { run: plain, profile })
}

/// Says how a training that was stopped goes on.
fn stopped(e: TrainError, args: &TrainArgs, out: &Path, cx: &Context) -> Failure {
    let TrainError::Interrupted { kept, .. } = e else { return e.into() };
    if !kept {
        return Failure::Stopped {
            reason: Box::new(e),
            next: "there is nothing to keep: the same command begins anew".to_owned(),
        };
    }
    let mut command = format!("radiograd train --resume --out {}", quoted(&out.to_string_lossy()));
    if cx.device != DeviceChoice::Auto {
        command.push_str(&format!(" --device {}", cx.device));
    }
    let flags = [(cx.no_fuse, " --no-fuse"), (!cx.tune, " --no-tune"), (args.tensorboard, " --tensorboard")];
    flags.iter().filter(|(given, _)| *given).for_each(|(_, flag)| command.push_str(flag));
    Failure::Stopped { reason: Box::new(e), next: format!("all of it is kept, and this goes on: {command}") }
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    match path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:,@%\\".contains(c)) {
        true if !path.is_empty() => path.to_owned(),
        _ => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// What `--profile` shows.
fn profile_text(p: &ProfileSummary, trace: &Path) -> String {
    let steps = match p.steps[..] {
        [first, .., last] => format!("steps {first} to {last}, each on its own"),
        [one] => format!("step {one}"),
        [] => "no step".to_owned(),
    };
    let host: Vec<String> = p.host.iter().map(|h| format!("{} {}", h.phase, seconds(h.seconds))).collect();
    let host = if host.is_empty() { String::new() } else { format!("host: {}\n", host.join(", ")) };
    let ops = match &p.ops {
        None => "time by op: this adapter has no timestamps, so only the host's phases were timed\n".to_owned(),
        Some(ops) => {
            let mut table = Table::new(
                format!("Time by op, the median of {steps}"),
                ["op", "pass", ">nodes", ">time", ">share", ">GFLOP/s", ">GB/s"],
            );
            for o in ops {
                let rate = |n: u64| giga(n as f64 / o.seconds.max(f64::MIN_POSITIVE));
                table.push([
                    o.op.to_owned(),
                    o.pass.to_owned(),
                    o.nodes.to_string(),
                    seconds(o.seconds),
                    format!("{:.1} %", 100.0 * o.share),
                    rate(o.flops),
                    rate(o.bytes),
                ]);
            }
            let sum: f64 = ops.iter().map(|o| o.seconds).sum();
            format!("{}all ops: {} a step\n", table.to_text(), seconds(sum))
        }
    };
    format!("{ops}{host}every node and phase of {steps}: {} (https://ui.perfetto.dev opens it)\n\n", trace.display())
}
