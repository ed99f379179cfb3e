//! `radiograd graph`: what a network is made of and what it costs.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::device::DeviceReport;
use super::format::{bytes, grouped, scaled};
use super::{Context, Failure, ImageSize};
use crate::bench::step::Workload;
use crate::gpu::choice::choose;
use crate::gpu::lower::AdapterKind;
use crate::gpu::{Schedule, StepMemory, Target};
use crate::graph::{Graph, NodeId};
use crate::nn::summary::{self, NodeRow, Summary};
use crate::nn::{Mode, Model};
use crate::ops::{LowerCx, Op};
use crate::report::table::Table;
use crate::shape::{Shape, Spec};
use crate::store::ParamStore;
use crate::train::step::StepOptions;

/// Arguments of `radiograd graph`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  radiograd graph --model conv16-relu-pool-flatten-dense2 --size 64 --batch 32 --train\n  radiograd graph --model resnet34 --size 224 --channels 3\n  radiograd graph --model 'conv16-relu-[conv16-bn-relu-conv16-bn]+-relu-gap-flatten-dense2' --size 64"
)]
pub(super) struct Args {
    /// A name (mlp, cnn3, resnet34, ...) or a chain of layers such as conv16-relu-pool-flatten-dense2
    #[arg(long, value_name = "SPEC")]
    model: String,
    /// Size of the images: S or HxW
    #[arg(long, value_name = "S")]
    size: ImageSize,
    /// 1 for grey, 3 for RGB
    #[arg(long, default_value_t = 1, value_name = "C")]
    channels: usize,
    /// Classes to tell apart
    #[arg(long, default_value_t = 2, value_name = "K")]
    classes: usize,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "B")]
    batch: usize,
    /// The whole training step (batch, forward, loss, backward, Adam) instead of the evaluation pass
    #[arg(long)]
    train: bool,
    /// The step that holds few activations and computes the others twice
    #[arg(long, requires = "train")]
    recompute: bool,
    /// The graph that a GPU runs, after the fusion pass, instead of the one that was recorded
    #[arg(long, conflicts_with = "no_fuse")]
    fused: bool,
    /// Every node too, of a network with blocks; others show them always
    #[arg(long)]
    nodes: bool,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    node: NodeRow,
    /// The kernel that runs, or `fused` for a node that lies inside another's kernel; none for inputs, variables, views, and
    /// what nothing needs.
    kernel: Option<&'static str>,
}

#[derive(Serialize)]
struct Report {
    device: DeviceReport,
    network: Summary,
    batch: usize,
    train: bool,
    /// Whether these are the nodes after the fusion pass.
    fused: bool,
    nodes: Vec<Row>,
    parameters: usize,
    flops: u64,
    bytes: u64,
    /// The kind of adapter that kernels and memory below are planned for.
    planned_for: &'static str,
    /// Device memory.
    memory: StepMemory,
}

/// The graph, the variables that it uses, and what must be computed.
fn record(args: &Args, model: &Model, seed: u32) -> Result<(Arc<Graph>, ParamStore, Vec<NodeId>), Failure> {
    if args.train {
        // One image on the device is enough: the shapes of a step depend on the batch alone.
        let options = StepOptions { recompute: args.recompute, ..StepOptions::default() };
        let work = Workload::with(model.clone(), 1, args.batch, seed, None, options)?;
        return Ok((Arc::clone(&work.step.graph), work.store, Vec::new()));
    }
    let mut store = ParamStore::new();
    let params = model.init(&mut store, seed);
    let mut g = Graph::new();
    let x = g.input("image", Spec::float([args.batch, args.channels, args.size.height, args.size.width]));
    let forward = model.forward(&mut g, &params, x, Mode::Eval)?;
    Ok((Arc::new(g), store, vec![forward.logits]))
}

