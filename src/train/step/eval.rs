//! The evaluation pass: logits of all images of a split, and what they say.

use std::sync::Arc;

use super::{DeviceImages, Host, in_turn, word};
use crate::exec::{ExecError, Executor, Pending, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::nn::{Mode, Model};
use crate::shape::Spec;
use crate::store::Param;
use crate::train::TrainError;
use crate::train::batch::{Batch, Feed, record_batch};
use crate::train::features::FromFeatures;

/// An evaluation pass over one split: logits of all images into a variable that is read once.
#[derive(Clone, Debug)]
pub struct EvalPass {
    pub(super) graph: Arc<Graph>,
    pub(super) feed: Feed,
    pub(super) row: NodeId,
    pub(super) logits: VarView,
    pub(super) batch: usize,
    pub(super) len: usize,
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
        normalise: (&[f32], &[f32]),
        logits: &VarView,
    ) -> Result<Self, TrainError> {
        let batch = batch.min(images.len()).max(1);
        let (mut g, row) = Self::rows();
        let begin = record_batch(&mut g, images, batch, normalise, None)?;
        Self::begun((g, row), (0, begin), (model, params), (batch, images.len()), logits)
    }

    /// Records one that begins with features of the images.
    ///
    /// # Errors
    /// As [`EvalPass::record`].
    pub fn record_cached(
        model: &Model,
        params: &[Param],
        images: &DeviceImages,
        batch: usize,
        from: FromFeatures<'_>,
        logits: &VarView,
    ) -> Result<Self, TrainError> {
        let batch = batch.min(images.len()).max(1);
        let (mut g, row) = Self::rows();
        let begin = from.features.record_batch(&mut g, images, batch)?;
        Self::begun((g, row), (from.steps, begin), (model, params), (batch, images.len()), logits)
    }

    /// A graph, and its input that says in which row the logits of the batch begin.
    fn rows() -> (Graph, NodeId) {
        let mut g = Graph::new();
        let row = g.input("first row", Spec::u32([1]));
        (g, row)
    }

    /// The rest of a pass, in which step `first` takes what the batch begins with.
    fn begun(
        (mut g, row): (Graph, NodeId),
        (first, begin): (usize, Batch),
        (model, params): (&Model, &[Param]),
        (batch, len): (usize, usize),
        logits: &VarView,
    ) -> Result<Self, TrainError> {
        let Batch { feed, x, .. } = begin;
        let forward = model.part(&mut g, params, x, first..model.steps().len(), Mode::Eval, &|_| false)?;
        g.set_pass(Pass::Update);
        g.write_rows(logits.clone(), forward.logits, row)?;
        Ok(Self { graph: Arc::new(g), feed, row, logits: logits.clone(), batch, len })
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
    pub fn run<'a>(
        &self,
        executor: &mut dyn Executor,
        program: Program,
        host: impl Into<Host<'a>>,
    ) -> Result<Vec<f32>, ExecError> {
        self.submit(executor, program, host.into())?;
        Ok(executor.read_var(self.logits.var)?.to_f32())
    }

    /// As [`EvalPass::run`], without waiting: the logits are on their way.
    pub fn fetch<'a>(&self, executor: &mut dyn Executor, program: Program, host: impl Into<Host<'a>>) -> Pending {
        match self.submit(executor, program, host.into()) {
            Ok(()) => executor.fetch_var(self.logits.var),
            Err(e) => Box::pin(std::future::ready(Err(e))),
        }
    }

    fn submit(&self, executor: &mut dyn Executor, program: Program, host: Host<'_>) -> Result<(), ExecError> {
        for (first, chosen) in in_turn(self.len, self.batch) {
            self.feed.set(executor, program, &chosen, host)?;
            executor.set(program, self.row, &word(first as u32))?;
            executor.run(program)?;
        }
        Ok(())
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
