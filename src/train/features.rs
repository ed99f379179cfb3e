//! Features of a frozen part: what it makes of each image, computed once, where every step of a stage would compute it again.
//!
//! The part is the first steps of a network ([`super::stages::StagePlan::frozen`]). A [`FeaturePass`] runs it over a split in batches
//! as large as those of the pass that will read the result, so that the same kernels are chosen for it, and the numbers are those that
//! a step would have computed.

use std::sync::Arc;

use super::TrainError;
use super::batch::{Batch, DeviceImages, Feed, Host, record_batch};
use super::step::{in_turn, word};
use crate::data::Images;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::nn::{Mode, Model};
use crate::shape::{Shape, Spec};
use crate::store::{Param, ParamStore};

/// The features of a split: on the device, or where it has no room for all of them, on the host, and each step uploads its
/// own batch.
#[derive(Clone, Debug)]
pub struct Features {
    /// On the device; `None`: the host has them.
    view: Option<VarView>,
    /// `[images, ...]`
    spec: Spec,
}

/// What a pass begins with in place of images.
#[derive(Clone, Copy, Debug)]
pub struct FromFeatures<'a> {
    /// How many of the network's first steps gave them.
    pub steps: usize,
    /// The features.
    pub features: &'a Features,
}

/// Adds the variable that the features of a split share from stage to stage, as large as the largest of `widths`, the numbers that
/// an image has. `None` where it would be more than `limit` bytes, or more than kernels can count.
pub(super) fn add_var(
    store: &mut ParamStore,
    name: &str,
    images: usize,
    widths: &[usize],
    limit: Option<u64>,
) -> Option<VarView> {
    let width = widths.iter().copied().max()?;
    let len = u32::try_from(images as u64 * width as u64).ok().filter(|&len| len > 0)?;
    let fits = limit.is_none_or(|limit| 4 * u64::from(len) <= limit);
    fits.then(|| store.add_var(&format!("{name} features"), Spec::float([len as usize]), None))
}

impl Features {
    /// Those of `images` images of shape `one` each, in a variable that [`add_var`] gave.
    pub(super) fn new(images: usize, one: &Shape, shared: Option<&VarView>) -> Self {
        let spec = Spec::float([&[images], one.dims()].concat());
        let view = shared.map(|shared| VarView { spec: spec.clone(), ..shared.clone() });
        Self { view, spec }
    }

    /// Number of images.
    #[must_use]
    pub fn images(&self) -> usize {
        self.spec.shape[0]
    }

    /// Numbers of one image.
    #[must_use]
    pub fn width(&self) -> usize {
        self.spec.shape[1..].iter().product()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        4 * self.images() as u64 * self.width() as u64
    }

    /// Whether the device holds them.
    #[must_use]
    pub fn on_device(&self) -> bool {
        self.view.is_some()
    }

    /// Records a batch that is picked from them, with the labels of its images.
    pub(super) fn record_batch(&self, g: &mut Graph, images: &DeviceImages, batch: usize) -> Result<Batch, TrainError> {
        g.set_scope("batch");
        let indices = g.input("indices", Spec::u32([batch]));
        let (x, streamed) = match &self.view {
            Some(view) => {
                let all = g.var("features", view.clone());
                (g.gather_rows(all, indices)?, None)
            }
            None => {
                let width = self.width();
                let rows = g.input("features of the batch", Spec::float([batch, width]));
                let shape = [&[batch], &self.spec.shape[1..]].concat();
                (g.reshape(rows, &Shape::from(shape))?, Some((rows, width)))
            }
        };
        let labels = g.var("labels", images.labels.clone());
        let labels = g.gather_labels(labels, indices)?;
        g.set_scope("");
        Ok(Batch { feed: Feed { indices, streamed: None, features: streamed, repeats: None }, x, labels })
    }
}

/// A pass that computes the features of one split.
#[derive(Clone, Debug)]
pub struct FeaturePass {
    graph: Arc<Graph>,
    feed: Feed,
    row: NodeId,
    /// What the host keeps of each batch; `None` where the device keeps it.
    read: Option<NodeId>,
    features: Features,
    batch: usize,
}

impl FeaturePass {
    /// Records it: the first `steps` steps of the network as in evaluation, and what they give into `features`.
    ///
    /// # Errors
    /// The network does not fit the images.
    pub fn record(
        model: &Model,
        params: &[Param],
        steps: usize,
        images: &DeviceImages,
        batch: usize,
        normalise: (&[f32], &[f32]),
        features: &Features,
    ) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let row = g.input("first row", Spec::u32([1]));
        let batch = batch.min(images.len()).max(1);
        let Batch { feed, x, .. } = record_batch(&mut g, images, batch, normalise, None)?;
        let value = model.part(&mut g, params, x, 0..steps, Mode::Eval, &|_| false)?.logits;
        g.set_pass(Pass::Update);
        if let Some(view) = &features.view {
            let width = features.width();
            let rows = g.reshape(value, &Shape::from([batch, width]))?;
            let matrix = VarView { spec: Spec::float([features.images(), width]), ..view.clone() };
            g.write_rows(matrix, rows, row)?;
        }
        let read = (!features.on_device()).then_some(value);
        Ok(Self { graph: Arc::new(g), feed, row, read, features: features.clone(), batch })
    }

    /// Compiles it.
    ///
    /// # Errors
    /// See [`Executor::compile`].
    pub fn compile(&self, executor: &mut dyn Executor) -> Result<Program, ExecError> {
        executor.compile(&self.graph, self.read.as_slice())
    }

    /// Computes them, and gives those that the host keeps.
    ///
    /// # Errors
    /// The device failed, or the host has no room for them.
    pub fn compute(&self, executor: &mut dyn Executor, images: &Images) -> Result<Option<Vec<f32>>, TrainError> {
        let program = self.compile(executor)?;
        let result = self.run(executor, program, images);
        executor.release(program);
        result
    }

    fn run(
        &self,
        executor: &mut dyn Executor,
        program: Program,
        images: &Images,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        let len = self.features.images();
        let mut kept = Vec::new();
        if self.read.is_some() {
            let numbers = len * self.features.width();
            kept.try_reserve_exact(numbers).map_err(|_| {
                let mib = self.features.bytes() >> 20;
                TrainError::setting("cache_features", format!("{mib} MiB of features find no room: leave it out"))
            })?;
        }
        for (first, chosen) in in_turn(len, self.batch) {
            self.feed.set(executor, program, &chosen, Host::from(images))?;
            executor.set(program, self.row, &word(first as u32))?;
            executor.run(program)?;
            if let Some(value) = self.read {
                let rows = executor.read(program, value)?.to_f32();
                let wanted = (len - first).min(self.batch) * self.features.width();
                kept.extend(rows.into_iter().take(wanted));
            }
        }
        Ok(self.read.map(|_| kept))
    }
}
