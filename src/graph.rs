//! Recording: a [`Graph`] is a list of nodes of static shapes in the order in which they run.
//!
//! Calling an op records a node and computes nothing. [`Graph::gradients`] (see `autodiff.rs`) appends the derivative
//! as ordinary nodes; an optimizer appends its update. An executor replays the list.

use std::sync::Arc;

use crate::ops::Op;
use crate::shape::{ShapeError, Spec};
use crate::store::VarId;

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Position in the order of recording, which is the order of execution.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A range of a persistent variable, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VarView {
    /// The variable.
    pub var: VarId,
    /// First element.
    pub offset: usize,
    /// Shape and type of the range.
    pub spec: Spec,
}

/// Where a node's value comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Written by the host before a step.
    Input,
    /// Read from a persistent variable.
    Var(VarView),
    /// Computed.
    Op {
        /// What computes it.
        op: Arc<dyn Op>,
        /// From what.
        inputs: Vec<NodeId>,
    },
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The network and its loss.
    Forward,
    /// The derivative.
    Backward,
    /// Optimizer steps, running statistics, logs.
    Update,
}

/// One recorded value.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it comes from.
    pub source: Source,
    /// Shape and type.
    pub spec: Spec,
    /// The layer that recorded it, for tables and error messages.
    pub scope: String,
    /// What it is for.
    pub pass: Pass,
}

impl Node {
    /// The op's name, `input` or `variable`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.source {
            Source::Input => "input",
            Source::Var(_) => "variable",
            Source::Op { op, .. } => op.name(),
        }
    }

    /// The nodes it reads.
    #[must_use]
    pub fn inputs(&self) -> &[NodeId] {
        match &self.source {
            Source::Op { inputs, .. } => inputs,
            _ => &[],
        }
    }

    /// The op, for a computed node.
    #[must_use]
    pub fn op(&self) -> Option<&Arc<dyn Op>> {
        match &self.source {
            Source::Op { op, .. } => Some(op),
            _ => None,
        }
    }
}

/// A recorded computation.
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    scope: String,
    pass: Pass,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: Vec::new(), scope: String::new(), pass: Pass::Forward }
    }

    /// A value that the host writes before each step.
    pub fn input(&mut self, name: &str, spec: Spec) -> NodeId {
        let node = Node { source: Source::Input, spec, scope: name.to_owned(), pass: self.pass };
        self.add_node(node)
    }

    /// A value read from (a range of) a persistent variable.
    pub fn var(&mut self, name: &str, view: VarView) -> NodeId {
        let spec = view.spec.clone();
        let node = Node { source: Source::Var(view), spec, scope: name.to_owned(), pass: self.pass };
        self.add_node(node)
    }

    /// Records `op` on `inputs`.
    ///
    /// # Errors
    /// The op's shape rule.
    pub fn apply(&mut self, op: impl Op, inputs: &[NodeId]) -> Result<NodeId, ShapeError> {
        self.apply_shared(Arc::new(op), inputs)
    }

    /// As [`Graph::apply`], for an op that another node has already.
    ///
    /// # Errors
    /// The op's shape rule.
    pub fn apply_shared(&mut self, op: Arc<dyn Op>, inputs: &[NodeId]) -> Result<NodeId, ShapeError> {
        let spec = {
            let specs: Vec<&Spec> = inputs.iter().map(|&i| self.spec(i)).collect();
            op.infer(&specs)?
        };
        let source = Source::Op { op, inputs: inputs.to_vec() };
        let node = Node { source, spec, scope: self.scope.clone(), pass: self.pass };
        Ok(self.add_node(node))
    }

    pub(crate) fn add_node(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        id
    }

    /// Names what is recorded from here on.
    pub fn set_scope(&mut self, scope: &str) {
        scope.clone_into(&mut self.scope);
    }

    /// Says what the nodes recorded from here on are for; returns what it was.
    pub fn set_pass(&mut self, pass: Pass) -> Pass {
        std::mem::replace(&mut self.pass, pass)
    }

    /// All nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Shape and type of a node.
    #[must_use]
    pub fn spec(&self, id: NodeId) -> &Spec {
        &self.nodes[id.index()].spec
    }

    /// Ids of all nodes, in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// `true` for each node that must run to get `roots`: what they depend on, and every update of a variable.
    #[must_use]
    pub fn live(&self, roots: &[NodeId]) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for root in roots {
            live[root.index()] = true;
        }
        for id in self.ids().rev() {
            let node = self.node(id);
            let updates = node.op().is_some_and(|op| !op.updates().is_empty());
            if live[id.index()] || updates {
                live[id.index()] = true;
                for input in node.inputs() {
                    live[input.index()] = true;
                }
            }
        }
        live
    }

    /// A readable name for messages: `#12 conv2d (conv1)`.
    #[must_use]
    pub fn describe(&self, id: NodeId) -> String {
        let node = self.node(id);
        match node.scope.as_str() {
            "" => format!("#{} {}", id.index(), node.kind()),
            scope => format!("#{} {} ({scope})", id.index(), node.kind()),
        }
    }
}
