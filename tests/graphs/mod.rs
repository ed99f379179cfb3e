//! Random graphs: a plain list of choices, which proptest draws and shrinks, and what is recorded from it.

pub mod check;
pub mod judge;
pub mod ops;
pub mod plan;
pub mod training;

use std::fmt;
use std::sync::Arc;

use proptest::prelude::*;
use radiograd::graph::{Graph, NodeId, VarView};
use radiograd::nn::summary;
use radiograd::ops::reshape::Pack;
use radiograd::ops::sample::{self, Fill, SampleInput};
use radiograd::shape::{DType, Shape, ShapeError, Spec};
use radiograd::store::{ParamStore, Role};
use radiograd::tensor::{Data, Tensor};

/// Nodes of a graph before its gradients.
pub const MOST_NODES: usize = 30;
/// A step may record so many nodes beside the op that it is named after.
const SPARE: usize = 9;

/// One op, and the choices by which it takes its inputs and parameters. Smaller numbers are simpler choices.
#[derive(Clone, Debug)]
pub struct Step {
    /// Index into [`ops::OPS`].
    pub op: usize,
    pub picks: [u16; 10],
}

/// A graph as a list of choices.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Decides the values.
    pub seed: u32,
    pub steps: Vec<Step>,
    /// What happens at the end: gradients, an optimizer, extra roots.
    pub ending: [u16; 6],
}

fn step(op: impl Strategy<Value = usize>) -> impl Strategy<Value = Step> {
    (op, any::<[u16; 10]>()).prop_map(|(op, picks)| Step { op, picks })
}

/// Recipes that begin with the ops `first` and go on with up to `most` others.
pub fn recipe(first: &[usize], most: usize) -> impl Strategy<Value = Recipe> {
    let first: Vec<_> = first.iter().map(|&op| step(Just(op))).collect();
    let rest = prop::collection::vec(step(0..ops::OPS.len()), 0..=most);
    (0u32..1000, first, rest, any::<[u16; 6]>()).prop_map(|(seed, mut steps, rest, ending)| {
        steps.extend(rest);
        Recipe { seed, steps, ending }
    })
}

/// A value that ops may take.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub id: NodeId,
    /// Its typical size.
    pub mag: f64,
    /// Whether the gradient may flow through it: it hangs on no updated variable and on no op without a derivative.
    pub clean: bool,
}

/// A leaf whose gradient is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Leaf {
    /// Place among the inputs.
    Input(usize),
    /// Place among the store's parameters.
    Param(usize),
}

/// Records steps.
pub struct Builder {
    pub g: Graph,
    pub store: ParamStore,
    pub inputs: Vec<(NodeId, Tensor)>,
    pub leaves: Vec<(NodeId, Leaf)>,
    pub values: Vec<Value>,
    /// Vectors of class labels 0 and 1.
    pub labels: Vec<NodeId>,
    pub rng: Option<NodeId>,
    pub stats: Vec<NodeId>,
    seed: u32,
    picks: [u16; 10],
    at: usize,
}

impl Builder {
    fn new(seed: u32) -> Self {
        Self {
            g: Graph::new(),
            store: ParamStore::new(),
            inputs: Vec::new(),
            leaves: Vec::new(),
            values: Vec::new(),
            labels: Vec::new(),
            rng: None,
            stats: Vec::new(),
            seed,
            picks: [0; 10],
            at: 0,
        }
    }

    /// The next choice among `n`.
    pub fn below(&mut self, n: usize) -> usize {
        let pick = self.picks[self.at % self.picks.len()];
        self.at += 1;
        usize::from(pick) * n / 65_536
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let i = self.below(all.len());
        all[i].clone()
    }

    pub fn chance(&mut self) -> bool {
        self.below(2) == 1
    }

    pub fn dims(&self, id: NodeId) -> Vec<usize> {
        self.g.spec(id).shape.to_vec()
    }

    fn filled(&self, spec: Spec, fill: Fill) -> Tensor {
        let input = SampleInput { spec, fill, checked: false };
        sample::fill(&input, self.seed, (self.inputs.len() + 100 * self.store.params().len()) as u32)
    }

    /// An input that no gradient is asked for.
    pub fn fixed(&mut self, spec: Spec, fill: Fill) -> NodeId {
        let value = self.filled(spec.clone(), fill);
        let id = self.g.input(&format!("input {}", self.inputs.len()), spec);
        self.inputs.push((id, value));
        id
    }

    pub fn words(&mut self, n: usize, below: u32) -> NodeId {
        self.fixed(Spec::u32([n]), Fill::Below(below))
    }

