//! The recorded step: gather a batch, forward, loss, backward, optimizer, log; and the evaluation pass.

use std::sync::Arc;

use super::TrainError;
use crate::data::Images;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::nn::{Head, Mode, Model};
use crate::ops::augment::{Augment, AugmentImages};
use crate::ops::cross_entropy::CrossEntropy;
use crate::ops::reshape::Pack;
use crate::optim::OptimizerKind;
use crate::profile::{Phases, RunProfile};
use crate::shape::{Shape, Spec};
use crate::store::{Param, ParamStore, Role};
use crate::tensor::{Data, Tensor};

/// Columns of a row of the training log: loss, right decisions, squared norm of the gradient, values of it that are NaN or
/// infinite.
pub const LOG_COLUMNS: usize = 4;

/// Images and labels on the device, as bytes; where the device cannot hold all of them in one tensor, each step uploads its
/// own batch instead.
#[derive(Clone, Debug)]
pub struct DeviceImages {
    pixels: Option<VarView>,
    labels: VarView,
    image: [usize; 3],
    len: usize,
}

impl DeviceImages {
    /// Adds the variables of a split to a store. `limit` is the largest tensor in bytes that the device holds.
    pub fn add(store: &mut ParamStore, name: &str, images: &Images, limit: Option<u64>) -> Self {
        let image = [images.channels, images.height, images.width];
        let spec = Spec::u8([images.len(), image[0], image[1], image[2]]);
        let fits = limit.is_none_or(|limit| spec.bytes() as u64 <= limit);
        let pixels = fits.then(|| {
            let value = Tensor::new(spec.shape.clone(), Data::U8(images.pixels.clone())).ok();
            store.add_var(&format!("{name} images"), spec, value)
        });
        let labels = Spec::u32([images.len()]);
        let value = Tensor::new(labels.shape.clone(), Data::U32(images.labels.clone())).ok();
        let labels = store.add_var(&format!("{name} labels"), labels, value);
        Self { pixels, labels, image, len: images.len() }
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without images.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The inputs by which a pass is told its batch.
#[derive(Clone, Copy, Debug)]
struct Feed {
    indices: NodeId,
    /// Where the images do not lie on the device: the batch's pixels, and which of them to take (all, in order).
    streamed: Option<(NodeId, NodeId)>,
    /// Where repeats are augmented otherwise than the other images: which images of the batch are repeats.
    repeats: Option<NodeId>,
}

/// A recorded batch: normalised images `[B, C, H, W]`, labels `[B]`.
struct Batch {
    feed: Feed,
    x: NodeId,
    labels: NodeId,
}

/// How the images of a batch are changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Augmentation<'a> {
    /// All of them; `None`: not at all.
    pub images: Option<&'a Augment>,
    /// Those that are repeats; `None`: as the others.
    pub repeats: Option<&'a Augment>,
}

impl Augmentation<'_> {
    fn is_identity(&self) -> bool {
        [self.images, self.repeats].into_iter().flatten().all(Augment::is_identity)
    }
}

/// `augmentation` goes with the node of seed and step.
fn record_batch(
    g: &mut Graph,
    images: &DeviceImages,
    batch: usize,
    (mean, std): (&[f32], &[f32]),
    augmentation: Option<(Augmentation<'_>, NodeId)>,
) -> Result<Batch, TrainError> {
    g.set_scope("batch");
    let indices = g.input("indices", Spec::u32([batch]));
    let (pixels, chosen, streamed) = match &images.pixels {
        Some(pixels) => (g.var("images", pixels.clone()), indices, None),
        None => {
            let [c, h, w] = images.image;
            let pixels = g.input("images of the batch", Spec::u8([batch, c, h, w]));
            let all = g.input("all of the batch", Spec::u32([batch]));
            (pixels, all, Some((pixels, all)))
        }
    };
    let (x, repeats) = match augmentation.filter(|(a, _)| !a.is_identity()) {
        None => (g.gather_images(pixels, chosen, mean, std)?, None),
        Some((a, rng)) => {
            let repeats = a.repeats.map(|_| g.input("repeats", Spec::u32([batch])));
            let op = AugmentImages {
                mean: mean.to_vec(),
                std: std.to_vec(),
                augment: a.images.cloned().unwrap_or_default(),
                repeats: a.repeats.cloned(),
            };
            (g.augment_images(op, [pixels, chosen, rng], repeats)?, repeats)
        }
    };
    let labels = g.var("labels", images.labels.clone());
    let labels = g.gather_labels(labels, indices)?;
    g.set_scope("");
    Ok(Batch { feed: Feed { indices, streamed, repeats }, x, labels })
}

impl Feed {
    fn set(&self, executor: &mut dyn Executor, p: Program, chosen: &[u32], host: &Images) -> Result<(), ExecError> {
        let n = chosen.len();
        let tensor = |data| Tensor::new([n], data).expect("as many numbers as images");
        executor.set(p, self.indices, &tensor(Data::U32(chosen.to_vec())))?;
        if let Some((pixels, all)) = self.streamed {
            let bytes: Vec<u8> =
                chosen.iter().flat_map(|&i| host.image(i as usize).unwrap_or_default().iter().copied()).collect();
            let shape = [n, host.channels, host.height, host.width];
            executor.set(p, pixels, &Tensor::new(shape, Data::U8(bytes)).expect("whole images"))?;
            executor.set(p, all, &tensor(Data::U32((0..n as u32).collect())))?;
        }
        Ok(())
    }
}

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
    /// The gradient of all parameters, one vector.
    pub gradient: NodeId,
    feed: Feed,
    rng: NodeId,
    hyper: NodeId,
    row: NodeId,
    log: VarView,
    batch: usize,
    optimizer: OptimizerKind,
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
    /// Counts all steps of the run from 0.
    pub step: u64,
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
    /// The optimizer.
    pub optimizer: &'a OptimizerKind,
    /// Its state, one vector a slot.
    pub slots: &'a [VarView],
    /// `[rows, LOG_COLUMNS]`, a row a step.
    pub log: &'a VarView,
    /// The class weights' variable.
    pub weights: Option<&'a VarView>,
    /// How the images are changed.
    pub augmentation: Augmentation<'a>,
}

