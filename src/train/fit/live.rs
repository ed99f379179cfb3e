//! A training that somebody drives step by step who must not wait for the device: a page in a browser. The steps, the order of the
//! images, the rates and the figures are those of [`Fit::run`].

use std::sync::Arc;

use serde::Serialize;
use web_time::Instant;

use super::{Fit, check_finite, mean};
use crate::data::EpochOrder;
use crate::exec::{Pending, Program};
use crate::graph::{Graph, NodeId};
use crate::metrics::Metrics;
use crate::nn::Mode;
use crate::optim::Scheduler;
use crate::report::data::EpochRow;
use crate::shape::Spec;
use crate::store::{ParamStore, Role};
use crate::tensor::{Data, Tensor};
use crate::train::checkpoint::{put_weights, tensors_of, with_counters, write_shared};
use crate::train::step::{LOG_COLUMNS, log_rows, probabilities};
use crate::train::{TrainConfig, TrainError};
use crate::weights::{self, NamedTensor, safetensors};

/// A training between two of its steps.
pub struct Live {
    fit: Fit,
    scheduler: Scheduler,
    /// Finished epochs.
    epochs: Vec<EpochRow>,
    /// The first epoch of each stage so far.
    begun: Vec<u32>,
    order: EpochOrder,
    /// Steps done in this epoch.
    row: usize,
    /// Steps done in all.
    step: u64,
    /// What was seen of this epoch's log.
    rows: Vec<[f32; LOG_COLUMNS]>,
    begin: Instant,
    inspector: Option<Inspector>,
}

/// What the end of an epoch tells.
#[derive(Clone, Debug, Serialize)]
pub struct Validated {
    /// Its figures.
    pub row: EpochRow,
    /// All metrics of the validation images.
    pub metrics: Metrics,
    /// `[images, classes]`.
    pub probabilities: Vec<f64>,
}

/// What one layer makes of an image.
#[derive(Clone, Debug, Serialize)]
pub struct LayerValues {
    /// The layer's name; `image` for the normalised image before the first, and for weights the parameter's name.
    pub name: String,
    /// Without the batch's axis: `[C, H, W]` or `[features]`; of weights the whole shape.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// How the network sees one image now.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The image and every layer's output, in order.
    pub layers: Vec<LayerValues>,
    /// The kernels of the convolutions, `[out, in, kh, kw]`, in order.
    pub kernels: Vec<LayerValues>,
    /// One a class.
    pub probabilities: Vec<f64>,
}

/// A pass over one image all of whose values can be read.
struct Inspector {
    program: Program,
    image: NodeId,
    chosen: NodeId,
    logits: NodeId,
    layers: Vec<(String, NodeId)>,
    kernels: Vec<(String, NodeId)>,
    graph: Arc<Graph>,
}

impl Live {
    /// A training before its first step.
    ///
    /// # Errors
    /// A schedule out of range, or a stage whose features are cached, which takes a host that waits.
    pub fn new(fit: Fit) -> Result<Self, TrainError> {
        if fit.stages.iter().any(|stage| stage.cache.is_some()) {
            return Err(TrainError::setting("cache_features", "is for trainings that run by themselves; leave it out"));
        }
        let scheduler = fit.scheduler(0)?;
        let order = EpochOrder { images: Vec::new(), repeats: Vec::new() };
        let (epochs, rows, begin) = (Vec::new(), Vec::new(), Instant::now());
        let begun = vec![1];
        let mut live = Self { fit, scheduler, epochs, begun, order, row: 0, step: 0, rows, begin, inspector: None };
        live.arrange();
        Ok(live)
    }

    /// Puts the images of the coming epoch into its order.
    fn arrange(&mut self) {
        let fit = &self.fit;
        let epoch = self.epochs.len() as u32 + 1;
        self.order = fit.config.sampler.epoch(&fit.train.labels, fit.classes, fit.config.seed, epoch);
        (self.row, self.begin) = (0, Instant::now());
        self.rows.clear();
    }

