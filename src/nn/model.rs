//! A planned network: its parameters, their first values, and recording it.

use std::ops::Range;

use super::error::{LayerError, ModelError, shown};
use super::parse::MAX_WIDTH;
use super::plan::{Action, Group, ParamSpec, Plan, Step, batched};
use super::spec::{Activation, Bias, Layer, Network, PoolKind};
use crate::graph::{Graph, NodeId};
use crate::ops::dropout::Dropout;
use crate::shape::{DType, Shape, ShapeError, Spec};
use crate::store::{Param, ParamStore, Role};

/// Added to the variance by batch-norm, as PyTorch's default.
pub const BATCH_NORM_EPS: f64 = 1e-5;
/// Share of the new value in batch-norm's running statistics, as PyTorch's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A network for one input size and number of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    text: String,
    network: Network,
    input: [usize; 3],
    classes: usize,
    plan: Plan,
}

/// How logits become probabilities, which the loss must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// One logit for each class: softmax, trained with cross-entropy.
    Softmax,
    /// One logit for two classes, the second's: sigmoid, trained with binary cross-entropy.
    Sigmoid,
}

/// For what a pass is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout drops; batch-norm normalises by the batch and updates its running statistics.
    Train {
        /// A `u32 [2]` input: the run's seed and the step's number.
        rng: NodeId,
    },
    /// No dropout; batch-norm normalises by its running statistics.
    Eval,
}

/// A recorded pass.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `[N, outputs]`, before softmax or sigmoid; for a part of the network what its last step gives.
    pub logits: NodeId,
    /// Each layer's name and output, in order.
    pub layers: Vec<(String, NodeId)>,
    /// The trainable parameters of what was recorded, in the order of [`Model::params`]: what to differentiate with respect to.
    pub leaves: Vec<NodeId>,
}

impl Model {
    /// Reads `text` (a name or a chain, see [`super::parse`]) and plans it for images `input = [channels, height, width]`
    /// and `classes` classes. The last layer must give one output a class, or one for two classes.
    ///
    /// # Errors
    /// Each [`ModelError`]: the text, the first layer that the shape reaching it does not suit, the last layer's outputs.
    pub fn new(text: &str, input: [usize; 3], classes: usize) -> Result<Self, ModelError> {
        if !(2..=MAX_WIDTH).contains(&classes) {
            return Err(ModelError::Classes(classes));
        }
        let network = Network::parse(text, classes)?;
        let plan = Plan::new(&network, input)?;
        check_end(&network, &plan, classes)?;
        Ok(Self { text: text.trim().to_owned(), network, input, classes, plan })
    }

