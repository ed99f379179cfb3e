//! The recorded step: gather a batch, forward, loss, backward, optimizer, log. The evaluation pass has a page of its own.

mod diagnose;
mod eval;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::eval::{EvalPass, probabilities};
use super::TrainError;
pub use super::batch::{Augmentation, DeviceImages, Host};
use super::batch::{Feed, record_batch};
use super::features::FromFeatures;
use super::update::{self, Accumulate, Hyper, UpdateGroup};
use crate::exec::{ExecError, Executor, Pending, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::nn::plan::Action;
use crate::nn::{Forward, Head, Layer, Mode, Model};
use crate::ops::cross_entropy::CrossEntropy;
use crate::profile::{Phases, RunProfile};
use crate::recompute::recompute;
use crate::shape::{Shape, Spec};
use crate::store::{Param, VarId};
use crate::tensor::{Data, Tensor};

/// Columns of a row of the training log: loss, right decisions, squared norm of the gradient, values of it that are NaN or
/// infinite.
pub const LOG_COLUMNS: usize = 4;

/// What the loss takes beside logits and labels.
#[derive(Clone, Debug, Default)]
pub struct LossSettings {
    /// Weight of each class.
    pub class_weights: Option<Vec<f32>>,
    /// Share of the label spread over all classes (softmax heads).
    pub label_smoothing: f64,
}

impl LossSettings {
    fn record(
        &self,
        g: &mut Graph,
        weights: Option<&VarView>,
        head: Head,
        logits: NodeId,
        labels: NodeId,
    ) -> Result<NodeId, TrainError> {
        g.set_scope("loss");
        let loss = match head {
            Head::Softmax => {
                let weights = weights.map(|w| g.var("class weights", w.clone()));
                let settings = CrossEntropy { label_smoothing: self.label_smoothing, ..CrossEntropy::default() };
                g.cross_entropy(logits, labels, weights, settings)?
            }
            Head::Sigmoid => {
                let pos_weight = self.class_weights.as_ref().map(|w| f64::from(w[1]) / f64::from(w[0].max(1e-12)));
                g.bce_with_logits(logits, labels, pos_weight)?
            }
        };
        g.set_scope("");
        Ok(loss)
    }
}

/// A whole training step, recorded.
#[derive(Clone, Debug)]
pub struct TrainStep {
    /// The nodes.
    pub graph: Arc<Graph>,
    /// The loss, a scalar.
    pub loss: NodeId,
    /// The gradient of the parameters of the first group, one vector.
    pub gradient: NodeId,
    feed: Feed,
    rng: NodeId,
    row: NodeId,
    log: VarView,
    batch: usize,
    hypers: Vec<Hyper>,
    late: Option<LateUpdate>,
}

/// The update of a step whose gradients are summed over several batches: a graph of its own.
#[derive(Clone, Debug)]
struct LateUpdate {
    graph: Arc<Graph>,
    hypers: Vec<Hyper>,
    /// The inputs that hold 0, here and in the step.
    first_row: NodeId,
    first_row_of_step: NodeId,
}

/// A compiled step.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// A batch.
    pub step: Program,
    /// The update, where it does not belong to each batch.
    update: Option<Program>,
}

impl Programs {
    /// Drops them.
    pub fn release(self, executor: &mut dyn Executor) {
        executor.release(self.step);
        self.update.into_iter().for_each(|program| executor.release(program));
    }
}

/// What differs from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The images of the batch, by number.
    pub chosen: &'a [u32],
    /// Which of them are repeats; may be empty where none is.
    pub repeats: &'a [bool],
    /// Decides dropout and augmentation.
    pub seed: u32,
    /// Counts all batches of the run from 0.
    pub step: u64,
    /// Counts the optimizer's steps from 1.
    pub update: u64,
    /// The learning rate.
    pub lr: f64,
    /// The step's row in the log.
    pub row: usize,
}

/// What a training step is made of.
#[derive(Clone, Copy, Debug)]
pub struct StepParts<'a> {
    /// The network.
    pub model: &'a Model,
    /// Its parameters.
    pub params: &'a [Param],
    /// The training images.
    pub images: &'a DeviceImages,
    /// Images in a step.
    pub batch: usize,
    /// Mean of each channel.
    pub mean: &'a [f32],
    /// Standard deviation of each channel.
    pub std: &'a [f32],
    /// The loss.
    pub loss: &'a LossSettings,
    /// What is trained, and how.
    pub groups: &'a [UpdateGroup],
    /// `[rows, LOG_COLUMNS]`, a row a step.
    pub log: &'a VarView,
    /// The class weights' variable.
    pub weights: Option<&'a VarView>,
    /// How the images are changed.
    pub augmentation: Augmentation<'a>,
    /// What most steps go without.
    pub options: StepOptions<'a>,
}

