//! `radiograd bench step`: whole training steps, and where their time and memory go.

use super::super::device::Device;
use super::super::format::{bytes, giga, grouped, seconds};
use super::super::{Context, Failure, ImageSize, progress};
use super::{BudgetArgs, Report};
use crate::bench::measure::Budget;
use crate::bench::step::{NodeCost, StepResult, Workload};
use crate::nn::Model;
use crate::nn::summary::MAX_BATCH;
use crate::profile::HostTimes;
use crate::report::table::Table;
use crate::train::step::StepOptions;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd bench step --device cpu\n  radiograd bench step --model cnn2 --size 64 --batch 16\n\nWithout --model: cnn1, cnn2 and cnn3 at 128x128 with batch 32, and cnn3 at 28x28 with batch 64."
)]
pub(super) struct StepArgs {
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
    /// Hold few activations and compute the others again in the backward pass
    #[arg(long, requires = "model")]
    recompute: bool,
    /// Every node of the step too: its time, share, GFLOP/s and GB/s
    #[arg(long)]
    ops: bool,
    #[command(flatten)]
    budget: BudgetArgs,
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

pub(super) fn run(args: &StepArgs, cx: &Context) -> Result<(), Failure> {
    let workloads = workloads(args)?;
    let mut opened = cx.open()?;
    let bar = progress::bar(cx, workloads.len() as u64);
    let mut results = Vec::new();
    for (model, batch) in workloads {
        let [_, height, width] = model.input();
        bar.set_message(format!("{} {height}x{width} batch {batch}", model.text()));
        let limit = opened.device.executor().max_tensor_bytes();
        let options = StepOptions { recompute: args.recompute, ..StepOptions::default() };
        let work = Workload::with(model, IMAGES * batch, batch, cx.seed.unwrap_or(0), limit, options)?;
        let mut result = measure(&work, &mut opened.device, args.budget.budget())?;
        result.nodes = result.nodes.filter(|_| args.ops);
        results.push(result);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let text = text(&results);
    cx.result(text, &Report { device: opened.report(), results })
}

/// All tables.
fn text(results: &[StepResult]) -> String {
    let mut text = times(results).to_text();
    text.push_str(&parts(results).to_text());
    if results.iter().any(|r| r.memory.is_some()) {
        text.push_str(&memory(results).to_text());
    }
    for r in results {
        if let Some(nodes) = &r.nodes {
            text.push_str(&by_node(r, nodes).to_text());
        }
    }
    text
}

fn name(r: &StepResult) -> [String; 3] {
    let [_, height, width] = r.input;
    [r.model.clone(), format!("{height}x{width}"), r.batch.to_string()]
}

fn times(results: &[StepResult]) -> Table {
    let heads = [">parameters", ">median", ">min", ">spread", ">runs", ">images/s", ">GFLOP/s", ">first step"];
    let mut table = Table::new(
        "Training step (batch, forward, loss, backward, Adam): wall time",
        ["model", "size", ">batch"].into_iter().chain(heads),
    );
    for r in results {
        table.push(name(r).into_iter().chain([
            grouped(r.parameters as u64),
            seconds(r.step.median),
            seconds(r.step.min),
            format!("{:.0} %", 100.0 * r.step.spread),
            r.step.runs.to_string(),
            format!("{:.1}", r.images_per_second),
            giga(r.flops_per_second),
            seconds(r.first_step_seconds),
        ]));
    }
    table
}

fn parts(results: &[StepResult]) -> Table {
    let dash = || "-".to_owned();
    let heads = [">device", ">host", ">host min", ">upload", ">encode", ">submit", ">read back"];
    let mut table = Table::new(
        "Parts of a step, medians: the device's own work by its timestamps; all that the host does, on an idle device, and its \
         upload, encode and submit; then one row of the log read back",
        ["model", "size", ">batch"].into_iter().chain(heads),
    );
    for r in results {
        let part = |of: fn(&HostTimes) -> f64| r.host_parts.as_ref().map_or_else(dash, |p| seconds(of(p)));
        table.push(name(r).into_iter().chain([
            r.device.map_or_else(dash, |t| seconds(t.median)),
            r.host.map_or_else(dash, |t| seconds(t.median)),
            r.host.map_or_else(dash, |t| seconds(t.min)),
            part(|p| p.upload),
            part(|p| p.encode),
            part(|p| p.submit),
            seconds(r.read_back.median),
        ]));
    }
    table
}

fn memory(results: &[StepResult]) -> Table {
    let heads = [
        ">parameters",
        ">moments",
        ">gradients",
        ">planned",
        ">textures",
        ">peak",
        ">lower bound",
        ">ratio",
        ">data beside",
    ];
    let mut table = Table::new(
        "Device memory of a step: peak = parameters, moments, gradients, inputs, the planned buffers (tensors and scratch) and textures; \
         lower bound = the same with the largest set of tensors alive at once in place of buffers and textures",
        ["model", "size", ">batch"].into_iter().chain(heads),
    );
    for r in results {
        let Some(m) = &r.memory else { continue };
        let sizes = [m.parameters, m.moments, m.gradients, m.planned, m.textures, m.peak, m.lower_bound];
        let row = name(r).into_iter().chain(sizes.map(bytes));
        table.push(row.chain([format!("{:.3}", m.ratio), bytes(m.data)]));
    }
    table
}

fn by_node(r: &StepResult, nodes: &[NodeCost]) -> Table {
    let [model, size, batch] = name(r);
    let mut table = Table::new(
        format!("Nodes of one step of {model} at {size}, batch {batch}: medians of {} runs", nodes[0].times.runs),
        ["node", "pass", "kernel", ">time", ">spread", ">share", ">GFLOP/s", ">GB/s"],
    );
    for n in nodes {
        table.push([
            n.name.clone(),
            n.pass.to_owned(),
            n.variant.to_owned(),
            seconds(n.times.median),
            format!("{:.0} %", 100.0 * n.times.spread),
            format!("{:.1} %", 100.0 * n.share),
            giga(n.flops_per_second),
            giga(n.bytes_per_second),
        ]);
    }
    table
}

fn measure(work: &Workload, device: &mut Device, budget: Budget) -> Result<StepResult, Failure> {
    let (mut result, program) = work.measure(device.executor(), budget)?;
    if let Some(gpu) = device.gpu() {
        result.memory = Some(*gpu.memory(program)?);
    }
    device.executor().release(program);
    Ok(result)
}
