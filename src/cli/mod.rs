//! The command line: one file a subcommand.
//!
//! What every command keeps to: exit status 0, 1 (failed: one line on stderr that says what, where and what to do), 2
//! (wrong usage) or 130 (interrupted, with a line that says how to go on); with `--json` exactly one JSON document on stdout and everything else on stderr; the first line of a
//! command that computes says which device runs and why.
//!
//! A new command is a file with `Args` (a `clap::Args` with an example in `after_help`) and
//! `run(Args, &Context) -> Result<(), Failure>`, and a line each in the module list, `Command` and `Command::run`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod bench;
mod compare;
mod context;
mod data;
pub mod device;
mod devices;
mod eval;
mod explain;
mod export;
mod failure;
mod folds;
mod format;
mod gradcheck;
mod graph;
mod interrupt;
mod learn;
mod loading;
mod predict;
mod preview;
mod progress;
mod search;
mod size;
mod study;
mod train;
mod tune;
mod weights;

pub use context::Context;
pub use device::{Device, DeviceChoice};
pub use failure::Failure;
pub use size::ImageSize;

/// Trains small CNNs on chest X-rays with hand-written WGSL kernels, and shows how they learn.
#[derive(Debug, Parser)]
#[command(name = "radiograd", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  radiograd graph --model cnn2 --size 64\n\n`radiograd COMMAND --help` has an example of each command."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Where to compute: auto (a discrete GPU, else an integrated one, else the CPU), gpu (the best adapter, a software
    /// one included), gpu:N (number N of `radiograd devices`) or cpu
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
    /// Decides everything random; 0 where neither this nor a config file names one
    #[arg(long, global = true, value_name = "N")]
    seed: Option<u32>,
    /// On a GPU, run each op as it was recorded, without the fusion of convolution, ReLU and pooling
    #[arg(long, global = true)]
    no_fuse: bool,
    /// Print one JSON document on stdout; everything else goes to stderr
    #[arg(long, global = true)]
    json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Choose kernels by the built-in table, whatever `radiograd tune` measured; RADIOGRAD_NO_TUNE=1 does the same
    #[arg(long, global = true)]
    no_tune: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network into a run folder
    Train(Box<train::TrainArgs>),
    /// Measure a trained network on one split
    Eval(Box<eval::EvalArgs>),
    /// Say which of several runs is better, and how sure that is
    Compare(compare::CompareArgs),
    /// Give the probabilities of single images
    Predict(predict::PredictArgs),
    /// Show on a page what a trained network makes of an image, layer by layer and step by step
    Explain(explain::ExplainArgs),
    /// Lessons: what a convolution is, how it learns, and how its kernels became fast
    Learn(learn::LearnArgs),
    /// Write a trained network as ONNX, or its weights as safetensors
    Export(export::ExportArgs),
    /// Search for good settings: grids, random draws, successive halving
    Search(Box<search::SearchArgs>),
    /// Compare networks on the same images
    #[command(subcommand, after_help = "Example:\n  radiograd study depth")]
    Study(study::StudyCommand),
    /// List the adapters that were found, and say which one `--device auto` takes
    Devices(devices::Args),
    /// Look at a data set, or make one
    Data(data::Args),
    /// Print every node of a network: op, shape, parameters, FLOPs, bytes, kernel
    Graph(graph::Args),
    /// Check every gradient against differences, and every kernel against the f64 reference
    Gradcheck(gradcheck::Args),
    /// Measure kernels and training steps
    Bench(bench::Args),
    /// Measure which kernels are fastest on this adapter, for later runs to use
    Tune(tune::Args),
    /// Look at weight files, and fetch published ones
    Weights(weights::Args),
}

impl Command {
    fn run(self, cx: &Context) -> Result<(), Failure> {
        match self {
            Self::Train(args) => train::run(&args, cx),
            Self::Eval(args) => eval::run(&args, cx),
            Self::Compare(args) => compare::run(&args, cx),
            Self::Predict(args) => predict::run(&args, cx),
            Self::Explain(args) => explain::run(&args, cx),
            Self::Learn(args) => learn::run(&args, cx),
            Self::Export(args) => export::run(&args, cx),
            Self::Search(args) => search::run(&args, cx),
            Self::Study(command) => study::run(&command, cx),
            Self::Devices(args) => devices::run(args, cx),
            Self::Data(args) => data::run(args, cx),
            Self::Graph(args) => graph::run(args, cx),
            Self::Gradcheck(args) => gradcheck::run(args, cx),
            Self::Bench(args) => bench::run(args, cx),
            Self::Tune(args) => tune::run(&args, cx),
            Self::Weights(args) => weights::run(args, cx),
        }
    }
}

/// Runs the command that the program was called with.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the command in `args`, whose first item is the program's name.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Nobody is left to be told when this fails.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let cx = Context::new(&cli.global);
    match cli.command.run(&cx) {
        // The reader of a pipe has seen enough, as in `radiograd devices | head -1`.
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            context::complain(&failure);
            if failure.is_interruption() { ExitCode::from(interrupt::STATUS) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for args in [["--device", "cpu", "--seed", "7", "devices"], ["devices", "--device", "cpu", "--seed", "7"]] {
            let cli = Cli::try_parse_from(std::iter::once("radiograd").chain(args)).unwrap();
            assert_eq!((cli.global.device, cli.global.seed), (DeviceChoice::Cpu, Some(7)));
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example") && help.contains("  radiograd "), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