/// What most steps go without.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepOptions<'a> {
    /// The largest norm of the gradient.
    pub clip_grad_norm: Option<f64>,
    /// Batches whose gradients are averaged before an update.
    pub accumulate: Option<Accumulate<'a>>,
    /// The batch-norm layers that keep their running statistics.
    pub fixed_norms: Option<&'a BTreeSet<String>>,
    /// Holds the activations at the borders of blocks and behind pooling only; see [`recompute`].
    pub recompute: bool,
    /// Begins with features in place of images, which then are not augmented.
    pub features: Option<FromFeatures<'a>>,
}

impl TrainStep {
    /// Records it.
    ///
    /// # Errors
    /// The network does not fit the images.
    pub fn record(parts: StepParts<'_>) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let rng = g.input("seed and step", Spec::u32([2]));
        let row = g.input("log row", Spec::u32([1]));
        let normalise = (parts.mean, parts.std);
        let (model, all) = (parts.model, parts.params);
        let (first, batch) = match parts.options.features {
            Some(from) => (from.steps, from.features.record_batch(&mut g, parts.images, parts.batch)?),
            None => {
                let augmentation = Some((parts.augmentation, rng));
                (0, record_batch(&mut g, parts.images, parts.batch, normalise, augmentation)?)
            }
        };
        let fixed = |name: &str| parts.options.fixed_norms.is_some_and(|names| names.contains(name));
        let forward = model.part(&mut g, all, batch.x, first..model.steps().len(), Mode::Train { rng }, &fixed)?;
        let loss = parts.loss.record(&mut g, parts.weights, model.head(), forward.logits, batch.labels)?;
        let own = model.steps().get(first).map_or(all.len(), |step| step.params.start);
        let gradients = update::record_gradients(&mut g, loss, &all[own..], &forward.leaves, parts.groups)?;
        g.set_pass(Pass::Update);
        g.set_scope("log");
        let loss_cell = g.reshape(loss, &Shape::from([1, 1]))?;
        let correct = g.count_correct(forward.logits, batch.labels)?;
        let correct = g.reshape(correct, &Shape::from([1, 1]))?;
        let stats = update::record_stats(&mut g, &gradients)?;
        let stats_cells = g.reshape(stats, &Shape::from([1, 2]))?;
        let cells = g.concat(&[loss_cell, correct, stats_cells], 1)?;
        g.write_rows(parts.log.clone(), cells, row)?;
        g.set_scope("optimizer");
        let clip = parts.options.clip_grad_norm;
        let (hypers, late) = match parts.options.accumulate {
            None => (update::record_update(&mut g, parts.groups, &gradients, stats, clip)?, None),
            Some(accumulate) => {
                let first_row_of_step = g.input("first row", Spec::u32([1]));
                update::record_sums(&mut g, accumulate, &gradients, first_row_of_step)?;
                let (graph, hypers, first_row) = update::record_late_update(parts.groups, accumulate, clip)?;
                (Vec::new(), Some(LateUpdate { graph: Arc::new(graph), hypers, first_row, first_row_of_step }))
            }
        };
        let gradient = gradients.first().copied().unwrap_or(loss);
        let log = parts.log.clone();
        let feed = batch.feed;
        let step = Self { graph: Arc::new(g), loss, gradient, feed, rng, row, log, batch: parts.batch, hypers, late };
        Ok(if parts.options.recompute { step.recomputed(&borders(model, first, &forward, batch.x)) } else { step })
    }

    /// The step with all activations but these computed twice.
    fn recomputed(mut self, kept: &[NodeId]) -> Self {
        let (graph, places) = recompute(&self.graph, kept);
        let move_to = |id: &mut NodeId| *id = places[id.index()];
        let Feed { indices, streamed, features, repeats } = &mut self.feed;
        [&mut self.loss, &mut self.gradient, &mut self.rng, &mut self.row, indices].into_iter().for_each(move_to);
        let features = features.iter_mut().map(|(node, _)| node);
        streamed.iter_mut().flat_map(|(a, b)| [a, b]).chain(features).chain(repeats).for_each(move_to);
        self.hypers.iter_mut().for_each(|h| move_to(&mut h.node));
        self.late.iter_mut().for_each(|late| move_to(&mut late.first_row_of_step));
        self.graph = Arc::new(graph);
        self
    }

    /// Compiles it.
    ///
    /// # Errors
    /// See [`Executor::compile`].
    pub fn compile(&self, executor: &mut dyn Executor) -> Result<Programs, ExecError> {
        let step = executor.compile(&self.graph, &[])?;
        let update = self.late.as_ref().map(|late| executor.compile(&late.graph, &[])).transpose()?;
        Ok(Programs { step, update })
    }

    /// Updates the parameters by the mean gradient of the batches since the last update. `number` counts the optimizer's steps
    /// from 1. Does nothing where each step has its own update.
    ///
    /// # Errors
    /// The device failed.
    pub fn update(
        &self,
        executor: &mut dyn Executor,
        programs: Programs,
        lr: f64,
        number: u64,
    ) -> Result<(), ExecError> {
        let (Some(late), Some(program)) = (&self.late, programs.update) else { return Ok(()) };
        executor.set(program, late.first_row, &word(0))?;
        update::set_hypers(executor, program, &late.hypers, lr, number)?;
        executor.run(program)
    }