    /// The text that it was made from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its layers; their `Display` is a chain, also for a named network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Channels, height and width of the images it takes.
    #[must_use]
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Width of the logits: the number of classes, or 1.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.plan.steps.last().map_or(0, |s| s.output.numel())
    }

    /// How its logits are to be read.
    #[must_use]
    pub fn head(&self) -> Head {
        if self.outputs() == 1 { Head::Sigmoid } else { Head::Softmax }
    }

    /// The planned layers.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.plan.steps
    }

    /// The outermost blocks, as ranges of [`Model::steps`].
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.plan.groups
    }

    /// Number of convolutions, those in blocks included.
    #[must_use]
    pub fn conv_layers(&self) -> usize {
        let conv = |step: &&Step| matches!(step.action, Action::Layer(Layer::Conv { .. }));
        self.plan.steps.iter().filter(conv).count()
    }

    /// The parameters and running statistics, in the order of the layers.
    #[must_use]
    pub fn params(&self) -> &[ParamSpec] {
        &self.plan.params
    }

    /// Number of trainable numbers.
    #[must_use]
    pub fn trainable_numel(&self) -> usize {
        let trainable = self.params().iter().filter(|p| p.role == Role::Trainable);
        trainable.map(|p| p.shape.numel()).sum()
    }

    /// Adds all parameters to a store with first values that depend on `seed` alone.
    pub fn init(&self, store: &mut ParamStore, seed: u32) -> Vec<Param> {
        let mut params = Vec::with_capacity(self.params().len());
        for (i, p) in self.params().iter().enumerate() {
            let value = p.init.values(&p.shape, seed, i as u32);
            let value = value.expect("the plan checked every shape");
            params.push(store.add_param(&p.name, p.role, p.shape.clone(), &value));
        }
        params
    }

    /// Records a pass over `x`, floats `[N, C, H, W]`. `params` are what [`Model::init`] gave, or others of the same
    /// shapes in the same order. The scope of each node is its layer's name.
    ///
    /// # Errors
    /// `x` or `params` are of another shape than planned, or training batch-norm sees one value a channel.
    pub fn forward(&self, g: &mut Graph, params: &[Param], x: NodeId, mode: Mode) -> Result<Forward, ShapeError> {
        self.forward_with(g, params, x, mode, &|_| false)
    }

    /// As [`Model::forward`], where each batch-norm layer whose name `fixed` tells normalises by its running statistics in
    /// training too, and leaves them as they are.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_with(
        &self,
        g: &mut Graph,
        params: &[Param],
        x: NodeId,
        mode: Mode,
        fixed: &dyn Fn(&str) -> bool,
    ) -> Result<Forward, ShapeError> {
        self.part(g, params, x, 0..self.steps().len(), mode, fixed)
    }

    /// As [`Model::forward_with`], for some of [`Model::steps`] alone: `x` is what the step before them gives. None of them may read
    /// an earlier value.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn part(
        &self,
        g: &mut Graph,
        params: &[Param],
        x: NodeId,
        steps: Range<usize>,
        mode: Mode,
        fixed: &dyn Fn(&str) -> bool,
    ) -> Result<Forward, ShapeError> {
        self.check(g.spec(x), steps.start, params)?;
        let is_dropout = |step: &&Step| matches!(step.action, Action::Layer(Layer::Dropout { .. }));
        let dropouts = self.steps()[..steps.start].iter().filter(is_dropout).count() as u32;
        // The values before x are never looked at.
        let values = vec![x; steps.start + 1];
        let mut pass = Recording { g, params, mode, fixed, values, leaves: Vec::new(), dropouts };
        let mut layers = Vec::with_capacity(steps.len());
        for step in &self.steps()[steps] {
            pass.g.set_scope(&step.name);
            let output = pass.step(step)?;
            pass.values.push(output);
            layers.push((step.name.clone(), output));
        }
        pass.g.set_scope("");
        let logits = pass.values[pass.values.len() - 1];
        let leaves = pass.leaves;
        Ok(Forward { logits, layers, leaves })
    }

    /// The shape of what step `step` takes from the one before it, without the batch axis.
    #[must_use]
    pub fn shape_before(&self, step: usize) -> Shape {
        step.checked_sub(1).map_or_else(|| self.input.into(), |before| self.steps()[before].output.clone())
    }

    fn check(&self, x: &Spec, first: usize, params: &[Param]) -> Result<(), ShapeError> {
        let takes = self.shape_before(first);
        if x.dtype != DType::Float || x.shape.get(1..) != Some(takes.dims()) {
            let what = format!("the model takes floats {}", batched(&takes));
            return Err(ShapeError::invalid("model", what, x));
        }
        if params.len() != self.params().len() {
            return Err(ShapeError::Arity { op: "model parameters", expected: self.params().len(), got: params.len() });
        }
        for (expected, got) in self.params().iter().zip(params) {
            if expected.shape != got.view.spec.shape || expected.role != got.role {
                let what = format!("the parameter {} must be {}", expected.name, expected.shape);
                return Err(ShapeError::invalid("model", what, &got.view.spec));
            }
        }
        Ok(())
    }
}

/// The network must end with the logits that `classes` classes need.
fn check_end(network: &Network, plan: &Plan, classes: usize) -> Result<(), ModelError> {
    let (Some(layer), Some(step)) = (network.layers.last(), plan.steps.last()) else {
        return Err(ModelError::Empty);
    };
    let outputs = step.output.numel();
    let problem = match (&step.action, step.output.dims()) {
        (Action::Layer(Layer::Activation(a @ (Activation::Softmax | Activation::Sigmoid))), _) => {
            LayerError::FinalActivation { activation: a.kind() }
        }
        (_, [_]) if outputs == classes || (outputs == 1 && classes == 2) => return Ok(()),
        (_, [_]) => LayerError::Outputs { outputs, classes },
        _ => LayerError::EndsWithImages { output: batched(&step.output), classes },
    };
    let place = network.layers.len().to_string();
    Err(ModelError::Layer { place, text: shown(&layer.to_string()), problem: Box::new(problem) })
}

