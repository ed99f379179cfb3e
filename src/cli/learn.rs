//! `radiograd learn`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{Context, Failure, loading, progress};
use crate::bench::kernels::{self, KernelResult};
use crate::bench::measure::Budget;
use crate::fsio;
use crate::gpu::{self, Gpu};
use crate::learn::{LESSONS, Lesson, break_it, kernels as ladder};
use crate::nn::error::nearest;

/// Lessons in the terminal: what a convolution is, and how it learns.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  radiograd learn\n  radiograd learn convolution\n  radiograd learn kernels --device gpu\n  \
    radiograd learn break-it --flip conv2d"
)]
pub struct LearnArgs {
    /// The lesson; without one, a list
    #[arg(value_name = "LESSON")]
    lesson: Option<String>,
    /// In break-it: the op whose gradient gets the wrong sign
    #[arg(long, value_name = "OP", requires = "lesson")]
    flip: Option<String>,
    /// Write the pages of all lessons into this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["lesson", "flip"])]
    out: Option<PathBuf>,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Report {
    lesson: String,
    title: String,
    /// Markdown.
    text: String,
}

/// Runs the command.
///
/// # Errors
/// There is no such lesson or op; the device failed; a page cannot be written.
pub fn run(args: &LearnArgs, cx: &Context) -> Result<(), Failure> {
    if let Some(folder) = &args.out {
        fsio::create_dir(folder)?;
        let mut names = Vec::new();
        for lesson in LESSONS {
            let path = folder.join(format!("{}.md", lesson.name));
            fsio::write_atomic(&path, lesson.page()?.as_bytes())?;
            names.push(path.display().to_string());
        }
        return cx.result(names.join("\n"), &names);
    }
    let Some(name) = &args.lesson else {
        let lines: Vec<String> = LESSONS.iter().map(|l| format!("  {:<12} {}", l.name, l.what)).collect();
        let text = format!("Lessons, in their order; `radiograd learn NAME` opens one:\n\n{}", lines.join("\n"));
        let report =
            LESSONS.map(|l| Report { lesson: l.name.to_owned(), title: l.title.to_owned(), text: l.what.to_owned() });
        return cx.result(text, &report);
    };
    let lesson = Lesson::find(name).ok_or_else(|| {
        let known: Vec<&str> = LESSONS.iter().map(|l| l.name).collect();
        let hint = nearest(name, known.iter().copied()).map(|n| format!(", did you mean {n}?")).unwrap_or_default();
        Failure::Message(format!("{name}: no such lesson{hint}; there are {}", known.join(", ")))
    })?;
    if args.flip.is_some() && lesson.name != "break-it" {
        return Err(Failure::Message(format!("--flip is for the lesson break-it, not for {}", lesson.name)));
    }
    let mut text = lesson.page()?;
    if let Some(op) = &args.flip {
        text = flipped(op)?;
    } else if lesson.name == "kernels" {
        text = format!("{text}\n{}", measured(cx)?);
    }
    let text = format!("{}\n{}", text.trim_end(), loading::NOTICE);
    let report = Report { lesson: lesson.name.to_owned(), title: lesson.title.to_owned(), text: text.clone() };
    cx.result(text, &report)
}

/// The check with the reader's own fault in it.
fn flipped(op: &str) -> Result<String, Failure> {
    let verdicts = break_it::check(Some(op))?.ok_or_else(|| {
        Failure::Message(format!("--flip {op}: no op of that name has a gradient; `radiograd gradcheck` lists the ops"))
    })?;
    let found: Vec<&str> = verdicts.iter().filter(|v| !v.passed).map(|v| v.op).collect();
    let says = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    Ok(format!(
        "With the sign of the first gradient of {op} flipped:\n\n{}\nThe check names {says}.\n",
        break_it::table(&verdicts)
    ))
}

/// The table of the device that was asked for; on the CPU, where the rest of the ladder is.
fn measured(cx: &Context) -> Result<String, Failure> {
    let gpu = cx.open()?.device.gpu().map(|e| e.gpu().clone());
    let table = ladder::table(&timed(gpu.as_ref(), cx)?);
    let more = if gpu.is_none() { ladder::hint(&gpu::list()) } else { None };
    let more = more.map(|text| format!("\n{text}")).unwrap_or_default();
    Ok(format!("On this device, the slowest of each direction as 1:\n\n{table}{more}"))
}

/// Every kernel of the lesson's convolution.
fn timed(gpu: Option<&Gpu>, cx: &Context) -> Result<Vec<KernelResult>, Failure> {
    let cases = ladder::cases().map_err(Failure::Message)?;
    let budget = Budget { runs: 20, time: Duration::from_secs(1) };
    let seed = cx.seed.unwrap_or(0);
    // Software Vulkan takes some minutes, in which nothing else is printed.
    let bar = progress::bar(cx, cases.len() as u64);
    let mut results = Vec::new();
    for case in &cases {
        bar.set_message(case.name());
        match gpu {
            Some(gpu) => results.extend(kernels::on_gpu(case, gpu, budget, true, seed)?),
            None => results.push(kernels::on_cpu(case, budget, seed)?),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(results)
}
