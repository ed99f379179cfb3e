//! What a network costs, layer by layer and node by node: the tables of `radiograd graph`.

use std::collections::HashMap;

use serde::Serialize;

use super::model::{Mode, Model};
use super::plan::{Field, Group, ParamSpec, batched};
use crate::graph::{Graph, NodeId, Pass, Source, VarView};
use crate::shape::{DType, Shape, ShapeError, Spec};
use crate::store::{Param, ParamStore, Role};

/// Most images of a batch whose cost is counted, so that no count overflows.
pub const MAX_BATCH: usize = 65_536;

/// One layer. Sums are over the nodes of an evaluation pass with the given batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerRow {
    /// Position, from 1.
    pub number: usize,
    /// Its name: the scope of its nodes.
    pub name: String,
    /// As written in a chain.
    pub layer: String,
    /// Output of one image, without the batch axis.
    pub output: Vec<usize>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Running statistics.
    pub buffers: usize,
    /// Floating-point operations, multiplications and additions counted apart.
    pub flops: u64,
    /// Bytes that its nodes read and write at least.
    pub bytes: u64,
    /// What one output pixel sees; `None`: the whole image.
    pub field: Option<Field>,
}

/// A block that lies in no other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockRow {
    /// Its name; without one, the names of its first and last layers.
    pub name: String,
    /// As written in a chain.
    pub block: String,
    /// Number of its first layer, as in [`LayerRow::number`].
    pub first: usize,
    /// Number of its last layer.
    pub last: usize,
}

/// A network's layers and their sums.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The model text.
    pub model: String,
    /// The chain that it stands for.
    pub chain: String,
    /// Input `[N, C, H, W]`.
    pub input: Vec<usize>,
    /// The layers.
    pub layers: Vec<LayerRow>,
    /// Its blocks, which the table as text shows in a row each.
    pub blocks: Vec<BlockRow>,
    /// Trainable numbers of all layers.
    pub parameters: usize,
    /// Running statistics of all layers.
    pub buffers: usize,
    /// Operations of all layers.
    pub flops: u64,
    /// Bytes of all layers.
    pub bytes: u64,
}

/// One node of a recorded graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeRow {
    /// Its number in the graph.
    pub node: usize,
    /// The op's name, `input` or `variable`.
    pub op: &'static str,
    /// The op's parameters.
    pub detail: String,
    /// The layer that it belongs to, or its own name.
    pub scope: String,
    /// `forward`, `backward` or `update`.
    pub pass: &'static str,
    /// The nodes that it reads.
    pub inputs: Vec<usize>,
    /// Output shape.
    pub output: Vec<usize>,
    /// Element type.
    pub dtype: String,
    /// Numbers of a variable; 0 for others.
    pub parameters: usize,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written at least.
    pub bytes: u64,
}

/// Operations and bytes of a node: every input read once, the output written once, nothing for views and sources.
fn cost(g: &Graph, id: NodeId) -> (u64, u64) {
    let node = g.node(id);
    let Some(op) = node.op() else { return (0, 0) };
    let inputs: Vec<&Spec> = node.inputs().iter().map(|&i| g.spec(i)).collect();
    let flops = op.flops(&inputs, &node.spec);
    if op.is_view() {
        return (flops, 0);
    }
    // What an update changes is read and written too.
    let state: usize = op.updates().iter().map(|v| 2 * v.spec.bytes()).sum();
    let read: usize = inputs.iter().map(|s| s.bytes()).sum();
    (flops, (read + node.spec.bytes() + state) as u64)
}

/// The parameters without values or places of their own, for a graph that is only looked at.
fn declared(model: &Model) -> Vec<Param> {
    let param = |p: &ParamSpec| Param {
        name: p.name.clone(),
        role: p.role,
        view: VarView {
            var: match p.role {
                Role::Trainable => ParamStore::TRAINABLE,
                Role::Buffer => ParamStore::BUFFERS,
            },
            offset: 0,
            spec: Spec::float(p.shape.clone()),
        },
    };
    model.params().iter().map(param).collect()
}

