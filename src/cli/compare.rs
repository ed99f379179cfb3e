//! `radiograd compare`.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure, loading};
use crate::report::{compare_report, error_table, group_table, pair_table, run_table};
use crate::train::compare::{Named, compare};

/// Says which of several runs is better on the same images, and how sure that is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  radiograd compare runs/cnn1 runs/cnn2 runs/cnn3\n  \
    radiograd compare runs/cnn2-seeds runs/cnn3-seeds --split test --out compare.html")]
pub struct CompareArgs {
    /// Run folders, or folders that hold run folders: several seeds of one setting, compared by their means
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// test, validation (or val), official_val or train: what the runs' predictions.csv hold
    #[arg(long, default_value = "test")]
    pub split: String,
    /// Compare every pair, also of many runs; otherwise five and more are each compared with the best on validation
    #[arg(long)]
    pub all_pairs: bool,
    /// A sentence for the page and the text: a published figure, what the images are; again for further ones
    #[arg(long, value_name = "TEXT")]
    pub note: Vec<String>,
    /// Write a page with forest plots, curves by epoch and confusion matrices
    #[arg(long, value_name = "PAGE.html")]
    pub out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A run does not read, or the runs were measured on other images.
pub fn run(args: &CompareArgs, cx: &Context) -> Result<(), Failure> {
    let split = if args.split == "validation" { "val" } else { &args.split };
    crate::data::Splits::only(split)?;
    let named = args.runs.iter().map(|folder| Named::open(folder)).collect::<Result<Vec<_>, _>>()?;
    let mut comparison = compare(named, split, args.all_pairs, cx.seed.unwrap_or(0))?;
    comparison.remarks.clone_from(&args.note);
    let mut parts = vec![run_table(&comparison).to_text(), error_table(&comparison).to_text()];
    parts.extend(group_table(&comparison).map(|t| t.to_text()));
    if !comparison.pairs.is_empty() {
        parts.push(pair_table(&comparison).to_text());
    }
    parts.extend(comparison.findings());
    parts.extend(comparison.notes.iter().map(|n| format!("note: {n}")));
    parts.extend(comparison.remarks.iter().map(|n| crate::data::one_line(n)));
    if let Some(path) = &args.out {
        compare_report(&comparison).write(path).map_err(crate::train::TrainError::from)?;
        parts.push(format!("page: {}", path.display()));
    }
    parts.push(loading::NOTICE.to_owned());
    cx.result(parts.join("\n"), &comparison)
}
