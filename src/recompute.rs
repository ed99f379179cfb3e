//! Gradient checkpointing: activations that the backward pass needs are computed again from a few that are kept, instead of
//! being held from the forward pass on (Chen, Xu, Zhang and Guestrin 2016, arXiv 1604.06174).
//!
//! [`recompute`] copies a recorded step. Where a backward node reads a forward value that is not among the kept ones, the copy
//! reads a twin of that value, whose node is recorded just before. Twins are made of kept values, parameters and other
//! twins, and are used by the backward pass of their part of the network alone. So the memory plan frees the
//! first value early and the twin soon, and the step holds the kept values and one part's activations at a time. Draws are
//! counter-based, so dropout drops the same elements again, and the results are the same bit by bit as far as the kernels are.

use std::collections::HashMap;

use crate::graph::{Graph, Node, NodeId, Pass, Source};

/// Values of up to so many elements are held: statistics, losses, logits.
const SMALL: usize = 1 << 12;

/// The copy, and the new place of each node. `kept` are the forward values to start from, in order; what comes after the last of
/// them is needed at once, and held too.
#[must_use]
pub fn recompute(graph: &Graph, kept: &[NodeId]) -> (Graph, Vec<NodeId>) {
    let mut copy = Copy {
        old: graph,
        new: Graph::new(),
        kept: graph.ids().map(|id| is_kept(graph, id, kept)).collect(),
        places: Vec::with_capacity(graph.nodes().len()),
        twins: HashMap::new(),
    };
    for id in graph.ids() {
        let node = graph.node(id);
        let source = match &node.source {
            Source::Op { op, inputs } if node.pass == Pass::Backward => {
                let inputs = inputs.iter().map(|&i| copy.again(i)).collect();
                Source::Op { op: op.clone(), inputs }
            }
            Source::Op { op, inputs } => {
                Source::Op { op: op.clone(), inputs: inputs.iter().map(|i| copy.places[i.index()]).collect() }
            }
            other => other.clone(),
        };
        let place = copy.new.add_node(Node { source, ..node.clone() });
        copy.places.push(place);
    }
    (copy.new, copy.places)
}

/// Whether the backward pass may read the value of the forward pass itself.
fn is_kept(graph: &Graph, id: NodeId, kept: &[NodeId]) -> bool {
    let node = graph.node(id);
    node.pass != Pass::Forward
        || node.op().is_none_or(|op| !op.updates().is_empty())
        || node.spec.numel() <= SMALL
        || kept.contains(&id)
        || kept.last().is_none_or(|&last| id > last)
}

struct Copy<'a> {
    old: &'a Graph,
    new: Graph,
    kept: Vec<bool>,
    places: Vec<NodeId>,
    twins: HashMap<NodeId, NodeId>,
}

impl Copy<'_> {
    /// The place of a value for the backward pass.
    fn again(&mut self, id: NodeId) -> NodeId {
        if self.kept[id.index()] {
            return self.places[id.index()];
        }
        if let Some(&twin) = self.twins.get(&id) {
            return twin;
        }
        let node = self.old.node(id);
        let Source::Op { op, inputs } = &node.source else { return self.places[id.index()] };
        let inputs = inputs.iter().map(|&i| self.again(i)).collect();
        let source = Source::Op { op: op.clone(), inputs };
        let twin = self.new.add_node(Node { source, pass: Pass::Backward, ..node.clone() });
        self.twins.insert(id, twin);
        twin
    }
}