/// A pass being recorded.
struct Recording<'a> {
    g: &'a mut Graph,
    params: &'a [Param],
    mode: Mode,
    /// Batch-norm layers that keep their statistics.
    fixed: &'a dyn Fn(&str) -> bool,
    /// The values that [`Step::inputs`] counts.
    values: Vec<NodeId>,
    leaves: Vec<NodeId>,
    dropouts: u32,
}

impl Recording<'_> {
    fn leaf(&mut self, param: usize) -> NodeId {
        let p = &self.params[param];
        let node = self.g.var(&p.name, p.view.clone());
        if p.role == Role::Trainable {
            self.leaves.push(node);
        }
        node
    }

    fn step(&mut self, step: &Step) -> Result<NodeId, ShapeError> {
        let inputs: Vec<NodeId> = step.inputs.iter().map(|&i| self.values[i]).collect();
        let x = inputs[0];
        let layer = match &step.action {
            Action::Layer(layer) => layer,
            Action::Add => return self.g.add(x, inputs[1]),
            Action::Concat => return self.g.concat(&inputs, 1),
        };
        match layer {
            Layer::Conv { conv, bias, .. } => {
                let w = self.leaf(step.params.start);
                let b = bias.then(|| self.leaf(step.params.start + 1));
                self.g.conv2d(x, w, b, conv.clone())
            }
            Layer::Dense { bias, .. } => {
                let w = self.leaf(step.params.start);
                let b = (*bias != Bias::No).then(|| self.leaf(step.params.start + 1));
                self.g.linear(x, w, b)
            }
            Layer::Pool { kind, window } => match kind {
                PoolKind::Max => self.g.max_pool2d(x, *window),
                PoolKind::Avg => self.g.avg_pool2d(x, *window, true),
            },
            Layer::AdaptiveAvgPool { out } => self.g.adaptive_avg_pool2d(x, *out),
            Layer::BatchNorm => self.batch_norm(step, x),
            Layer::Activation(activation) => match *activation {
                Activation::Relu => self.g.relu(x),
                Activation::LeakyRelu { slope } => self.g.leaky_relu(x, slope),
                Activation::Elu { alpha } => self.g.elu(x, alpha),
                Activation::Sigmoid => self.g.sigmoid(x),
                Activation::Tanh => self.g.tanh(x),
                Activation::Softmax => self.g.softmax(x, 1),
            },
            Layer::Dropout { p } => {
                let stream = self.dropouts;
                self.dropouts += 1;
                match self.mode {
                    Mode::Train { rng } if *p > 0.0 => self.g.dropout(x, rng, Dropout { p: *p, stream }),
                    _ => Ok(x),
                }
            }
            Layer::Flatten => self.g.flatten(x),
            // The plan has taken them apart.
            Layer::Init(_) | Layer::Named { .. } | Layer::Block(_) => Ok(x),
        }
    }

    /// Batch-norm over images, and over rows as images of one pixel.
    fn batch_norm(&mut self, step: &Step, x: NodeId) -> Result<NodeId, ShapeError> {
        let first = step.params.start;
        let gain = self.leaf(first);
        let bias = self.leaf(first + 1);
        let spec = self.g.spec(x).clone();
        let image = match *spec.shape.dims() {
            [n, features] => self.g.reshape(x, &Shape::from([n, features, 1, 1]))?,
            _ => x,
        };
        let stats = [first + 2, first + 3];
        let mode = if (self.fixed)(&step.name) { Mode::Eval } else { self.mode };
        let y = match mode {
            Mode::Eval => {
                let stats = stats.map(|i| self.leaf(i));
                self.g.batch_norm2d(image, [gain, bias], stats, BATCH_NORM_EPS)?
            }
            Mode::Train { .. } => {
                let norm = self.g.batch_norm2d_train(image, gain, bias, BATCH_NORM_EPS)?;
                let [mean, var] = stats.map(|i| self.params[i].view.clone());
                self.g.ema_update(norm.mean, mean, BATCH_NORM_MOMENTUM, 1.0)?;
                self.g.ema_update(norm.var, var, BATCH_NORM_MOMENTUM, norm.bessel())?;
                norm.y
            }
        };
        self.g.reshape(y, &spec.shape)
    }
}
