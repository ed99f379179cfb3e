//! `radiograd graph`: what a network is made of and what it costs.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::device::DeviceReport;
use super::format::{bytes, grouped, scaled};
use super::{Context, Failure, ImageSize};
use crate::bench::step::Workload;
use crate::graph::{Graph, NodeId};
use crate::nn::summary::{self, NodeRow, Summary};
use crate::nn::{Mode, Model};
use crate::report::table::Table;
use crate::shape::{Shape, Spec};
use crate::store::ParamStore;

/// Arguments of `radiograd graph`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  radiograd graph --model conv16-relu-pool-flatten-dense2 --size 64 --batch 32 --train"
)]
pub(super) struct Args {
    /// A name (mlp, cnn1, cnn2, cnn3, ...) or a chain of layers such as conv16-relu-pool-flatten-dense2
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
    /// The graph that a GPU runs, after the fusion pass, instead of the one that was recorded
    #[arg(long, conflicts_with = "no_fuse")]
    fused: bool,
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
    /// Memory of all intermediate tensors as planned, in bytes; none on the CPU.
    planned_bytes: Option<u64>,
    /// The least that any plan needs.
    least_bytes: Option<u64>,
    /// Weights, optimizer state and what else stays on the device.
    variable_bytes: Option<u64>,
}

/// The graph, the variables that it uses, and what must be computed.
fn record(args: &Args, model: &Model, seed: u32) -> Result<(Arc<Graph>, ParamStore, Vec<NodeId>), Failure> {
    if args.train {
        // One image on the device is enough: the shapes of a step depend on the batch alone.
        let work = Workload::new(model.clone(), 1, args.batch, seed, None)?;
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
    let (mut graph, store, roots) = record(&args, &model, cx.seed.unwrap_or(0))?;
    let mut opened = cx.open()?;
    let device = opened.report();
    if args.fused && opened.device.gpu().is_none() {
        let what = "--fused: the CPU executor runs every op as it was recorded; choose a GPU with --device gpu";
        return Err(Failure::Message(what.to_owned()));
    }
    let mut memory = None;
    let mut kernels: HashMap<usize, &'static str> = HashMap::new();
    if let Some(gpu) = opened.device.gpu_mut() {
        use crate::exec::Executor as _;
        gpu.load(&store)?;
        let program = gpu.compile(&graph, &roots)?;
        let of_runs: HashMap<NodeId, &'static str> = gpu.variants(program).into_iter().collect();
        if args.fused {
            graph = Arc::clone(gpu.graph(program));
            kernels.extend(of_runs.iter().map(|(id, v)| (id.index(), *v)));
        } else {
            let live = graph.live(&roots);
            for id in graph.ids().filter(|id| live[id.index()] && graph.node(*id).op().is_some()) {
                let kernel = match gpu.place(program, id) {
                    Some(place) => of_runs.get(&place).copied(),
                    None => Some("fused"),
                };
                kernels.extend(kernel.map(|k| (id.index(), k)));
            }
        }
        memory = Some((gpu.memory(program), gpu.variable_bytes()));
    } else {
        let live = graph.live(&roots);
        let runs = |id: &NodeId| live[id.index()] && graph.node(*id).op().is_some_and(|op| !op.is_view());
        kernels.extend(graph.ids().filter(runs).map(|id| (id.index(), "cpu")));
    }
    let nodes: Vec<Row> =
        summary::nodes(&graph).into_iter().map(|node| Row { kernel: kernels.get(&node.node).copied(), node }).collect();
    let report = Report {
        device,
        batch: args.batch,
        train: args.train,
        fused: args.fused,
        parameters: network.parameters,
        flops: nodes.iter().map(|r| r.node.flops).sum(),
        bytes: nodes.iter().map(|r| r.node.bytes).sum(),
        planned_bytes: memory.map(|m| m.0.0),
        least_bytes: memory.map(|m| m.0.1),
        variable_bytes: memory.map(|m| m.1),
        network,
        nodes,
    };
    cx.result(text(&report), &report)
}

fn text(report: &Report) -> String {
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
    let mut text = format!(
        "{} = {}\n{}\n{}{} parameters, {} FLOPs, {} bytes read and written",
        report.network.model,
        report.network.chain,
        report.network.render(),
        table.to_text(),
        grouped(report.parameters as u64),
        scaled(report.flops),
        scaled(report.bytes)
    );
    if let (Some(planned), Some(least), Some(variables)) =
        (report.planned_bytes, report.least_bytes, report.variable_bytes)
    {
        let (planned, least, variables) = (bytes(planned), bytes(least), bytes(variables));
        text.push_str(&format!(
            "\ndevice memory: {planned} planned for intermediate tensors (at least {least} is needed), {variables} for what stays"
        ));
    }
    text
}