/// The sum of a cost over layers.
fn total(layers: &[LayerRow], cost: fn(&LayerRow) -> u64) -> u64 {
    layers.iter().map(cost).fold(0, u64::saturating_add)
}

/// One row for each node of a graph.
#[must_use]
pub fn nodes(g: &Graph) -> Vec<NodeRow> {
    g.ids()
        .map(|id| {
            let node = g.node(id);
            let (flops, bytes) = cost(g, id);
            NodeRow {
                node: id.index(),
                op: node.kind(),
                detail: node.op().map(|op| op.detail()).unwrap_or_default(),
                scope: node.scope.clone(),
                pass: match node.pass {
                    Pass::Forward => "forward",
                    Pass::Backward => "backward",
                    Pass::Update => "update",
                },
                inputs: node.inputs().iter().map(|i| i.index()).collect(),
                output: node.spec.shape.to_vec(),
                dtype: node.spec.dtype.to_string(),
                parameters: match &node.source {
                    Source::Var(_) => node.spec.numel(),
                    _ => 0,
                },
                flops,
                bytes,
            }
        })
        .collect()
}

impl Summary {
    /// Records an evaluation pass over `batch` images and adds up its nodes by layer.
    ///
    /// # Errors
    /// A batch of 0 or more than [`MAX_BATCH`].
    pub fn new(model: &Model, batch: usize) -> Result<Self, ShapeError> {
        let [c, h, w] = model.input();
        let spec = Spec::float([batch, c, h, w]);
        if !(1..=MAX_BATCH).contains(&batch) {
            let what = format!("the batch must be 1 to {MAX_BATCH}");
            return Err(ShapeError::invalid("model", what, &spec));
        }
        let mut g = Graph::new();
        let input = spec.shape.to_vec();
        let x = g.input("image", spec);
        let params = declared(model);
        model.forward(&mut g, &params, x, Mode::Eval)?;
        let mut costs: HashMap<&str, (u64, u64)> = HashMap::new();
        for id in g.ids() {
            let (flops, bytes) = cost(&g, id);
            let sum = costs.entry(&g.node(id).scope).or_default();
            *sum = (sum.0.saturating_add(flops), sum.1.saturating_add(bytes));
        }
        let layers: Vec<LayerRow> = model
            .steps()
            .iter()
            .enumerate()
            .map(|(i, step)| {
                let params = &model.params()[step.params.clone()];
                let numel = |role| {
                    let of = params.iter().filter(|p| p.role == role);
                    of.map(|p| p.shape.numel()).sum()
                };
                let (flops, bytes) = costs.get(step.name.as_str()).copied().unwrap_or_default();
                LayerRow {
                    number: i + 1,
                    name: step.name.clone(),
                    layer: step.action.to_string(),
                    output: step.output.to_vec(),
                    parameters: numel(Role::Trainable),
                    buffers: numel(Role::Buffer),
                    flops,
                    bytes,
                    field: step.field,
                }
            })
            .collect();
        let sum = |cost: fn(&LayerRow) -> u64| total(&layers, cost);
        let block = |group: &Group| BlockRow {
            name: group.name.clone(),
            block: group.text.clone(),
            first: group.steps.start + 1,
            last: group.steps.end,
        };
        Ok(Self {
            model: model.text().to_owned(),
            chain: model.network().to_string(),
            input,
            parameters: layers.iter().map(|l| l.parameters).sum(),
            buffers: layers.iter().map(|l| l.buffers).sum(),
            flops: sum(|l| l.flops),
            bytes: sum(|l| l.bytes),
            blocks: model.groups().iter().map(block).collect(),
            layers,
        })
    }