    /// A parameter or running statistic of the store.
    pub fn param(&mut self, role: Role, dims: &[usize], fill: Fill, mag: f64) -> (NodeId, VarView) {
        let value = self.filled(Spec::float(dims.to_vec()), fill).to_f32();
        let value: Vec<f32> = value.iter().map(|v| v * mag as f32).collect();
        let name = format!("p{}", self.store.params().len());
        let param = self.store.add_param(&name, role, dims.to_vec(), &value);
        let id = self.g.var(&name, param.view.clone());
        if role == Role::Trainable {
            self.leaves.push((id, Leaf::Param(self.store.params().len() - 1)));
        }
        (id, param.view)
    }

    /// A leaf of normal numbers times `mag`: an input or a parameter.
    pub fn leaf(&mut self, dims: &[usize], mag: f64) -> NodeId {
        if self.chance() {
            return self.param(Role::Trainable, dims, Fill::Normal, mag).0;
        }
        let spec = Spec::float(dims.to_vec());
        let value: Vec<f32> = self.filled(spec.clone(), Fill::Normal).to_f32().iter().map(|v| v * mag as f32).collect();
        let id = self.g.input(&format!("input {}", self.inputs.len()), spec);
        self.leaves.push((id, Leaf::Input(self.inputs.len())));
        self.inputs.push((id, Tensor::f32(dims.to_vec(), value).unwrap()));
        id
    }

    /// A new leaf among the values.
    fn fresh(&mut self, dims: &[usize]) -> Value {
        let value = Value { id: self.leaf(dims, 1.0), mag: 1.0, clean: true };
        self.values.push(value);
        value
    }

    /// A float that `fits`, the newest being the simplest choice; `make` says the shape of a new one where there is none.
    pub fn pick(&mut self, fits: impl Fn(&[usize]) -> bool, make: impl Fn(&mut Self) -> Vec<usize>) -> Value {
        let found: Vec<Value> =
            self.values.iter().rev().filter(|v| fits(self.g.spec(v.id).shape.dims())).copied().collect();
        let choice = if found.is_empty() { 0 } else { self.below(found.len() + 1) };
        match found.get(choice) {
            Some(&value) => self.tamed(value),
            None => {
                let dims = make(self);
                self.fresh(&dims)
            }
        }
    }

    /// The value, divided by its size where that has grown.
    fn tamed(&mut self, value: Value) -> Value {
        if value.mag <= 6.0 {
            return value;
        }
        let id = self.g.scale(value.id, 1.0 / value.mag).unwrap();
        let tame = Value { id, mag: 1.0, ..value };
        self.values.push(tame);
        tame
    }

    /// Any float.
    pub fn any(&mut self) -> Value {
        self.pick(|d| d.iter().product::<usize>() <= 4096, Self::new_shape)
    }

    /// An image batch.
    pub fn image(&mut self) -> Value {
        self.pick(|d| d.len() == 4, Self::new_image)
    }

    /// A matrix.
    pub fn matrix(&mut self) -> Value {
        self.pick(|d| d.len() == 2, |b| vec![b.of(&[2, 1, 3, 7, 17]), b.of(&[3, 1, 2, 5, 33])])
    }

    pub fn new_image(&mut self) -> Vec<usize> {
        let n = self.of(&[2, 1, 3]);
        let (c, h, w) =
            (self.of(&[1, 2, 3, 5, 8, 17]), self.of(&[4, 1, 2, 5, 8, 9, 13, 24]), self.of(&[4, 1, 3, 6, 8, 12, 21]));
        vec![n, c, h, w]
    }

    pub fn new_shape(&mut self) -> Vec<usize> {
        match self.below(5) {
            0 => self.new_image(),
            1 => vec![self.of(&[2, 1, 7, 65])],
            2 => vec![self.of(&[2, 1, 3]), self.of(&[3, 1, 33])],
            3 => vec![self.of(&[2, 1]), self.of(&[3, 1, 5]), self.of(&[4, 1, 7])],
            _ => Vec::new(),
        }
    }

    pub fn push(&mut self, id: NodeId, mag: f64, clean: bool) {
        self.values.push(Value { id, mag, clean });
    }

    /// Seed and number of the step, which all ops that draw share.
    pub fn draws(&mut self) -> NodeId {
        match self.rng {
            Some(id) => id,
            None => {
                let id = self.words(2, 1000);
                self.rng = Some(id);
                id
            }
        }
    }
}

/// A recorded graph, ready to run.
pub struct Built {
    pub graph: Arc<Graph>,
    pub store: ParamStore,
    pub inputs: Vec<(NodeId, Tensor)>,
    pub roots: Vec<NodeId>,
    /// The scalar that is differentiated.
    pub loss: Option<NodeId>,
    /// Leaves with their gradients.
    pub grads: Vec<(Leaf, NodeId)>,
    /// Nodes before loss and gradients.
    pub recorded: usize,
}

impl Recipe {
    /// Records it, with values of the recipe's seed and `salt`.
    pub fn build(&self, salt: u32) -> Result<Built, ShapeError> {
        let mut b = Builder::new(self.seed + 1000 * salt);
        for step in &self.steps {
            if b.g.nodes().len() + SPARE > MOST_NODES {
                break;
            }
            (b.picks, b.at) = (step.picks, 0);
            (ops::OPS[step.op].1)(&mut b)?;
        }
        b.picks = [0; 10];
        b.picks[..6].copy_from_slice(&self.ending);
        b.at = 0;
        b.end()
    }
}

