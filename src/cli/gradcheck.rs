//! `radiograd gradcheck`: every gradient against differences, every kernel against the `f64` reference.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use super::device::{Device, DeviceReport};
use super::format::error;
use super::{Context, Failure, progress};
use crate::check::{CheckError, DIFFERENCE_TOLERANCE, Outcome, Recorded, compare};
use crate::cpu;
use crate::exec::Executor as _;
use crate::gpu::{self, Gpu, Options};
use crate::nn::error::nearest;
use crate::ops::registry::{Entry, find, registry};
use crate::ops::sample::Sample;
use crate::report::table::Table;
use crate::store::ParamStore;

/// Arguments of `radiograd gradcheck`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  radiograd gradcheck --op conv2d --device gpu\n\nEach sample's loss is a random projection of the output. Errors are ||a - b|| / ||b||, per tensor.\n`differences`: the f64 gradient against central differences in f64, at most 1e-6.\n`device`: output and gradients on the device against the f64 reference, at most 1e-5 (1e-4 for sums of over 10,000 terms)."
)]
pub(super) struct Args {
    /// Only this op
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
}

/// The worst of several errors, each judged by its own tolerance.
#[derive(Clone, Debug, Default, Serialize)]
struct Worst {
    /// How many samples were compared.
    samples: usize,
    /// The error that comes nearest to its tolerance, or is furthest past it.
    error: f64,
    /// Its tolerance.
    tolerance: f64,
    /// Its sample.
    sample: String,
    /// What went wrong beside numbers that differ: a failed run, a write outside a tensor.
    problem: Option<String>,
}

impl Worst {
    fn add(&mut self, sample: &str, result: Result<f64, String>, tolerance: f64) {
        self.samples += 1;
        let (error, problem) = match result {
            Ok(error) => (error, None),
            Err(problem) => (f64::NAN, Some(problem)),
        };
        // NaN is worse than anything, and the first of them is kept.
        let worse = !self.error.is_nan() && (error.is_nan() || error * self.tolerance >= self.error * tolerance);
        if worse || self.samples == 1 {
            let samples = self.samples;
            *self = Self { samples, error, tolerance, sample: sample.to_owned(), problem };
        }
    }

    fn passes(&self) -> bool {
        self.samples == 0 || self.error <= self.tolerance
    }

    fn cell(&self) -> String {
        match self.samples {
            0 => "-".to_owned(),
            _ => error(self.error),
        }
    }

    fn explain(&self) -> String {
        match &self.problem {
            Some(problem) => format!("sample \"{}\": {problem}", self.sample),
            None => format!("sample \"{}\": error {} over {:e}", self.sample, error(self.error), self.tolerance),
        }
    }
}

#[derive(Serialize)]
struct KernelReport {
    kernel: &'static str,
    device: Worst,
    passed: bool,
}

#[derive(Serialize)]
struct OpReport {
    op: &'static str,
    samples: usize,
    /// The recorded gradients against differences.
    differences: Worst,
    /// The device against the reference, for each kernel variant.
    kernels: Vec<KernelReport>,
    passed: bool,
}

#[derive(Serialize)]
struct Report {
    device: DeviceReport,
    seed: u32,
    ops: Vec<OpReport>,
    passed: bool,
}

/// A sample with what it should give.
struct Judged {
    sample: Sample,
    prepared: Result<(Recorded, Outcome), String>,
    differences: Option<Result<f64, String>>,
}

/// Records a sample, and runs the references; `f64` on the CPU, so samples go in parallel.
fn judge(sample: Sample, seed: u32) -> Judged {
    let words = |e: CheckError| e.to_string();
    let prepared = Recorded::new(&sample, seed).and_then(|r| {
        let reference = r.reference()?;
        Ok((r, reference))
    });
    let prepared = prepared.map_err(words);
    let differences = match &prepared {
        Ok(_) if sample.large => None,
        Ok((recorded, _)) => Some(recorded.differences().map_err(|e| e.to_string())),
        Err(e) => Some(Err(e.clone())),
    };
    Judged { sample, prepared, differences }
}

/// The device under test: on a GPU one executor a kernel variant, so that pipelines are compiled once.
enum Tested {
    Cpu,
    Gpu { gpu: Box<Gpu>, executors: HashMap<&'static str, gpu::Executor> },
}

impl Tested {
    fn kernels(&self, recorded: &Recorded) -> Vec<&'static str> {
        match self {
            Self::Cpu => vec!["cpu"],
            Self::Gpu { gpu, .. } => recorded.variants(gpu.kind, gpu.subgroup),
        }
    }

    fn run(&mut self, kernel: &'static str, recorded: &Recorded) -> Result<Outcome, String> {
        match self {
            Self::Cpu => recorded.run(&mut cpu::Executor::<f32>::fast()).map_err(|e| e.to_string()),
            Self::Gpu { gpu, executors } => {
                let executor = executors.entry(kernel).or_insert_with(|| {
                    // Guards of NaN around every tensor show a kernel that reads or writes out of place.
                    let options = Options { guards: true, variant: Some(kernel.to_owned()), ..Options::default() };
                    gpu::Executor::new((**gpu).clone(), options)
                });
                let words = |e: crate::exec::ExecError| e.to_string();
                executor.load(&ParamStore::new()).map_err(words)?;
                let program = executor.compile(recorded.graph(), &recorded.roots()).map_err(words)?;
                let outcome = recorded.replay(executor, program).map_err(words)?;
                executor.check_guards(program)?;
                executor.release(program);
                Ok(outcome)
            }
        }
    }
}

