//! `radiograd data preview`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::train::preset;
use super::{Context, Failure, loading};
use crate::data::{Need, Splits, load, shown};
use crate::fsio;
use crate::report::table::Table;
use crate::train::step::Augmentation;
use crate::train::{Augment, TrainConfig, preview};

/// The most rows and the most draws of a sheet.
const MOST: u32 = 64;

/// Arguments of `radiograd data preview`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  radiograd data preview --data chest_xray --size 128 --augment strong --out strong.png\n  radiograd data preview --config mine.toml --out mine.png"
)]
pub(super) struct PreviewArgs {
    /// Settings in TOML, of which augment and augment_repeats are shown; options given here win over it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Image folder, MedMNIST .npz file, or `phantom`
    #[arg(long, value_name = "DATA")]
    data: Option<String>,
    /// Height and width of the images in pixels
    #[arg(long)]
    size: Option<usize>,
    /// 1 (grey) or 3 (RGB)
    #[arg(long)]
    channels: Option<usize>,
    /// none, light or strong; light where neither this nor a config file says
    #[arg(long, value_name = "NAME", value_parser = preset)]
    augment: Option<Augment>,
    /// The file to write
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Training images to show, a row each, of the classes in turn
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    images: u32,
    /// Pictures drawn of each image
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    draws: u32,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Shown {
    image: String,
    class: String,
}

#[derive(Serialize)]
struct Report {
    out: String,
    size: usize,
    seed: u32,
    augment: String,
    augment_repeats: Option<String>,
    draws: u32,
    rows: Vec<Shown>,
}

/// Runs the command.
///
/// # Errors
/// The file is there already, the settings or the data do not read, or the device failed.
pub(super) fn run(args: &PreviewArgs, cx: &Context) -> Result<(), Failure> {
    let mut config = args.config.as_ref().map_or_else(|| Ok(TrainConfig::default()), |path| TrainConfig::read(path))?;
    if args.config.is_none() && args.data.is_none() {
        return Err(Failure::Message("--data is needed where no --config names the images".to_owned()));
    }
    config.data = args.data.clone().unwrap_or(config.data);
    config.size = args.size.unwrap_or(config.size);
    config.channels = args.channels.unwrap_or(config.channels);
    config.seed = cx.seed.unwrap_or(config.seed);
    if args.augment.is_some() {
        config.augment.clone_from(&args.augment);
        config.augment_repeats = None;
    } else if config.augment.is_none() && config.augment_repeats.is_none() {
        config.augment = Augment::preset("light");
    }
    config.validate()?;
    if args.out.exists() && !args.force {
        let out = shown(&args.out);
        return Err(Failure::Message(format!("{out} is there already: name another file with --out, or give --force")));
    }
    let mut executor = cx.open()?.device.into_executor();
    let splits = Splits { train: Need::Yes, ..Splits::default() };
    let data = load(&loading::source(&config.data)?, &loading::options(&config, splits, cx))?;
    let Some(train) = &data.train else {
        return Err(Failure::Message(format!("{}: has no training images", config.data)));
    };
    let chosen = preview::choose(train, data.classes.len(), args.images as usize, config.seed);
    let augmentation = Augmentation { images: config.augment.as_ref(), repeats: config.augment_repeats.as_ref() };
    let sheet = preview::sheet(executor.as_mut(), train, &chosen, augmentation, args.draws as usize, config.seed)?;
    fsio::write_atomic(&args.out, &sheet.png().map_err(crate::train::TrainError::from)?)?;
    let rows: Vec<Shown> = chosen
        .iter()
        .map(|&i| Shown {
            image: train.names.get(i).cloned().unwrap_or_default(),
            class: data.classes.get(train.labels[i] as usize).cloned().unwrap_or_default(),
        })
        .collect();
    let line = |a: &Option<Augment>| a.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let mut table = Table::new(
        format!("{}: first the image as it is, then {} draws; {}", shown(&args.out), args.draws, line(&config.augment)),
        [">row", "class", "image"],
    );
    for (k, row) in rows.iter().enumerate() {
        table.push([(k + 1).to_string(), row.class.clone(), row.image.clone()]);
    }
    let mut text = table.to_text();
    if config.augment_repeats.is_some() {
        text.push_str(&format!("the last {} columns: repeats, {}\n", args.draws, line(&config.augment_repeats)));
    }
    let report = Report {
        out: shown(&args.out),
        size: config.size,
        seed: config.seed,
        augment: line(&config.augment),
        augment_repeats: config.augment_repeats.as_ref().map(ToString::to_string),
        draws: args.draws,
        rows,
    };
    cx.result(text, &report)
}
