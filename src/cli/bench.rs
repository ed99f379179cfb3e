//! `radiograd bench`: how long kernels and training steps take.

mod data;
mod kernels;
mod step;

use std::time::Duration;

use serde::Serialize;

use super::device::DeviceReport;
use super::{Context, Failure};
use crate::bench::measure::Budget;

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
    /// Time kernels on their own, against the CPU's results and against what the device can do at best
    Kernels(kernels::Args),
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
        Command::Kernels(args) => kernels::run(&args, cx),
    }
}
