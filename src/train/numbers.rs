//! Values that are no numbers: what a run does about NaN and infinity, and which tensor has them first.
//!
//! The log of a run has a row a step, with the loss and how many values of the gradient are NaN or infinite, counted on the device
//! by their bits. Where a row is bad, [`first_non_finite`] runs that step again with every value kept, and names the first tensor in
//! graph order. Draws are counter-based and kernels repeat their bits, so the step meets the same numbers again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::exec::{ExecError, Executor, Program};
use crate::graph::{Graph, NodeId, VarView};
use crate::shape::{DType, Shape};
use crate::store::{Param, ParamStore};
use crate::tensor::{Data, Tensor};
use crate::weights::NamedTensor;

/// What a training does where a step gives NaN or infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// It ends, and keeps the last weights whose loss and gradient were finite.
    #[default]
    Stop,
    /// The update is left out, as if its step had not been: weights, optimizer and running statistics stay as they are.
    Skip,
    /// The run goes back some steps, to where all was finite, and on from there with half the learning rate.
    #[serde(alias = "halve_lr")]
    HalveLr,
}

impl OnNan {
    /// Its name in a config file and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
            Self::HalveLr => "halve-lr",
        }
    }
}

impl fmt::Display for OnNan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OnNan {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let all = [Self::Stop, Self::Skip, Self::HalveLr];
        all.into_iter().find(|o| o.name() == s).ok_or_else(|| "give stop, skip or halve-lr".to_owned())
    }
}

/// A tensor with values that are NaN or infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// A node (`#12 conv2d (conv1)`), or the name of a parameter or of the optimizer's state.
    pub tensor: String,
    /// Its shape.
    pub shape: Shape,
    /// How many of its values are NaN or infinite.
    pub count: usize,
    /// The place of the first of them, row-major.
    pub first: usize,
    /// That value.
    pub value: f64,
}

impl NonFinite {
    /// What is wrong with some values, if anything.
    fn of(name: impl FnOnce() -> String, shape: &Shape, values: Values<'_>) -> Option<Self> {
        let first = (0..values.len()).find(|&i| !values.at(i).is_finite())?;
        let count = (first..values.len()).filter(|&i| !values.at(i).is_finite()).count();
        Some(Self { tensor: name(), shape: shape.clone(), count, first, value: values.at(first) })
    }

    /// The place of the first one, axis by axis.
    #[must_use]
    pub fn place(&self) -> Vec<usize> {
        let mut rest = self.first;
        let mut place: Vec<usize> = self
            .shape
            .iter()
            .rev()
            .map(|&axis| {
                let at = rest % axis.max(1);
                rest /= axis.max(1);
                at
            })
            .collect();
        place.reverse();
        place
    }
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, shape, count, value, .. } = self;
        let (all, place) = (shape.numel(), Shape::new(&self.place()));
        write!(f, "{tensor} {shape}, {count} of {all} values, the first at {place} ({value})")
    }
}

