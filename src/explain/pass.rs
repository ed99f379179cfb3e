//! The recorded network, forwards and backwards on one image, with everything inside kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ExplainError;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId};
use crate::nn::plan::Action;
use crate::nn::{Layer, Mode, Model};
use crate::shape::Spec;
use crate::store::{Param, Role};
use crate::tensor::Tensor;

/// What came out of the layers.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// The output of each step.
    pub steps: Vec<Vec<f32>>,
    /// The network's outputs.
    pub logits: Vec<f32>,
}

impl Values {
    pub fn all(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.steps.iter().chain([&self.logits])
    }
}

/// The derivatives of one number by everything.
#[derive(Clone, Debug)]
pub(super) struct Gradients {
    /// By the normalised image.
    pub image: Vec<f32>,
    /// By the output of each step.
    pub steps: Vec<Vec<f32>>,
    /// By each trainable parameter; by its place in [`Model::params`].
    pub params: BTreeMap<usize, Vec<f32>>,
    /// By the input of each convolution as far as it goes through that convolution; by step.
    pub conv_inputs: BTreeMap<usize, Vec<f32>>,
}

impl Gradients {
    pub fn all(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.steps.iter().chain(self.params.values()).chain([&self.image])
    }
}

/// The nodes of both directions.
pub(super) struct Pass {
    graph: Arc<Graph>,
    x: NodeId,
    seed: NodeId,
    steps: Vec<NodeId>,
    step_grads: Vec<Option<NodeId>>,
    image_grad: Option<NodeId>,
    param_grads: BTreeMap<usize, NodeId>,
    conv_grads: BTreeMap<usize, NodeId>,
    shapes: Vec<usize>,
    outputs: usize,
}

/// The same, compiled.
pub(super) struct Compiled {
    pass: Pass,
    program: Program,
}

impl Pass {
    pub fn record(model: &Model, params: &[Param]) -> Result<Self, ExplainError> {
        let [c, h, w] = model.input();
        let mut g = Graph::new();
        let x = g.input("image", Spec::float([1, c, h, w]));
        let forward = model.forward(&mut g, params, x, Mode::Eval)?;
        let steps: Vec<NodeId> = forward.layers.iter().map(|(_, node)| *node).collect();
        let seed = g.input("seed", g.spec(forward.logits).clone());
        let trainable: Vec<usize> = (0..params.len()).filter(|&i| params[i].role == Role::Trainable).collect();
        let leaves: Vec<NodeId> = [x].into_iter().chain(steps.iter().copied()).chain(forward.leaves).collect();
        let first = g.nodes().len();
        let grads = g.gradients(forward.logits, Some(seed), &leaves)?;
        // A value that two layers read has the sum of both gradients; this is the part of the convolution alone.
        let mut conv_grads = BTreeMap::new();
        for (i, step) in model.steps().iter().enumerate() {
            if matches!(step.action, Action::Layer(Layer::Conv { .. })) {
                let of_step = |id: &NodeId| {
                    let node = g.node(*id);
                    node.kind() == "conv2d_input_grad" && node.scope == step.name
                };
                conv_grads.extend(g.ids().skip(first).find(of_step).map(|id| (i, id)));
            }
        }
        let (of_steps, of_params) = grads[1..].split_at(steps.len());
        let param_grads = trainable.into_iter().zip(of_params).filter_map(|(i, g)| Some((i, (*g)?))).collect();
        let step_grads = of_steps.to_vec();
        Ok(Self {
            x,
            seed,
            shapes: steps.iter().map(|&s| g.spec(s).numel()).collect(),
            steps,
            step_grads,
            image_grad: grads[0],
            param_grads,
            conv_grads,
            outputs: model.outputs(),
            graph: Arc::new(g),
        })
    }

    pub fn compile(self, executor: &mut dyn Executor) -> Result<Compiled, ExplainError> {
        let all = self.steps.iter().copied().chain(self.step_grads.iter().copied().flatten());
        let all = all
            .chain(self.image_grad)
            .chain(self.param_grads.values().copied())
            .chain(self.conv_grads.values().copied());
        let mut roots: Vec<NodeId> = all.filter(|&n| n != self.x && n != self.seed).collect();
        roots.sort_unstable();
        roots.dedup();
        let program = executor.compile(&self.graph, &roots)?;
        Ok(Compiled { pass: self, program })
    }
}

impl Compiled {
    fn run(&self, executor: &mut dyn Executor, x: &[f32], seed: &[f32]) -> Result<(), ExplainError> {
        for (node, value) in [(self.pass.x, x), (self.pass.seed, seed)] {
            executor.set(self.program, node, &tensor(self.pass.graph.spec(node), value)?)?;
        }
        executor.run(self.program)?;
        Ok(())
    }

    /// A value after a run; what the host wrote is known without asking.
    fn read(
        &self,
        executor: &mut dyn Executor,
        node: NodeId,
        x: &[f32],
        seed: &[f32],
    ) -> Result<Vec<f32>, ExplainError> {
        Ok(match node {
            _ if node == self.pass.x => x.to_vec(),
            _ if node == self.pass.seed => seed.to_vec(),
            _ => executor.read(self.program, node)?.to_f32(),
        })
    }

    pub fn forward(&self, executor: &mut dyn Executor, x: &[f32]) -> Result<Values, ExplainError> {
        let seed = vec![0.0; self.pass.outputs];
        self.run(executor, x, &seed)?;
        let steps: Vec<Vec<f32>> =
            self.pass.steps.iter().map(|&n| self.read(executor, n, x, &seed)).collect::<Result<_, _>>()?;
        let logits = steps.last().cloned().unwrap_or_default();
        Ok(Values { steps, logits })
    }

    /// The derivatives of `sum of seed * logits`.
    pub fn backward(&self, executor: &mut dyn Executor, x: &[f32], seed: &[f32]) -> Result<Gradients, ExplainError> {
        self.run(executor, x, seed)?;
        let pass = &self.pass;
        let mut steps = Vec::with_capacity(pass.steps.len());
        for (grad, &numel) in pass.step_grads.iter().zip(&pass.shapes) {
            steps.push(match grad {
                Some(node) => self.read(executor, *node, x, seed)?,
                None => vec![0.0; numel],
            });
        }
        let image = match pass.image_grad {
            Some(node) => self.read(executor, node, x, seed)?,
            None => vec![0.0; x.len()],
        };
        let mut read = |nodes: &BTreeMap<usize, NodeId>| -> Result<BTreeMap<usize, Vec<f32>>, ExplainError> {
            nodes.iter().map(|(&i, &node)| Ok((i, self.read(&mut *executor, node, x, seed)?))).collect()
        };
        Ok(Gradients { image, steps, params: read(&pass.param_grads)?, conv_inputs: read(&pass.conv_grads)? })
    }
}

/// Numbers as a tensor of a node's shape.
pub(super) fn tensor(spec: &Spec, values: &[f32]) -> Result<Tensor, ExecError> {
    Tensor::f32(spec.shape.clone(), values.to_vec()).map_err(|_| ExecError::Input {
        node: "the image".to_owned(),
        expected: spec.clone(),
        got: Spec::float([values.len()]),
    })
}
