//! `radiograd data`: looks at a data set, or makes one.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Failure, ImageSize, progress};
use crate::data::phantom::{self, PhantomSizes, Written};
use crate::data::{LoadOptions, Source, shown, summary};

/// Arguments of `radiograd data`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd data summary chest_xray\n  radiograd data preview --data chest_xray --out light.png\n  radiograd data phantom my-phantom"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Count classes, sizes and modes; name unreadable files, duplicates and patients who stand in two splits
    Summary(SummaryArgs),
    /// Draw a contact sheet of training images before and after augmentation
    Preview(Box<super::preview::PreviewArgs>),
    /// Write the built-in set of synthetic images as an image folder
    Phantom(PhantomArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  radiograd data summary chest_xray --size 64")]
struct SummaryArgs {
    /// An image folder ({train,val,test}/CLASS/*), a MedMNIST .npz file, or `phantom`
    data: OsString,
    /// Size at which mean and standard deviation are taken: S or HxW
    #[arg(long, default_value = "64", value_name = "S")]
    size: ImageSize,
    /// 1 for grey, 3 for RGB
    #[arg(long, default_value_t = 1, value_name = "C")]
    channels: usize,
    /// Fail at the first file that cannot be decoded
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  radiograd data phantom my-phantom --images 400 --size 64")]
struct PhantomArgs {
    /// The folder to write, which must be empty or not there
    out: PathBuf,
    /// Images in all, divided into train, val and test
    #[arg(long, default_value_t = 1700, value_name = "N")]
    images: usize,
    /// S or HxW
    #[arg(long, default_value = "128", value_name = "S")]
    size: ImageSize,
}

pub(super) fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    match args.command {
        Command::Summary(args) => summarise(args, cx),
        Command::Preview(args) => super::preview::run(&args, cx),
        Command::Phantom(args) => make_phantom(args, cx),
    }
}

fn summarise(args: SummaryArgs, cx: &Context) -> Result<(), Failure> {
    let source = Source::parse(&args.data)?;
    let options = LoadOptions {
        size: (args.size.height, args.size.width),
        channels: args.channels,
        seed: cx.seed.unwrap_or(0),
        strict: args.strict,
        progress: Some(progress::loading(cx)),
        ..LoadOptions::default()
    };
    let summary = summary::summarise(&source, &options)?;
    cx.result(&summary, &summary)
}

#[derive(Serialize)]
struct PhantomReport {
    out: String,
    synthetic: bool,
    size: [usize; 2],
    seed: u32,
    #[serde(flatten)]
    written: Written,
}

fn make_phantom(args: PhantomArgs, cx: &Context) -> Result<(), Failure> {
    let (height, width) = (args.size.height, args.size.width);
    if args.images < 6 {
        let problem = "each of train, val and test needs one of either class; give at least 6";
        return Err(Failure::Message(format!("--images {}: {problem}", args.images)));
    }
    let written =
        phantom::write_folder(&args.out, PhantomSizes::of_total(args.images), (height, width), cx.seed.unwrap_or(0))?;
    let [train, val, test] = written.images;
    let out = shown(&args.out);
    let text = format!("{out}: {train} train, {val} val and {test} test images of {height}x{width} pixels, synthetic");
    let report = PhantomReport { out, synthetic: true, size: [height, width], seed: cx.seed.unwrap_or(0), written };
    cx.result(text, &report)
}
