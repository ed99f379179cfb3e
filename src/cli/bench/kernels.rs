//! `radiograd bench kernels`: the ladder of each op's kernels, beside what the device can do at best.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::bench::cases::{self, Case, Direction, OPS};
use crate::bench::custom::{self, Custom, Proof};
use crate::bench::kernels::{self, KernelResult};
use crate::bench::measure::Budget;
use crate::bench::peaks::Peaks;
use crate::bench::shapes;
use crate::cli::device::DeviceReport;
use crate::cli::format::{bytes, error, giga, seconds};
use crate::cli::{Context, Failure, progress};
use crate::fsio;
use crate::nn::error::nearest;
use crate::report::plot::{Roofline, RooflinePoint};
use crate::report::table::Table;

const HELP: &str = "Examples:
  radiograd bench kernels --op conv2d --only 64->64 --device gpu
  radiograd bench kernels --op conv2d --ladder --svg roofline.svg
  radiograd bench kernels --op max_pool2d --wgsl mine.wgsl --device gpu
  radiograd bench kernels --shapes 'conv2d n=8 c=16 size=56 o=32 k=3; matmul m=512 k=512 n=512'

Each line of --shapes is an op and key=value pairs:
  conv2d n=32 c=64 size=56 o=128 k=3 stride=1 pad=1 dilation=1 groups=1 bias=1 (h= and w= in place of size=)
  linear n=32 in=8192 out=128        matmul m=1024 k=1024 n=1024
  max_pool2d, avg_pool2d n=32 c=32 size=128 k=2 stride=2 pad=0
  batch_norm2d n=32 c=64 size=64     softmax, cross_entropy n=4096 c=1000
  optimizer_step parameters=8388608 kind=adam        gather_images, augment_images n=32 images=256 c=3 size=224

floor: the larger of FLOPs over the most multiply-adds a second and bytes over the most bytes a second, both measured in the
same run on the same device; x floor: the median over it.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Only this op: conv2d, linear, matmul, max_pool2d, avg_pool2d, batch_norm2d, softmax, cross_entropy, optimizer_step,
    /// gather_images or augment_images
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Only this direction: forward, input_grad or weight_grad
    #[arg(long, value_name = "DIRECTION")]
    direction: Option<Direction>,
    /// Shapes of your own instead of the list: a file with one a line, or the lines themselves with ; between them
    #[arg(long, value_name = "FILE|TEXT")]
    shapes: Option<String>,
    /// Only the cases whose shapes, as the table shows them, contain this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Every kernel variant, the plain one included (minutes on software Vulkan); else the one that training takes
    #[arg(long)]
    ladder: bool,
    /// A kernel of your own for --op and --direction [forward]: proven on the op's samples, then timed beside every variant,
    /// at the first shape of the list unless --shapes or --only is given (ARCHITECTURE.md: Bring your own kernel)
    #[arg(long, value_name = "FILE", requires = "op")]
    wgsl: Option<PathBuf>,
    /// Draw a roofline plot into this file: what each kernel reaches, below what the device can do
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Most timed runs of each
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// No run starts after so many seconds (of each kernel), once there are three; a run that alone takes longer stays alone
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Report {
    device: DeviceReport,
    /// What the device can do at best; rates are operations or bytes a second.
    peaks: Peaks,
    /// With `--wgsl`: what the op's samples showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
    results: Vec<KernelResult>,
}

/// The cases that were asked for.
fn chosen_cases(args: &Args) -> Result<Vec<Case>, Failure> {
    if let Some(op) = args.op.as_deref().filter(|op| !OPS.contains(op)) {
        let hint = nearest(op, OPS).map(|n| format!(", did you mean {n}?")).unwrap_or_default();
        return Err(Failure::Message(format!("--op {op}: no such bench{hint}; known: {}", OPS.join(", "))));
    }
    let mut cases = match &args.shapes {
        None => cases::cases(),
        Some(text) => own_shapes(text, args.op.as_deref())?,
    };
    cases.retain(|c| args.op.as_deref().is_none_or(|op| op == c.op));
    let direction = args.direction.or(args.wgsl.is_some().then_some(Direction::Forward));
    cases.retain(|c| direction.is_none_or(|d| d == c.direction));
    let before = cases.len();
    cases.retain(|c| args.only.as_deref().is_none_or(|text| c.shapes.contains(text)));
    if args.wgsl.is_some() && args.shapes.is_none() && args.only.is_none() {
        cases.truncate(1);
    }
    if !cases.is_empty() {
        return Ok(cases);
    }
    Err(Failure::Message(match (&args.only, before) {
        (Some(text), 1..) => format!(
            "--only {text}: no case has such shapes; run without it to see all, or give a part of one such as 64->64"
        ),
        _ => {
            let (op, direction) = (args.op.as_deref().unwrap_or("any op"), direction.map_or("any", Direction::name));
            format!("no case of {op} in direction {direction}: change --op, --direction or --shapes")
        }
    }))
}

