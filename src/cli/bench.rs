//! `radiograd bench`: how long kernels and training steps take.

use std::time::Duration;

use serde::Serialize;

use super::device::{Device, DeviceReport};
use super::format::{bytes, giga, grouped, seconds};
use super::{Context, Failure, ImageSize, progress};
use crate::bench::measure::Budget;
use crate::bench::step::{StepResult, Workload};
use crate::nn::Model;
use crate::nn::summary::MAX_BATCH;
use crate::report::table::Table;

mod kernels;

/// Arguments of `radiograd bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  radiograd bench step\n  radiograd bench kernels --op conv2d")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Time whole training steps: batch, forward, loss, backward, Adam
    Step(StepArgs),
    /// Time kernels on their own, against the CPU's results and against what the device can do at best
    Kernels(kernels::Args),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd bench step --device cpu\n  radiograd bench step --model cnn2 --size 64 --batch 16\n\nWithout --model: cnn1, cnn2 and cnn3 at 128x128 with batch 32, and cnn3 at 28x28 with batch 64."
)]
struct StepArgs {
    /// One network instead of the default four workloads
    #[arg(long, value_name = "SPEC")]
    model: Option<String>,
    /// Size of the images: S or HxW [with --model: 64]
    #[arg(long, value_name = "S", requires = "model")]
    size: Option<ImageSize>,
    /// 1 for grey, 3 for RGB [with --model: 1]
    #[arg(long, value_name = "C", requires = "model")]
    channels: Option<usize>,
    /// Images in a step [with --model: 32]
    #[arg(long, value_name = "B", requires = "model")]
    batch: Option<usize>,
    #[command(flatten)]
    budget: BudgetArgs,
}

#[derive(Debug, clap::Args)]
struct BudgetArgs {
    /// Most timed runs of each
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// No run starts after so many seconds (of each), once there are three
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
}

impl BudgetArgs {
    fn budget(&self) -> Budget {
        Budget { runs: self.runs as usize, time: Duration::from_secs(self.seconds.into()) }
    }
}

#[derive(Serialize)]
struct Report<T> {
    device: DeviceReport,
    results: Vec<T>,
}

pub(super) fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    match args.command {
        Command::Step(args) => step(&args, cx),
        Command::Kernels(args) => kernels::run(&args, cx),
    }
}

/// Random images that a workload draws, in batches.
const IMAGES: usize = 4;
/// The most bytes that they may take.
const MAX_BYTES: usize = 1 << 30;

/// The models to measure and their batches.
fn workloads(args: &StepArgs) -> Result<Vec<(Model, usize)>, Failure> {
    if let Some(text) = &args.model {
        let size = args.size.unwrap_or(ImageSize { height: 64, width: 64 });
        let batch = args.batch.unwrap_or(32);
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(Failure::Message(format!("--batch {batch}: give 1 to {MAX_BATCH}")));
        }
        let model = Model::new(text, [args.channels.unwrap_or(1), size.height, size.width], 2)?;
        let wanted = model.input().iter().product::<usize>().saturating_mul(IMAGES * batch);
        if wanted > MAX_BYTES {
            let (needed, most) = (bytes(wanted as u64), bytes(MAX_BYTES as u64));
            return Err(Failure::Message(format!(
                "--batch {batch}: {} random images of {size} take {needed}, more than {most}; lower --batch or --size",
                IMAGES * batch
            )));
        }
        return Ok(vec![(model, batch)]);
    }
    let defaults = [("cnn1", 128, 32), ("cnn2", 128, 32), ("cnn3", 128, 32), ("cnn3", 28, 64)];
    defaults.into_iter().map(|(name, size, batch)| Ok((Model::new(name, [1, size, size], 2)?, batch))).collect()
}

fn step(args: &StepArgs, cx: &Context) -> Result<(), Failure> {
    let workloads = workloads(args)?;
    let mut opened = cx.open()?;
    let bar = progress::bar(cx, workloads.len() as u64);
    let mut results = Vec::new();
    for (model, batch) in workloads {
        let [_, height, width] = model.input();
        bar.set_message(format!("{} {height}x{width} batch {batch}", model.text()));
        let work = Workload::new(
            model,
            IMAGES * batch,
            batch,
            cx.seed.unwrap_or(0),
            opened.device.executor().max_tensor_bytes(),
        )?;
        results.push(measure(&work, &mut opened.device, args.budget.budget())?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut table = Table::new(
        "Training step (batch, forward, loss, backward, Adam): wall time",
        [
            "model",
            "size",
            ">batch",
            ">parameters",
            ">median",
            ">min",
            ">spread",
            ">runs",
            ">images/s",
            ">GFLOP/s",
            ">first step",
            ">planned memory",
        ],
    );
    for r in &results {
        let [_, height, width] = r.input;
        table.push([
            r.model.clone(),
            format!("{height}x{width}"),
            r.batch.to_string(),
            grouped(r.parameters as u64),
            seconds(r.step.median),
            seconds(r.step.min),
            format!("{:.0} %", 100.0 * r.step.spread),
            r.step.runs.to_string(),
            format!("{:.1}", r.images_per_second),
            giga(r.flops_per_second),
            seconds(r.first_step_seconds),
            r.planned_bytes.map_or_else(|| "-".to_owned(), bytes),
        ]);
    }
    cx.result(table.to_text(), &Report { device: opened.report(), results })
}

fn measure(work: &Workload, device: &mut Device, budget: Budget) -> Result<StepResult, Failure> {
    let (mut result, program) = work.measure(device.executor(), budget)?;
    if let Some(gpu) = device.gpu() {
        result.planned_bytes = Some(gpu.memory(program).0);
        result.variable_bytes = Some(gpu.variable_bytes());
    }
    device.executor().release(program);
    Ok(result)
}