    /// What is trained.
    #[must_use]
    pub fn fit(&self) -> &Fit {
        &self.fit
    }

    /// Steps of an epoch.
    #[must_use]
    pub fn steps_an_epoch(&self) -> usize {
        self.fit.steps
    }

    /// Steps done in all.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Finished epochs.
    #[must_use]
    pub fn epochs(&self) -> &[EpochRow] {
        &self.epochs
    }

    /// Whether all steps of the epoch are done, so that [`Live::end_epoch`] is next.
    #[must_use]
    pub fn epoch_is_full(&self) -> bool {
        self.row == self.fit.steps
    }

    /// Whether all epochs are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.fit.next(&self.begun, &self.epochs).is_none()
    }

    /// The learning rate of the coming step.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.scheduler.lr()
    }

    /// Goes on with another learning rate to start from; the schedule stays where it is.
    ///
    /// # Errors
    /// A rate that is negative or not finite.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), TrainError> {
        let schedule = self.scheduler.schedule().clone();
        self.scheduler = Scheduler::resume(schedule, lr, self.scheduler.state().clone())?;
        Ok(())
    }

    /// Submits a step; nothing where the epoch is full or the training done.
    ///
    /// # Errors
    /// The device failed.
    pub fn step(&mut self) -> Result<(), TrainError> {
        if self.epoch_is_full() || self.is_done() {
            return Ok(());
        }
        let (epoch, batch) = (self.epochs.len() as u32 + 1, self.fit.config.batch);
        let range = self.row * batch..(self.row + 1) * batch;
        let (chosen, repeats) = (&self.order.images[range.clone()], &self.order.repeats[range]);
        self.fit.turn((epoch, self.row), (chosen, repeats), &mut self.step, &mut self.scheduler)?;
        self.row += 1;
        Ok(())
    }

    /// The rows of the log that are new since the last look: loss, right decisions, squared norm of the gradient, bad values.
    ///
    /// # Errors
    /// NaN in loss or gradient, or a device that failed.
    pub async fn look(&mut self) -> Result<Vec<[f32; LOG_COLUMNS]>, TrainError> {
        let (stage, seen) = (self.fit.current.stage, self.rows.len());
        let log = self.fit.stages[stage].step.fetch_log(self.fit.executor.as_mut());
        let done = self.row;
        self.rows = log_rows(&log.await?, done);
        let new = self.rows[seen..].to_vec();
        check_finite(&new, self.epochs.len() as u32 + 1, seen)?;
        Ok(new)
    }

    /// Ends a full epoch: looks at the rest of its log, and at the validation images.
    ///
    /// # Errors
    /// As [`Live::look`].
    pub async fn end_epoch(&mut self) -> Result<Validated, TrainError> {
        self.look().await?;
        let (metrics, probabilities) = self.validate().await?;
        let row = EpochRow {
            epoch: self.epochs.len() as u32 + 1,
            train_loss: mean(&self.rows, 0),
            train_accuracy: Some(mean(&self.rows, 1) / self.fit.config.batch as f64),
            val_loss: metrics.log_loss,
            val_accuracy: metrics.accuracy,
            learning_rate: self.scheduler.lr(),
            seconds: self.begin.elapsed().as_secs_f64(),
        };
        if self.fit.per_epoch(self.fit.current.stage) {
            self.scheduler.step(Some(row.val_loss));
        }
        self.epochs.push(row);
        self.arrange();
        if let Some((next, true)) = self.fit.next(&self.begun, &self.epochs) {
            self.scheduler = self.fit.begin(next)?;
            self.fit.current.first = row.epoch + 1;
            self.begun.push(row.epoch + 1);
        }
        Ok(Validated { row, metrics, probabilities })
    }

    /// Metrics and probabilities `[images, classes]` of the validation images with the present weights.
    ///
    /// # Errors
    /// The device failed.
    pub async fn validate(&mut self) -> Result<(Metrics, Vec<f64>), TrainError> {
        let fit = &mut self.fit;
        let none = || TrainError::setting("data", "has no validation images");
        let (_, pass, program) = fit.evals.iter().find(|(name, ..)| *name == "val").ok_or_else(none)?;
        let host = fit.others.iter().find(|(name, _)| *name == "val").map(|(_, images)| images).ok_or_else(none)?;
        let logits = pass.fetch(fit.executor.as_mut(), *program, &**host).await?.to_f32();
        let p = probabilities(&logits, fit.model.outputs());
        Ok((Metrics::new(&host.labels, &p, fit.classes)?, p))
    }

    /// Sets up what [`Live::inspect`] runs, which does so itself where that was not done.
    ///
    /// # Errors
    /// The device failed.
    pub fn prepare(&mut self) -> Result<(), TrainError> {
        if self.inspector.is_none() {
            self.inspector = Some(Inspector::new(&mut self.fit)?);
        }
        Ok(())
    }

    /// What every layer makes of an image, `C*H*W` bytes, with the present weights.
    ///
    /// # Errors
    /// An image of another size, or a device that failed.
    pub async fn inspect(&mut self, image: &[u8]) -> Result<Inspection, TrainError> {
        self.prepare()?;
        let none = || TrainError::setting("model", "has nothing to look at");
        let inspector = self.inspector.as_ref().ok_or_else(none)?;
        let executor = self.fit.executor.as_mut();
        let [c, h, w] = self.fit.model.input();
        let image = Tensor::new([1, c, h, w], Data::U8(image.to_vec()))
            .map_err(|_| TrainError::setting("size", format!("the image is not {c} x {h} x {w} bytes")))?;
        executor.set(inspector.program, inspector.image, &image)?;
        executor.set(inspector.program, inspector.chosen, &Tensor::zeros(&Spec::u32([1])))?;
        executor.run(inspector.program)?;
        let graph = Arc::clone(&inspector.graph);
        let mut begin = |named: &[(String, NodeId)]| -> Vec<(String, NodeId, Pending)> {
            named.iter().map(|(name, node)| (name.clone(), *node, executor.fetch(inspector.program, *node))).collect()
        };
        let (layers, kernels) = (begin(&inspector.layers), begin(&inspector.kernels));
        let logits = executor.fetch(inspector.program, inspector.logits);
        let layers = arrived(layers, &graph, 1).await?;
        let kernels = arrived(kernels, &graph, 0).await?;
        let probabilities = probabilities(&logits.await?.to_f32(), self.fit.model.outputs());
        Ok(Inspection { layers, kernels, probabilities })
    }

    /// The present weights and running statistics, named.
    async fn tensors(&mut self) -> Result<Vec<NamedTensor>, TrainError> {
        let executor = self.fit.executor.as_mut();
        let (trainable, buffers) = (executor.fetch_var(ParamStore::TRAINABLE), executor.fetch_var(ParamStore::BUFFERS));
        Ok(tensors_of(&self.fit.params, &trainable.await?, &buffers.await?))
    }

    /// The network with its present weights for another executor: [`Model::init`](crate::nn::Model::init)'s store, and nothing else in it.
    ///
    /// # Errors
    /// The device failed.
    pub async fn store(&mut self) -> Result<ParamStore, TrainError> {
        let tensors = self.tensors().await?;
        let mut store = ParamStore::new();
        self.fit.model.init(&mut store, self.fit.config.seed);
        for tensor in &tensors {
            let index = store.params().iter().position(|p| p.name == tensor.name);
            if let (Some(index), Some(value)) = (index, tensor.data.as_f32()) {
                store.set_value(index, value);
            }
        }
        Ok(store)
    }

    /// The weights as a safetensors file, as a run folder holds them.
    ///
    /// # Errors
    /// The device failed.
    pub async fn weights(&mut self) -> Result<Vec<u8>, TrainError> {
        let tensors = self.tensors().await?;
        let all = with_counters(&tensors, self.step);
        safetensors::to_bytes(&all, &self.fit.metadata).map_err(|e| TrainError::setting("weights", e.to_string()))
    }

    /// Goes on with the weights of a file, safetensors or PyTorch's, whose names or shapes are the network's.
    ///
    /// # Errors
    /// The file does not read, or belongs to another network.
    pub fn put_weights(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let file = weights::from_bytes(bytes).map_err(|e| TrainError::setting("weights", e.to_string()))?;
        put_weights(&file, &mut self.fit.store)?;
        write_shared(self.fit.executor.as_mut(), &self.fit.store)
    }

    /// Goes on where another training of the same settings and images stands, on whatever device that one ran: its weights, the
    /// optimizer's state, the gradients that wait for an update, the schedule, the log. What this one has done is forgotten.
    ///
    /// # Errors
    /// Other settings or other images, or a device that failed. This one is not to be used after that; `from` stays what it is.
    pub async fn take_over(&mut self, from: &mut Self) -> Result<(), TrainError> {
        let (fit, old) = (&mut self.fit, &mut from.fit);
        if fit.config != old.config || fit.content_hash != old.content_hash {
            return Err(TrainError::setting(
                "config",
                "the settings or the images are not those of the training to go on with",
            ));
        }
        let stage = old.current.stage;
        fit.enter(stage)?;
        fit.current.first = old.current.first;
        let state = old.slots.iter().map(|(_, slot)| slot).chain(&old.gradients).map(|view| view.var);
        let log = old.stages[stage].step.log_var();
        let vars: Vec<_> = [ParamStore::TRAINABLE, ParamStore::BUFFERS, log].into_iter().chain(state).collect();
        for var in vars {
            let value = old.executor.fetch_var(var).await?;
            fit.executor.write_var(var, &value)?;
        }
        (self.scheduler, self.order, self.begin) = (from.scheduler.clone(), from.order.clone(), from.begin);
        (self.epochs, self.begun, self.rows) = (from.epochs.clone(), from.begun.clone(), from.rows.clone());
        (self.row, self.step) = (from.row, from.step);
        Ok(())
    }

    /// The settings, with what the data decided filled in.
    #[must_use]
    pub fn config(&self) -> &TrainConfig {
        &self.fit.config
    }
}