    /// The rows of the table: a block as one, which the number of its last layer leads to.
    fn rows(&self) -> Vec<(String, LayerRow)> {
        let mut rows = Vec::new();
        let mut blocks = self.blocks.iter().peekable();
        let mut at = 0;
        while let Some(layer) = self.layers.get(at) {
            match blocks.next_if(|block| block.first == at + 1) {
                None => {
                    rows.push((layer.number.to_string(), layer.clone()));
                    at += 1;
                }
                Some(block) => {
                    let inside = &self.layers[at..block.last];
                    let last = &inside[inside.len() - 1];
                    let row = LayerRow {
                        number: block.first,
                        name: block.name.clone(),
                        layer: block.block.clone(),
                        output: last.output.clone(),
                        parameters: inside.iter().map(|l| l.parameters).sum(),
                        buffers: inside.iter().map(|l| l.buffers).sum(),
                        flops: total(inside, |l| l.flops),
                        bytes: total(inside, |l| l.bytes),
                        field: last.field,
                    };
                    rows.push((format!("{}-{}", block.first, block.last), row));
                    at = block.last;
                }
            }
        }
        rows
    }

    /// The table as text, with a row for each layer and each block.
    #[must_use]
    pub fn render(&self) -> String {
        let header = ["#", "name", "layer", "output", "params", "FLOPs", "bytes", "sees", "stride"];
        let mut rows = vec![header.map(str::to_owned)];
        let blank = String::new;
        let shape = |s: &[usize]| batched(&Shape::new(s));
        rows.push([
            blank(),
            "image".to_owned(),
            blank(),
            shape(&self.input[1..]),
            blank(),
            blank(),
            blank(),
            "1x1".to_owned(),
            "1x1".to_owned(),
        ]);
        for (number, l) in self.rows() {
            let by = |[h, w]: [usize; 2]| format!("{h}x{w}");
            rows.push([
                number,
                l.name.clone(),
                l.layer.clone(),
                shape(&l.output),
                grouped(l.parameters as u64),
                scaled(l.flops),
                scaled(l.bytes),
                l.field.map_or_else(|| "all".to_owned(), |f| by(f.size)),
                l.field.map_or_else(blank, |f| by(f.stride)),
            ]);
        }
        rows.push([
            blank(),
            "sum".to_owned(),
            blank(),
            blank(),
            grouped(self.parameters as u64),
            scaled(self.flops),
            scaled(self.bytes),
            blank(),
            blank(),
        ]);
        let right = [true, false, false, false, true, true, true, true, true];
        let mut text = align(&rows, &right);
        let batch = self.input[0];
        let note = if batch == 1 { "image" } else { "images" };
        text.push_str(&format!("FLOPs and bytes: one evaluation pass over {batch} {note}. sees, stride: receptive field and its stride in pixels of the image.\n"));
        text
    }
}

/// The rows of [`nodes`] as text.
#[must_use]
pub fn render_nodes(rows: &[NodeRow]) -> String {
    let header = ["node", "op", "detail", "scope", "pass", "reads", "output", "params", "FLOPs", "bytes"];
    let mut cells = vec![header.map(str::to_owned)];
    for r in rows {
        let reads: Vec<String> = r.inputs.iter().map(|i| format!("#{i}")).collect();
        let spec = Spec { shape: r.output.clone().into(), dtype: DType::Float };
        let prefix = if r.dtype == DType::Float.to_string() { "" } else { r.dtype.as_str() };
        cells.push([
            format!("#{}", r.node),
            r.op.to_owned(),
            r.detail.clone(),
            r.scope.clone(),
            r.pass.to_owned(),
            reads.join(" "),
            format!("{prefix}{spec}"),
            grouped(r.parameters as u64),
            scaled(r.flops),
            scaled(r.bytes),
        ]);
    }
    let right = [true, false, false, false, false, false, false, true, true, true];
    align(&cells, &right)
}

/// Columns as wide as their widest cell, two spaces apart.
fn align<const C: usize>(rows: &[[String; C]], right: &[bool; C]) -> String {
    let mut widths = [0; C];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, &width), &right) in row.iter().zip(&widths).zip(right) {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if right { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// Three digits and a prefix of powers of 1000: `1.23 M`.
pub(crate) fn scaled(n: u64) -> String {
    let mut value = n as f64;
    for prefix in ["", " k", " M", " G", " T"] {
        let decimals = match value {
            _ if prefix.is_empty() => 0,
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        if value < 999.5 {
            return format!("{value:.decimals$}{prefix}");
        }
        value /= 1000.0;
    }
    format!("{value:.0} P")
}
