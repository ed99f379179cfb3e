//! `radiograd study depth` and `radiograd study folds`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Context, Failure, loading};
use crate::data::{Splits, load};
use crate::report::{seed_table, study_table};
use crate::train::run::TENSORBOARD;
use crate::train::{ClassWeights, Override, TrainConfig, study};

/// Comparisons of several networks on the same images.
#[derive(Subcommand, Debug)]
pub enum StudyCommand {
    /// One, two and three convolution layers
    Depth(DepthArgs),
    /// One network on every fold of the training images, by patient
    Folds(super::folds::FoldsArgs),
}

/// One, two and three convolution layers, trained alike.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd study depth\n  \
    radiograd study depth --data chest_xray --size 64 --epochs 6 --seeds 5 --out studies/depth")]
pub struct DepthArgs {
    /// Image folder, .npz file or `phantom` (synthetic, built in)
    #[arg(long, value_name = "DATA", default_value = "phantom")]
    pub data: String,
    /// Height and width of the images; 64, for the phantom set 48
    #[arg(long)]
    pub size: Option<usize>,
    /// Passes over the training images; 6, for the phantom set 10
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Images in a step
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Learning rate that the cosine schedule starts from
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    pub lr: f64,
    /// Seeds: each network is trained so many times
    #[arg(long, default_value_t = 1)]
    pub seeds: u32,
    /// Any other setting of a training, by its key: --set optimizer.weight_decay=0.1
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Write each training's curves below DIR/tensorboard, for `tensorboard --logdir DIR`
    #[arg(long)]
    pub tensorboard: bool,
    /// Folder for report.html, study.json and plots; a new one below `runs` where none is named
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Everything that can end a training.
pub fn run(command: &StudyCommand, cx: &Context) -> Result<(), Failure> {
    match command {
        StudyCommand::Depth(args) => depth(args, cx),
        StudyCommand::Folds(args) => super::folds::run(args, cx),
    }
}

fn depth(args: &DepthArgs, cx: &Context) -> Result<(), Failure> {
    if args.seeds == 0 {
        return Err(Failure::Message("--seeds must be at least 1".to_owned()));
    }
    let phantom = args.data == "phantom";
    let config = TrainConfig {
        data: args.data.clone(),
        size: args.size.unwrap_or(if phantom { 48 } else { 64 }),
        epochs: args.epochs.unwrap_or(if phantom { 10 } else { 6 }),
        batch: args.batch,
        lr: args.lr,
        seed: cx.seed.unwrap_or(0),
        // As the published study trained.
        class_weights: ClassWeights::None,
        ..TrainConfig::default()
    };
    if args.set.iter().any(|s| s.key == "model") {
        return Err(Failure::Message(format!("--set model: the study trains {}", study::NETWORKS.join(", "))));
    }
    let config = loading::set(&config, &args.set)?;
    config.validate()?;
    for network in study::NETWORKS {
        config.check_network(network)?;
    }
    let opened = cx.open()?;
    let device = opened.line();
    let executor = opened.device.into_executor();
    let out = args.out.clone().unwrap_or_else(|| loading::fresh_folder("depth"));
    if out.join("study.json").exists() {
        let out = out.display();
        return Err(Failure::Message(format!("{out} already holds a study: name another folder with --out")));
    }
    if args.tensorboard && out.join(TENSORBOARD).exists() {
        let out = out.display();
        return Err(Failure::Message(format!("{out} already holds curves of a study: name another folder with --out")));
    }
    let data = load(&loading::source(&config.data)?, &loading::options(&config, Splits::STUDY, cx))?;
    loading::say_notes(&data, cx);
    // A folder that cannot be written must be known before the training, not after it.
    let fresh = !out.exists();
    crate::fsio::create_writable_dir(&out)?;
    let mut progress = loading::Progress::new(cx, config.epochs, "");
    let mut now = String::new();
    let curves = args.tensorboard.then_some(out.as_path());
    let result = study::depth(&config, &data, executor, &device, args.seeds, curves, &mut |name, seed, event| {
        let title = if args.seeds > 1 { format!("{name} seed {seed} ") } else { format!("{name} ") };
        if title != now {
            progress.end();
            progress = loading::Progress::new(cx, config.epochs, &title);
            now = title;
        }
        progress.tell(event);
    })
    .inspect_err(|_| {
        if fresh {
            // Empty still, so that it goes; what holds anything stays.
            let _ = std::fs::remove_dir(&out);
        }
    })?;
    progress.end();
    study::write(&out, &result)?;
    let mut text = study_table(&result).to_text();
    if let Some(seeds) = seed_table(&result.networks) {
        text.push_str(&format!("\n{}", seeds.to_text()));
    }
    if result.data.synthetic {
        text.push_str("\nThe phantom images are drawn by a program: these figures say nothing about patients.");
    }
    text.push_str(&format!("\nreport: {}\n{}", out.join("report.html").display(), loading::NOTICE));
    cx.result(text, &result)
}