/// Floats of either precision.
#[derive(Clone, Copy)]
enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Values<'a> {
    fn of(tensor: &'a Tensor) -> Option<Self> {
        match tensor.data() {
            Data::F32(v) => Some(Self::F32(v)),
            Data::F64(v) => Some(Self::F64(v)),
            Data::U32(_) | Data::U8(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    fn at(&self, i: usize) -> f64 {
        match self {
            Self::F32(v) => f64::from(v[i]),
            Self::F64(v) => v[i],
        }
    }

    fn range(&self, start: usize, len: usize) -> Self {
        match self {
            Self::F32(v) => Self::F32(&v[start..start + len]),
            Self::F64(v) => Self::F64(&v[start..start + len]),
        }
    }
}

/// Most bytes of values that are kept at a time: a step that just fits the device should fit with them, too.
const KEPT: usize = 256 << 20;

/// Runs a graph with its values kept, and gives the first tensor in graph order that holds NaN or infinity. `prepare` sets the inputs,
/// and the variables to what they were before; it is called again where not all values fit at once. The run changes variables as any
/// other does.
///
/// The values of large graphs are kept in parts. A fused kernel is taken apart, so that what lies inside shows as well.
///
/// # Errors
/// The device failed, or has no room for a single value more.
pub fn first_non_finite(
    executor: &mut dyn Executor,
    graph: &Arc<Graph>,
    prepare: &mut dyn FnMut(&mut dyn Executor, Program) -> Result<(), ExecError>,
) -> Result<Option<NonFinite>, ExecError> {
    let computed = |id: &NodeId| {
        let node = graph.node(*id);
        node.spec.dtype == DType::Float && node.spec.numel() > 0 && node.op().is_some_and(|op| !op.is_view())
    };
    let all: Vec<NodeId> = graph.ids().filter(computed).collect();
    let (mut rest, mut budget) = (&all[..], KEPT);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |id: &&NodeId| {
            bytes += graph.spec(**id).bytes();
            bytes <= budget
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        let program = match executor.compile(graph, now) {
            Err(ExecError::OutOfMemory(_) | ExecError::TooLarge { .. }) if now.len() > 1 => {
                budget /= 4;
                continue;
            }
            other => other?,
        };
        let found = among(executor, graph, program, now, prepare);
        executor.release(program);
        if let Some(found) = found? {
            return Ok(Some(found));
        }
        rest = later;
    }
    Ok(None)
}

fn among(
    executor: &mut dyn Executor,
    graph: &Graph,
    program: Program,
    nodes: &[NodeId],
    prepare: &mut dyn FnMut(&mut dyn Executor, Program) -> Result<(), ExecError>,
) -> Result<Option<NonFinite>, ExecError> {
    prepare(executor, program)?;
    executor.run(program)?;
    for &id in nodes {
        let value = executor.read(program, id)?;
        let Some(values) = Values::of(&value) else { continue };
        if let Some(found) = NonFinite::of(|| graph.describe(id), value.shape(), values) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first parameter or running statistic, in the order of the network, that holds NaN or infinity in these values of the two
/// variables that hold them all.
#[must_use]
pub fn spoiled_weights(params: &[Param], trainable: &Tensor, buffers: &Tensor) -> Option<NonFinite> {
    params.iter().find_map(|p| {
        let from = if p.view.var == ParamStore::TRAINABLE { trainable } else { buffers };
        part(from, &p.view, || p.name.clone())
    })
}

/// As [`spoiled_weights`] for a vector of the optimizer, whose numbers lie as the parameters do.
#[must_use]
pub fn spoiled_slot(params: &[Param], name: &str, slot: &Tensor) -> Option<NonFinite> {
    let own = params.iter().filter(|p| p.view.var == ParamStore::TRAINABLE);
    own.filter(|p| p.view.offset + p.view.spec.numel() <= slot.shape().numel())
        .find_map(|p| part(slot, &p.view, || format!("the optimizer's {name} of {}", p.name)))
}

fn part(whole: &Tensor, view: &VarView, name: impl FnOnce() -> String) -> Option<NonFinite> {
    let values = Values::of(whole)?.range(view.offset, view.spec.numel());
    NonFinite::of(name, &view.spec.shape, values)
}

/// The first of some tensors of a weight file that holds NaN or infinity.
#[must_use]
pub fn spoiled_tensors(tensors: &[NamedTensor]) -> Option<NonFinite> {
    tensors.iter().find_map(|t| {
        let values = t.data.as_f32()?;
        NonFinite::of(|| t.name.clone(), &Shape::new(&t.shape), Values::F32(values))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_config_and_command_line() {
        for on_nan in [OnNan::Stop, OnNan::Skip, OnNan::HalveLr] {
            assert_eq!(on_nan.name().parse(), Ok(on_nan));
            assert_eq!(serde_json::to_string(&on_nan).unwrap(), format!("\"{on_nan}\""));
        }
        assert_eq!(serde_json::from_str::<OnNan>("\"halve_lr\"").unwrap(), OnNan::HalveLr);
        assert!("halve".parse::<OnNan>().unwrap_err().contains("halve-lr"));
    }

    #[test]
    fn what_is_wrong_is_told_by_place_and_value() {
        let shape = Shape::from([2, 3]);
        let of = |values: &[f32]| NonFinite::of(|| "t".to_owned(), &shape, Values::F32(values));
        assert_eq!(of(&[0.0, f32::MAX, -1.0, 1e-45, 4.0, 5.0]), None);
        let found = of(&[0.0, 1.0, 2.0, 3.0, f32::NEG_INFINITY, f32::NAN]).unwrap();
        assert_eq!((found.count, found.first, found.place()), (2, 4, vec![1, 1]));
        assert_eq!(found.to_string(), "t [2, 3], 2 of 6 values, the first at [1, 1] (-inf)");
    }
}