pub(super) fn run(args: Args, cx: &Context) -> Result<(), Failure> {
    let model = Model::new(&args.model, [args.channels, args.size.height, args.size.width], args.classes)?;
    let network = Summary::new(&model, args.batch)?;
    let (recorded, store, roots) = record(&args, &model, cx.seed.unwrap_or(0))?;
    let opened = cx.open()?;
    let device = opened.report();
    let executor = opened.device.gpu();
    if args.fused && executor.is_none() {
        let what = "--fused: the CPU executor runs every op as it was recorded; choose a GPU with --device gpu";
        return Err(Failure::Message(what.to_owned()));
    }
    // Without a GPU, what a discrete one with room for everything would get.
    let target = executor.map_or_else(|| Target::unlimited(AdapterKind::Discrete), |gpu| gpu.gpu().target());
    let fused = executor.and_then(|gpu| gpu.fuse(&recorded, &roots));
    let place = |id: NodeId| fused.as_ref().map_or(Some(id), |f| f.places[id.index()]);
    let runs = fused.as_ref().map_or_else(|| Arc::clone(&recorded), |f| Arc::new(f.graph.clone()));
    let roots_that_run: Vec<NodeId> = roots.iter().filter_map(|&r| place(r)).collect();
    let mut pick = |op: &dyn Op, cx: &LowerCx<'_>, supported: &[&'static str]| match executor {
        Some(gpu) => gpu.choose(op, cx, supported),
        None => choose(op, cx, supported),
    };
    let schedule = Schedule::new(&target, false, &mut pick, &runs, &roots_that_run)?;
    let vars: Vec<u64> = store.vars().iter().map(|v| v.spec.bytes() as u64).collect();
    let chosen: HashMap<NodeId, &'static str> = schedule.variants().into_iter().collect();
    let graph = if args.fused { &runs } else { &recorded };
    let live = graph.live(if args.fused { &roots_that_run } else { &roots });
    let computed = |id: &NodeId| live[id.index()] && graph.node(*id).op().is_some();
    let kernel = |id: NodeId| match if args.fused { Some(id) } else { place(id) } {
        Some(at) => {
            Some((id.index(), if executor.is_some() { *chosen.get(&at)? } else { chosen.get(&at).map(|_| "cpu")? }))
        }
        None => Some((id.index(), "fused")),
    };
    let kernels: HashMap<usize, &'static str> = graph.ids().filter(computed).filter_map(kernel).collect();
    let nodes: Vec<Row> =
        summary::nodes(graph).into_iter().map(|node| Row { kernel: kernels.get(&node.node).copied(), node }).collect();
    let report = Report {
        device,
        batch: args.batch,
        train: args.train,
        fused: args.fused,
        parameters: network.parameters,
        flops: nodes.iter().map(|r| r.node.flops).sum(),
        bytes: nodes.iter().map(|r| r.node.bytes).sum(),
        planned_for: target.kind.word(),
        memory: schedule.memory(&runs, &vars),
        network,
        nodes,
    };
    cx.result(text(&report, args.nodes), &report)
}

/// `nodes`: with the table of nodes, whatever the network.
fn text(report: &Report, nodes: bool) -> String {
    let table = if nodes || report.network.blocks.is_empty() {
        table(report).to_text()
    } else {
        format!("{} nodes; --nodes lists them, --json has every layer of the blocks\n", report.nodes.len())
    };
    let mut text = format!(
        "{} = {}\n{}\n{table}{} parameters, {} FLOPs, {} bytes read and written",
        report.network.model,
        report.network.chain,
        report.network.render(),
        grouped(report.parameters as u64),
        scaled(report.flops),
        scaled(report.bytes)
    );
    text.push('\n');
    text.push_str(&memory(report));
    text
}

/// Every node.
fn table(report: &Report) -> Table {
    let what = if report.train { "training step" } else { "evaluation pass" };
    let fused = if report.fused { ", after the fusion pass" } else { "" };
    let caption = format!("Every node of one {what}, batch {}{fused}", report.batch);
    let mut table = Table::new(
        caption,
        [">node", "op", "detail", "layer", "pass", "reads", "shape", ">parameters", ">FLOPs", ">bytes", "kernel"],
    );
    for Row { node, kernel } in &report.nodes {
        let reads: Vec<String> = node.inputs.iter().map(ToString::to_string).collect();
        let dtype = if node.dtype == "float" { String::new() } else { format!("{} ", node.dtype) };
        table.push([
            node.node.to_string(),
            node.op.to_owned(),
            node.detail.clone(),
            node.scope.clone(),
            node.pass.to_owned(),
            reads.join(" "),
            format!("{dtype}{}", Shape::new(&node.output)),
            if node.parameters > 0 { grouped(node.parameters as u64) } else { String::new() },
            scaled(node.flops),
            scaled(node.bytes),
            kernel.unwrap_or("-").to_owned(),
        ]);
    }
    table
}

/// The plan and its bound, each in a line with what it is the sum of.
fn memory(report: &Report) -> String {
    let m = &report.memory;
    let stays: String =
        [("parameters", m.parameters), ("moments", m.moments), ("gradients", m.gradients), ("inputs", m.inputs)]
            .into_iter()
            .filter(|part| part.1 > 0)
            .map(|(name, n)| format!("{name} {} + ", bytes(n)))
            .collect();
    let (peak, least) = (bytes(m.peak), bytes(m.lower_bound));
    let textures = if m.textures > 0 { format!(" + textures {}", bytes(m.textures)) } else { String::new() };
    format!(
        "device memory, planned for a {} adapter: {peak} at its peak ({stays}tensors and scratch as placed {}{textures})\n\
         lower bound: {least} ({stays}the largest set of tensors alive at once {}); peak / bound {:.3}\n\
         no placement of tensors and scratch takes less than {}; images, labels and log come on top",
        report.planned_for,
        bytes(m.planned),
        bytes(m.tensors_at_least),
        m.ratio,
        bytes(m.placed_at_least),
    )
}
