//! The update of a training step: gradients packed by group, clipped, and handed to the optimizer.

use super::TrainError;
use super::stages::Group;
use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, Pass, VarView};
use crate::ops::reshape::Pack;
use crate::optim::OptimizerKind;
use crate::shape::{Shape, Spec};
use crate::store::{Param, ParamStore, Role};
use crate::tensor::Tensor;

/// A range of the parameters that one dispatch updates.
#[derive(Clone, Debug)]
pub struct UpdateGroup {
    /// The parameters.
    pub params: VarView,
    /// The optimizer's state for them.
    pub slots: Vec<VarView>,
    /// The optimizer.
    pub kind: OptimizerKind,
    /// What the learning rate is multiplied by.
    pub factor: f64,
}

/// Adds the optimizer's state to a store whose parameters are complete: for each slot a vector like the first `len` numbers of
/// the parameters.
pub fn add_slots(store: &mut ParamStore, optimizer: &OptimizerKind, len: usize) -> Vec<(String, VarView)> {
    let mut add = |name: &&str| ((*name).to_owned(), store.add_var(name, Spec::float([len]), None));
    optimizer.slot_names().iter().map(&mut add).collect()
}

impl UpdateGroup {
    /// The group of a stage; `slots` are what [`add_slots`] gave.
    #[must_use]
    pub fn new(group: &Group, slots: &[(String, VarView)]) -> Self {
        let part = |var| VarView { var, offset: group.range.start, spec: Spec::float([group.range.len()]) };
        Self {
            params: part(ParamStore::TRAINABLE),
            slots: slots.iter().map(|(_, slot)| part(slot.var)).collect(),
            kind: group.kind,
            factor: group.factor,
        }
    }

    /// All parameters of a store in one group, with its state added to the store.
    pub fn whole(store: &mut ParamStore, optimizer: &OptimizerKind) -> Vec<Self> {
        let params = store.trainable_view();
        let slots = add_slots(store, optimizer, params.spec.numel());
        vec![Self { params, slots: slots.into_iter().map(|s| s.1).collect(), kind: *optimizer, factor: 1.0 }]
    }

    fn holds(&self, param: &Param) -> bool {
        let (start, at) = (self.params.offset, param.view.offset);
        param.role == Role::Trainable && (start..start + self.params.spec.numel()).contains(&at)
    }
}

/// Records the gradient of each group, laid out as its parameters are. Parameters in no group get none, and what leads to
/// them alone is not walked.
///
/// # Errors
/// The way back leads through something without a derivative.
pub(super) fn record_gradients(
    g: &mut Graph,
    loss: NodeId,
    params: &[Param],
    leaves: &[NodeId],
    groups: &[UpdateGroup],
) -> Result<Vec<NodeId>, TrainError> {
    let trainable = params.iter().filter(|p| p.role == Role::Trainable);
    let mut wanted: Vec<(usize, &Param, NodeId)> = trainable
        .zip(leaves)
        .filter_map(|(p, &leaf)| groups.iter().position(|group| group.holds(p)).map(|group| (group, p, leaf)))
        .collect();
    wanted.sort_by_key(|(_, p, _)| p.view.offset);
    let leaves: Vec<NodeId> = wanted.iter().map(|w| w.2).collect();
    let grads = g.gradients(loss, None, &leaves)?;
    let pass = g.set_pass(Pass::Backward);
    let mut packs = Vec::with_capacity(groups.len());
    for (number, group) in groups.iter().enumerate() {
        let (mut nodes, mut offsets) = (Vec::new(), Vec::new());
        for ((_, param, _), grad) in wanted.iter().zip(&grads).filter(|(w, _)| w.0 == number) {
            nodes.push(match *grad {
                Some(grad) => grad,
                // A parameter that the loss does not reach (behind a layer that gives constants) does not move.
                None => g.fill(&param.view.spec.shape, 0.0)?,
            });
            offsets.push(param.view.offset - group.params.offset);
        }
        packs.push(g.apply(Pack { offsets, len: group.params.spec.numel() }, &nodes)?);
    }
    g.set_pass(pass);
    Ok(packs)
}