impl Builder {
    /// Loss, gradients, an optimizer; and what is read.
    fn end(mut self) -> Result<Built, ShapeError> {
        if self.values.is_empty() {
            self.fresh(&[2]);
        }
        let recorded = self.g.nodes().len();
        let mut read = vec![false; recorded];
        for id in self.g.ids() {
            for input in self.g.node(id).inputs() {
                read[input.index()] = true;
            }
        }
        let sinks: Vec<Value> = self.values.iter().filter(|v| !read[v.id.index()]).copied().collect();
        let mut roots: Vec<NodeId> = sinks.iter().map(|v| v.id).chain(self.labels.last().copied()).collect();
        // Something in the middle that is asked for too.
        if self.chance() {
            let i = self.below(self.values.len());
            roots.push(self.values[i].id);
        }
        let clean: Vec<Value> = sinks.into_iter().filter(|v| v.clean && v.mag < 1e4).collect();
        let (mut loss, mut grads) = (None, Vec::new());
        if !clean.is_empty() && self.below(8) != 7 {
            let total = self.project(&clean)?;
            loss = Some(total);
            roots.push(total);
            grads = self.differentiate(total, &mut roots)?;
        }
        roots.sort_unstable();
        roots.dedup();
        let Self { g, store, inputs, .. } = self;
        Ok(Built { graph: Arc::new(g), store, inputs, roots, loss, grads, recorded })
    }

    /// The sum of random projections of the values.
    fn project(&mut self, values: &[Value]) -> Result<NodeId, ShapeError> {
        let mut total = None;
        for v in values {
            let r = self.fixed(self.g.spec(v.id).clone(), Fill::Normal);
            let product = self.g.mul(v.id, r)?;
            let mut sum = self.g.sum(product)?;
            if v.mag > 6.0 {
                sum = self.g.scale(sum, 1.0 / v.mag)?;
            }
            total = Some(match total {
                Some(total) => self.g.add(total, sum)?,
                None => sum,
            });
        }
        Ok(total.expect("there is a value"))
    }

    fn differentiate(&mut self, loss: NodeId, roots: &mut Vec<NodeId>) -> Result<Vec<(Leaf, NodeId)>, ShapeError> {
        let nodes: Vec<NodeId> = self.leaves.iter().map(|(id, _)| *id).collect();
        let found = self.g.gradients(loss, None, &nodes)?;
        let pairs = self.leaves.iter().zip(found);
        let grads: Vec<(Leaf, NodeId)> = pairs.filter_map(|((_, leaf), grad)| Some((*leaf, grad?))).collect();
        roots.extend(grads.iter().map(|(_, id)| *id));
        // As a training step does: the parameters' gradients in one vector, and an update from it.
        let of_params: Vec<(VarView, NodeId)> = grads
            .iter()
            .filter_map(|(leaf, id)| match leaf {
                Leaf::Param(i) => Some((self.store.params()[*i].view.clone(), *id)),
                Leaf::Input(_) => None,
            })
            .collect();
        if of_params.is_empty() || self.below(3) == 2 {
            return Ok(grads);
        }
        let whole = self.store.trainable_view();
        let offsets = of_params.iter().map(|(view, _)| view.offset).collect();
        let ids: Vec<NodeId> = of_params.iter().map(|(_, id)| *id).collect();
        let packed = self.g.apply(Pack { offsets, len: whole.spec.numel() }, &ids)?;
        if self.chance() {
            roots.push(packed);
        }
        training::optimizer(self, &whole, packed, roots)?;
        Ok(grads)
    }
}

/// The graph as `radiograd graph --nodes` lists it.
impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in summary::nodes(&self.graph) {
            let reads: Vec<String> = row.inputs.iter().map(ToString::to_string).collect();
            let root = if self.roots.iter().any(|r| r.index() == row.node) { "  root" } else { "" };
            let dtype = if row.dtype == "float" { "" } else { row.dtype.as_str() };
            let (shape, reads) = (Shape::from(row.output), reads.join(" "));
            writeln!(
                f,
                "{:>4} {:<26} {:<14} {dtype}{shape} ({reads}) {}{root}",
                row.node, row.op, row.detail, row.pass
            )?;
        }
        Ok(())
    }
}

/// A tensor of the same shape with other floats; words and bytes as they are.
pub fn moved(tensor: &Tensor, mut f: impl FnMut(f64) -> f64) -> Tensor {
    match tensor.spec().dtype {
        DType::Float => {
            let values = tensor.to_f64().into_iter().map(&mut f).collect();
            Tensor::new(tensor.shape().clone(), Data::F64(values)).unwrap()
        }
        _ => tensor.clone(),
    }
}
