//! `radiograd bench data`: images a second, from files to a batch on the device.

use std::ffi::OsString;

use serde::Serialize;

use super::super::device::DeviceReport;
use super::super::format::{bytes, seconds};
use super::super::train::preset;
use super::super::{Context, Failure, ImageSize};
use super::BudgetArgs;
use crate::bench::data::{self, DataResult, Settings};
use crate::data::Source;
use crate::nn::summary::MAX_BATCH;
use crate::report::table::Table;
use crate::train::Augment;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd bench data --data chest_xray --size 128\n  radiograd bench data --data phantom --size 64 --device cpu"
)]
pub(super) struct DataArgs {
    /// Image folder, MedMNIST .npz file, or `phantom`
    #[arg(long, value_name = "DATA")]
    data: OsString,
    /// Size that images are resized to: S or HxW
    #[arg(long, default_value = "64", value_name = "S")]
    size: ImageSize,
    /// 1 for grey, 3 for RGB
    #[arg(long, default_value_t = 1, value_name = "C")]
    channels: usize,
    /// Most files of a folder (spread over its splits), and images of the phantom set
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    images: u32,
    /// Images that the device gathers at once
    #[arg(long, default_value_t = 64, value_name = "B")]
    batch: usize,
    /// How the augment stage changes images: none, light or strong
    #[arg(long, default_value = "strong", value_name = "NAME", value_parser = preset)]
    augment: Augment,
    #[command(flatten)]
    budget: BudgetArgs,
}

#[derive(Serialize)]
struct Report {
    device: DeviceReport,
    source: String,
    size: [usize; 2],
    channels: usize,
    augment: String,
    threads: usize,
    #[serde(flatten)]
    result: DataResult,
}

pub(super) fn run(args: &DataArgs, cx: &Context) -> Result<(), Failure> {
    if !(1..=MAX_BATCH).contains(&args.batch) {
        return Err(Failure::Message(format!("--batch {}: give 1 to {MAX_BATCH}", args.batch)));
    }
    let source = Source::parse(&args.data)?;
    let settings = Settings {
        size: (args.size.height, args.size.width),
        channels: args.channels,
        images: args.images as usize,
        batch: args.batch,
        augment: args.augment.clone(),
        seed: cx.seed.unwrap_or(0),
        budget: args.budget.budget(),
    };
    crate::data::check_size(settings.size, settings.channels)?;
    let mut opened = cx.open()?;
    let result = data::measure(&source, &settings, opened.device.executor())?;
    let threads = rayon::current_num_threads();
    let mut table = Table::new(
        format!(
            "{} at {}, {} channel{}: medians; stages on the host use {threads} threads, and files come from memory once read",
            data::describe(&source),
            args.size,
            args.channels,
            if args.channels == 1 { "" } else { "s" }
        ),
        ["stage", "what", ">images", ">median", ">spread", ">runs", ">images/s", ">taken in a second", "clock"],
    );
    for s in &result.stages {
        table.push([
            s.stage.to_owned(),
            s.what.to_owned(),
            s.images.to_string(),
            seconds(s.times.median),
            format!("{:.0} %", 100.0 * s.times.spread),
            s.times.runs.to_string(),
            format!("{:.0}", s.images_per_second),
            bytes(s.bytes_per_second as u64),
            s.clock.to_owned(),
        ]);
    }
    if result.unreadable > 0 {
        cx.note(format!("{} files could not be read; `radiograd data summary` lists them", result.unreadable));
    }
    let report = Report {
        device: opened.report(),
        source: data::describe(&source),
        size: [args.size.height, args.size.width],
        channels: args.channels,
        augment: args.augment.to_string(),
        threads,
        result,
    };
    cx.result(table.to_text(), &report)
}
