//! `radiograd tune`: measures which kernels are fastest on this adapter, for later runs to use.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::device::DeviceReport;
use super::format::seconds;
use super::{Context, Failure, ImageSize, progress};
use crate::bench::tune::{Budget, Finding, Passes};
use crate::data::CachePolicy;
use crate::exec::Executor as _;
use crate::fsio::FsError;
use crate::gpu::tuned::{Machine, Tuned, folder};
use crate::nn::Model;
use crate::nn::summary::MAX_BATCH;
use crate::report::table::Table;

/// Arguments of `radiograd tune`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd tune --model cnn3 --size 128 --batch 32\n  radiograd tune --list\n  radiograd tune --clear\n\nLater runs on this adapter take what was measured and say so; --no-tune (or RADIOGRAD_NO_TUNE=1) takes the built-in table.\nThe measurements lie in the folder `tune` below RADIOGRAD_CACHE, or below the user's cache folder."
)]
pub(super) struct Args {
    /// A name (mlp, cnn3, resnet34, ...) or a chain of layers such as conv16-relu-pool-flatten-dense2
    #[arg(long, value_name = "SPEC", required_unless_present_any = ["list", "clear"])]
    model: Option<String>,
    /// Size of the images: S or HxW
    #[arg(long, value_name = "S", default_value = "64")]
    size: ImageSize,
    /// 1 for grey, 3 for RGB
    #[arg(long, default_value_t = 1, value_name = "C")]
    channels: usize,
    /// Classes to tell apart
    #[arg(long, default_value_t = 2, value_name = "K")]
    classes: usize,
    /// Images in a step
    #[arg(long, default_value_t = 32, value_name = "B")]
    batch: usize,
    /// Most timed runs of each kernel
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// No run of an op starts after so many seconds, once there are three of each of its kernels
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Print what was measured before, for every adapter, and measure nothing
    #[arg(long, conflicts_with_all = ["model", "clear"])]
    list: bool,
    /// Forget what was measured before, for every adapter
    #[arg(long, conflicts_with = "model")]
    clear: bool,
}