/// The cases of `--shapes`: of a file where there is one, else of the text itself.
fn own_shapes(given: &str, op: Option<&str>) -> Result<Vec<Case>, Failure> {
    let path = Path::new(given);
    if path.is_file() || !given.contains('=') {
        let bytes = fsio::read(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::Message(format!("--shapes {given}: not UTF-8; write it as plain text")))?;
        return shapes::parse(&text, op).map_err(|e| Failure::Message(format!("--shapes {given}: {e}")));
    }
    shapes::parse(given, op).map_err(|e| Failure::Message(format!("--shapes: {e}")))
}

/// The file of `--wgsl`.
fn own_kernel(path: &Path, cases: &[Case]) -> Result<Option<Custom>, Failure> {
    let Some(first) = cases.first() else { return Ok(None) };
    let shown = path.display();
    let bytes = fsio::read(path)?;
    if bytes.len() > custom::MAX_TEXT {
        let (got, most) = (bytes.len(), custom::MAX_TEXT);
        return Err(Failure::Message(format!("--wgsl {shown}: {got} bytes, at most {most} are read")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| Failure::Message(format!("--wgsl {shown}: no UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
    let file = path.file_name().map_or_else(|| shown.to_string(), |n| n.to_string_lossy().into_owned());
    Ok(Some(Custom { file, text, op: first.op, direction: first.direction }))
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<(), Failure> {
    let cases = chosen_cases(args)?;
    let own = args.wgsl.as_deref().map(|path| own_kernel(path, &cases)).transpose()?.flatten();
    let opened = cx.open()?;
    let budget = Budget { runs: args.runs as usize, time: Duration::from_secs(args.seconds.into()) };
    let seed = cx.seed.unwrap_or(0);
    let gpu = opened.device.gpu().map(|e| e.gpu().clone());
    let proof = match (&own, &gpu) {
        (None, _) => None,
        (Some(_), None) => {
            let what = "--wgsl: needs a GPU adapter, a software one will do: add --device gpu";
            return Err(Failure::Message(what.to_owned()));
        }
        (Some(own), Some(gpu)) => Some(own.prove(gpu)?),
    };
    let bar = progress::bar(cx, cases.len() as u64 + 1);
    bar.set_message("peaks of the device");
    let mut peaks = match &gpu {
        Some(gpu) => Peaks::of_gpu(gpu, seed)?,
        None => Peaks::of_cpu(seed)?,
    };
    let mut results: Vec<KernelResult> = Vec::new();
    for case in &cases {
        bar.set_message(case.name());
        bar.inc(1);
        match &gpu {
            Some(gpu) => {
                results.extend(kernels::on_gpu(case, gpu, budget, args.ladder || own.is_some(), seed)?);
                let Some(own) = &own else { continue };
                match own.on_gpu(case, gpu, budget, seed)? {
                    Some(result) => results.push(result),
                    None => cx.note(format!("{} says not to support {}", own.file, case.shapes)),
                }
            }
            None => results.push(kernels::on_cpu(case, budget, seed)?),
        }
    }
    bar.finish_and_clear();
    peaks.judge(&mut results);
    if let Some(path) = &args.svg {
        let title = format!("Roofline: {}", opened.device.describe());
        fsio::write_atomic(path, roofline(&title, &peaks, &results).draw().standalone().as_bytes())?;
        cx.note(format!("wrote {}", path.display()));
    }
    let mut text = format!("{}\n{}", peaks_table(&peaks).to_text(), table(&results).to_text());
    if let (Some(own), Some(proof)) = (&own, &proof) {
        let Proof { passed, skipped, error: worst } = proof;
        text.push_str(&format!(
            "{} agrees with the reference on {passed} samples (largest error {}); {skipped} it says not to support. It ran with \
             run-time checks, the others without.\n",
            own.file,
            error(*worst)
        ));
    }
    let report = Report { device: opened.report(), peaks, proof, results };
    cx.result(text, &report)?;
    wrong(&report.results)
}

/// Fails where a kernel gives something else than the CPU.
fn wrong(results: &[KernelResult]) -> Result<(), Failure> {
    let wrong: Vec<&KernelResult> = results.iter().filter(|r| !r.correct).collect();
    let Some(r) = wrong.first() else { return Ok(()) };
    Err(Failure::Message(format!(
        "{} of {} kernels differ from the CPU by more than {:e}, first {} {} {} ({}): {}; `radiograd gradcheck` looks closer",
        wrong.len(),
        results.len(),
        kernels::TOLERANCE,
        r.op,
        r.direction.words(),
        r.kernel,
        r.shapes,
        error(r.error)
    )))
}

fn peaks_table(peaks: &Peaks) -> Table {
    let caption = format!("What the device can do at best (copies of {})", bytes(peaks.buffer_bytes));
    let mut table = Table::new(caption, ["what", ">rate", "how"]);
    table.push([
        "multiply-adds".to_owned(),
        format!("{} GFLOP/s", giga(peaks.compute.best.rate)),
        peaks.compute.best.what.clone(),
    ]);
    table.push([
        "matrix product".to_owned(),
        format!("{} GFLOP/s", giga(peaks.product.rate)),
        peaks.product.what.clone(),
    ]);
    for (name, best) in [("copy", &peaks.copy.best), ("read", &peaks.read.best)] {
        table.push([name.to_owned(), format!("{} GB/s", giga(best.rate)), best.what.clone()]);
    }
    if let Some(kernel) = &peaks.stream {
        table.push(["fastest kernel".to_owned(), format!("{} GB/s", giga(kernel.rate)), kernel.what.clone()]);
    }
    table
}

fn table(results: &[KernelResult]) -> Table {
    let clock = match results.iter().all(|r| r.gpu_timestamps) {
        true => "GPU timestamps around the kernel",
        false => "wall time from submit to idle",
    };
    let mut table = Table::new(
        format!("Kernels, {clock}; * is what training takes"),
        [
            "op",
            "direction",
            "shapes",
            "kernel",
            ">median",
            ">spread",
            ">runs",
            ">GFLOP/s",
            ">GB/s",
            ">floor",
            ">x floor",
            "bound",
            ">error",
        ],
    );
    for r in results {
        let star = if r.chosen { " *" } else { "" };
        table.push([
            r.op.to_owned(),
            r.direction.words().to_owned(),
            r.shapes.clone(),
            format!("{}{star}", r.kernel),
            seconds(r.times.median),
            format!("{:.0} %", 100.0 * r.times.spread),
            r.times.runs.to_string(),
            giga(r.flops_per_second),
            giga(r.bytes_per_second),
            r.floor.map_or_else(String::new, |f| seconds(f.seconds)),
            r.floor.map_or_else(String::new, |f| format!("{:.2}", f.over)),
            r.floor.map_or_else(String::new, |f| f.bound.to_owned()),
            error(r.error),
        ]);
    }
    table
}

/// The plot of the results.
fn roofline(title: &str, peaks: &Peaks, results: &[KernelResult]) -> Roofline {
    let point = |r: &KernelResult| RooflinePoint {
        name: format!("{} {} {}: {}", r.op, r.direction.words(), r.kernel, r.shapes),
        group: OPS.iter().position(|op| *op == r.op).unwrap_or_default(),
        intensity: r.flops as f64 / r.bytes as f64,
        rate: r.flops_per_second * 1e-9,
        marked: r.chosen,
    };
    Roofline {
        title: title.to_owned(),
        peak: (peaks.flops_per_second() * 1e-9, "multiply-adds".to_owned()),
        product: (peaks.product.rate * 1e-9, "best matrix product".to_owned()),
        bandwidth: (peaks.bytes_per_second() * 1e-9, "memory".to_owned()),
        copy: (peaks.copy.best.rate * 1e-9, "copy".to_owned()),
        points: results.iter().filter(|r| r.flops > 0).map(point).collect(),
    }
}