/// Adds the optimizer's state to a store whose parameters are complete: a vector like the parameters for each slot.
pub fn add_slots(store: &mut ParamStore, optimizer: &OptimizerKind) -> Vec<VarView> {
    let spec = store.trainable_view().spec;
    optimizer.slot_names().iter().map(|name| store.add_var(name, spec.clone(), None)).collect()
}

/// Records a pack of all trainable parameters' gradients, laid out as the parameters are.
///
/// # Errors
/// The loss does not depend on some parameter.
pub fn record_gradient(
    g: &mut Graph,
    loss: NodeId,
    params: &[Param],
    leaves: &[NodeId],
    len: usize,
) -> Result<NodeId, TrainError> {
    let grads = g.gradients(loss, None, leaves)?;
    let pass = g.set_pass(Pass::Backward);
    let trainable: Vec<&Param> = params.iter().filter(|p| p.role == Role::Trainable).collect();
    let mut nodes = Vec::with_capacity(grads.len());
    for (grad, param) in grads.into_iter().zip(&trainable) {
        nodes.push(match grad {
            Some(grad) => grad,
            // A parameter that the loss does not reach (behind a layer that gives constants) does not move.
            None => g.fill(&param.view.spec.shape, 0.0)?,
        });
    }
    let offsets = trainable.iter().map(|p| p.view.offset).collect();
    let packed = g.apply(Pack { offsets, len }, &nodes)?;
    g.set_pass(pass);
    Ok(packed)
}

impl TrainStep {
    /// Records it.
    ///
    /// # Errors
    /// The network does not fit the images.
    pub fn record(parts: StepParts<'_>) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let rng = g.input("seed and step", Spec::u32([2]));
        let hyper = g.input("learning rate", Spec::float([4]));
        let row = g.input("log row", Spec::u32([1]));
        let normalise = (parts.mean, parts.std);
        let batch = record_batch(&mut g, parts.images, parts.batch, normalise, Some((parts.augmentation, rng)))?;
        let forward = parts.model.forward(&mut g, parts.params, batch.x, Mode::Train { rng })?;
        let loss = parts.loss.record(&mut g, parts.weights, parts.model.head(), forward.logits, batch.labels)?;
        let total = trainable_len(parts.params);
        let gradient = record_gradient(&mut g, loss, parts.params, &forward.leaves, total)?;
        g.set_pass(Pass::Update);
        g.set_scope("log");
        let loss_cell = g.reshape(loss, &Shape::from([1, 1]))?;
        let correct = g.count_correct(forward.logits, batch.labels)?;
        let correct = g.reshape(correct, &Shape::from([1, 1]))?;
        let stats = g.grad_stats(gradient)?;
        let stats = g.reshape(stats, &Shape::from([1, 2]))?;
        let cells = g.concat(&[loss_cell, correct, stats], 1)?;
        g.write_rows(parts.log.clone(), cells, row)?;
        g.set_scope("optimizer");
        let params = VarView { var: ParamStore::TRAINABLE, offset: 0, spec: Spec::float([total]) };
        g.optimizer_step(*parts.optimizer, params, parts.slots, gradient, hyper)?;
        Ok(Self {
            graph: Arc::new(g),
            loss,
            gradient,
            feed: batch.feed,
            rng,
            hyper,
            row,
            log: parts.log.clone(),
            batch: parts.batch,
            optimizer: *parts.optimizer,
        })
    }

