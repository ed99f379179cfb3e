//! What the commands that read images share: options, notes, progress.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Context, Failure};
use crate::data::{Dataset, LoadOptions, Source, Splits};
use crate::train::{Event, Override, TrainConfig, TrainError, overrides};
use crate::weights::{Grey, Rename};

// How weights that were trained for something else become this network's. (clap would print a doc comment as the whole command's.)
#[derive(Args, Clone, Debug, Default)]
pub struct TransferArgs {
    /// Another name for tensors of the weight file: OLD=NEW replaces a whole name or whole parts in front of it (backbone=features); again for
    /// further rules, of which the first that fits a name counts
    #[arg(long, value_name = "OLD=NEW")]
    pub key_map: Vec<Rename>,
    /// What weights of 3-channel images do with grey ones: sum (the first convolution is added up over its inputs) or repeat (each of the
    /// network's three channels is the image)
    #[arg(long, value_name = "HOW")]
    pub grey: Option<Grey>,
}

impl TransferArgs {
    /// Channels of the images: 3 where the image is repeated, else as asked for, else 1.
    ///
    /// # Errors
    /// Other channels than the weights have were asked for.
    pub fn channels(&self, asked: Option<usize>) -> Result<usize, Failure> {
        match (self.grey, asked) {
            (Some(Grey::Repeat), None | Some(3)) => Ok(3),
            (Some(Grey::Repeat), Some(_)) => {
                Err(Failure::Message("--grey repeat needs --channels 3, or none".to_owned()))
            }
            (_, asked) => Ok(asked.unwrap_or(TrainConfig::default().channels)),
        }
    }
}

/// The line under every result.
pub const NOTICE: &str = "Software for study, not a medical device.";

/// Where DATA leads.
///
/// # Errors
/// There is nothing of that name.
pub fn source(data: &str) -> Result<Source, Failure> {
    Ok(Source::parse(data)?)
}

/// A config with the settings of the command line laid over it.
///
/// # Errors
/// A key that there is not, with the nearest one, or a value of the wrong kind.
pub fn set(config: &TrainConfig, settings: &[Override]) -> Result<TrainConfig, Failure> {
    Ok(overrides::apply(config, settings).map_err(|e| TrainError::from(e).at("--set"))?)
}

/// How a command loads what a config names.
#[must_use]
pub fn options(config: &TrainConfig, splits: Splits, cx: &Context) -> LoadOptions {
    LoadOptions {
        size: (config.size, config.size),
        channels: config.channels,
        splits,
        val_fraction: config.val_fraction,
        exclude_patients: config.exclude_patients.iter().map(PathBuf::from).collect(),
        fold: config.fold,
        seed: config.split_seed.unwrap_or(config.seed),
        strict: config.strict,
        progress: Some(super::progress::loading(cx)),
        ..LoadOptions::default()
    }
}

/// Tells how the splits came about and which files were left out.
pub fn say_notes(data: &Dataset, cx: &Context) {
    for note in &data.notes {
        cx.note(note);
    }
    for skipped in data.skipped.iter().take(10) {
        cx.note(format!("left out {}: {}", skipped.name, skipped.reason));
    }
    if data.skipped.len() > 10 {
        cx.note(format!("left out {} more files; `radiograd data summary` lists them", data.skipped.len() - 10));
    }
}

/// A bar for the steps of an epoch where stderr is a terminal, and a plain line an epoch everywhere.
pub struct Progress<'a> {
    cx: &'a Context,
    bar: ProgressBar,
    epochs: u32,
    title: String,
}

impl<'a> Progress<'a> {
    /// A bar for a run of so many epochs; `title` stands in front of each line.
    #[must_use]
    pub fn new(cx: &'a Context, epochs: u32, title: &str) -> Self {
        let bar = super::progress::bar(cx, 0);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} steps, {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { cx, bar, epochs, title: title.to_owned() }
    }

    /// Takes an event of the loop.
    pub fn tell(&mut self, event: Event<'_>) {
        match event {
            Event::Step { epoch, step, steps, loss } => {
                self.bar.set_length(steps as u64);
                self.bar.set_position(step as u64);
                self.bar.set_message(format!("{}epoch {epoch}/{}, loss {loss:.4}", self.title, self.epochs));
            }
            Event::Epoch { row, best } => {
                let line = format!(
                    "{}epoch {}/{}: loss {:.4}, accuracy {:.4}, validation loss {:.4}, accuracy {:.4}, {:.1} s{}",
                    self.title,
                    row.epoch,
                    self.epochs,
                    row.train_loss,
                    row.train_accuracy.unwrap_or(f64::NAN),
                    row.val_loss,
                    row.val_accuracy,
                    row.seconds,
                    if best { " (best so far)" } else { "" },
                );
                self.bar.suspend(|| self.cx.note(&line));
            }
            Event::Note(text) => self.bar.suspend(|| self.cx.note(text)),
            Event::Warning(text) => self.bar.suspend(|| self.cx.warn(text)),
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The first of `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`, ... that is not there yet: where a command writes that was not
/// told where to.
#[must_use]
pub fn fresh_folder(name: &str) -> PathBuf {
    let plain = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    // A long chain of layers makes no good folder name.
    let short: String = plain.chars().take(40).collect();
    let number = |k: usize| if k == 1 { short.clone() } else { format!("{short}-{k}") };
    let folders = (1..).map(|k| Path::new("runs").join(number(k)));
    folders.into_iter().find(|f| !f.exists()).unwrap_or_default()
}