    /// Runs one step.
    ///
    /// # Errors
    /// The device failed.
    pub fn run<'a>(
        &self,
        executor: &mut dyn Executor,
        program: Program,
        host: impl Into<Host<'a>>,
        turn: &Turn<'_>,
    ) -> Result<(), ExecError> {
        self.set(executor, program, host.into(), turn)?;
        executor.run(program)
    }

    /// As [`TrainStep::run`] on an idle device, with a look at the clock at each phase and node, and reads the log back.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_profiled(
        &self,
        executor: &mut dyn Executor,
        program: Program,
        host: Host<'_>,
        turn: &Turn<'_>,
    ) -> Result<RunProfile, ExecError> {
        executor.wait()?;
        let mut phases = Phases::start();
        self.set(executor, program, host, turn)?;
        phases.end("batch");
        let mut profile = executor.run_profiled(program)?;
        let mut after = Phases::start();
        self.log(executor, turn.row + 1)?;
        after.end("read back");
        profile.host = [phases.spans(), profile.host, after.spans()].concat();
        Ok(profile)
    }

    /// Hands over what differs from step to step.
    fn set(&self, executor: &mut dyn Executor, p: Program, host: Host<'_>, turn: &Turn<'_>) -> Result<(), ExecError> {
        debug_assert_eq!(turn.chosen.len(), self.batch);
        self.feed.set(executor, p, turn.chosen, host)?;
        if let Some(repeats) = self.feed.repeats {
            let flag = |i: usize| u32::from(turn.repeats.get(i).copied().unwrap_or(false));
            let flags = Data::U32((0..self.batch).map(flag).collect());
            executor.set(p, repeats, &Tensor::new([self.batch], flags).expect("a flag an image"))?;
        }
        let words = |v: Vec<u32>| Tensor::new([v.len()], Data::U32(v)).expect("as long as itself");
        executor.set(p, self.rng, &words(vec![turn.seed, turn.step as u32]))?;
        executor.set(p, self.row, &word(turn.row as u32))?;
        if let Some(late) = &self.late {
            executor.set(p, late.first_row_of_step, &word(0))?;
        }
        update::set_hypers(executor, p, &self.hypers, turn.lr, turn.update)
    }

    /// The log's first `rows` rows.
    ///
    /// # Errors
    /// The device failed.
    pub fn log(&self, executor: &mut dyn Executor, rows: usize) -> Result<Vec<[f32; LOG_COLUMNS]>, ExecError> {
        Ok(log_rows(&executor.read_var(self.log.var)?, rows))
    }

    /// What holds the log.
    #[must_use]
    pub fn log_var(&self) -> VarId {
        self.log.var
    }

    /// Begins to read the log back, without waiting; see [`log_rows`].
    pub fn fetch_log(&self, executor: &mut dyn Executor) -> Pending {
        executor.fetch_var(self.log.var)
    }
}

/// The first `rows` rows of a log.
#[must_use]
pub fn log_rows(log: &Tensor, rows: usize) -> Vec<[f32; LOG_COLUMNS]> {
    // In f64 a number may be finite that f32 has no room for: then it stays so.
    let narrow =
        |x: f64| if x.is_finite() { x.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 } else { x as f32 };
    let cells = match log.data() {
        Data::F64(cells) => cells.iter().map(|&x| narrow(x)).collect(),
        _ => log.to_f32(),
    };
    cells.as_chunks::<LOG_COLUMNS>().0.iter().take(rows).copied().collect()
}

/// The activations that a step holds when it computes the others twice: what it begins with (the images, or what is before step
/// `first`), what comes out of a block that lies in no other, and what comes out of a pooling layer between blocks.
fn borders(model: &Model, first: usize, forward: &Forward, x: NodeId) -> Vec<NodeId> {
    let is_border = |i: usize| match model.groups().iter().find(|g| g.steps.contains(&i)) {
        Some(group) => i + 1 == group.steps.end,
        None => matches!(model.steps()[i].action, Action::Layer(Layer::Pool { .. } | Layer::AdaptiveAvgPool { .. })),
    };
    let layers = (first..).zip(&forward.layers).filter(|(i, _)| is_border(*i));
    std::iter::once(x).chain(layers.map(|(_, (_, output))| *output)).collect()
}

pub(super) fn word(value: u32) -> Tensor {
    Tensor::new([1], Data::U32(vec![value])).expect("one number")
}

/// The batches of a pass over `len` images, each with the number of its first. The last one is filled up with the last image: rows past
/// the end are not kept.
pub(super) fn in_turn(len: usize, batch: usize) -> impl Iterator<Item = (usize, Vec<u32>)> {
    let batches = (0..len).step_by(batch);
    batches.map(move |first| (first, (first..first + batch).map(|i| i.min(len - 1) as u32).collect()))
}