#[derive(Serialize)]
struct Report {
    device: DeviceReport,
    model: String,
    batch: usize,
    /// Where the result is stored.
    path: PathBuf,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Cleared {
    removed: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<(), Failure> {
    let cache = CachePolicy::User.folder().ok_or_else(|| {
        let text = "there is no folder for the measurements: name one with the environment variable RADIOGRAD_CACHE";
        Failure::Message(text.to_owned())
    })?;
    match &args.model {
        _ if args.list => list(&cache, cx),
        _ if args.clear => clear(&cache, cx),
        Some(model) => measure(args, model, &cache, cx),
        None => Err(Failure::Message("--model is missing".to_owned())),
    }
}

fn measure(args: &Args, text: &str, cache: &Path, cx: &Context) -> Result<(), Failure> {
    if !(1..=MAX_BATCH).contains(&args.batch) {
        return Err(Failure::Message(format!("--batch {}: give 1 to {MAX_BATCH}", args.batch)));
    }
    let model = Model::new(text, [args.channels, args.size.height, args.size.width], args.classes)?;
    // The table's choices are what measurements are held against, so none of an earlier run is used.
    let opened = Context { tune: false, ..cx.clone() }.open()?;
    let Some(executor) = opened.device.gpu() else {
        let text = "the CPU executor has one kernel an op, so there is nothing to measure: give --device gpu";
        return Err(Failure::Message(text.to_owned()));
    };
    let gpu = executor.gpu();
    // A folder that cannot be written must be known before the measurements, not after them.
    crate::fsio::create_writable_dir(&folder(cache))?;
    let passes = Passes::new(&model, args.batch, executor.max_tensor_bytes())?;
    let tasks = passes.tasks(executor);
    let bar = progress::bar(cx, tasks.len() as u64);
    let budget = Budget { runs: args.runs as usize, seconds: args.seconds.into() };
    let mut tuned = Tuned::new(Machine::of(&gpu.summary));
    let mut findings = Vec::new();
    for task in &tasks {
        bar.set_message(task.key.clone());
        let finding = passes.measure(task, gpu, budget)?;
        if let Some(entry) = &finding.entry {
            tuned.insert(finding.key.clone(), entry.clone());
        }
        findings.push(finding);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let path = tuned.store(cache)?;
    let report = Report { device: opened.report(), model: model.text().to_owned(), batch: args.batch, path, findings };
    cx.result(text_of(&report), &report)
}

fn text_of(report: &Report) -> String {
    let mut table = Table::new(
        format!("Kernels of {} at batch {}, training step and evaluation pass", report.model, report.batch),
        ["op and shapes", ">nodes", "table", ">median", "best", ">median", ">speed-up", "others"],
    );
    for f in &report.findings {
        let median = |variant: &str| {
            let times = f.candidates.iter().find(|c| c.variant == variant).and_then(|c| c.times);
            times.map_or_else(|| "-".to_owned(), |t| seconds(t.median))
        };
        let others: Vec<String> = f
            .candidates
            .iter()
            .filter(|c| c.variant != f.best && c.variant != f.table)
            .map(|c| match (&c.dropped, c.times) {
                (Some(why), _) => format!("{}: {why}", c.variant),
                (None, Some(t)) => format!("{} {}", c.variant, seconds(t.median)),
                (None, None) => c.variant.to_owned(),
            })
            .collect();
        table.push([
            f.key.clone(),
            f.nodes.to_string(),
            f.table.to_owned(),
            median(f.table),
            if f.entry.is_some() { f.best.to_owned() } else { "none works".to_owned() },
            median(f.best),
            f.speed_up.map_or_else(|| "-".to_owned(), |s| format!("{s:.2}")),
            others.join(", "),
        ]);
    }
    let changed = report.findings.iter().filter(|f| f.entry.is_some() && f.best != f.table).count();
    format!(
        "{}{} of {} ops are faster with another kernel than the table's; stored in {}",
        table.to_text(),
        changed,
        report.findings.len(),
        report.path.display()
    )
}

/// All files of measurements, by name.
fn files(cache: &Path) -> Result<Vec<PathBuf>, Failure> {
    let folder = folder(cache);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).map_err(|e| FsError::new("read", &folder, e))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json") && path.is_file());
    files.sort();
    Ok(files)
}

fn list(cache: &Path, cx: &Context) -> Result<(), Failure> {
    let mut all = Vec::new();
    for path in files(cache)? {
        match Tuned::read(&path) {
            Ok(tuned) => all.push(tuned),
            Err(e) => cx.note(e),
        }
    }
    let mut text = String::new();
    for tuned in &all {
        let machine = tuned.machine();
        let mut table = Table::new(
            format!("{} ({}, {}), radiograd {}", machine.adapter, machine.backend, machine.driver, machine.version),
            ["op and shapes", "table", ">median", "best", ">median"],
        );
        for (key, e) in tuned.entries() {
            table.push([
                key.clone(),
                e.table.clone(),
                e.table_seconds.map_or_else(|| "-".to_owned(), seconds),
                e.variant.clone(),
                seconds(e.seconds),
            ]);
        }
        text.push_str(&table.to_text());
    }
    if all.is_empty() {
        text = format!("nothing was measured yet ({})", folder(cache).display());
    }
    cx.result(text, &all)
}

fn clear(cache: &Path, cx: &Context) -> Result<(), Failure> {
    let removed = files(cache)?;
    for path in &removed {
        fs::remove_file(path).map_err(|e| FsError::new("remove", path, e))?;
    }
    let text = match removed.len() {
        0 => "there was nothing to forget".to_owned(),
        n => format!("forgot the measurements of {n} {}", if n == 1 { "adapter" } else { "adapters" }),
    };
    cx.result(text, &Cleared { removed })
}