    /// Runs one step.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(
        &self,
        executor: &mut dyn Executor,
        program: Program,
        host: &Images,
        turn: &Turn<'_>,
    ) -> Result<(), ExecError> {
        self.set(executor, program, host, turn)?;
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
        host: &Images,
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
    fn set(&self, executor: &mut dyn Executor, p: Program, host: &Images, turn: &Turn<'_>) -> Result<(), ExecError> {
        debug_assert_eq!(turn.chosen.len(), self.batch);
        self.feed.set(executor, p, turn.chosen, host)?;
        if let Some(repeats) = self.feed.repeats {
            let flag = |i: usize| u32::from(turn.repeats.get(i).copied().unwrap_or(false));
            let flags = Data::U32((0..self.batch).map(flag).collect());
            executor.set(p, repeats, &Tensor::new([self.batch], flags).expect("a flag an image"))?;
        }
        let words = |v: Vec<u32>| Tensor::new([v.len()], Data::U32(v)).expect("as long as itself");
        executor.set(p, self.rng, &words(vec![turn.seed, turn.step as u32]))?;
        executor.set(p, self.row, &words(vec![turn.row as u32]))?;
        let hyper = self.optimizer.hyper(turn.lr, turn.step + 1).to_vec();
        executor.set(p, self.hyper, &Tensor::f32([4], hyper).expect("four numbers"))
    }

    /// The log's first `rows` rows.
    ///
    /// # Errors
    /// The device failed.
    pub fn log(&self, executor: &mut dyn Executor, rows: usize) -> Result<Vec<[f32; LOG_COLUMNS]>, ExecError> {
        let all = executor.read_var(self.log.var)?.to_f32();
        Ok(all.chunks_exact(LOG_COLUMNS).take(rows).map(|c| [c[0], c[1], c[2], c[3]]).collect())
    }
}

/// Length of the parameter vector, gaps included.
fn trainable_len(params: &[Param]) -> usize {
    let ends = params.iter().filter(|p| p.role == Role::Trainable);
    ends.map(|p| (p.view.offset + p.view.spec.numel()).next_multiple_of(crate::store::ALIGN)).max().unwrap_or(0)
}

/// An evaluation pass over one split: logits of all images into a variable that is read once.
#[derive(Clone, Debug)]
pub struct EvalPass {
    graph: Arc<Graph>,
    feed: Feed,
    row: NodeId,
    logits: VarView,
    batch: usize,
    len: usize,
}

impl EvalPass {
    /// Records it; `logits` is a variable `[images, outputs]`.
    ///
    /// # Errors
    /// The network does not fit the images.
    pub fn record(
        model: &Model,
        params: &[Param],
        images: &DeviceImages,
        batch: usize,
        (mean, std): (&[f32], &[f32]),
        logits: &VarView,
    ) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let row = g.input("first row", Spec::u32([1]));
        let batch_size = batch.min(images.len()).max(1);
        let batch = record_batch(&mut g, images, batch_size, (mean, std), None)?;
        let forward = model.forward(&mut g, params, batch.x, Mode::Eval)?;
        g.set_pass(Pass::Update);
        g.write_rows(logits.clone(), forward.logits, row)?;
        let graph = Arc::new(g);
        Ok(Self { graph, feed: batch.feed, row, logits: logits.clone(), batch: batch_size, len: images.len() })
    }

    /// What was recorded.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Compiles it.
    ///
    /// # Errors
    /// See [`Executor::compile`].
    pub fn compile(&self, executor: &mut dyn Executor) -> Result<Program, ExecError> {
        executor.compile(&self.graph, &[])
    }

    /// Logits of all images, row by row.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&self, executor: &mut dyn Executor, program: Program, host: &Images) -> Result<Vec<f32>, ExecError> {
        for first in (0..self.len).step_by(self.batch) {
            // The last batch is filled up with its last image; rows past the end are not stored.
            let chosen: Vec<u32> = (first..first + self.batch).map(|i| i.min(self.len - 1) as u32).collect();
            self.feed.set(executor, program, &chosen, host)?;
            let row = Tensor::new([1], Data::U32(vec![first as u32])).expect("one number");
            executor.set(program, self.row, &row)?;
            executor.run(program)?;
        }
        Ok(executor.read_var(self.logits.var)?.to_f32())
    }
}

/// Probabilities `[n, classes]` of logits: softmax, or for one logit the sigmoid and its complement.
#[must_use]
pub fn probabilities(logits: &[f32], outputs: usize) -> Vec<f64> {
    if outputs == 1 {
        return logits
            .iter()
            .flat_map(|&x| {
                let p = 1.0 / (1.0 + (-f64::from(x)).exp());
                [1.0 - p, p]
            })
            .collect();
    }
    logits
        .chunks_exact(outputs)
        .flat_map(|row| {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
            let exp: Vec<f64> = row.iter().map(|&v| (f64::from(v) - max).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(move |e| e / sum)
        })
        .collect()
}
