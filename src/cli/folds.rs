//! `radiograd study folds`.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure, loading};
use crate::data::{Splits, load};
use crate::report::fold_table;
use crate::train::folds::{FoldEvent, Folds, folds};
use crate::train::{TrainConfig, TrainError};

/// Patient-wise cross-validation of one network, repeated over seeds.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd study folds --model cnn2\n  \
    radiograd study folds --data chest_xray --model cnn2 --folds 5 --seeds 3 --out studies/cnn2-folds\n\n\
    The same command again goes on with a study that was broken off: finished folds are not repeated.")]
pub struct FoldsArgs {
    /// Settings in TOML; options given here win over it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Image folder, MedMNIST .npz file, or `phantom`; only its training images are read
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Network: a name or a chain of layers
    #[arg(long, value_name = "SPEC")]
    pub model: Option<String>,
    /// Height and width of the images in pixels
    #[arg(long)]
    pub size: Option<usize>,
    /// Passes over the training images
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Images in a step
    #[arg(long)]
    pub batch: Option<usize>,
    /// Learning rate that the schedule starts from
    #[arg(long, allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Parts that the patients are divided into; each is the test set once
    #[arg(long, default_value_t = 5)]
    pub folds: u32,
    /// Seeds: so many partitions, each trained in full
    #[arg(long, default_value_t = 1)]
    pub seeds: u32,
    /// Write each training's curves into its folder, for `tensorboard --logdir DIR`
    #[arg(long)]
    pub tensorboard: bool,
    /// Folder of the study, a run folder for each fold in it; a new one below `runs` where none is named
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl FoldsArgs {
    fn config(&self, seed: Option<u32>) -> Result<TrainConfig, Failure> {
        let c = match &self.config {
            Some(path) => TrainConfig::read(path)?,
            None => TrainConfig::default(),
        };
        Ok(TrainConfig {
            data: self.data.clone().unwrap_or(c.data),
            model: self.model.clone().unwrap_or(c.model),
            size: self.size.unwrap_or(c.size),
            epochs: self.epochs.unwrap_or(c.epochs),
            batch: self.batch.unwrap_or(c.batch),
            lr: self.lr.unwrap_or(c.lr),
            seed: seed.unwrap_or(c.seed),
            ..c
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Everything that can end a training.
pub fn run(args: &FoldsArgs, cx: &Context) -> Result<(), Failure> {
    let config = args.config(cx.seed)?;
    if args.seeds == 0 {
        return Err(Failure::Message("--seeds must be at least 1".to_owned()));
    }
    if let Some(problem) = (crate::data::Fold { index: 0, of: args.folds }).problem() {
        return Err(Failure::Message(format!("--folds: {problem}")));
    }
    config.validate()?;
    config.check_network(&config.model)?;
    let source = loading::source(&config.data)?;
    let opened = cx.open()?;
    let device = opened.line();
    let executor = opened.device.into_executor();
    let out = args.out.clone().unwrap_or_else(|| loading::fresh_folder("folds"));
    let fresh = !out.exists();
    crate::fsio::create_writable_dir(&out)?;
    let plan = Folds {
        config: &config,
        folds: args.folds,
        seeds: args.seeds,
        out: &out,
        device: &device,
        tensorboard: args.tensorboard,
    };
    let mut progress = loading::Progress::new(cx, config.epochs, "");
    let mut load = |config: &TrainConfig| {
        let data = load(&source, &loading::options(config, Splits::STUDY, cx)).map_err(TrainError::from)?;
        loading::say_notes(&data, cx);
        Ok(data)
    };
    let study = folds(&plan, executor, &mut load, &mut |event| match event {
        FoldEvent::Training(event) => progress.tell(event),
        FoldEvent::Kept { seed, fold } => {
            cx.note(format!("seed {seed}, fold {} of {}: finished before, kept", fold + 1, args.folds));
        }
        FoldEvent::Begin { seed, fold } => {
            progress.end();
            progress = loading::Progress::new(cx, config.epochs, &format!("seed {seed} fold {} ", fold + 1));
        }
    })
    .inspect_err(|_| {
        if fresh {
            // Empty still, so that it goes; what holds anything stays.
            let _ = std::fs::remove_dir(&out);
        }
    })?;
    progress.end();
    let mut text = fold_table(&study).to_text();
    if study.synthetic {
        text.push_str("The phantom images are drawn by a program: these figures say nothing about patients.\n");
    }
    text.push_str(&format!("report: {}\n{}", out.join("report.html").display(), loading::NOTICE));
    cx.result(text, &study)
}
