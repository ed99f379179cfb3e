//! `radiograd bench`: how long kernels and training steps take.

mod data;
mod step;

use std::time::Duration;

use serde::Serialize;

use super::device::DeviceReport;
use super::format::{error, giga, seconds};
use super::{Context, Failure, progress};
use crate::bench::kernels::{self, Case, KernelResult};
use crate::bench::measure::Budget;
use crate::nn::error::nearest;
use crate::report::table::Table;

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
    Step(step::StepArgs),
    /// Time the way of an image onto the device: read, decode, resize, cache, gather
    Data(data::DataArgs),
    /// Time every kernel variant on its own, and compare its result with the CPU's
    Kernels(KernelArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  radiograd bench kernels --op conv2d --shapes 64->64 --device gpu")]
struct KernelArgs {
    /// Only this op: conv2d, linear, matmul or max_pool2d
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Every kernel variant, the plain one included (minutes on software Vulkan); else the one that training takes
    #[arg(long)]
    ladder: bool,
    /// Only the cases whose shapes, as the table shows them, contain this text
    #[arg(long, value_name = "TEXT")]
    shapes: Option<String>,
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
        Command::Step(args) => step::run(&args, cx),
        Command::Data(args) => data::run(&args, cx),
        Command::Kernels(args) => kernels(&args, cx),
    }
}

/// The cases that were asked for.
fn chosen_cases(args: &KernelArgs) -> Result<Vec<Case>, Failure> {
    if let Some(op) = args.op.as_deref().filter(|op| !kernels::OPS.contains(op)) {
        let hint = nearest(op, kernels::OPS).map(|n| format!(", did you mean {n}?")).unwrap_or_default();
        return Err(Failure::Message(format!("--op {op}: no such bench{hint}; known: {}", kernels::OPS.join(", "))));
    }
    let mut cases = kernels::cases();
    cases.retain(|c| args.op.as_deref().is_none_or(|op| op == c.op));
    cases.retain(|c| args.shapes.as_deref().is_none_or(|text| c.shapes.contains(text)));
    match cases.is_empty() {
        false => Ok(cases),
        true => {
            let text = args.shapes.as_deref().unwrap_or_default();
            Err(Failure::Message(format!(
                "--shapes {text}: no case has such shapes; run without it to see all, or give a part of one such as 64->64"
            )))
        }
    }
}

fn kernels(args: &KernelArgs, cx: &Context) -> Result<(), Failure> {
    let cases = chosen_cases(args)?;
    let opened = cx.open()?;
    let budget = args.budget.budget();
    let bar = progress::bar(cx, cases.len() as u64);
    let mut results: Vec<KernelResult> = Vec::new();
    for case in &cases {
        bar.set_message(format!("{} {} {}", case.op, case.direction.words(), case.shapes));
        match opened.device.gpu() {
            Some(gpu) => results.extend(kernels::on_gpu(case, gpu.gpu(), budget, args.ladder, cx.seed.unwrap_or(0))?),
            None => results.push(kernels::on_cpu(case, budget, cx.seed.unwrap_or(0))?),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let clock = match results.iter().all(|r| r.gpu_timestamps) {
        true => "GPU timestamps around the kernel",
        false => "wall time from submit to idle",
    };
    let mut table = Table::new(
        format!("Kernels, {clock}; * is what training takes"),
        ["op", "direction", "shapes", "kernel", ">median", ">min", ">spread", ">runs", ">GFLOP/s", ">GB/s", ">error"],
    );
    for r in &results {
        let star = if r.chosen { " *" } else { "" };
        table.push([
            r.op.to_owned(),
            r.direction.words().to_owned(),
            r.shapes.clone(),
            format!("{}{star}", r.kernel),
            seconds(r.times.median),
            seconds(r.times.min),
            format!("{:.0} %", 100.0 * r.times.spread),
            r.times.runs.to_string(),
            giga(r.flops_per_second),
            giga(r.bytes_per_second),
            error(r.error),
        ]);
    }
    let wrong: Vec<String> = results
        .iter()
        .filter(|r| !r.correct)
        .map(|r| format!("{} {} {} ({}): {}", r.op, r.direction.words(), r.kernel, r.shapes, error(r.error)))
        .collect();
    let report = Report { device: opened.report(), results };
    cx.result(table.to_text(), &report)?;
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Message(format!(
            "{} of {} kernels differ from the CPU by more than {:e}, first {first}; `radiograd gradcheck` looks closer",
            wrong.len(),
            report.results.len(),
            kernels::TOLERANCE
        ))),
    }
}