/// The values that were on their way, without the first `batch` axes.
async fn arrived(
    pending: Vec<(String, NodeId, Pending)>,
    graph: &Graph,
    batch: usize,
) -> Result<Vec<LayerValues>, TrainError> {
    let mut all = Vec::with_capacity(pending.len());
    for (name, node, value) in pending {
        let shape = graph.spec(node).shape[batch..].to_vec();
        all.push(LayerValues { name, shape, values: value.await?.to_f32() });
    }
    Ok(all)
}

impl Inspector {
    fn new(fit: &mut Fit) -> Result<Self, TrainError> {
        let [c, h, w] = fit.model.input();
        let (mean, std) = (fit.config.mean.clone().unwrap_or_default(), fit.config.std.clone().unwrap_or_default());
        let mut g = Graph::new();
        let image = g.input("image", Spec::u8([1, c, h, w]));
        let chosen = g.input("the only one", Spec::u32([1]));
        let x = g.gather_images(image, chosen, &mean, &std)?;
        let forward = fit.model.forward(&mut g, &fit.params, x, Mode::Eval)?;
        let mut layers = vec![("image".to_owned(), x)];
        layers.extend(forward.layers);
        let learned = fit.model.params().iter().filter(|p| p.role == Role::Trainable).zip(&forward.leaves);
        let kernels: Vec<(String, NodeId)> =
            learned.filter(|(p, _)| p.shape.len() == 4).map(|(p, &node)| (p.name.clone(), node)).collect();
        let graph = Arc::new(g);
        let roots: Vec<NodeId> = layers.iter().chain(&kernels).map(|(_, node)| *node).collect();
        let program = fit.executor.compile(&graph, &roots)?;
        Ok(Self { program, image, chosen, logits: forward.logits, layers, kernels, graph })
    }
}