fn check(entry: &Entry, tested: &mut Tested, seed: u32) -> OpReport {
    let judged: Vec<Judged> = entry.samples().into_par_iter().map(|s| judge(s, seed)).collect();
    let mut differences = Worst::default();
    let mut kernels: Vec<(&'static str, Worst)> = Vec::new();
    for j in &judged {
        if let Some(result) = &j.differences {
            differences.add(&j.sample.name, result.clone(), DIFFERENCE_TOLERANCE);
        }
        let Ok((recorded, reference)) = &j.prepared else { continue };
        for kernel in tested.kernels(recorded) {
            let result = tested.run(kernel, recorded).map(|outcome| compare(&outcome, reference));
            let at = kernels.iter().position(|k| k.0 == kernel).unwrap_or_else(|| {
                kernels.push((kernel, Worst::default()));
                kernels.len() - 1
            });
            kernels[at].1.add(&j.sample.name, result, j.sample.tolerance());
        }
    }
    let kernels: Vec<KernelReport> =
        kernels.into_iter().map(|(kernel, device)| KernelReport { kernel, passed: device.passes(), device }).collect();
    let passed = !judged.is_empty() && differences.passes() && kernels.iter().all(|k| k.passed);
    OpReport { op: entry.name, samples: judged.len(), differences, kernels, passed }
}

fn entries(args: &Args) -> Result<Vec<Entry>, Failure> {
    let Some(name) = &args.op else { return Ok(registry()) };
    match find(name) {
        Some(entry) => Ok(vec![entry]),
        None => {
            let names: Vec<&'static str> = registry().iter().map(|e| e.name).collect();
            let hint = nearest(name, names.iter().copied()).map(|n| format!(", did you mean {n}?")).unwrap_or_default();
            Err(Failure::Message(format!("--op {name}: no such op{hint}; known: {}", names.join(", "))))
        }
    }
}

pub(super) fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let entries = entries(&args)?;
    let opened = cx.open()?;
    let device = opened.report();
    let mut tested = match opened.device {
        Device::Cpu(_) => Tested::Cpu,
        Device::Gpu(e) => Tested::Gpu { gpu: Box::new(e.gpu().clone()), executors: HashMap::new() },
    };
    let bar = progress::bar(cx, entries.len() as u64);
    let mut ops = Vec::with_capacity(entries.len());
    for entry in &entries {
        bar.set_message(entry.name);
        ops.push(check(entry, &mut tested, cx.seed.unwrap_or(0)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let passed = ops.iter().all(|o| o.passed);
    let report = Report { device, seed: cx.seed.unwrap_or(0), ops, passed };
    cx.result(text(&report), &report)?;
    let failed: Vec<&OpReport> = report.ops.iter().filter(|o| !o.passed).collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            let names: Vec<&str> = failed.iter().map(|o| o.op).collect();
            Err(Failure::Message(format!(
                "{} of {} ops fail ({}); first {}",
                failed.len(),
                report.ops.len(),
                names.join(", "),
                why(first)
            )))
        }
    }
}

/// What is wrong with an op that fails.
fn why(op: &OpReport) -> String {
    if !op.differences.passes() {
        return format!("{} against differences, {}", op.op, op.differences.explain());
    }
    match op.kernels.iter().find(|k| !k.passed) {
        Some(k) => format!("{}, kernel {}, {}", op.op, k.kernel, k.device.explain()),
        None => format!("{}: it has no samples", op.op),
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(
        "Gradient check: worst errors over all samples",
        [
            "op",
            ">samples",
            ">differences",
            "kernel",
            ">samples run",
            ">device",
            ">tolerance",
            "worst sample",
            "verdict",
        ],
    );
    let verdict = |passed: bool| if passed { "pass" } else { "FAIL" }.to_owned();
    for op in &report.ops {
        let none = KernelReport { kernel: "-", device: Worst::default(), passed: false };
        let kernels = if op.kernels.is_empty() { std::slice::from_ref(&none) } else { &op.kernels };
        for (i, k) in kernels.iter().enumerate() {
            let first = |text: String| if i == 0 { text } else { String::new() };
            table.push([
                first(op.op.to_owned()),
                first(op.samples.to_string()),
                first(op.differences.cell()),
                k.kernel.to_owned(),
                k.device.samples.to_string(),
                k.device.cell(),
                format!("{:e}", k.device.tolerance),
                k.device.sample.clone(),
                verdict(k.passed && (i > 0 || op.differences.passes())),
            ]);
        }
    }
    let failed = report.ops.iter().filter(|o| !o.passed).count();
    let rows: usize = report.ops.iter().map(|o| o.kernels.len()).sum();
    let verdict = if failed == 0 { "all pass".to_owned() } else { format!("{failed} FAIL") };
    format!("{}ops: {}, kernels: {rows}; of the ops {verdict}", table.to_text(), report.ops.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_error_is_judged_by_its_own_tolerance() {
        let mut worst = Worst::default();
        assert!(worst.passes());
        worst.add("a", Ok(2e-6), 1e-5);
        worst.add("long sum", Ok(1e-5), 1e-4);
        assert_eq!((worst.sample.as_str(), worst.passes()), ("a", true));
        worst.add("b", Ok(f64::NAN), 1e-5);
        worst.add("c", Err("lost".to_owned()), 1e-5);
        worst.add("d", Ok(f64::INFINITY), 1e-5);
        assert_eq!((worst.sample.as_str(), worst.passes(), worst.samples), ("b", false, 5));
        assert!(worst.explain().contains("NaN"), "{}", worst.explain());
    }
}