/// Records the sum of squares of several vectors, and how many of their elements are NaN or infinite: a float `[2]`.
pub(super) fn record_stats(g: &mut Graph, vectors: &[NodeId]) -> Result<NodeId, TrainError> {
    let mut total = None;
    for &vector in vectors {
        let stats = g.grad_stats(vector)?;
        total = Some(match total {
            Some(sum) => g.add(sum, stats)?,
            None => stats,
        });
    }
    Ok(match total {
        Some(total) => total,
        None => g.fill(&Shape::from([2]), 0.0)?,
    })
}

/// What a step of the optimizer is told about one group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hyper {
    pub node: NodeId,
    kind: OptimizerKind,
    factor: f64,
}

/// Records the optimizer's step of every group. `stats` are those of the whole gradient, for `clip`, the largest norm.
pub(super) fn record_update(
    g: &mut Graph,
    groups: &[UpdateGroup],
    gradients: &[NodeId],
    stats: NodeId,
    clip: Option<f64>,
) -> Result<Vec<Hyper>, TrainError> {
    let mut hypers = Vec::with_capacity(groups.len());
    for (group, &gradient) in groups.iter().zip(gradients) {
        let node = g.input("learning rate", Spec::float([4]));
        let hyper = match clip {
            Some(max_norm) => g.clip_grad_norm(node, stats, max_norm)?,
            None => node,
        };
        g.optimizer_step(group.kind, group.params.clone(), &group.slots, gradient, hyper)?;
        hypers.push(Hyper { node, kind: group.kind, factor: group.factor });
    }
    Ok(hypers)
}

/// Tells the optimizer's steps of a program the learning rate, and which step this is, from 1.
pub(super) fn set_hypers(
    executor: &mut dyn Executor,
    program: Program,
    hypers: &[Hyper],
    lr: f64,
    number: u64,
) -> Result<(), ExecError> {
    for hyper in hypers {
        let numbers = hyper.kind.hyper(lr * hyper.factor, number).to_vec();
        executor.set(program, hyper.node, &Tensor::f32([4], numbers).expect("four numbers"))?;
    }
    Ok(())
}

/// Gradients of several batches are averaged before an update.
#[derive(Clone, Copy, Debug)]
pub struct Accumulate<'a> {
    /// How many batches.
    pub batches: usize,
    /// Where their sum is kept, a vector a group.
    pub sums: &'a [VarView],
}

/// A vector as a matrix of one row, for `write_rows`.
fn as_row(sum: &VarView) -> VarView {
    VarView { spec: Spec::float([1, sum.spec.numel()]), ..sum.clone() }
}

/// Records `sums += gradients / batches`. `first_row` is a `u32 [1]` input that holds 0.
pub(super) fn record_sums(
    g: &mut Graph,
    accumulate: Accumulate<'_>,
    gradients: &[NodeId],
    first_row: NodeId,
) -> Result<(), TrainError> {
    for (view, &gradient) in accumulate.sums.iter().zip(gradients) {
        let before = g.var("sum of gradients", view.clone());
        let share = g.scale(gradient, 1.0 / accumulate.batches as f64)?;
        let after = g.add(before, share)?;
        let row = as_row(view);
        let after = g.reshape(after, &row.spec.shape)?;
        g.write_rows(row, after, first_row)?;
    }
    Ok(())
}

/// Records the update by the summed gradients, which are set to zero after it. Gives the inputs that it must be told: the
/// groups' numbers, and a `u32 [1]` that holds 0.
pub(super) fn record_late_update(
    groups: &[UpdateGroup],
    accumulate: Accumulate<'_>,
    clip: Option<f64>,
) -> Result<(Graph, Vec<Hyper>, NodeId), TrainError> {
    let mut g = Graph::new();
    g.set_pass(Pass::Update);
    g.set_scope("optimizer");
    let first_row = g.input("first row", Spec::u32([1]));
    let gradients: Vec<NodeId> = accumulate.sums.iter().map(|sum| g.var("sum of gradients", sum.clone())).collect();
    let stats = record_stats(&mut g, &gradients)?;
    let hypers = record_update(&mut g, groups, &gradients, stats, clip)?;
    for sum in accumulate.sums {
        let row = as_row(sum);
        let zeros = g.fill(&row.spec.shape, 0.0)?;
        g.write_rows(row, zeros, first_row)?;
    }
    Ok((g, hypers, first_row))
}
